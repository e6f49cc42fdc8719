"""What is measured beside the answers, in the same way, so that a reader sees what good and bad figures look like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .media import jittered_words
from .answer_pairs import Pair

VIEWS = {
    "answers": "the model's answers",
    "halves": "references against other references: one half of them as answers, the other as references",
    "jittered": "references with a little noise: nearly perfect answers",
    "shuffled": "the model's answers, each under another's name: they fit nothing",
}


def views_of(answers: list[Pair], repetition: int, seed: int) -> dict[str, list[Pair]]:
    """Pairs by view for the answers of one repetition."""
    rng = np.random.default_rng([seed, repetition])
    return {
        "answers": answers,
        "halves": _halves(answers, rng),
        "jittered": _jittered(answers, int(rng.integers(2**31)), rng),
        "shuffled": _shuffled(answers, rng),
    }


def _halves(answers: list[Pair], rng: np.random.Generator) -> list[Pair]:
    order = rng.permutation(len(answers))
    half = len(answers) // 2
    return [
        answers[a].reference.against(answers[b]) for a, b in zip(order[:half], order[half : 2 * half], strict=True)
    ]


def _jittered(answers: list[Pair], noise: int, rng: np.random.Generator) -> list[Pair]:
    words = [word for pair in answers for text in pair.reference_texts[:1] for word in text.split()]
    found = []
    for pair in answers:
        copy = pair.reference
        text = None if copy.text is None else jittered_words(copy.text, words, rng)
        media = {
            name: medium and replace(medium, noise=noise)
            for name, medium in (("motion", copy.motion), ("audio", copy.audio))
        }
        found.append(replace(copy, text=text, **media))
    return found


def _shuffled(answers: list[Pair], rng: np.random.Generator) -> list[Pair]:
    """Every answer goes to the next one in a random circle; nobody keeps its own where there are two."""
    order = rng.permutation(len(answers))
    return [answers[a].against(answers[b]) for a, b in zip(order, np.roll(order, 1), strict=True)]
