"""Motion of Embody 3D, SMPL-X as one `.npy` array a feature: github.com/facebookresearch/embody-3d.

    CAPTURE/PERSON/smplx_mesh_transl/CAPTURE.npy             (T, 3)      30 frames a second, y up, the floor at 0
    CAPTURE/PERSON/smplx_mesh_global_orient/CAPTURE.npy      (T, 3)
    CAPTURE/PERSON/smplx_mesh_body_pose/CAPTURE.npy          (T, 63)
    CAPTURE/PERSON/smplx_mesh_left_hand_pose/CAPTURE.npy     (T, 45), and the right one: from the flat hand
    CAPTURE/PERSON/smplx_mesh_betas/CAPTURE.npy              (T, N) or (N,), of which the first 10 are kept
    CAPTURE/PERSON/missing/CAPTURE.npy                       (T,), 1 where tracking was good

Any `smplx_mesh_*` file stands for all of them. Frames that are not good are interpolated between those that are.
"""

from pathlib import Path

import numpy as np

from ..smplx_motion import SmplxMotion, check_frames
from .motion_npz import SMPLX_PELVIS, SPLIT_LAYOUT, join_poses, read_npy
from .seamless import fill_invalid_frames

EMBODY_FPS = 30.0
FEATURE = "smplx_mesh_"
_PARTS = {
    "global_orient": "root_orient", "body_pose": "pose_body", "left_hand_pose": "pose_lhand",
    "right_hand_pose": "pose_rhand",
}  # fmt: skip
_BETAS = 10


def read_embody3d(path: str | Path) -> SmplxMotion:
    """The motion of one person; ValueError where an array is missing, broken or of another length."""
    path = Path(path)
    transl = _feature(path, "transl", 3)
    frames = check_frames(len(transl))
    arrays = {"trans": transl}
    for theirs, ours in _PARTS.items():
        values = arrays[ours] = _feature(path, theirs, 3 * len(SPLIT_LAYOUT[ours]))
        if len(values) != frames:
            raise ValueError(f"`{FEATURE}{theirs}` has {len(values)} frames, but `{FEATURE}transl` has {frames}.")
    valid = valid_frames(path)
    if len(valid) != frames:
        raise ValueError(f"`missing` has {len(valid)} frames, but `{FEATURE}transl` has {frames}.")
    transl, poses = fill_invalid_frames(transl, join_poses(arrays), valid, EMBODY_FPS)
    file, betas = _file(path, f"{FEATURE}betas"), None
    if file.is_file():
        betas = np.atleast_2d(read_npy(file))[0, :_BETAS]
    return SmplxMotion(transl, poses, betas, fps=EMBODY_FPS, pelvis_offset=SMPLX_PELVIS)


def valid_frames(path: Path) -> np.ndarray:
    """The well tracked frames (T,) bool of a person, by any `smplx_mesh_*` file; all where nothing says which."""
    file = _file(path, "missing")
    if not file.is_file():
        return np.ones(len(_feature(path, "transl", 3)), dtype=bool)
    good = read_npy(file)
    if good.dtype.kind not in "bfiu":
        raise ValueError(f"`missing` is of type {good.dtype}, expected 1 for good frames and 0 for others.")
    return good.reshape(len(good), -1).astype(bool).all(-1)


def _file(path: Path, feature: str) -> Path:
    return path.parent.parent / feature / path.name


def _feature(path: Path, name: str, width: int) -> np.ndarray:
    file = _file(path, FEATURE + name)
    if not file.is_file():
        raise ValueError(f"it lacks {FEATURE}{name}/{file.name}; expected the arrays of Embody 3D.")
    try:
        values = read_npy(file)
    except ValueError as error:
        raise ValueError(f"in {FEATURE}{name}, {error}") from error
    if values.ndim < 2 or values[:1].size != width or values.dtype.kind not in "fiu":
        raise ValueError(f"`{FEATURE}{name}` has shape {values.shape} of {values.dtype}, expected (T, {width}).")
    return values.reshape(len(values), width)
