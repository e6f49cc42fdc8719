"""Motions and sounds of answers and references, ready to be measured, and the sanity rows beside the answers: halves
of the references against each other, jittered ones, ones that went through the codec, shuffled ones."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...processing.motion.smplx_motion import SmplxMotion
from ..asr import SAMPLING_RATE
from .answer_pairs import NOISE, Medium, Pair

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
    if medium.round_trip:
        codec = _processor(medium.codec)
        motion = codec.decode_motion(codec.encode_motion([motion])[0])
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


VIEWS = {
    "answers": "the model's answers",
    "halves": "references against other references: one half of them as answers, the other as references",
    "jittered": "references with a little noise: nearly perfect answers",
    "round_trip": "references through the model's motion codec and back: the best that its codes can say",
    "shuffled": "the model's answers, each under another's name: they fit nothing",
}


def views_of(answers: list[Pair], repetition: int, seed: int) -> dict[str, list[Pair]]:
    """Pairs by view for the answers of one repetition."""
    rng = np.random.default_rng([seed, repetition])
    return {
        "answers": answers,
        "halves": _halves(answers, rng),
        "jittered": _jittered(answers, int(rng.integers(2**31)), rng),
        **({"round_trip": through} if (through := _round_trip(answers)) else {}),
        "shuffled": _shuffled(answers, rng),
    }


def _round_trip(answers: list[Pair]) -> list[Pair]:
    """References that are files, through the codec of the answers' checkpoint; none where that is not at hand."""
    real = [(pair, pair.reference_motion) for pair in answers if pair.reference_motion and pair.reference_motion.path]
    return [
        replace(pair, valid=True, motion=replace(motion, round_trip=True), audio=None, text=None)
        for pair, motion in real
        if Path(motion.codec, "processor_config.json").is_file()
    ]


def _halves(answers: list[Pair], rng: np.random.Generator) -> list[Pair]:
    order, half = rng.permutation(len(answers)), len(answers) // 2
    pairs = zip(order[:half], order[half : 2 * half], strict=True)
    return [answers[a].reference.against(answers[b]) for a, b in pairs]


def _jittered(answers: list[Pair], noise: int, rng: np.random.Generator) -> list[Pair]:
    words = [word for pair in answers for text in pair.reference_texts[:1] for word in text.split()]
    found = []
    for pair in answers:
        copy = pair.reference
        text = None if copy.text is None else jittered_words(copy.text, words, rng)
        media = {"motion": copy.motion, "audio": copy.audio}
        media = {name: medium and replace(medium, noise=noise) for name, medium in media.items()}
        found.append(replace(copy, text=text, **media))
    return found


def _shuffled(answers: list[Pair], rng: np.random.Generator) -> list[Pair]:
    """Every answer goes to the next one in a random circle; nobody keeps its own where there are two."""
    order = rng.permutation(len(answers))
    return [answers[a].against(answers[b]) for a, b in zip(order, np.roll(order, 1), strict=True)]
