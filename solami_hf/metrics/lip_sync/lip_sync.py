"""Whether a mouth moves when it should: onsets, curves, and the loudness of the speech."""

import datasets
import numpy as np
from scipy.optimize import linear_sum_assignment
from solami_hf.metrics.metric_base import DirectMetric, check_list
from solami_hf.metrics.motion_math import FPS, check_fps, counts

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

CITATION = """\
@article{cohen1993modeling,
  title = {Modeling Coarticulation in Synthetic Visual Speech},
  author = {Cohen, Michael M. and Massaro, Dominic W.},
  journal = {Models and Techniques in Computer Animation},
  year = {1993}
}
"""

INPUTS = """\
predictions: list of faces, each (T, 52): ARKit's curves, 0 to 1, in Apple's order; None where there is none.
references: list of the same number of faces; lengths may differ within a pair.
fps: frames a second. audio: list of sounds (samples,), for `loudness_correlation`. sampling_rate: theirs, Hz.
"""


class LipSync(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> face = numpy.zeros((60, 52))
    >>> face[10:20, 17] = face[40:50, 17] = 0.6  # the jaw opens twice
    >>> late = numpy.roll(face, 3, axis=0)  # by a tenth of a second
    >>> result = evaluate.load(folder_of("lip_sync")).compute(predictions=[late], references=[face])
    >>> {name: round(result[name], 3) for name in ("lip_sync", "missed", "curve_error", "num_onsets")}
    {'lip_sync': 100.0, 'missed': 0.0, 'curve_error': 0.12, 'num_onsets': 2}
    """

    description = "Error of the mouth's onsets, ms, with curves and loudness. Lower is better."
    citation = CITATION
    inputs = INPUTS
    columns = dict.fromkeys(("predictions", "references"), datasets.List(datasets.List(datasets.Value("float32"))))

    def _compute(self, predictions, references, mode="corrected", fps=FPS, audio=None, sampling_rate=16000):
        if mode != "corrected":
            raise ValueError(f"`mode` is {mode!r}, expected 'corrected': the original has no faces")
        fps = check_fps(fps)
        if audio is not None:
            check_list(audio, "audio")
            if len(audio) != len(predictions):
                raise ValueError(f"got {len(audio)} `audio` and {len(predictions)} `predictions`, expected as many")
            if not sampling_rate > 0:
                raise ValueError(f"`sampling_rate` is {sampling_rate!r}, expected more than 0 Hz")
        errors, extra, gaps, opened, wanted, loud = [], 0, [], [], [], []
        for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
            reference = checked(reference, f"references[{i}]")
            if prediction is None:
                continue
            prediction = checked(prediction, f"predictions[{i}]")
            count = min(len(prediction), len(reference))
            mouths = [curves(face[:count]) for face in (prediction, reference)]
            moving = np.maximum(*mouths).max(axis=0) >= LEAST
            gaps.append(np.abs(mouths[0] - mouths[1])[:, moving].mean(axis=1))
            found, more = onset_errors(*mouths, fps)
            errors, extra = errors + found, extra + more
            opened.append(opening(prediction[:count]))
            wanted.append(opening(reference[:count]))
            if audio is not None:
                loud.append(loudness(audio[i], sampling_rate, fps, count, f"audio[{i}]"))
        if not errors:
            raise ValueError("no mouth of `references` with a prediction moves, expected at least one that speaks")
        errors, gaps, opened, wanted = np.array(errors), *(np.concatenate(x) for x in (gaps, opened, wanted))
        heard = {} if audio is None else {"loudness_correlation": correlation(opened, np.concatenate(loud))}
        return {
            "lip_sync": float(np.median(errors)),
            "mean_onset_error": float(errors.mean()),
            "missed": float((errors >= MISSED).mean()),
            "extra": extra / len(errors),
            "curve_error": float(np.nanmean(gaps)),
            "opening_correlation": correlation(opened, wanted),
            **heard,
            "num_onsets": len(errors),
            "num_frames": len(opened),
            **counts(predictions, mode),
        }


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
    that all together are as near as can be.
    """
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
