"use strict";
/* A figure from SMPL-X joints: the pose at a time, and the solid parts that stand for body, clothes, hands and face.

   A part is the convex hull of a few balls; a limb is the hull of two. */

const HIP = [1, 2], KNEE = [4, 5], ANKLE = [7, 8], FOOT = [10, 11], COLLAR = [13, 14], SHOULDER = [16, 17];
const ELBOW = [18, 19], WRIST = [20, 21], EYE = [23, 24], FINGERS = [25, 40];
const PELVIS = 0, SPINE1 = 3, SPINE2 = 6, SPINE3 = 9, NECK = 12, HEAD = 15;
const THUMB = 4; // the fifth finger of each hand: index, middle, pinky, ring, thumb

function decodeJoints(text) {
  const raw = atob(text);
  const bytes = Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / 1000);
}

/* The pose (55 * 3) of joints at `seconds`, between frames by a straight line, before and after the clip its first and last. */
function poseAt(performer, seconds) {
  const size = 165;
  const place = Math.min(Math.max(seconds * performer.fps, 0), performer.frames - 1);
  const first = Math.floor(place), second = Math.min(first + 1, performer.frames - 1), share = place - first;
  const a = first * size, b = second * size, pose = new Float32Array(size);
  for (let i = 0; i < size; i++) pose[i] = performer.positions[a + i] * (1 - share) + performer.positions[b + i] * share;
  return pose;
}

const add = (a, b, scale = 1) => [a[0] + b[0] * scale, a[1] + b[1] * scale, a[2] + b[2] * scale];
const subtract = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const middle = (a, b, share = 0.5) => [0, 1, 2].map((i) => a[i] * (1 - share) + b[i] * share);
const normalize = (a) => {
  const length = Math.hypot(...a);
  return length > 1e-6 ? a.map((value) => value / length) : [0, 0, 0];
};

/* The parts of a figure: {tone, balls: [[point, radius], ...], small}. The first and the last ball give the axis. */
function figureParts(pose, level) {
  const at = (joint) => [pose[3 * joint], pose[3 * joint + 1], pose[3 * joint + 2]];
  const parts = [];
  const part = (tone, balls, small = false, lift = 0) => parts.push({ tone, balls, small, lift });
  const pelvis = at(PELVIS), chest = at(SPINE3), neck = at(NECK);
  const hips = normalize(subtract(at(HIP[0]), at(HIP[1]))), shoulders = normalize(subtract(at(SHOULDER[0]), at(SHOULDER[1])));
  const waist = at(SPINE1), ribs = at(SPINE2), aside = normalize(add(hips, shoulders));
  const pair = (point, direction, reach, radius) => [-reach, reach].map((far) => [add(point, direction, far), radius]);
  part("legs", [[middle(pelvis, waist), 0.1], ...pair(waist, hips, 0.04, 0.09), [at(HIP[0]), 0.09], [at(HIP[1]), 0.09], [middle(at(HIP[0]), at(HIP[1])), 0.09]]);
  part("body", [[middle(pelvis, waist, 0.7), 0.095], ...pair(middle(pelvis, waist, 0.8), hips, 0.052, 0.094), ...pair(ribs, aside, 0.052, 0.096), [ribs, 0.104]], false, 0.004);
  part("body", [[ribs, 0.104], ...pair(ribs, aside, 0.052, 0.096), [middle(chest, at(SHOULDER[0]), 0.55), 0.088],
    [middle(chest, at(SHOULDER[1]), 0.55), 0.088], [at(COLLAR[0]), 0.07], [at(COLLAR[1]), 0.07], [middle(chest, neck, 0.75), 0.078]], false, 0.008);
  // behind the shirt and the head from every side
  part("skin", [[middle(chest, neck, 0.85), 0.05], [at(HEAD), 0.047]], false, -0.09);
  for (const side of [0, 1]) {
    part("legs", [[at(HIP[side]), 0.086], [at(KNEE[side]), 0.058]]);
    part("legs", [[at(KNEE[side]), 0.058], [at(ANKLE[side]), 0.041]]);
    const toes = normalize(subtract(at(FOOT[side]), at(ANKLE[side])));
    const heel = add(at(ANKLE[side]), subtract(at(FOOT[side]), at(ANKLE[side])), -0.18);
    heel[1] = middle(at(ANKLE[side]), at(FOOT[side]), 0.75)[1];
    part("shoes", [[at(ANKLE[side]), 0.043], [heel, 0.036], [at(FOOT[side]), 0.036], [add(at(FOOT[side]), [toes[0], toes[1] * 0.2, toes[2]], 0.07), 0.03]], false, 0.03);
    part("body", [[at(COLLAR[side]), 0.06], [at(SHOULDER[side]), 0.058]]);
    part("body", [[at(SHOULDER[side]), 0.058], [at(ELBOW[side]), 0.043]]);
    part("skin", [[at(ELBOW[side]), 0.039], [at(WRIST[side]), 0.029]]);
    handParts(part, at, side);
  }
  const skull = headParts(part, at, neck, level);
  return { parts, skull };
}

