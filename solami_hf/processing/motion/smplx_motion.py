"""One SMPL-X motion without face: the unit that files, features and bodies exchange; and its resampling."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from ...modeling.motion_vq.kinematics import axis_angle_to_quaternion, quaternion_slerp, quaternion_to_axis_angle

NUM_JOINTS = 55
NUM_PARAMS = 159
MAX_FRAMES = 1_000_000  # nine hours at 30 fps: more than this is a broken file, not a motion
MAX_FPS = 1000
_CHUNK = 8192  # frames at a time: rotations of long motions need much room in between
_FARTHEST, _LARGEST_TURN = 1e6, 1e4  # metres, radians: more is a broken file, and squares would overflow float32

# joints of SMPL-X in the order of the 159 parameters: root, 21 body, 15 left hand, 15 right hand; jaw and eyes are out
PARAM_JOINTS = (*range(22), *range(25, 55))


@dataclass
class SmplxMotion:
    """A motion of one person.

    Attributes:
        transl: (T, 3) float32, the translation that a file tells, in metres, y up.
        poses: (T, 55, 3) float32, axis-angle of every joint relative to its parent in radians, SMPL-X order.
        betas: shape coefficients (N,) float32, or `None` for the mean body.
        gender: "neutral", "female" or "male".
        fps: frames per second.
        pelvis_offset: (3,) float32, metres in the axes of `transl`: the pelvis is at `transl + pelvis_offset`. Zero
            where a file tells the pelvis itself. Body models of the SMPL family add the rest position of their pelvis
            to the translation, and do not turn it with the person.

    Raises ValueError: a shape is wrong, there are no frames or too many, a value is NaN, infinite or absurdly large,
    or `fps` is not positive.
    """

    transl: np.ndarray
    poses: np.ndarray
    betas: np.ndarray | None = None
    gender: str = "neutral"
    fps: float = 30.0
    pelvis_offset: np.ndarray | tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        self.transl = _as_float32(self.transl, "transl")
        self.poses = _as_float32(self.poses, "poses")
        if self.transl.ndim != 2 or self.transl.shape[1] != 3:
            raise ValueError(f"`transl` has shape {self.transl.shape}, expected (T, 3).")
        frames = check_frames(self.transl.shape[0])
        if self.poses.shape != (frames, NUM_JOINTS, 3):
            raise ValueError(
                f"`poses` has shape {self.poses.shape}, expected ({frames}, {NUM_JOINTS}, 3): axis-angle of the "
                f"{NUM_JOINTS} SMPL-X joints for each frame of `transl`."
            )
        _check_finite(self.transl, "transl", _FARTHEST)
        _check_finite(self.poses, "poses", _LARGEST_TURN)
        self.pelvis_offset = _as_float32(self.pelvis_offset, "pelvis_offset")
        if self.pelvis_offset.shape != (3,):
            raise ValueError(f"`pelvis_offset` has shape {self.pelvis_offset.shape}, expected (3,).")
        _check_finite(self.pelvis_offset, "pelvis_offset", _FARTHEST)
        if self.betas is not None:
            self.betas = _as_float32(self.betas, "betas").reshape(-1)
            _check_finite(self.betas, "betas")
        if self.gender not in ("neutral", "female", "male"):
            raise ValueError(f'`gender` is {self.gender!r}, expected "neutral", "female" or "male".')
        self.fps = check_fps(self.fps)

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.transl.shape[0]

    @property
    def pelvis(self) -> np.ndarray:
        """Position of the pelvis (T, 3) in metres."""
        return self.transl + self.pelvis_offset

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.num_frames / self.fps

    def to_params(self) -> np.ndarray:
        """The 159 parameters a frame, (T, 159) float32: pelvis, root, 21 body, 15 left hand, 15 right hand."""
        return np.concatenate([self.pelvis, self.poses[:, PARAM_JOINTS].reshape(self.num_frames, -1)], axis=1)

    @classmethod
    def from_params(cls, params, fps: float = 30.0, betas=None, gender: str = "neutral") -> "SmplxMotion":
        """The motion of parameters (T, 159), array or CPU tensor; jaw and eyes stay at rest, `transl` is the pelvis.
        ValueError where `params` is not (T, 159) or holds NaN."""
        params = _as_float32(params, "params")
        if params.ndim != 2 or params.shape[1] != NUM_PARAMS:
            raise ValueError(f"`params` has shape {params.shape}, expected (T, {NUM_PARAMS}).")
        poses = np.zeros((params.shape[0], NUM_JOINTS, 3), dtype=np.float32)
        poses[:, PARAM_JOINTS] = params[:, 3:].reshape(params.shape[0], len(PARAM_JOINTS), 3)
        return cls(transl=params[:, :3], poses=poses, betas=betas, gender=gender, fps=fps)


def check_fps(fps: float) -> float:
    """`fps` as a float; ValueError unless it is a rate above 0 and up to 1000 frames a second."""
    try:
        fps = float(fps)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`fps` is {fps!r}, expected a number.") from error
    if not 0 < fps <= MAX_FPS:  # false for NaN
        raise ValueError(f"`fps` is {fps}, expected a rate above 0 and at most {MAX_FPS}.")
    return fps


def check_frames(frames: float) -> int:
    """`frames` as an int; ValueError where there are none, or more than `MAX_FRAMES`."""
    if frames < 1:
        raise ValueError("The motion has 0 frames, expected at least 1.")
    if not frames <= MAX_FRAMES:
        raise ValueError(f"The motion has {frames:.10g} frames, expected at most {MAX_FRAMES}; cut it into clips.")
    return int(frames)


def _as_float32(values, name: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told as such
            return np.array(values, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`{name}` is not an array of numbers: {error}.") from error


def _check_finite(values: np.ndarray, name: str, largest: float = np.inf) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        where = tuple(map(int, np.unravel_index(int(bad.argmax()), values.shape)))
        raise ValueError(f"`{name}` holds {int(bad.sum())} NaN or infinite values, the first at index {where}.")
    if values.size and max(values.max(), -values.min()) > largest:
        raise ValueError(f"`{name}` holds {np.abs(values).max():g}, expected no more than {largest:g} either way.")


def resample_motion(motion: SmplxMotion, fps: float) -> SmplxMotion:
    """The same motion at another frame rate, never longer: positions linearly, rotations by slerp. ValueError where
    `fps` is no rate, or the result would have more than `MAX_FRAMES` frames."""
    if motion.fps == fps:
        return motion
    transl, poses = interpolate(np.arange(motion.num_frames) / motion.fps, motion.transl, motion.poses, fps)
    return replace(motion, transl=transl, poses=poses, fps=fps)


def interpolate(times: np.ndarray, transl: np.ndarray, poses: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples positions (T, 3) and axis-angle rotations (T, J, 3), known at increasing `times` (T,) in seconds from 0
    on, at the constant rate `fps`. Returns (T', 3) float64 and (T', J, 3) float32, of which the last frame is not
    later than `times[-1]`. Raises ValueError: `fps` is no rate, or T' is more than `MAX_FRAMES`."""
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
