"""The motion of another skeleton as SMPL-X's.

Joints are matched by name (`match_joints`), and a joint that has no counterpart loses nothing: what counts is how a
matched joint is turned in the world, which holds the turns of everything above it. The two skeletons are laid over
each other in one reference pose, in which the person stands upright:

- the trunk and head of both stand straight there and face the same way;
- each limb of SMPL-X is turned on the shortest way until it points where the other skeleton's limb points, so T-pose,
  A-pose and hanging arms all fit; a foot is only turned about the shin, because its sole lies flat in both.

The reference pose is the other skeleton's rest pose if it stands in it. Some skeletons (LaFAN1, Bandai Namco) lay all
bones along one axis instead: then it is the frame of the motion that stands most upright.
"""

import os
import re
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from .body import SMPLX_JOINT_NAMES, SMPLX_PARENTS, rest_joints
from .smplx_motion import NUM_JOINTS, SmplxMotion

_JOINT = {name: index for index, name in enumerate(SMPLX_JOINT_NAMES)}
_BOTH = ("left", "right")

# SMPL-X's name (without its side) -> how others spell it, in lower case without side, separators and prefix
_MIDDLE_SPELLINGS = {
    "pelvis": "pelvis hips hip root",
    "neck": "neck neck1 neck2 neck01 neck02 neckupper necklower",
    "head": "head",
    "jaw": "jaw lowerjaw",
}
_SIDE_SPELLINGS = {
    "eye_smplhf": "eye eyesmplhf faceeye",
    "collar": "collar clavicle",
    "shoulder": "shoulder arm uarm uparm upperarm shldr shldrbend",
    "elbow": "elbow forearm farm lowarm lowerarm arm1 forearmbend",
    "wrist": "wrist hand",
    "hip": "hip hipjoint thigh thighbend upleg upperleg",
    "knee": "knee leg lowleg lowerleg shin calf",
    "ankle": "ankle foot",
    "foot": "toe toes toe0 toebase ball",
    "index1 middle1 ring1 pinky1": "fingers",
    "thumb1": "thumb",
}
_SPINE = re.compile(r"(lowerback|back|waist|(?:abdomen|chest)(?:lower|upper)?|ab|torso|spine|upperchest)\d*")
_OF_VROID = re.compile(r"^J_(?:Bip|Adj)_(?:C_)?")
_FINGER = re.compile(r"(?:hand)?(index|middle|mid|ring|pinky|little|thumb)(?:finger)?0*([123])|hand([imrpt])([123])")
_FINGER_OF_SOMA = re.compile(r"(Index|Middle|Ring|Pinky)([1-4])$")
_FINGERS = ("index", "middle", "ring", "pinky", "thumb")
_FINGER_NAMES = {"mid": "middle", "little": "pinky", **{name[0]: name for name in _FINGERS}}
_SIDES = (
    re.compile(r"(?P<side>left|right)[ _.-]*(?P<part>.+)", re.IGNORECASE),  # LeftArm, left_shoulder
    re.compile(r"(?P<part>.+?)[ _.-]*(?P<side>left|right)", re.IGNORECASE),  # ShoulderLeft
    re.compile(r"(?P<side>[lr])[ _.-]+(?P<part>.+)", re.IGNORECASE),  # L_Arm, l.arm
    re.compile(r"(?P<part>.+)[ _.-]+(?P<side>[lr])", re.IGNORECASE),  # UpperArm_L
    re.compile(r"(?P<side>[LRlr])(?P<part>[A-Z].*)"),  # LHipJoint, lThigh
)
_NEEDED_LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
NEEDED_JOINTS = ("pelvis", *(f"{side}_{part}" for part in _NEEDED_LIMBS for side in _BOTH))

# limbs that take the direction of the other skeleton's: joint -> the joint at its end
_LIMBS = {"hip": "knee", "knee": "ankle", "ankle": "foot", "shoulder": "elbow", "elbow": "wrist", "wrist": "middle1"}
_LIMBS |= {f"{finger}{i}": f"{finger}{i + 1}" for finger in _FINGERS for i in (1, 2)}
_LIMB_ENDS = {_JOINT[f"{side}_{joint}"]: _JOINT[f"{side}_{end}"] for side in _BOTH for joint, end in _LIMBS.items()}
_ANKLES = (_JOINT["left_ankle"], _JOINT["right_ankle"])
_STANDING_COSINE = 0.7  # legs within 45 degrees of straight down count as standing


