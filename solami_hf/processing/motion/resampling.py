"""Motion at another frame rate: positions linearly, rotations by slerp."""

from dataclasses import replace

import numpy as np
import torch

from .rotations import axis_angle_to_quaternion, quaternion_slerp, quaternion_to_axis_angle
from .smplx_motion import SmplxMotion, check_fps, check_frames

_CHUNK = 8192  # frames at a time: rotations of long motions need much room in between


def resample_motion(motion: SmplxMotion, fps: float) -> SmplxMotion:
    """The same motion at another frame rate, never longer: positions linearly, rotations by slerp.

    Raises:
        ValueError: `fps` is no rate, or the result would have more than `MAX_FRAMES` frames.
    """
    if motion.fps == fps:
        return motion
    times = np.arange(motion.num_frames) / motion.fps
    transl, poses = interpolate(times, motion.transl, motion.poses, fps)
    return replace(motion, transl=transl, poses=poses, fps=fps)


def interpolate(times: np.ndarray, transl: np.ndarray, poses: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples positions (T, 3) and axis-angle rotations (T, J, 3), known at `times` (T,), at a constant rate.

    Args:
        times: increasing, in seconds, the first is 0.
        fps: the rate of the result in frames per second.

    Returns:
        (T', 3) float64 and (T', J, 3) float32, of which the last frame is not later than `times[-1]`.

    Raises:
        ValueError: `fps` is no rate, or T' is more than `MAX_FRAMES`.
    """
    # a hair of slack, so that 1.9999999 s at 30 fps is 60 steps and not 59
    frames = check_frames(float(np.floor(times[-1] * check_fps(fps) + 1e-4)) + 1)
    wanted = np.arange(frames) / fps
    right = np.clip(np.searchsorted(times, wanted, side="right"), 1, max(len(times) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    gap = np.where(right > left, times[right] - times[left], 1.0)
    fraction = np.clip((wanted - times[left]) / gap, 0.0, 1.0)[:, None]
    transl = np.asarray(transl, dtype=np.float64)
    mixed = np.empty((frames, *poses.shape[1:]), dtype=np.float32)
    for start in range(0, frames, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        before, after = (axis_angle_to_quaternion(_tensor(poses[at[chunk]])) for at in (left, right))
        turned = quaternion_slerp(before, after, torch.from_numpy(fraction[chunk, None]))
        mixed[chunk] = quaternion_to_axis_angle(turned).numpy()
    return (1 - fraction) * transl[left] + fraction * transl[right], mixed


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))
