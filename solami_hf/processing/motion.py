"""One SMPL-X motion without face: the unit that files, features and bodies exchange."""

from dataclasses import dataclass

import numpy as np

NUM_JOINTS = 55
NUM_PARAMS = 159
MAX_FRAMES = 1_000_000  # nine hours at 30 fps: more than this is a broken file, not a motion

# joints of SMPL-X in the order of the 159 parameters: root, 21 body, 15 left hand, 15 right hand; jaw and eyes are out
PARAM_JOINTS = (*range(22), *range(25, 55))


@dataclass
class SmplxMotion:
    """A motion of one person.

    Attributes:
        transl: (T, 3) float32, position of the pelvis in metres, y up.
        poses: (T, 55, 3) float32, axis-angle of every joint relative to its parent in radians, SMPL-X order.
        betas: shape coefficients (N,) float32, or `None` for the mean body.
        gender: "neutral", "female" or "male".
        fps: frames per second.

    Raises:
        ValueError: a shape is wrong, there are no frames, a value is NaN or infinite, or `fps` is not positive.
    """

    transl: np.ndarray
    poses: np.ndarray
    betas: np.ndarray | None = None
    gender: str = "neutral"
    fps: float = 30.0

    def __post_init__(self) -> None:
        self.transl = _as_float32(self.transl, "transl")
        self.poses = _as_float32(self.poses, "poses")
        if self.transl.ndim != 2 or self.transl.shape[1] != 3:
            raise ValueError(f"`transl` has shape {self.transl.shape}, expected (T, 3).")
        frames = self.transl.shape[0]
        if frames < 1:
            raise ValueError("The motion has 0 frames, expected at least 1.")
        if frames > MAX_FRAMES:
            raise ValueError(f"The motion has {frames} frames, expected at most {MAX_FRAMES}; cut it into clips.")
        if self.poses.shape != (frames, NUM_JOINTS, 3):
            raise ValueError(
                f"`poses` has shape {self.poses.shape}, expected ({frames}, {NUM_JOINTS}, 3): axis-angle of the "
                f"{NUM_JOINTS} SMPL-X joints for each frame of `transl`."
            )
        _check_finite(self.transl, "transl")
        _check_finite(self.poses, "poses")
        if self.betas is not None:
            self.betas = _as_float32(self.betas, "betas").reshape(-1)
            _check_finite(self.betas, "betas")
        if self.gender not in ("neutral", "female", "male"):
            raise ValueError(f'`gender` is {self.gender!r}, expected "neutral", "female" or "male".')
        self.fps = float(self.fps)
        if not (np.isfinite(self.fps) and 0 < self.fps <= 1000):
            raise ValueError(f"`fps` is {self.fps}, expected a rate above 0 and at most 1000.")

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.transl.shape[0]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.num_frames / self.fps

    def to_params(self) -> np.ndarray:
        """The 159 parameters a frame, (T, 159) float32: transl, root, 21 body, 15 left hand, 15 right hand."""
        rotations = self.poses[:, PARAM_JOINTS].reshape(self.num_frames, -1)
        return np.concatenate([self.transl, rotations], axis=1)

    @classmethod
    def from_params(cls, params, fps: float = 30.0, betas=None, gender: str = "neutral") -> "SmplxMotion":
        """The motion of parameters (T, 159), array or CPU tensor; jaw and eyes stay at rest.

        Raises:
            ValueError: `params` is not (T, 159) or holds NaN.
        """
        params = _as_float32(params, "params")
        if params.ndim != 2 or params.shape[1] != NUM_PARAMS:
            raise ValueError(f"`params` has shape {params.shape}, expected (T, {NUM_PARAMS}).")
        poses = np.zeros((params.shape[0], NUM_JOINTS, 3), dtype=np.float32)
        poses[:, PARAM_JOINTS] = params[:, 3:].reshape(params.shape[0], len(PARAM_JOINTS), 3)
        return cls(transl=params[:, :3], poses=poses, betas=betas, gender=gender, fps=fps)


def _as_float32(values, name: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` is not an array of numbers: {error}.") from error


def _check_finite(values: np.ndarray, name: str) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        where = tuple(map(int, np.unravel_index(int(bad.argmax()), values.shape)))
        raise ValueError(f"`{name}` holds {int(bad.sum())} NaN or infinite values, the first at index {where}.")
