"""Thirteen actions of recorded people: the DeepMimic clips of the `pybullet` package, varied into many takes.

The recordings (zlib licence, `pybullet_data/data/motions/humanoid3d_*.txt`) have no fingers; the hands are given a
shape here. A take differs in pace, side, the stretch that is cut out, facing and place.
"""

import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial.transform import Rotation

from ...processing.motion.body import SMPLX_JOINT_NAMES, joint_positions
from ...processing.motion.motion_io import read_motion, resample_motion
from ...processing.motion.smplx_motion import SmplxMotion
from .animation import FPS, place, smooth_noise
from .posing import hand_rotations

MIN_SECONDS, MAX_SECONDS = 1.6, 3.2
_SOLE_BELOW_TOES = 0.025  # metres; a joint of the feet is at least so high when the sole touches the floor


@dataclass(frozen=True)
class Source:
    """One recording: its file, the part (fractions of its length) that shows the action, and whether it is a cycle."""

    name: str
    core: tuple[float, float] = (0.1, 0.9)
    cycle: bool = False
    hands: str = "relaxed"


SOURCES: dict[str, tuple[Source, ...]] = {
    "walk": (Source("walk", cycle=True),),
    "run": (Source("run", cycle=True, hands="cupped"),),
    "jump": (Source("jump"),),
    "kick": (Source("kick", (0.05, 0.9), hands="fist"),),
    "punch": (Source("punch", (0.2, 0.9), hands="fist"),),
    "dance": (Source("dance_a", (0.3, 0.7)), Source("dance_b", (0.35, 0.65))),
    "spin": (Source("spin", (0.2, 0.62)),),
    "spinkick": (Source("spinkick", (0.05, 0.95)),),
    "cartwheel": (Source("cartwheel", (0.2, 0.8)),),
    "crawl": (Source("crawl", (0.35, 0.65)),),
    "roll": (Source("roll", (0.1, 0.9)),),
    "backflip": (Source("backflip", (0.1, 0.9)),),
    "get_up": (Source("getup_facedown", (0.3, 0.95)), Source("getup_faceup", (0.35, 0.95))),
}

_MIRRORED = [
    SMPLX_JOINT_NAMES.index(
        name.replace("left_", "right_") if name.startswith("left_") else name.replace("right_", "left_")
    )
    for name in SMPLX_JOINT_NAMES
]


def recordings_folder() -> Path:
    """The folder of the installed `pybullet` package that holds the recordings. Raises ModuleNotFoundError:
    `pybullet` is not installed."""
    spec = importlib.util.find_spec("pybullet_data")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The demo's mocap is part of the `pybullet` package, which is not installed: pip install 'solami_hf[demo]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "motions"


def mirror(motion: SmplxMotion) -> SmplxMotion:
    """The motion as a mirror shows it: left and right exchanged, x negated."""
    poses = motion.poses[:, _MIRRORED] * np.array([1, -1, -1], dtype=np.float32)
    negated = np.array([-1, 1, 1], dtype=np.float32)
    return replace(motion, transl=motion.transl * negated, poses=poses, pelvis_offset=motion.pelvis_offset * negated)


@cache
def _recording(name: str, cycle: bool) -> SmplxMotion:
    """A recording at 30 fps, its feet brought to the floor; a cycle is repeated until it can be cut from."""
    path = recordings_folder() / f"humanoid3d_{name}.txt"
    if cycle:
        motion = _repeated(replace(read_motion(path, fps=None), fps=FPS))  # both cycles are recorded at 30.001 fps
    else:
        motion = read_motion(path, fps=FPS)
    return _grounded(motion)


