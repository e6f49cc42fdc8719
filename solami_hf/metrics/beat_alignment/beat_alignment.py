"""Whether gestures beat with the speech: motion beats near the onsets of the voice, above what chance gives."""

import datasets
import numpy as np
from solami_hf.metrics.asr import SAMPLING_RATE, check_audio, check_rate
from solami_hf.metrics.metric_base import JOINTS, DirectMetric
from solami_hf.metrics.motion_math import FPS, check_corrected, check_counts, check_fps, checked_motions, counts

INPUTS = """\
predictions: list of joint positions, each (T, 55, 3) in metres, y up, SMPL-X joint order; None where there is none.
references: list of the speech that each goes with, mono float samples (T,) at 16 kHz.
fps: frames a second. sigma: seconds within which a beat counts as met.
"""
# Elbows, wrists and fingertips' first joints: what beats, where a whole body would also count its steps.
BEATING = (18, 19, 20, 21, *range(25, 55, 3))
STEP = SAMPLING_RATE // 100
LEAST_APART = 0.1  # seconds between two onsets, or two beats
SHUFFLES = 8


class BeatAlignment(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> time = numpy.arange(91) / 30
    >>> waving = numpy.zeros((91, 55, 3))
    >>> waving[:, 18:22, 1] = numpy.cos(2 * numpy.pi * time)[:, None]  # still every half second
    >>> clicks = numpy.zeros(48000, numpy.float32)
    >>> clicks.reshape(6, 8000)[1:, :400] = 0.5
    >>> metric = evaluate.load(folder_of("beat_alignment"))
    >>> result = metric.compute(predictions=[waving], references=[clicks])
    >>> result["beat_alignment"] > 0.9, result["num_beats"], result["num_onsets"]
    (True, 5, 5)
    """

    description = "How near motion beats are to the onsets of speech, 0 to 1. Higher is better; compare with shuffled."
    citation = "Li, Yang, Ross, Kanazawa: AI Choreographer, ICCV 2021, arXiv 2101.08779"
    inputs = INPUTS
    columns = {"predictions": JOINTS, "references": datasets.List(datasets.Value("float32"))}

    def _compute(self, predictions, references, mode="corrected", fps=FPS, sampling_rate=SAMPLING_RATE, sigma=0.1):
        check_corrected(mode)
        fps = check_fps(fps)
        check_rate(sampling_rate)
        check_counts(predictions, references)
        if not 0 < sigma < float("inf"):
            raise ValueError(f"`sigma` is {sigma!r}, expected seconds above 0")
        speech = [check_audio(clip, f"references[{i}]") for i, clip in enumerate(references)]
        found = [(speech_onsets(clip), len(clip) / SAMPLING_RATE) for clip in speech]
        for i, (onsets, _) in enumerate(found):
            if not len(onsets):
                raise ValueError(f"`references[{i}]` has no onset: it is silent or one sound; leave such pairs out")
        place = [i for i, motion in enumerate(predictions) if motion is not None]
        motions = checked_motions(predictions, "predictions", missing=True)
        beats = [motion_beats(motion, fps) for motion in motions]
        if not sum(map(len, beats)):
            raise ValueError("no prediction has a motion beat: all are still, or move without ever slowing down")

        def score(turn: int) -> float:
            """With the speech of so many items further."""
            others = [repeated(*found[(i + turn) % len(found)], len(predictions[i]) / fps) for i in place]
            near = [nearness(own, other, sigma) for own, other in zip(beats, others, strict=True)]
            return float(np.concatenate(near).mean())

        turns = range(1, min(len(found), SHUFFLES + 1))
        shuffled = float(np.mean([score(turn) for turn in turns])) if turns else None
        return {
            "beat_alignment": score(0),
            "shuffled_audio": shuffled,
            "num_beats": sum(map(len, beats)),
            "num_onsets": sum(len(found[i][0]) for i in place),
            **counts(predictions, mode),
        }


def motion_beats(joints: np.ndarray, fps: float) -> np.ndarray:
    """Seconds at which hands and elbows are slowest between two movements, after AIST++'s kinematic beats. A slowest
    point counts where the speed rises by half of its mean on both sides."""
    speed = np.linalg.norm(np.diff(joints[:, BEATING], axis=0), axis=-1).mean(axis=-1) * fps
    return _peaks(-speed, speed.mean() / 2, round(LEAST_APART * fps)) / fps + 0.5 / fps


def speech_onsets(samples: np.ndarray) -> np.ndarray:
    """Seconds at which the loudness (10 ms steps, dB, at most 40 below the loudest) rises most."""
    steps = np.asarray(samples, np.float64)[: len(samples) // STEP * STEP].reshape(-1, STEP)
    power = (steps**2).mean(axis=1)
    if not len(power) or not power.max():
        return np.zeros(0)
    loudness = np.clip(10 * np.log10(np.maximum(power, 1e-12) / power.max()) + 40, 0, None)
    smooth = np.convolve(np.pad(loudness, 2, mode="edge"), np.full(3, 1 / 3), mode="same")[2:-2]
    rise = np.maximum(np.diff(smooth, prepend=smooth[0], n=1), 0)
    return _peaks(rise, 2.0, round(LEAST_APART * SAMPLING_RATE / STEP)) * STEP / SAMPLING_RATE


def _peaks(values: np.ndarray, prominence: float, apart: int) -> np.ndarray:
    from scipy.signal import find_peaks

    return find_peaks(values, prominence=max(prominence, 1e-9), distance=max(1, apart))[0].astype(float)


def repeated(onsets: np.ndarray, length: float, seconds: float) -> np.ndarray:
    """Onsets of speech that starts again until so many seconds are full, as another clip's may be shorter."""
    times = int(np.ceil(seconds / length))
    found = (onsets + length * np.arange(times)[:, None]).ravel()
    return found[found < max(seconds, onsets[0] + 1e-9)]


def nearness(beats: np.ndarray, onsets: np.ndarray, sigma: float) -> np.ndarray:
    """exp(-d^2 / 2 sigma^2) of each beat's distance d to the nearest onset."""
    gap = np.abs(beats[:, None] - onsets).min(axis=1) if len(beats) else beats
    return np.exp(-(gap**2) / (2 * sigma**2))
