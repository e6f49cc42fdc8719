"""From key poses to a living motion: eased rotations, planted feet, breath, sway and small noise."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from ...processing.motion.body import rest_joints, standing_height
from ...processing.motion.smplx_motion import SmplxMotion
from .posing import LEG_JOINTS, Pose, leg_rotations, local_rotations

FPS = 30.0
Keys = list[tuple[float, Pose]]
_LIVELY = (3, 6, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)  # joints that never hold quite still


def smooth_noise(rng: np.random.Generator, seconds: np.ndarray, channels: int) -> np.ndarray:
    """(T, channels) of about unit size, made of three slow waves (0.15-1.1 Hz) of random phase each."""
    rates = rng.uniform(0.15, 1.1, (3, channels))
    phases = rng.uniform(0, 2 * np.pi, (3, channels))
    waves = np.sin(2 * np.pi * rates[:, None] * seconds[None, :, None] + phases[:, None])
    return waves.sum(axis=0) / np.sqrt(1.5)


def _between(keys: Keys, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of the key before each frame, that after it, and the way between (T,), eased with the least jerk (Flash
    and Hogan, 1985)."""
    times = np.array([time for time, _ in keys])
    now = np.arange(frames) / FPS
    before = np.clip(np.searchsorted(times, now, side="right") - 1, 0, len(keys) - 2)
    x = np.clip((now - times[before]) / (times[before + 1] - times[before]), 0, 1)
    return before, before + 1, x**3 * (10 - 15 * x + 6 * x**2)


def _interpolate(keys: Keys, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local rotations (T, 55, 3), hip offsets (T, 3) and pelvis tilt (T,) of the key poses."""
    rotations = [local_rotations(pose) for _, pose in keys]
    hips = np.array([pose.hips for _, pose in keys])
    tilt = np.radians([pose.tilt for _, pose in keys])
    before, after, way = _between(keys, frames)
    vectors = np.empty((frames, 55, 3))
    for i in range(len(keys) - 1):
        chosen = np.flatnonzero(before == i)
        if not len(chosen):
            continue
        change = (rotations[i].inv() * rotations[i + 1]).as_rotvec()
        step = Rotation.from_rotvec((way[chosen, None, None] * change).reshape(-1, 3))
        start = Rotation.from_quat(np.tile(rotations[i].as_quat(), (len(chosen), 1)))
        vectors[chosen] = (start * step).as_rotvec().reshape(-1, 55, 3)
    mix = way[:, None]
    return vectors, hips[before] * (1 - mix) + hips[after] * mix, tilt[before] * (1 - way) + tilt[after] * way


def animate(keys: Keys, rng: np.random.Generator, liveliness: float = 1.0) -> SmplxMotion:
    """Plays key poses (seconds, pose) at 30 fps; the person faces +z with the feet at x = z = 0. Breath, sway of the
    hips over planted feet and noise of a degree or so are laid over; `liveliness` scales them. Raises ValueError:
    fewer than two keys, or their times do not increase."""
    times = [time for time, _ in keys]
    if len(keys) < 2 or any(b <= a for a, b in zip(times, times[1:], strict=False)):
        raise ValueError(f"`keys` has times {times}, expected at least two, increasing.")
    frames = int(round(times[-1] * FPS)) + 1
    seconds = np.arange(frames) / FPS
    poses, hips, tilt = _interpolate(keys, frames)
    noise = np.radians(0.9 * liveliness) * smooth_noise(rng, seconds, 3 * len(_LIVELY)).reshape(frames, -1, 3)
    breath = np.sin(2 * np.pi * (rng.uniform(0.22, 0.34) * seconds + rng.uniform()))
    noise[:, 2, 0] -= np.radians(1.2 * liveliness) * breath  # spine3: the chest opens
    for i, sign in ((4, 1), (5, -1)):
        noise[:, i, 2] += sign * np.radians(0.8 * liveliness) * breath  # collars rise
    lively = Rotation.from_rotvec(poses[:, _LIVELY].reshape(-1, 3)) * Rotation.from_rotvec(noise.reshape(-1, 3))
    poses[:, _LIVELY] = lively.as_rotvec().reshape(frames, -1, 3)
    poses[:, 25:] *= 1 + 0.03 * liveliness * smooth_noise(rng, seconds, 1)[:, :, None]

    sway = smooth_noise(rng, seconds, 3) * [0.006, 0.0015, 0.005] * liveliness
    pelvis = hips + sway + [0.0, standing_height() - 0.018, 0.0]
    wobble = np.radians(0.6 * liveliness) * smooth_noise(rng, seconds, 3)
    root = Rotation.from_rotvec(wobble + tilt[:, None] * np.array([1.0, 0.0, 0.0]))
    rest = rest_joints()
    apart = rng.uniform(-0.02, 0.05)
    feet, toes_out = {}, {}
    for side, (_, _, ankle) in LEG_JOINTS.items():
        sign = 1 if side == "left" else -1
        feet[side] = rest[ankle] + [sign * apart / 2, standing_height(), rng.uniform(-0.03, 0.03)]
        toes_out[side] = sign * np.radians(rng.uniform(4, 14))
    for joint, rotation in leg_rotations(pelvis, root, feet, toes_out).items():
        poses[:, joint] = rotation.as_rotvec()
    poses[:, 0] = root.as_rotvec()
    return SmplxMotion(transl=pelvis, poses=poses, fps=FPS)


def place(motion: SmplxMotion, yaw: float, x: float, z: float) -> SmplxMotion:
    """The same motion turned by `yaw` radians about y and moved so that its first frame stands at (x, z) metres."""
    turn = Rotation.from_rotvec([0.0, yaw, 0.0])
    start = motion.pelvis[0] * [1, 0, 1]
    poses = motion.poses.copy()
    poses[:, 0] = (turn * Rotation.from_rotvec(motion.poses[:, 0])).as_rotvec()
    transl = turn.apply(motion.pelvis - start) + [x, 0.0, z] - motion.pelvis_offset
    return replace(motion, transl=transl, poses=poses)
