/* The body of the live page between answers: it breathes, sways a little, and looks at who talks to it. */

const FARTHEST_LOOK = [0.9, 0.4]; // radians to a side, up and down
const LOOK_SECONDS = 0.25; // that a head takes for most of its way

/* The pose at a moment; `idle` itself where nothing is to move. */
function restingPose(idle, seconds, still) {
  const pose = Float32Array.from(idle);
  if (still) return pose;
  const rise = 0.004 * Math.sin(seconds * 1.5), sway = 0.008 * Math.sin(seconds * 0.8);
  for (let joint = 0; joint < pose.length / 3; joint++) {
    const share = { 0: 0.1, 3: 0.3, 6: 0.55, 9: 0.85 }[joint] ?? (joint >= 12 ? 1 : 0);
    pose[3 * joint] += sway * share;
    pose[3 * joint + 1] += rise * share;
  }
  return pose;
}

/* Turns a head on its neck; what it looks at is kept between calls, so that it does not jump. */
class Gaze {
  constructor() {
    this.turned = [0, 0];
    this.seen = null;
  }

  /* Changes `pose`, which faces +z, to look at `target`; where that lies behind, or is null, ahead. */
  look(pose, target, seconds) {
    const at = (joint) => [...pose.subarray(3 * joint, 3 * joint + 3)], neck = at(NECK), eyes = middle(at(EYE[0]), at(EYE[1]));
    const [x, y, z] = target ? subtract(target, eyes) : [0, 0, 1];
    const wanted = z > 0 ? [Math.atan2(x, z), Math.atan2(y, Math.hypot(x, z))] : [0, 0];
    const share = this.seen === null ? 1 : 1 - Math.exp(-Math.max(0, seconds - this.seen) / LOOK_SECONDS);
    this.seen = seconds;
    this.turned = this.turned.map((angle, k) => angle + share * (Math.min(FARTHEST_LOOK[k], Math.max(-FARTHEST_LOOK[k], wanted[k])) - angle));
    const [[cy, sy], [cp, sp]] = this.turned.map((angle) => [Math.cos(angle), Math.sin(angle)]);
    for (const joint of [HEAD, HEAD + 7, ...EYE]) {
      const [a, b, c] = subtract(at(joint), neck), up = b * cp + c * sp, ahead = c * cp - b * sp;
      pose.set(add(neck, [a * cy + ahead * sy, up, ahead * cy - a * sy]), 3 * joint);
    }
    return pose;
  }
}
