"""Names of our 55 joints in other programs' skeletons."""

from .body import SMPLX_JOINT_NAMES

_BODY = {
    "smplx": "pelvis hip spine1 knee spine2 ankle spine3 foot neck collar head shoulder elbow wrist jaw eye_smplhf",
    "mixamo": "Hips UpLeg Spine Leg Spine1 Foot Spine2 ToeBase Neck Shoulder Head Arm ForeArm Hand Jaw Eye",
    "unreal": "pelvis thigh spine_01 calf spine_02 foot spine_03 ball neck_01 clavicle head upperarm lowerarm hand "
    "jaw eye",
    "vrm": "hips UpperLeg spine LowerLeg chest Foot upperChest Toes neck Shoulder head UpperArm LowerArm Hand jaw Eye",
}
_THUMB_OF_VRM = ("Metacarpal", "Proximal", "Distal")
_FINGER_OF_VRM = ("Proximal", "Intermediate", "Distal")


def _name(kind: str, joint: str) -> str:
    side, _, part = joint.partition("_")
    if side not in ("left", "right"):
        side, part = "", joint
    finger, number = part[:-1], part[-1:]
    if side and finger in ("index", "middle", "ring", "pinky", "thumb"):
        if kind == "unreal":
            return f"{finger}_0{number}_{side[0]}"
        if kind == "mixamo":
            return f"{side.title()}Hand{finger.title()}{number}"
        links = _THUMB_OF_VRM if finger == "thumb" else _FINGER_OF_VRM
        return f"{side}{'Little' if finger == 'pinky' else finger.title()}{links[int(number) - 1]}"
    word = dict(zip(_BODY["smplx"].split(), _BODY[kind].split(), strict=True))[part]
    if kind == "unreal":
        return f"{word}_{side[0]}" if side else word
    return (side if kind == "vrm" else side.title()) + word


JOINT_NAMES: dict[str, tuple[str, ...]] = {
    "smplx": SMPLX_JOINT_NAMES,
    "mixamo": tuple("mixamorig:" + _name("mixamo", joint) for joint in SMPLX_JOINT_NAMES),
    "unreal": tuple(_name("unreal", joint) for joint in SMPLX_JOINT_NAMES),
    "vrm": tuple(_name("vrm", joint) for joint in SMPLX_JOINT_NAMES),
}
"""Names in SMPL-X's order: SMPL-X's own, those of Mixamo, of Unreal's mannequin, and VRM 1.0's humanoid bones."""


def joint_names(kind: str) -> tuple[str, ...]:
    """The 55 names of a kind of `JOINT_NAMES`; ValueError where it is another."""
    if kind not in JOINT_NAMES:
        raise ValueError(f"`names` is {kind!r}, expected one of {', '.join(JOINT_NAMES)}.")
    return JOINT_NAMES[kind]
