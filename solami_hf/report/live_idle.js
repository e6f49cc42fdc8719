/* The body of the live page between answers: it breathes, sways a little, and looks at who talks to it. */

const FARTHEST_LOOK = [0.9, 0.4]; // radians to a side, up and down
const LOOK_SECONDS = 0.25; // that a head takes for most of its way

/* Turns a joint of a local pose further by radians about its own axes. */
function turnFurther({ turns }, joint, ...radians) {
  turns.set(turnAfter(turnOf(turns, joint), quaternion(...radians)), 4 * joint);
}

/* The local pose at a moment; like `idle` where nothing is to move. */
function restingPose(idle, seconds, still) {
  const local = { place: [...idle.place], turns: Float32Array.from(idle.turns) };
  if (still) return local;
  const breath = 0.012 * Math.sin(seconds * 1.5), sway = -0.009 * Math.sin(seconds * 0.8);
  for (const joint of [SPINE1, SPINE2, SPINE3]) turnFurther(local, joint, -breath, 0, sway);
  turnFurther(local, NECK, 2 * breath, 0, -sway);
  COLLAR.forEach((joint, side) => turnFurther(local, joint, 0, 0, (side ? -1.5 : 1.5) * breath));
  return local;
}

/* Turns a head on its neck; what it looks at is kept between calls, so that it does not jump. */
class Gaze {
  constructor(body) {
    this.body = body;
    this.turned = [0, 0];
    this.seen = null;
  }

  /* Changes a local pose, which faces +z, to look at `target`; where that lies behind, or is null, ahead. */
  look(local, target, seconds) {
    const { pose } = placed(this.body, local), at = (joint) => [...pose.subarray(3 * joint, 3 * joint + 3)];
    const [x, y, z] = target ? subtract(target, middle(at(EYE[0]), at(EYE[1]))) : [0, 0, 1];
    const wanted = z > 0 ? [Math.atan2(x, z), Math.atan2(y, Math.hypot(x, z))] : [0, 0];
    const share = this.seen === null ? 1 : 1 - Math.exp(-Math.max(0, seconds - this.seen) / LOOK_SECONDS);
    this.seen = seconds;
    this.turned = this.turned.map((angle, k) => angle + share * (Math.min(FARTHEST_LOOK[k], Math.max(-FARTHEST_LOOK[k], wanted[k])) - angle));
    const [aside, up] = this.turned;
    for (const joint of [NECK, HEAD]) {
      turnFurther(local, joint, 0, aside / 2, 0);
      turnFurther(local, joint, -up / 2, 0, 0);
    }
    return local;
  }
}
