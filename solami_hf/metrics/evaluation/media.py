"""Motions and sounds of answers and references, ready to be measured."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...processing.motion.smplx_motion import SmplxMotion
from ..asr import SAMPLING_RATE
from .answer_pairs import NOISE, Medium

NOISE_WORDS = 0.1
"""Share of words that are replaced in a jittered text."""


@lru_cache(maxsize=1)
def _processor(codec: str):
    from ...processing.processing_solami import SolamiProcessor

    return SolamiProcessor.from_pretrained(codec)


@lru_cache(maxsize=64)
def motion_of(medium: Medium) -> SmplxMotion:
    """A motion at 30 fps, turned as the codec sees motions: from the origin, facing +Z in its first frame."""
    import torch

    from ...processing.motion.features import canonicalize
    from ...processing.motion.motion_io import read_motion

    if medium.path is not None:
        motion = medium.path
    else:
        body, hand = medium.codes
        motion = _processor(medium.codec).decode_motion({"body": np.array(body), "hand": np.array(hand)})
    motion = read_motion(motion)
    params = canonicalize(torch.from_numpy(motion.to_params())).numpy()
    if medium.noise is not None:
        size = np.full(params.shape[1], NOISE["radians"])
        size[:3] = NOISE["metres"]
        params = params + _slow_noise(params.shape, medium.noise) * size
    return SmplxMotion.from_params(params, fps=motion.fps)


@lru_cache(maxsize=64)
def joints_of(medium: Medium) -> np.ndarray:
    """Joint positions (T, 55, 3) in metres of the free body."""
    from ...processing.motion.body import joint_positions

    return joint_positions(motion_of(medium))


def _slow_noise(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Noise (frames, values) of deviation 1 that goes smoothly from one value to the next."""
    from scipy.interpolate import CubicSpline

    frames, values = shape
    knots = np.arange(0, frames + 2 * NOISE["frames"], NOISE["frames"])
    drawn = np.random.default_rng([seed, frames]).normal(size=(len(knots), values))
    return CubicSpline(knots, drawn)(np.arange(frames))


def sound_of(medium: Medium) -> np.ndarray:
    """Mono samples at 16 kHz."""
    from ...processing.audio.waveforms import read_audio

    if medium.path is not None:
        samples = read_audio(medium.path, SAMPLING_RATE)
    else:
        processor = _processor(medium.codec)
        samples = processor.decode_speech(np.array(medium.codes))
        samples = read_audio(samples, SAMPLING_RATE, source_rate=processor.speech_codec.config.sampling_rate)
    if medium.noise is not None:
        loudness = float(np.sqrt(np.square(samples).mean())) * 10 ** (NOISE["decibels"] / 20)
        samples = samples + np.random.default_rng([medium.noise, len(samples)]).normal(size=len(samples)) * loudness
    return np.clip(samples, -1, 1).astype(np.float32)


def jittered_words(text: str, others: list[str], rng: np.random.Generator) -> str:
    """A text with one word in ten, one at least, replaced by a word of `others`."""
    words = text.split()
    for i in rng.choice(len(words), max(1, round(NOISE_WORDS * len(words))), replace=False) if words else ():
        words[i] = others[rng.integers(len(others))]
    return " ".join(words)
