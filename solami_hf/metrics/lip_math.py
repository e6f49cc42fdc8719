"""Maths of moving mouths: curves, onsets and the loudness of speech."""

import numpy as np
from scipy.optimize import linear_sum_assignment

UNITS = 52
# Columns of ARKit's blend shapes in Apple's order; of a left and a right one the mean.
MOUTH = {
    "jawOpen": (17,),
    "mouthClose": (18,),
    "mouthFunnel": (19,),
    "mouthPucker": (20,),
    "mouthSmile": (23, 24),
    "mouthStretch": (29, 30),
    "mouthRollLower": (31,),
    "mouthPress": (35, 36),
    "mouthLowerDown": (37, 38),
    "mouthUpperUp": (39, 40),
}
OPENING = {"jawOpen": 1.0, "mouthClose": -1.0, "mouthFunnel": 0.25, "mouthLowerDown": 0.25, "mouthUpperUp": 0.25}
LEAST = 0.1  # a curve that stays below does not move
MISSED = 300.0  # ms that an onset counts which the other face has not within this time


def checked(face, name: str) -> np.ndarray:
    """A face (T, 52) as float64; ValueError for anything else."""
    try:
        face = np.asarray(face, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` is no array of numbers, expected curves (T, {UNITS})") from None
    if face.ndim != 2 or face.shape[1] != UNITS or len(face) < 2:
        raise ValueError(f"`{name}` has shape {face.shape}, expected curves (T, {UNITS}) of two frames or more")
    if not np.isfinite(face).all() or face.min() < -1e-4 or face.max() > 1 + 1e-4:
        raise ValueError(f"`{name}` holds values outside 0 to 1 or not finite, expected ARKit's coefficients")
    return face


def curves(face: np.ndarray) -> np.ndarray:
    """The mouth (T, curves) of a face."""
    return np.stack([face[:, columns].mean(axis=1) for columns in MOUTH.values()], axis=1)


def opening(face: np.ndarray) -> np.ndarray:
    """How far lips stand apart, (T,)."""
    return np.maximum(0, sum(weight * face[:, MOUTH[name]].mean(axis=1) for name, weight in OPENING.items()))


def onsets(curve: np.ndarray, level: float, fps: float) -> np.ndarray:
    """Times (n,) in ms at which a curve rises through `level`, after it was below half of it or at the beginning."""
    found, armed = [], True
    for frame in range(1, len(curve)):
        armed |= curve[frame - 1] < level / 2
        if armed and curve[frame - 1] < level <= curve[frame]:
            share = (level - curve[frame - 1]) / (curve[frame] - curve[frame - 1])
            found.append(1000 * (frame - 1 + share) / fps)
            armed = False
    return np.array(found)


def onset_errors(prediction: np.ndarray, reference: np.ndarray, fps: float) -> tuple[list[float], int]:
    """ms by which each onset of the reference's curves is missed, and the number of onsets of the prediction alone.
    Onsets are at half of the highest value of the reference; each is paired with one of the prediction at most, so
    that all together are as near as can be."""
    errors, extra = [], 0
    for column in range(reference.shape[1]):
        level = reference[:, column].max() / 2
        if level < LEAST / 2:
            continue
        made, wanted = (onsets(face[:, column], level, fps) for face in (prediction, reference))
        costs = np.minimum(np.abs(wanted[:, None] - made[None]), MISSED)
        costs = np.pad(costs, ((0, 0), (0, len(wanted))), constant_values=MISSED)
        rows, columns = linear_sum_assignment(costs)
        errors += costs[rows, columns].tolist()
        extra += len(made) - int((costs[rows, columns] < MISSED).sum())
    return errors, extra


def loudness(sound, sampling_rate: float, fps: float, count: int, name: str) -> np.ndarray:
    """Root mean square of a sound in each of `count` frames, compressed by a power of 0.3 as ears do."""
    sound = np.asarray(sound, dtype=np.float64)
    if sound.ndim != 1 or not len(sound) or not np.isfinite(sound).all():
        raise ValueError(f"`{name}` has shape {sound.shape}, expected samples (n,), all finite")
    edges = np.round(np.arange(count + 1) * sampling_rate / fps).astype(int)
    energy = np.concatenate([[0], np.cumsum(sound**2)])[np.minimum(edges, len(sound))]
    return np.sqrt(np.maximum(np.diff(energy), 0) / np.diff(edges)) ** 0.3


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; 0 where one of them does not change."""
    if first.std() < 1e-9 or second.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
