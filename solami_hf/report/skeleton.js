/* The free body's skeleton: from rotations to joints.

   A local pose is {place, turns}: where the pelvis is, and 55 quaternions (x, y, z, w) relative to the parents. A placed
   pose is {pose, turns}: 55 positions and 55 quaternions in the world. */

const PARAMS = 159; // a frame's: the pelvis, then axis-angle rotations of these joints
const PARAM_JOINTS = Array.from({ length: 52 }, (_, i) => (i < 22 ? i : i + 3));

/* What base64 text holds, as `Kind` of a little-endian typed array. */
function unpack(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function quaternion(x, y, z) {
  const angle = Math.hypot(x, y, z), share = angle > 1e-9 ? Math.sin(angle / 2) / angle : 0.5;
  return [x * share, y * share, z * share, Math.cos(angle / 2)];
}

function turnAfter([ax, ay, az, aw], [bx, by, bz, bw]) {
  return [aw * bx + ax * bw + ay * bz - az * by, aw * by - ax * bz + ay * bw + az * bx,
    aw * bz + ax * by - ay * bx + az * bw, aw * bw - ax * bx - ay * by - az * bz];
}

function turned([x, y, z, w], point) {
  const t = cross([x, y, z], point).map((value) => 2 * value);
  return add(add(point, t, w), cross([x, y, z], t));
}

const turnOf = (turns, joint) => turns.subarray(4 * joint, 4 * joint + 4);

/* Between two local poses; rotations go the shorter way. */
function mixed(a, b, share) {
  const turns = new Float32Array(a.turns.length);
  for (let at = 0; at < turns.length; at += 4) {
    let along = 0, norm = 0;
    for (let k = at; k < at + 4; k++) along += a.turns[k] * b.turns[k];
    for (let k = at; k < at + 4; k++) {
      turns[k] = a.turns[k] * (1 - share) + (along < 0 ? -share : share) * b.turns[k];
      norm += turns[k] ** 2;
    }
    for (let k = at; k < at + 4; k++) turns[k] /= Math.sqrt(norm) || 1;
  }
  return { place: middle(a.place, b.place, share), turns };
}

/* The local pose of the 159 parameters that begin at `from`. */
function localPose(params, from = 0) {
  const turns = new Float32Array(220);
  for (let joint = 0; joint < 55; joint++) turns[4 * joint + 3] = 1;
  PARAM_JOINTS.forEach((joint, i) => turns.set(quaternion(...params.slice(from + 3 + 3 * i, from + 6 + 3 * i)), 4 * joint));
  return { place: Array.from(params.slice(from, from + 3)), turns };
}

/* The local pose of a clip {params, frames, fps} at `seconds`, as `poseAt` finds it. */
function localAt(clip, seconds) {
  const place = Math.min(Math.max(seconds * clip.fps, 0), clip.frames - 1), first = Math.floor(place);
  const a = localPose(clip.params, PARAMS * first);
  return first < place ? mixed(a, localPose(clip.params, PARAMS * (first + 1)), place - first) : a;
}

/* What the report keeps of rotations: millimetres, then tenths of a milliradian. */
function decodeParams(text) {
  return Float32Array.from(unpack(text, Int16Array), (value, i) => value / (i % PARAMS < 3 ? 1e3 : 1e4));
}

/* A face's units, `size` a frame at 30 frames a second, at `seconds`; the first and last stay. */
function faceAt(units, size, seconds) {
  const last = units.length / size - 1, place = Math.min(Math.max(seconds * 30, 0), last), first = Math.floor(place);
  const a = size * first, b = size * Math.min(first + 1, last);
  return Array.from({ length: size }, (_, i) => units[a + i] + (place - first) * (units[b + i] - units[a + i]));
}

/* body: {parents, rest}, the rest positions one after another. */
function placed({ parents, rest }, local) {
  const pose = new Float32Array(165), turns = new Float32Array(220);
  const at = (points, joint) => [points[3 * joint], points[3 * joint + 1], points[3 * joint + 2]];
  pose.set(local.place);
  turns.set(turnOf(local.turns, 0));
  for (let joint = 1; joint < 55; joint++) {
    const parent = parents[joint], turn = turnOf(turns, parent);
    pose.set(add(at(pose, parent), turned(turn, subtract(at(rest, joint), at(rest, parent)))), 3 * joint);
    turns.set(turnAfter(turn, turnOf(local.turns, joint)), 4 * joint);
  }
  return { pose, turns };
}
