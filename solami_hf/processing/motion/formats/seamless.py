"""Motion of Seamless Interaction, `.npz` with `smplh:*` arrays: github.com/facebookresearch/seamless_interaction.

    smplh:global_orient (T, 3)   smplh:body_pose (T, 21, 3)   smplh:left_hand_pose, smplh:right_hand_pose (T, 15, 3)
    smplh:translation (T, 3)     smplh:is_valid (T,)          30 frames a second

They are fitted to one camera's picture, whose y axis points down, so there is no floor: the median height of the
pelvis is taken for that of a standing person. Frames that are not valid are interpolated between those that are.
Other arrays of the file (face, keypoints) are not read.
"""

from pathlib import Path

import numpy as np
import torch

from ....modeling.motion_vq.kinematics import axis_angle_to_quaternion, quaternion_multiply, quaternion_to_axis_angle
from ..body import standing_height
from ..smplx_motion import SmplxMotion, interpolate
from .motion_npz import SMPL_PELVIS, join_poses, load_arrays

SEAMLESS_FPS = 30.0
_ARRAYS = {
    "translation": "trans", "global_orient": "root_orient", "body_pose": "pose_body", "left_hand_pose": "pose_lhand",
    "right_hand_pose": "pose_rhand", "is_valid": "is_valid",
}  # fmt: skip
_HALF_TURN = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)  # about x: y down, z away to y up, z near


def read_seamless_npz(path: str | Path) -> SmplxMotion | None:
    """The motion of a file, None where it has no `smplh:*` arrays. Raises ValueError: a broken file, arrays that are
    missing or of different lengths, or fewer than two valid frames."""
    arrays = load_arrays(Path(path), {f"smplh:{theirs}.npy": ours for theirs, ours in _ARRAYS.items()})
    if not arrays:
        return None
    if missing := [f"smplh:{theirs}" for theirs, ours in _ARRAYS.items() if ours not in arrays]:
        raise ValueError(f"it lacks {', '.join(missing)}; expected the arrays of Seamless Interaction.")
    frames = len(arrays["trans"])
    if lengths := {name: len(values) for name, values in arrays.items() if len(values) != frames}:
        raise ValueError(f"its arrays have {lengths} frames, but `smplh:translation` has {frames}.")
    valid = arrays["is_valid"].reshape(frames, -1).all(-1)
    poses = join_poses(arrays)
    root = axis_angle_to_quaternion(torch.from_numpy(poses[:, 0]).double())
    poses[:, 0] = quaternion_to_axis_angle(quaternion_multiply(_HALF_TURN, root)).numpy()
    transl = (arrays["trans"] + SMPL_PELVIS) * np.float32([1, -1, -1])
    transl[:, 1] += standing_height() - np.median(transl[valid, 1]) if valid.any() else 0.0
    transl, poses = fill_invalid_frames(transl, poses, valid, SEAMLESS_FPS)
    return SmplxMotion(transl, poses, fps=SEAMLESS_FPS)


def fill_invalid_frames(
    transl: np.ndarray, poses: np.ndarray, valid: np.ndarray, fps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, 3) and rotations (T, J, 3) whose frames that are not `valid` (T,) lie between those that are.
    Before the first valid frame and behind the last one, these stand still. ValueError for less than two valid
    ones."""
    frames = len(valid)
    if valid.sum() < 2:
        raise ValueError(f"{int(valid.sum())} of its {frames} frames are valid, expected two or more.")
    times = np.flatnonzero(valid) / fps
    transl, poses = interpolate(times - times[0], transl[valid].astype(np.float32), poses[valid], fps)
    lead = round(times[0] * fps)  # the first valid frame stands for those before it, so that times agree
    lead, behind = [0] * lead, [-1] * max(0, frames - lead - len(transl))
    return tuple(np.concatenate([part[lead], part, part[behind]]) for part in (transl, poses))
