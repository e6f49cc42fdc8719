"""Motion of SuSuInterActs, 63 joints of an Unreal skeleton at 20 fps: github.com/SentiAvatar/SentiAvatar.

An `.npy` file holds one dictionary, which is read without unpickling it (`pickled_arrays.py`):

    body (T, 153)                 place of the pelvis in centimetres, z up, and 6D rotations of 25 joints
    left, right (T, 120)          6D rotations of 20 joints each: the wrist again, and 19 of the fingers

A 6D rotation is the first, then the second column. As Unreal has it, axes are left-handed: y is mirrored, and the
pelvis is turned to y up. The project's card calls the places velocities; its tools read them as places, with the first
frame's pelvis at 102 cm, and so does this. The bones' lengths are those of the project's skeleton, to a millimetre.
The rotations say how a bone lies beside its parent's, so the frame that stands most upright tells the rest pose.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ....modeling.motion_vq.kinematics import rotation_6d_to_matrix
from ..retarget import SkeletonMotion, retarget
from ..smplx_motion import SmplxMotion, check_frames
from .pickled_arrays import pickled_arrays

SUSU_FPS = 20.0
_BODY, _FINGERS = 25, 19
_WIDTHS = {"body": 3 + 6 * _BODY, "left": 6 * (_FINGERS + 1), "right": 6 * (_FINGERS + 1)}
_PELVIS_HEIGHT = 102.0

# joint -> its parent, and its place there in centimetres: x lies along the bone; left ones where there are two
_SPINE = {
    "spine_01": (2.6, 0.2, 0), "spine_02": (4.9, -1, 0), "spine_03": (6.3, 0, 0), "spine_04": (6.7, 0, 0),
    "spine_05": (13.1, 0, 0), "neck_01": (13.9, 0, 0), "neck_02": (4.3, 0, 0), "head": (4.5, 0, 0),
}  # fmt: skip
_LEG = {"thigh": (-2.3, 0, -9.3), "calf": (-46.7, 0, 0), "foot": (-44.4, 0, 0), "ball": (-6.5, -12.7, -0.4)}
_ARM = {"clavicle": (8, 0.6, -0.6), "upperarm": (10.1, 0, 0), "lowerarm": (28.7, 0, 0), "hand": (24.8, 0, 0)}
_HAND = {
    "index": [(3, 0.6, -1.8), 4.7, 4.4, 2.0], "middle": [(2.8, 0.1, -0.5), 5.0, 4.4, 2.8],
    "ring": [(2.9, -0.1, 0.5), 4.5, 3.8, 3.0], "pinky": [(2.8, -0.3, 1.5), 4.2, 2.5, 1.8],
    "thumb": [(1.6, 1.7, -1.5), 4.6, 2.6],
}  # fmt: skip
_ONE_SIDE_MIRRORED = ("thigh", "clavicle")  # their parents are in the middle: only z changes its sign


@lru_cache(maxsize=1)
def susu_skeleton() -> tuple[list[str], list[int], np.ndarray]:
    """Names, parents and offsets (63, 3) in centimetres of the joints, in the files' order, y mirrored."""
    places: dict[str, tuple[str, tuple]] = {"pelvis": ("", (0, 0, 0))}

    def chain(parent: str, links: dict, side: str = "") -> None:
        for part, place in links.items():
            flip = {"": (1, 1, 1), "_l": (1, 1, 1), "_r": (1, 1, -1) if part in _ONE_SIDE_MIRRORED else (-1, -1, -1)}
            place = place if isinstance(place, tuple) else (place, 0, 0)
            places[part + side] = parent, tuple(np.multiply(place, flip[side]))
            parent = part + side

    for side in ("_r", "_l"):
        chain("pelvis", _LEG, side)
    chain("pelvis", _SPINE)
    for side in ("_l", "_r"):
        chain("spine_05", {part: place for part, place in _ARM.items() if part != "hand"}, side)
    for side in ("_l", "_r"):
        chain("lowerarm" + side, {"hand": _ARM["hand"]}, side)
    for side in ("_l", "_r"):
        for finger, links in _HAND.items():
            first = [] if finger == "thumb" else ["metacarpal"]
            names = [f"{finger}_{link}" for link in [*first, "01", "02", "03"]]
            chain("hand" + side, dict(zip(names, links, strict=True)), side)
    names = list(places)
    parents = [names.index(parent) if parent else -1 for parent, _ in places.values()]
    return names, parents, np.array([place for _, place in places.values()], dtype=np.float64)


def read_susu(path: str | Path) -> SmplxMotion:
    """The motion on SMPL-X's skeleton; ValueError where an array is missing, broken or of another length."""
    arrays = pickled_arrays(Path(path))
    if missing := [name for name in _WIDTHS if name not in arrays]:
        raise ValueError(f"it lacks {', '.join(missing)}; expected the arrays of SuSuInterActs.")
    values = {name: arrays[name].reshape(arrays[name].shape[-2:]) for name in _WIDTHS if arrays[name].ndim > 1}
    frames = check_frames(len(values["body"]) if "body" in values else 0)
    for name, width in _WIDTHS.items():
        if name not in values or values[name].shape != (frames, width):
            raise ValueError(f"`{name}` has shape {arrays[name].shape}, expected ({frames}, {width}).")
        if not np.isfinite(values[name]).all():
            raise ValueError(f"`{name}` holds NaN or infinite values.")
    turns = [values["body"][:, 3:], values["left"][:, 6:], values["right"][:, 6:]]
    sixes = torch.from_numpy(np.concatenate(turns, axis=1, dtype=np.float64)).unflatten(-1, (-1, 6))
    mirror = np.diag([1.0, -1.0, 1.0])
    matrices = mirror @ rotation_6d_to_matrix(sixes).numpy() @ mirror
    matrices[:, 0] = mirror @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]] @ mirror @ matrices[:, 0]
    place = values["body"][:, :3].astype(np.float64)
    place[:, 2] += _PELVIS_HEIGHT - place[0, 2]
    names, parents, offsets = susu_skeleton()
    rotations = [Rotation.from_matrix(matrices[:, joint]) for joint in range(len(names))]
    return retarget(SkeletonMotion(names, parents, offsets, rotations, {0: place[:, [0, 2, 1]]}, SUSU_FPS), "y")
