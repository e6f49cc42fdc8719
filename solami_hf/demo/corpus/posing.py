"""Poses in words a person would use (where a wrist is, where the palm looks) and their joint rotations.

Directions and places are (outward, up, forward) in the frame of the chest, metres from the pelvis of the standing free
body: outward is +x for the left arm and -x for the right one, so a gesture is written once for both sides. Rotations
of this module are scipy `Rotation`s of single poses or of all frames at once.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from ...processing.motion.body import rest_joints

Vector = tuple[float, float, float]

ARM_JOINTS = {"left": (13, 16, 18, 20), "right": (14, 17, 19, 21)}  # collar, shoulder, elbow, wrist
HAND_START = {"left": 25, "right": 40}
LEG_JOINTS = {"left": (1, 4, 7), "right": (2, 5, 8)}  # hip, knee, ankle

# degrees of curl of (knuckle, middle, end) joint for index, middle, pinky, ring, then the thumb's
# (towards the palm, bend, end bend); straight is the flat hand of the rest pose
HAND_SHAPES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "flat": ((0, 3, 2), (0, 3, 2), (2, 4, 2), (0, 3, 2), (5, 0, 0)),
    "relaxed": ((18, 28, 14), (22, 32, 16), (30, 38, 18), (26, 35, 16), (12, 12, 8)),
    "cupped": ((26, 24, 12), (26, 24, 12), (28, 26, 14), (27, 25, 12), (8, 10, 5)),
    "fist": ((80, 95, 60), (84, 98, 60), (84, 98, 60), (84, 98, 60), (38, 45, 45)),
    "point": ((2, 4, 2), (82, 96, 60), (86, 98, 60), (84, 98, 60), (38, 45, 40)),
    "thumb": ((80, 95, 60), (84, 98, 60), (84, 98, 60), (84, 98, 60), (-30, -18, -12)),
    "spread": ((-4, 2, 0), (-4, 2, 0), (-4, 2, 0), (-4, 2, 0), (-12, -6, 0)),
}
_SPREAD = {"spread": (9, 2, -14, -6), "flat": (2, 0, -3, -1)}  # degrees sideways at the knuckles, index to ring


@dataclass(frozen=True)
class Arm:
    """One arm: wrist place, where the elbow points, where fingers and palm look, collar lift (degrees), hand shape."""

    wrist: Vector
    elbow: Vector = (0.6, -0.6, -0.4)
    fingers: Vector = (0.0, 1.0, 0.0)
    palm: Vector = (0.0, 0.0, 1.0)
    lift: float = 0.0
    shape: str = "relaxed"


HANGING = Arm((0.27, -0.11, 0.07), elbow=(0.35, 0.0, -1.0), fingers=(0.03, -1.0, 0.12), palm=(-1.0, 0.0, -0.1))


@dataclass(frozen=True)
class Pose:
    """A whole body. Degrees: `torso` and `head` are (bend forward, turn left, lean left); `hips` moves the pelvis by
    metres (left, up, forward) over feet that stay where they are."""

    torso: Vector = (0.0, 0.0, 0.0)
    head: Vector = (0.0, 0.0, 0.0)
    hips: Vector = (0.0, 0.0, 0.0)
    tilt: float = 0.0
    arms: dict[str, Arm] = field(default_factory=lambda: {"left": HANGING, "right": HANGING})


def unit(vector: np.ndarray) -> np.ndarray:
    """`vector` (..., 3) at length 1."""
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def _frame(along: np.ndarray, hint: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) whose x column is `along` and whose z column is `hint` as far as x leaves it."""
    x = unit(along)
    z = unit(hint - x * np.sum(x * hint, axis=-1, keepdims=True))
    return np.stack([x, np.cross(z, x), z], axis=-1)


def two_bones(reach: np.ndarray, pole: np.ndarray, upper: float, lower: float) -> tuple[np.ndarray, np.ndarray]:
    """Directions (..., 3) of two bones that lead over `reach` (..., 3), their joint towards `pole`. Too far a reach is
    shortened and too near a one lengthened."""
    length = np.linalg.norm(reach, axis=-1, keepdims=True)
    along = reach / length
    length = np.clip(length, abs(upper - lower) + 0.02, (upper + lower) * 0.999)
    side = unit(pole - along * np.sum(pole * along, axis=-1, keepdims=True))
    cosine = np.clip((upper**2 + length**2 - lower**2) / (2 * upper * length), -1, 1)
    first = along * cosine + side * np.sqrt(1 - cosine**2)
    return first, (along * length - first * upper) / lower


def _outward(vector: Vector, side: str) -> np.ndarray:
    return np.array(vector, dtype=np.float64) * ([1, 1, 1] if side == "left" else [-1, 1, 1])


