"""DeepMimic's motion files (Peng et al., SIGGRAPH 2018): JSON with 15 joints, y-up, without fingers."""

import json
from pathlib import Path

import numpy as np
import torch

from ....modeling.motion_vq.kinematics import (
    axis_angle_to_quaternion,
    quaternion_multiply,
    quaternion_to_axis_angle,
    quaternion_to_matrix,
)
from ...files.text_files import read_text
from ..body import rest_joints, standing_height
from ..smplx_motion import NUM_JOINTS, SmplxMotion, interpolate

MAX_TEXT_BYTES = 32 << 20

_HALF = 0.5**0.5
# DeepMimic's person faces +x with +z to the right; SMPL-X faces +z with +x to the left: a quarter turn about y
_FROM_DEEPMIMIC = torch.tensor([_HALF, 0.0, -_HALF, 0.0], dtype=torch.float64)
# arms hang down at DeepMimic's rest and reach sideways at SMPL-X's: quarter turns about z, which lower them
_LOWER_LEFT_ARM = torch.tensor([_HALF, 0.0, 0.0, -_HALF], dtype=torch.float64)
_LOWER_RIGHT_ARM = torch.tensor([_HALF, 0.0, 0.0, _HALF], dtype=torch.float64)
_CONJUGATE = torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
# the order of joints in a frame, after the root: column, number of values, SMPL-X joints that share the rotation
_WIDTH = 44
_JOINTS = (
    (8, 4, (3, 6, 9)), (12, 4, (12, 15)), (16, 4, (2,)), (20, 1, (5,)), (21, 4, (8,)), (25, 4, (17,)), (29, 1, (19,)),
    (30, 4, (1,)), (34, 1, (4,)), (35, 4, (7,)), (39, 4, (16,)), (43, 1, (18,)),
)  # fmt: skip
_LEFT_SHOULDER, _RIGHT_SHOULDER, _LEFT_ELBOW, _RIGHT_ELBOW = 16, 17, 18, 19
# its root is level with the hips, which stand this high over the soles on straight legs (metres)
_HIP_HEIGHT = 0.881


def read_deepmimic(path: str | Path, fps: float | None = None) -> SmplxMotion:
    """A DeepMimic file retargeted to SMPL-X; the pelvis is at `transl`.

    Args:
        path: a text file whose JSON has rows of 44 numbers under "Frames".
        fps: frame rate of the result. Frames of a file have durations of their own; `None` takes the middle one.

    Raises:
        ValueError: the file is no such JSON, or its frames are not usable.
    """
    path = Path(path)
    frames = _load_frames(path)
    durations = frames[:, 0]
    if (durations[:-1] <= 0).any():
        raise ValueError("a frame's duration is not positive.")
    times = np.concatenate([[0.0], np.cumsum(durations[:-1])])
    if fps is None:
        fps = 1 / float(np.median(durations[:-1])) if len(durations) > 1 else 30.0
    transl, quaternions = _retarget(frames)
    transl, poses = interpolate(times, transl, quaternion_to_axis_angle(quaternions).numpy(), fps)
    return SmplxMotion(transl, poses, fps=fps)


def _load_frames(path: Path) -> np.ndarray:
    """Rows (T, 44) of finite numbers, T >= 1."""
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"it takes {size} bytes, expected at most {MAX_TEXT_BYTES}.")
    try:
        rows = json.loads(read_text(path))["Frames"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f'it is no JSON object with rows of numbers under "Frames" ({error!r:.200}).') from error
    if not isinstance(rows, list) or not rows:
        raise ValueError("it has 0 frames, expected at least 1.")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != _WIDTH:
            came = f"{len(row)} values" if isinstance(row, list) else type(row).__name__
            raise ValueError(f"frame {number} has {came}, expected {_WIDTH} numbers: 15 joints.")
        for value in row:
            if type(value) not in (int, float) or not abs(value) <= 1e6:  # also refuses NaN
                raise ValueError(f"frame {number} holds {value!r:.50}, expected finite numbers.")
    return np.array(rows, dtype=np.float64)


def _retarget(frames: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """Positions (T, 3) and SMPL-X quaternions (T, 55, 4) of DeepMimic frames (T, 44)."""
    values = torch.from_numpy(frames)
    back = _FROM_DEEPMIMIC * _CONJUGATE
    quaternions = torch.zeros(len(values), NUM_JOINTS, 4, dtype=torch.float64)
    quaternions[..., 0] = 1
    for column, size, joints in ((4, 4, (0,)), *_JOINTS):
        rotation = values[:, column : column + size]
        if size == 1:  # knees and elbows turn about the body's sideways axis, z
            zero = torch.zeros_like(rotation)
            rotation = axis_angle_to_quaternion(torch.cat([zero, zero, rotation], dim=-1))
        norm = rotation.norm(dim=-1, keepdim=True)
        if ((norm < 0.5) | (norm > 2)).any():
            raise ValueError(f"the quaternion at column {column} is not normalised.")
        rotation = quaternion_multiply(quaternion_multiply(_FROM_DEEPMIMIC, rotation / norm), back)
        share = quaternion_to_axis_angle(rotation) / len(joints)
        for joint in joints:
            quaternions[:, joint] = axis_angle_to_quaternion(share)
    for shoulder, elbow, lower in (
        (_LEFT_SHOULDER, _LEFT_ELBOW, _LOWER_LEFT_ARM),
        (_RIGHT_SHOULDER, _RIGHT_ELBOW, _LOWER_RIGHT_ARM),
    ):
        raised = lower * _CONJUGATE
        quaternions[:, shoulder] = quaternion_multiply(quaternions[:, shoulder], lower)
        quaternions[:, elbow] = quaternion_multiply(quaternion_multiply(raised, quaternions[:, elbow]), lower)
    position = (quaternion_to_matrix(_FROM_DEEPMIMIC) @ values[:, 1:4, None])[..., 0]
    # hips to hips: our pelvis lies above them, along the back; then up until the soles stand on the floor again
    hips_to_pelvis = -float(rest_joints()[1, 1])
    above = quaternion_to_matrix(quaternions[:, 0])[..., 1] * hips_to_pelvis
    lift = torch.tensor([0.0, standing_height() - hips_to_pelvis - _HIP_HEIGHT, 0.0], dtype=torch.float64)
    return (position + above + lift).numpy(), quaternions