@dataclass
class SkeletonMotion:
    """A motion of any skeleton of J joints, parents before children.

    Attributes:
        names: of the joints; the ends of the last bones have none ("").
        parents: index of each joint's parent, -1 for the root.
        offsets: (J, 3) place of each joint relative to its parent in the rest pose.
        rotations: J times T rotations relative to the parent, none of them turned in the rest pose.
        positions: joint -> (T, 3) places relative to the parent, where they are not `offsets`.
        fps: frames per second.
    """

    names: list[str]
    parents: list[int]
    offsets: np.ndarray
    rotations: list[Rotation]
    positions: dict[int, np.ndarray]
    fps: float

    def rest_places(self) -> np.ndarray:
        """(J, 3) places of the joints in the rest pose, the root where its offset says."""
        places = self.offsets.copy()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                places[joint] += places[parent]
        return places

    def forward_kinematics(self) -> tuple[np.ndarray, list[Rotation]]:
        """Places (T, J, 3) of the joints in the world, and J times their T rotations there."""
        places, turns = np.empty((len(self.rotations[0]), len(self.names), 3)), []
        for joint, parent in enumerate(self.parents):
            local = self.positions.get(joint, self.offsets[joint])
            places[:, joint] = local if parent < 0 else places[:, parent] + turns[parent].apply(local)
            turns.append(self.rotations[joint] if parent < 0 else turns[parent] * self.rotations[joint])
        return places, turns


def match_joints(names: list[str], parents: list[int]) -> dict[int, int]:
    """Which joint of a skeleton is which of SMPL-X's: SMPL-X's index -> its index.

    Knows the names of SMPL-X, CMU's BVH files, HumanIK/MotionBuilder, Mixamo, LaFAN1, BEAT, Xsens, Bandai Namco,
    Unity, Unreal, VRoid, VRM, SOMA, Motive and DAZ (whose bones that only twist stay out): case, separators, a prefix
    that all names share ("mixamorig:"), and the way the side is written do not matter. Where several joints make up
    one of SMPL-X's (LHipJoint and LeftUpLeg), the lowest one stands for all: its rotation in the world holds theirs.
    Spines of any length are spread over SMPL-X's three. Raises ValueError, which lists what was found: pelvis, a leg
    or an arm is missing.
    """
    depth = [0] * len(names)
    for joint, parent in enumerate(parents):
        depth[joint] = depth[parent] + 1 if parent >= 0 else 0
    given, names = names, [_OF_VROID.sub("", name) for name in names]
    prefix = os.path.commonprefix([name for name in names[1:] if name])  # "mixamorig:", "Bip01 ", "Character1_"
    if any("thumbmetacarpal" in name.lower() for name in names):  # VRM 1.0's thumb begins a link before Unity's
        links = {"Metacarpal": "Proximal", "Proximal": "Intermediate"}
        thumb = re.compile("(?<=Thumb)(Metacarpal|Proximal)")
        names = [thumb.sub(lambda found: links[found[0]], name) for name in names]
    if {"IndexEnd", "Index4"} <= {name[-len(end) :] for name in names for end in ("IndexEnd", "Index4")}:
        # SOMA's fingers begin a link before others'
        names = [_FINGER_OF_SOMA.sub(lambda link: f"{link[1]}{int(link[2]) - 1}", name) for name in names]
    claims: dict[str, list[int]] = {}
    for joint in sorted(range(len(names)), key=depth.__getitem__):  # upper joints first
        for target in _targets(names[joint], prefix):
            claims.setdefault(target, []).append(joint)
    for side in ("left_", "right_"):
        # "shoulder" is the collar where an "arm" follows it, and "foot" the toes where an "ankle" comes before it
        if len(claims.get(side + "shoulder", ())) > 1 and side + "collar" not in claims:
            claims[side + "collar"] = [claims[side + "shoulder"].pop(0)]
        if len(claims.get(side + "ankle", ())) > 1 and side + "foot" not in claims:
            claims[side + "foot"] = [claims[side + "ankle"].pop()]
        # "leg" is the thigh where a "shin" follows it
        if len(claims.get(side + "knee", ())) > 1 and side + "hip" not in claims:
            claims[side + "hip"] = [claims[side + "knee"].pop(0)]
    missing = [name for name in NEEDED_JOINTS if name not in claims]
    if missing:
        found = ", ".join(name for name in given if name)
        raise ValueError(f"the skeleton has no joint known as {', '.join(missing)}; its joints are {found}.")
    above_shoulder, joint = set(), claims["left_shoulder"][-1]
    while (joint := parents[joint]) >= 0:
        above_shoulder.add(joint)
    spine = [joint for joint in claims.get("spine", ()) if joint in above_shoulder]
    # one joint is SMPL-X's spine 1, two are spine 1 and 3, and of more the inner ones make up spine 2
    parts = {"spine1": spine[:1], "spine2": spine[1:-1], "spine3": spine[1:][-1:]}
    claims |= {name: joints for name, joints in parts.items() if joints}
    return {_JOINT[name]: joints[-1] for name, joints in claims.items() if name in _JOINT}


