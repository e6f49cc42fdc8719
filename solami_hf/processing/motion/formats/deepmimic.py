"""DeepMimic's motion files (Peng et al., SIGGRAPH 2018): JSON with 15 joints, y-up, without fingers."""

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ...files.text_files import read_text
from ..body import rest_joints, standing_height
from ..smplx_motion import NUM_JOINTS, SmplxMotion, interpolate

MAX_TEXT_BYTES = 32 << 20

# DeepMimic's person faces +x with +z to the right; SMPL-X faces +z with +x to the left: a quarter turn about y
_FROM_DEEPMIMIC = Rotation.from_rotvec([0, -np.pi / 2, 0])
# arms hang down at DeepMimic's rest and reach sideways at SMPL-X's: shoulder, elbow, quarter turn that lowers the arm
_ARMS = ((16, 18, Rotation.from_rotvec([0, 0, -np.pi / 2])), (17, 19, Rotation.from_rotvec([0, 0, np.pi / 2])))
# the order of joints in a frame, after the root: column, number of values, SMPL-X joints that share the rotation
_WIDTH = 44
_JOINTS = (
    (8, 4, (3, 6, 9)), (12, 4, (12, 15)), (16, 4, (2,)), (20, 1, (5,)), (21, 4, (8,)), (25, 4, (17,)), (29, 1, (19,)),
    (30, 4, (1,)), (34, 1, (4,)), (35, 4, (7,)), (39, 4, (16,)), (43, 1, (18,)),
)  # fmt: skip
# its root is level with the hips, which stand this high over the soles on straight legs (metres)
_HIP_HEIGHT = 0.881


def read_deepmimic(path: str | Path, fps: float | None = None) -> SmplxMotion:
    """A DeepMimic file, text whose JSON has rows of 44 numbers under "Frames", retargeted to SMPL-X; the pelvis is at
    `transl`. `fps` is the rate of the result; frames of a file have durations of their own, of which `None` takes the
    middle one. Raises ValueError: the file is no such JSON, or its frames are not usable."""
    frames = _load_frames(Path(path))
    durations = frames[:, 0]
    if (durations[:-1] <= 0).any():
        raise ValueError("a frame's duration is not positive.")
    times = np.concatenate([[0.0], np.cumsum(durations[:-1])])
    if fps is None:
        fps = 1 / float(np.median(durations[:-1])) if len(durations) > 1 else 30.0
    transl, poses = interpolate(times, *_retarget(frames), fps)
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


def _retarget(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, 3) and SMPL-X poses (T, 55, 3) of DeepMimic frames (T, 44)."""
    poses = np.zeros((len(frames), NUM_JOINTS, 3))
    for column, size, joints in ((4, 4, (0,)), *_JOINTS):
        values = frames[:, column : column + size]
        if size == 1:  # knees and elbows turn about the body's sideways axis, z
            rotation = Rotation.from_rotvec(values * [0, 0, 1])
        else:
            norm = np.linalg.norm(values, axis=1)
            if ((norm < 0.5) | (norm > 2)).any():
                raise ValueError(f"the quaternion at column {column} is not normalised.")
            rotation = Rotation.from_quat(np.roll(values, -1, axis=1))  # the real part comes first there, last here
        poses[:, joints] = (_FROM_DEEPMIMIC.apply(rotation.as_rotvec()) / len(joints))[:, None]
    for shoulder, elbow, lower in _ARMS:
        poses[:, shoulder] = (Rotation.from_rotvec(poses[:, shoulder]) * lower).as_rotvec()
        poses[:, elbow] = lower.inv().apply(poses[:, elbow])
    position = _FROM_DEEPMIMIC.apply(frames[:, 1:4])
    # hips to hips: our pelvis lies above them, along the back; then up until the soles stand on the floor again
    hips_to_pelvis = -float(rest_joints()[1, 1])
    above = Rotation.from_rotvec(poses[:, 0]).apply([0, hips_to_pelvis, 0])
    return position + above + [0, standing_height() - hips_to_pelvis - _HIP_HEIGHT, 0], poses
