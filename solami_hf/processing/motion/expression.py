"""Eyes, lids and brows of a face, and a head that turns: seeded, so that a face can be made again.

Blinks come about every 4 s and take 0.25 s, the eyes jump by a few degrees every 0.3 to 2 s, and brows rise now and
then while one speaks. Where the user's head is known, eyes and head turn to it.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from .body import joint_positions, standing_joints
from .face import FACE_FPS, FACE_UNITS, UNIT_INDEX
from .smplx_motion import SmplxMotion

_CYCLE = 4096  # frames after which blinks and glances come again
_BLINK = np.array([0.4, 0.95, 1.0, 0.75, 0.45, 0.2, 0.08], np.float32)
_YAW, _PITCH = 35.0, 25.0  # degrees at which a unit of the eyes is 1
_HEAD_SHARE, _HEAD_YAW, _HEAD_PITCH, _HEAD_SECONDS = 0.7, 45.0, 20.0, 0.35
_CHEST, _NECK, _HEAD = (0, 3, 6, 9), 12, 15


class Expression:
    """The face without its mouth; blinks, glances and brows come from `seed`. `target` (3,) in metres is where to look
    at, in a frame in which the character begins at the origin facing +Z; None looks straight ahead."""

    def __init__(self, seed: int = 0, target: np.ndarray | None = None):
        rng = np.random.default_rng(seed)
        self.target = target
        self._blinks, self._brows = np.zeros((2, _CYCLE), np.float32)
        for start in _times(rng, 4.0, 1.5):
            self._blinks[start : start + len(_BLINK)] = _BLINK[: _CYCLE - start]
        for start in _times(rng, 3.0, 1.0):
            count = min(int(rng.integers(12, 27)), _CYCLE - start)
            self._brows[start : start + count] = rng.uniform(0.15, 0.45) * np.sin(np.linspace(0, np.pi, count)) ** 2
        self._glances = np.zeros((_CYCLE, 2))  # degrees to the left and up
        for start in _times(rng, 0.9, 0.3):
            self._glances[start:] = rng.normal(0, [2.5, 1.2])
        self._angles, self._fps = np.zeros((0, 2)), FACE_FPS  # those of the motion
        self._turned = np.zeros(2)

    def move(self, motion: SmplxMotion, turn_head: bool = True) -> SmplxMotion:
        """Takes the next frames of the body, and gives them with the head turned to the target."""
        if self.target is None:
            return motion
        if turn_head:
            motion = self._turn(motion)
        self._angles, self._fps = np.concatenate([self._angles, _angles(motion, self.target)]), motion.fps
        return motion

    def curves(self, first: int, count: int, speaking: np.ndarray) -> np.ndarray:
        """Eyes, lids and brows (count, 52) from frame `first` on; brows rise where one speaks, (count,) 0 to 1."""
        face, frames = np.zeros((count, len(FACE_UNITS)), np.float32), np.arange(first, first + count)
        angles = self._glances[frames % _CYCLE].copy()
        if len(self._angles):
            moved = np.floor(frames * (self._fps / FACE_FPS) + 1e-6).astype(int)
            angles += self._angles[np.minimum(moved, len(self._angles) - 1)]
        left, up = angles[:, 0] / _YAW, angles[:, 1] / _PITCH
        for name, value in (("OutLeft", left), ("InRight", left), ("InLeft", -left), ("OutRight", -left),
                            ("UpLeft", up), ("UpRight", up), ("DownLeft", -up), ("DownRight", -up)):  # fmt: skip
            face[:, UNIT_INDEX[f"eyeLook{name}"]] = value
        lids = np.maximum(self._blinks[frames % _CYCLE], 0.3 * np.clip(-up, 0, 1))  # they follow a look down
        brows = self._brows[frames % _CYCLE] * speaking
        for name, value in (("eyeBlinkLeft", lids), ("eyeBlinkRight", lids), ("browInnerUp", brows),
                            ("browOuterUpLeft", 0.7 * brows), ("browOuterUpRight", 0.7 * brows)):  # fmt: skip
            face[:, UNIT_INDEX[name]] = value
        return face.clip(0, 1)

    def _turn(self, motion: SmplxMotion) -> SmplxMotion:
        wanted = _angles(motion, self.target) * _HEAD_SHARE
        wanted = np.clip(wanted, [-_HEAD_YAW, -_HEAD_PITCH], [_HEAD_YAW, _HEAD_PITCH])
        turns = np.empty_like(wanted)
        for frame, angles in enumerate(wanted):
            self._turned = self._turned + (angles - self._turned) / (_HEAD_SECONDS * motion.fps)
            turns[frame] = self._turned
        half, poses = Rotation.from_euler("YX", turns * [0.5, -0.5], degrees=True), motion.poses.copy()
        for joint in (_NECK, _HEAD):
            poses[:, joint] = (half * Rotation.from_rotvec(poses[:, joint])).as_rotvec()
        return SmplxMotion(motion.transl, poses, motion.betas, motion.gender, motion.fps, motion.pelvis_offset)


def user_head(position: np.ndarray) -> np.ndarray:
    """Where the head (3,) of a user is who stands: `position` as `relative_transform` tells it, of the pelvis."""
    return np.asarray(position, dtype=np.float64) + standing_joints()[_HEAD]


def _angles(motion: SmplxMotion, target: np.ndarray) -> np.ndarray:
    """Degrees (frames, 2) to the left and up by which the target lies off where the head looks, as far as eyes go."""
    facing = Rotation.identity(motion.num_frames)
    for joint in (*_CHEST, _NECK, _HEAD):
        facing = facing * Rotation.from_rotvec(motion.poses[:, joint])
    way = facing.apply(target - joint_positions(motion)[:, _HEAD], inverse=True)
    angles = np.degrees([np.arctan2(way[:, 0], way[:, 2]), np.arctan2(way[:, 1], np.hypot(way[:, 0], way[:, 2]))]).T
    return np.clip(angles, -90, 90)


def _times(rng: np.random.Generator, mean: float, least: float) -> list[int]:
    """Frames at which something begins, on the mean every `mean` seconds and at least `least` apart."""
    gaps = least + rng.exponential(mean - least, int(_CYCLE / FACE_FPS / least) + 1)
    frames = np.round(np.cumsum(gaps) * FACE_FPS).astype(int)
    return frames[frames < _CYCLE - len(_BLINK)].tolist()
