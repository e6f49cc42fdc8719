"""Lines that were said against lines that were hoped for."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def right_line(said: str | None, hoped: Sequence[str]) -> bool:
    """Whether what was said has the words of one of the lines that were hoped for."""
    return said is not None and any(words_of(said) == words_of(text) for text in hoped)


def nearest_line(said: str, lines: Sequence[str]) -> str:
    """The line that is nearest to what was said, by letters (Levenshtein's distance over the longer length)."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import extractOne

    choices = [" ".join(words_of(line)) for line in lines]
    return lines[extractOne(" ".join(words_of(said)), choices, scorer=Levenshtein.normalized_distance)[2]]


def word_errors(transcripts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Errors and words of each sentence, (sentences, 2), after Whisper's text normalisation."""
    import jiwer

    from ..asr import english_normalizer

    normalize = english_normalizer()
    rows = []
    for said, text in zip(transcripts, texts, strict=True):
        result = jiwer.process_words(normalize(text), normalize(said))
        errors = result.substitutions + result.deletions + result.insertions
        rows.append((errors, result.hits + result.substitutions + result.deletions))
    return np.array(rows).reshape(-1, 2)