function handParts(part, at, side) {
  const first = FINGERS[side], wrist = at(WRIST[side]);
  const knuckles = [0, 1, 2, 3].map((finger) => [at(first + 3 * finger), 0.0135]);
  part("hand", [[wrist, 0.026], ...knuckles], true);
  for (let finger = 0; finger < 5; finger++) {
    const joint = first + 3 * finger, thick = finger === THUMB ? 0.0125 : 0.0105;
    const chain = [at(joint), at(joint + 1), at(joint + 2)];
    // the last SMPL-X joint is the root of the finger tip, so the tip is drawn as far again
    chain.push(add(chain[2], subtract(chain[2], chain[1]), 0.85));
    if (finger === THUMB) part("hand", [[wrist, 0.02], [chain[0], 0.016]], true);
    for (let bone = 0; bone < 3; bone++) {
      part("hand", [[chain[bone], thick * (1 - 0.1 * bone)], [chain[bone + 1], thick * (0.9 - 0.1 * bone)]], true, 0.01);
    }
  }
}

/* The head stands on the head joint and looks where the eye joints are. The mouth opens with the loudness of the voice:
   the body model's jaw is not part of what SOLAMI's motion carries. */
function headParts(part, at, neck, level) {
  const base = at(HEAD), up = normalize(subtract(base, neck)), eyes = middle(at(EYE[0]), at(EYE[1]));
  const toEyes = subtract(eyes, base), height = Math.max(dot(toEyes, up), 0.04);
  let ahead = normalize(subtract(toEyes, up.map((value) => value * dot(toEyes, up))));
  if (!Math.hypot(...ahead)) ahead = normalize(cross(subtract(at(SHOULDER[0]), at(SHOULDER[1])), [0, 1, 0]));
  const aside = cross(up, ahead);
  const skull = add(add(base, up, height + 0.025), ahead, 0.012);
  const chin = add(add(base, up, -0.006), ahead, 0.05);
  part("head", [[skull, 0.104], [middle(skull, chin, 0.55), 0.088], [chin, 0.05]]);
  part("hair", [[add(add(skull, up, 0.022), ahead, -0.022), 0.1]], false, -0.012);
  for (const side of [-1, 1]) {
    const eye = add(add(add(skull, ahead, 0.094), aside, 0.036 * side), up, -0.012);
    part("eye", [[eye, 0.0115]], true, 0.02);
  }
  const lips = add(middle(skull, chin, 0.8), ahead, 0.064), open = 0.0035 + 0.009 * level;
  part("mouth", [-1, 1].map((side) => [add(lips, aside, (0.02 - 0.006 * level) * side), open]), true, 0.02);
  return add(skull, up, 0.17);
}
