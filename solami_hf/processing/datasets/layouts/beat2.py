"""BEAT2: people who talk, their motion, voice and words.

    smplxflame_30/2_scott_0_1_1.npz   textgrid/2_scott_0_1_1.TextGrid   wave16k/2_scott_0_1_1.wav
    train_test_split.csv              columns id and type: train, val, test or additional, if there

As speech, a row is a recording and its words. As motion, the caption tells what is said, as there is no other; without
a transcript there is none. Words come from the TextGrid's tier `words`, or from `text/ID.txt`. The first two parts of
an id are the speaker. https://huggingface.co/datasets/H-Liu1997/BEAT2
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...files.text_files import read_text
from ..manifests import BadRow
from .folders import names_in, text_lines
from .tables import table_rows

_MOTIONS, _VOICES, _SPLITS = "smplxflame_30", "wave16k", "train_test_split.csv"
_SPLIT_OF = {"train": "train", "additional": "train", "val": "validation", "test": "test"}


def is_beat2(source: Path) -> bool:
    """Whether a folder has this layout."""
    return (source / _MOTIONS).is_dir()


def read_beat2(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion or speech, sorted by id."""
    splits = None
    if (source / _SPLITS).is_file():
        found = [row for _, row in table_rows(source / _SPLITS, ",") if not isinstance(row, BadRow)]
        splits = {row.get("id"): row.get("type") for row in found}
    folder, suffix = (_MOTIONS, ".npz") if kind == "motion" else (_VOICES, ".wav")
    if not (source / folder).is_dir():
        yield BadRow(folder, f"{source} has no folder {folder}, which holds the {kind} of BEAT2")
        return
    for name in names_in(source / folder, suffix):
        row = {"id": name, "source": name}
        if splits is not None:
            if splits.get(name) not in _SPLIT_OF:
                yield BadRow(name, f"is of type {splits.get(name)!r} in {_SPLITS}, expected {', '.join(_SPLIT_OF)}")
                continue
            row["split"] = _SPLIT_OF[splits[name]]
        try:
            words, file = _words(source, name), f"{folder}/{name}{suffix}"
        except ValueError as error:
            yield BadRow(name, str(error))
            continue
        if kind == "motion":
            yield {**row, "motion": file, "text": [f"a person talks: {words}"] if words else []}
        elif words is None:
            yield BadRow(name, f"has no words; expected textgrid/{name}.TextGrid or text/{name}.txt")
        else:
            speaker = "_".join(name.split("_")[:2])
            yield {**row, "turns": [{"text": words, "audio": file, "speaker": speaker}]}


def _words(source: Path, name: str) -> str | None:
    grid, text = source / "textgrid" / f"{name}.TextGrid", source / "text" / f"{name}.txt"
    if grid.is_file():
        try:
            return textgrid_words(read_text(grid)) or None
        except ValueError as error:
            raise ValueError(f"{grid} has no words that can be read: {error}") from None
    return " ".join(text_lines(text)) or None if text.is_file() else None


def textgrid_words(text: str) -> str:
    """The words of a Praat TextGrid, long or short: of the tier `words`, or of the only or first tier.

    Both forms have the same strings and numbers in the same order; all else is for people to read.

    Raises:
        ValueError: it is none, or fewer tiers or marks are there than it says.
    """
    if '"TextGrid"' not in text[:200]:
        raise ValueError(f"it begins with {text[:30]!r}, expected a TextGrid in text form")
    tiers: list[tuple[list[str], list[float]]] = [([], [])]  # strings and numbers, first those before all tiers
    for word, number in re.findall(r'"((?:[^"]|"")*)"|(?<!\S)(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?!\S)', text):
        if word in ("IntervalTier", "TextTier"):
            tiers.append(([], []))
        elif number:
            tiers[-1][1].append(float(number))
        else:
            tiers[-1][0].append(word.replace('""', '"').strip())
    if text.count('"') % 2:
        raise ValueError("it is cut short: its last string does not end")
    (_, numbers), *tiers = tiers
    # a tier's numbers are its beginning, its end, and how many marks follow
    told = [("tiers", numbers, len(tiers)), *((f"marks in tier {t[:1]}", n, len(t) - 1) for t, n in tiers)]
    for what, numbers, count in told:
        if len(numbers) > 2 and numbers[2] > count:
            raise ValueError(f"it is cut short: {count} {what}, but it tells of {numbers[2]:g}")
    words = next((t for t, _ in tiers if t[:1] == ["words"]), tiers[0][0] if tiers else [])
    return " ".join(word for word in words[1:] if word)