def _targets(name: str, prefix: str) -> list[str]:
    """The SMPL-X joints that a name stands for; "spine" for any joint of the spine."""
    name = name.removeprefix(prefix).rpartition(":")[2]
    side = next((match for pattern in _SIDES if (match := pattern.fullmatch(name))), None)
    part = re.sub(r"[^a-z0-9]", "", (side["part"] if side else name).lower())
    if side is None:
        known = [target for target, spellings in _MIDDLE_SPELLINGS.items() if part in spellings.split()]
        return known or (["spine"] if _SPINE.fullmatch(part) else [])
    for word, number in (("proximal", "1"), ("intermediate", "2"), ("distal", "3")):
        part = part.replace(word, number)
    known = [targets.split() for targets, spellings in _SIDE_SPELLINGS.items() if part in spellings.split()]
    known = known[0] if known else []
    if finger := _FINGER.fullmatch(part):
        word, number = finger[1] or finger[3], finger[2] or finger[4]
        known = [_FINGER_NAMES.get(word, word) + number]
    return [("left_" if side["side"][0] in "lL" else "right_") + target for target in known]


def retarget(source: SkeletonMotion, up_axis: str | None = None) -> SmplxMotion:
    """The motion, in any unit of length, on SMPL-X's skeleton: y up, metres, `transl` is the pelvis, rotations as the
    module says.

    The size follows from the length of the legs: the middle of the hips moves as the source's does, scaled by the
    ratio of the leg lengths, so feet that stand on the floor do so afterwards. Betas and gender stay those of the mean
    body. `up_axis` is "y" or "z", where the world's upward axis is known to be another than that of the reference
    pose. Raises ValueError: joints are missing, legs have no length, or neither the rest pose nor any frame stands
    upright.
    """
    joints = match_joints(source.names, source.parents)
    places, turns = source.forward_kinematics()
    rest = source.rest_places()
    frame, up = _reference(rest, places, joints, up_axis)
    stance = standing_turns(rest if frame is None else places[frame], joints, up)
    to_world = _shortest_turn({"y": np.eye(3)[1], "z": np.eye(3)[2], None: up}[up_axis], np.eye(3)[1])

    turned: list[Rotation] = []
    poses = np.empty((len(places), NUM_JOINTS, 3), dtype=np.float32)
    for joint, parent in enumerate(SMPLX_PARENTS):
        if joint in joints:
            theirs = turns[joints[joint]]
            fit = stance[joint] if frame is None else theirs[frame].inv() * stance[joint]
            turned.append(to_world * theirs * fit)
        else:
            turned.append(turned[parent])
        local = turned[joint] if parent < 0 else turned[parent].inv() * turned[joint]
        poses[:, joint] = local.as_rotvec()

    hips = [joints[_JOINT["left_hip"]], joints[_JOINT["right_hip"]]]
    ours = rest_joints()
    scale = leg_length(ours, {joint: joint for joint in range(NUM_JOINTS)}) / leg_length(rest, joints)
    hips_to_pelvis = -(ours[_JOINT["left_hip"]] + ours[_JOINT["right_hip"]]) / 2
    transl = scale * to_world.apply(places[:, hips].mean(axis=1)) + turned[0].apply(hips_to_pelvis)
    return SmplxMotion(transl=transl, poses=poses, fps=source.fps)


def leg_length(points: np.ndarray, joints: dict[int, int]) -> float:
    """Mean length of both legs from hip to ankle."""
    limbs = [(f"{side}_{a}", f"{side}_{b}") for a, b in (("hip", "knee"), ("knee", "ankle")) for side in _BOTH]
    length = float(sum(np.linalg.norm(_vector(points, joints, *limb)) / 2 for limb in limbs))
    if not 1e-6 < length < 1e6:
        raise ValueError(f"the legs are {length:g} long in the rest pose, expected a length; check its OFFSETs.")
    return length