def arm_rotations(arm: Arm, side: str) -> dict[int, Rotation]:
    """Local rotations of collar, shoulder, elbow and wrist (joint index -> rotation) that bring the arm there."""
    collar, shoulder, elbow, wrist = ARM_JOINTS[side]
    rest, sign = rest_joints(), 1.0 if side == "left" else -1.0
    lifted = Rotation.from_rotvec([0, 0, sign * np.radians(arm.lift)])
    start = rest[collar] + lifted.apply(rest[shoulder] - rest[collar])
    upper = abs(rest[elbow, 0] - rest[shoulder, 0])
    lower = abs(rest[wrist, 0] - rest[elbow, 0])
    first, second = two_bones(_outward(arm.wrist, side) - start, _outward(arm.elbow, side), upper, lower)
    # the rest elbow closes forward: z is the side of the upper arm that the forearm folds to
    axes = np.diag([sign, sign, 1.0])  # the right arm points along -x at rest and folds forward too
    above = Rotation.from_matrix(_frame(first, second) @ axes)
    forearm = Rotation.from_matrix(_frame(second, -first) @ axes)
    fingers, palm = _outward(arm.fingers, side), _outward(arm.palm, side)
    hand_x = unit(fingers)
    back = -unit(palm - hand_x * np.sum(palm * hand_x))
    hand = Rotation.from_matrix(np.stack([hand_x, back, np.cross(hand_x, back)], axis=-1) @ np.diag([sign, 1.0, sign]))
    twist = _twist_about_x(forearm.inv() * hand)
    half = Rotation.from_rotvec([0.5 * twist, 0, 0])  # forearm and wrist share the turn of the palm, as bones do
    above_elbow = {collar: lifted, shoulder: lifted.inv() * above}
    return above_elbow | {elbow: above.inv() * forearm * half, wrist: (forearm * half).inv() * hand}


def _twist_about_x(rotation: Rotation) -> float:
    """The part of a rotation that turns about x, in radians."""
    x, _, _, w = rotation.as_quat()
    angle = 2 * np.arctan2(x, w)
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def hand_rotations(shape: str, side: str, strength: float = 1.0) -> np.ndarray:
    """(15, 3) axis-angle of a named hand shape; `strength` scales its curl."""
    sign = 1.0 if side == "left" else -1.0
    spread = _SPREAD.get(shape, (0, 0, 0, 0))
    out = np.zeros((15, 3))
    for finger, curls in enumerate(HAND_SHAPES[shape][:4]):
        for i, curl in enumerate(curls):
            out[3 * finger + i] = (0, 0, -sign * np.radians(curl) * strength)  # +x turns towards the palm, -y
        sideways = Rotation.from_rotvec([0, -sign * np.radians(spread[finger]), 0])
        out[3 * finger] = (sideways * Rotation.from_rotvec(out[3 * finger])).as_rotvec()
    inward, bend, end = np.radians(HAND_SHAPES[shape][4]) * strength
    thumb = np.array([0.55, -0.35, 0.75])  # the thumb points along this; it swings under the palm and bends towards it
    across = unit(np.cross(thumb, [0.0, 0.0, -1.0]) + 0.6 * np.cross(thumb, [0.0, -1.0, 0.0]))
    mirror = np.array([1.0, sign, sign])  # a mirrored rotation vector keeps x and flips y, z
    for i, angle in enumerate((inward, bend, end)):
        out[12 + i] = across * angle * mirror
    return out


def local_rotations(pose: Pose) -> Rotation:
    """The 55 local rotations of a pose; root and legs stay at rest for `animation` to place them."""
    vectors = np.zeros((55, 3))
    bend, turn, lean = np.radians(pose.torso)
    for joint, share in ((3, 0.35), (6, 0.35), (9, 0.30)):
        vectors[joint] = Rotation.from_euler("YXZ", [turn * share, bend * share, -lean * share]).as_rotvec()
    bend, turn, lean = np.radians(pose.head)
    for joint, share in ((12, 0.45), (15, 0.55)):
        vectors[joint] = Rotation.from_euler("YXZ", [turn * share, bend * share, -lean * share]).as_rotvec()
    for side, arm in pose.arms.items():
        for joint, rotation in arm_rotations(arm, side).items():
            vectors[joint] = rotation.as_rotvec()
        start = HAND_START[side]
        vectors[start : start + 15] = hand_rotations(arm.shape, side)
    return Rotation.from_rotvec(vectors)


def leg_rotations(pelvis: np.ndarray, root: Rotation, feet: dict[str, np.ndarray], toes_out: dict[str, float]):
    """{joint index: Rotation of T frames} of hips, knees and ankles that keep the feet where they stand: from the
    pelvis' place (T, 3) metres and `root`, its T rotations, and of each side the ankle's place (3,) and the radians
    that the foot is turned about y."""
    rest, out = rest_joints(), {}
    for side, (hip, knee, ankle) in LEG_JOINTS.items():
        start = pelvis + root.apply(rest[hip])
        foot = Rotation.from_rotvec([0, toes_out[side], 0])
        pole = np.broadcast_to(foot.apply([0.0, 0.0, 1.0]), start.shape)
        upper = np.linalg.norm(rest[knee] - rest[hip])
        lower = np.linalg.norm(rest[ankle] - rest[knee])
        thigh, shin = two_bones(feet[side] - start, pole, upper, lower)
        above = Rotation.from_matrix(_hanging(thigh, pole))
        below = Rotation.from_matrix(_hanging(shin, pole))
        out |= {hip: root.inv() * above, knee: above.inv() * below, ankle: below.inv() * foot}
    return out


def _hanging(down: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Matrices (T, 3, 3) that turn the rest's straight-down bone to `down`, its front towards `forward`."""
    y = -unit(down)
    z = unit(forward - y * np.sum(y * forward, axis=-1, keepdims=True))
    return np.stack([np.cross(y, z), y, z], axis=-1)