def _repeated(motion: SmplxMotion) -> SmplxMotion:
    """A cycle of steps several times over. Both recorded cycles are one step and its mirror image, with a frame
    missing where the two meet (the limbs move twice as far there, the pelvis does not): it is put back half way, at
    both ends of each step."""
    frames = motion.num_frames - 1  # the last frame begins the next cycle
    half = frames // 2
    travel = 2 * (motion.transl[half] - motion.transl[0]) * [0, 0, 1]
    times = int(np.ceil(2 * MAX_SECONDS * FPS / frames)) + 1
    transl = np.concatenate([motion.transl[:frames] + i * travel for i in range(times)])
    transl[:, 2] += np.arange(len(transl)) // half * (motion.transl[half, 2] - motion.transl[half - 1, 2])
    poses = np.tile(motion.poses[:frames], (times, 1, 1))
    ends = np.arange(half, len(poses), half)
    before, after = (Rotation.from_rotvec(poses[at].reshape(-1, 3)) for at in (ends - 1, ends))
    change = (before.inv() * after).as_rotvec()
    between = (before * Rotation.from_rotvec(change / 2)).as_rotvec().reshape(len(ends), -1, 3)
    poses = np.insert(poses, ends, between, axis=0)
    transl = np.insert(transl, ends, (transl[ends - 1] + transl[ends]) / 2, axis=0)
    return replace(motion, transl=transl, poses=poses)


def _grounded(motion: SmplxMotion) -> SmplxMotion:
    """Lifts the frames whose lowest joint lies under the floor: the recorded person has other proportions."""
    lowest = joint_positions(motion)[..., 1].min(axis=1)
    lift = maximum_filter1d(np.maximum(_SOLE_BELOW_TOES - lowest, 0.0), size=9, mode="nearest")
    transl = motion.transl.copy()
    transl[:, 1] += gaussian_filter1d(lift, sigma=2.0, mode="nearest")
    return replace(motion, transl=transl)


def _cut(frames: int, source: Source, rng: np.random.Generator) -> tuple[int, int]:
    """First and last frame (exclusive) of a stretch that holds the action, 1.6-3.2 s where the recording allows."""
    shortest, longest = round(MIN_SECONDS * FPS), min(round(MAX_SECONDS * FPS), frames)
    if source.cycle:
        length = int(rng.integers(shortest, longest + 1))
        start = int(rng.integers(0, frames - length + 1))
        return start, start + length
    first, last = (round(part * (frames - 1)) for part in source.core)
    least = max(shortest, last - first + 1)
    if least >= longest:
        start = max(0, min(last + 1, frames) - longest)
        return start, start + longest
    length = int(rng.integers(least, longest + 1))
    start = int(rng.integers(max(0, last + 1 - length), min(first, frames - length) + 1))
    return start, start + length


def make_mocap(action: str, rng: np.random.Generator) -> tuple[SmplxMotion, dict[str, str | float]]:
    """One take of a recorded action (a key of `SOURCES`) at 30 fps, somewhere within 2 m of the origin and facing
    anywhere. `rng` is the source of pace (0.85-1.2), mirroring, cut, hands, facing and place. Returns the motion
    and {"action", "speed", "recording", "mirrored"}. Raises ValueError: an unknown action; ModuleNotFoundError:
    `pybullet` is not installed."""
    if action not in SOURCES:
        raise ValueError(f"`action` is {action!r}, expected one of {', '.join(SOURCES)}.")
    source = SOURCES[action][int(rng.integers(len(SOURCES[action])))]
    speed = float(rng.uniform(0.85, 1.2))
    motion = resample_motion(replace(_recording(source.name, source.cycle), fps=FPS * speed), FPS)
    start, end = _cut(motion.num_frames, source, rng)
    poses = motion.poses[start:end].copy()
    strength = rng.uniform(0.8, 1.15) * (1 + 0.06 * smooth_noise(rng, np.arange(end - start) / FPS, 1))[:, :, None]
    for side, first in (("left", 25), ("right", 40)):
        poses[:, first : first + 15] = hand_rotations(source.hands, side) * strength
    motion = replace(motion, transl=motion.transl[start:end], poses=poses)
    mirrored = bool(rng.random() < 0.5)
    motion = mirror(motion) if mirrored else motion
    motion = place(motion, rng.uniform(-np.pi, np.pi), *rng.uniform(-2, 2, 2))
    return motion, {"action": action, "speed": speed, "recording": source.name, "mirrored": mirrored}