def _vector(points: np.ndarray, joints: dict[int, int], start: str, end: str) -> np.ndarray:
    return points[..., joints[_JOINT[end]], :] - points[..., joints[_JOINT[start]], :]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)


def _trunk(points: np.ndarray, joints: dict[int, int]) -> np.ndarray:
    """Direction (..., 3) from between the hips to between the shoulders."""
    sides = [_vector(points, joints, f"{side}_hip", f"{side}_shoulder") for side in _BOTH]
    return _unit(sides[0] + sides[1])


def how_upright(points: np.ndarray, joints: dict[int, int], up: np.ndarray) -> np.ndarray:
    """The smallest cosine (...) between `up` and trunk, thighs and shins: 1 stands straight."""
    limbs = [(f"{side}_{a}", f"{side}_{b}") for side in _BOTH for a, b in (("knee", "hip"), ("ankle", "knee"))]
    cosines = [_unit(_vector(points, joints, *limb)) @ up for limb in limbs]
    return np.min([_trunk(points, joints) @ up, *cosines], axis=0)


def _reference(
    rest: np.ndarray, places: np.ndarray, joints: dict[int, int], up_axis: str | None
) -> tuple[int | None, np.ndarray]:
    """The frame of the reference pose (`None` is the rest pose) and the axis (3,) that points upwards in it."""
    up = _nearest_axis(_trunk(rest, joints))
    if how_upright(rest, joints, up) > _STANDING_COSINE:
        return None, up
    up = np.eye(3)["xyz".index(up_axis)] if up_axis else _nearest_axis(_trunk(places, joints).mean(axis=0))
    uprightness = how_upright(places, joints, up)
    frame = int(uprightness.argmax())
    if uprightness[frame] <= _STANDING_COSINE:
        raise ValueError(
            "neither the rest pose nor any frame shows the person upright with both legs straight down, so it cannot "
            "be told how the joints are turned; add a first frame in T-pose."
        )
    return frame, up


def _nearest_axis(direction: np.ndarray) -> np.ndarray:
    axis = int(np.abs(direction).argmax())
    return np.copysign(np.eye(3)[axis], direction[axis]) * np.eye(3)[axis]


def _shortest_turn(start: np.ndarray, end: np.ndarray) -> Rotation:
    """The smallest rotation that lays the direction `start` onto `end`."""
    start, end = _unit(start), _unit(end)
    axis = np.cross(start, end)
    sine, cosine = float(np.linalg.norm(axis)), float(start @ end)
    if sine < 1e-9 and cosine < 0:  # half a turn about any axis across
        axis = np.cross(start, np.eye(3)[np.abs(start).argmin()])
    return Rotation.from_rotvec(_unit(axis) * np.arctan2(sine, cosine))


def standing_turns(points: np.ndarray, joints: dict[int, int], up: np.ndarray) -> list[Rotation]:
    """World rotations of SMPL-X's 55 joints when its body takes the reference pose (J, 3)."""
    left = _across(_vector(points, joints, "right_hip", "left_hip"), up)
    if np.linalg.norm(left) < 1e-9:
        raise ValueError("the hips lie at one place, so it cannot be told where the person faces; check the OFFSETs.")
    left = _unit(left)
    ours = rest_joints()
    stance = [Rotation.from_matrix(np.stack([left, up, np.cross(left, up)], axis=1))]
    for joint in range(1, NUM_JOINTS):
        turn, end = stance[SMPLX_PARENTS[joint]], _LIMB_ENDS.get(joint)
        if joint in joints and end in joints:
            wanted = points[joints[end]] - points[joints[joint]]
            current = turn.apply(ours[end] - ours[joint])
            if joint in _ANKLES:
                shin = points[joints[joint]] - points[joints[SMPLX_PARENTS[joint]]]
                wanted, current = _across(wanted, shin), _across(current, shin)
            if np.linalg.norm(wanted) > 1e-9:
                turn = _shortest_turn(current, wanted) * turn
        stance.append(turn)
    return stance


def _across(vector: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The vector without its part along a direction."""
    direction = _unit(direction)
    return vector - (vector @ direction) * direction
