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

from ..manifest import BadRow
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
        words, file = _words(source, name), f"{folder}/{name}{suffix}"
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
        return textgrid_words(grid.read_text(encoding="utf-8", errors="replace")) or None
    return " ".join(text_lines(text)) or None if text.is_file() else None


def textgrid_words(text: str) -> str:
    """The words of a Praat TextGrid in its long form: of the tier `words`, or of the only or first tier."""
    tiers = re.split(r"^\s*item \[\d+\]:", text, flags=re.MULTILINE)[1:]
    tier = next((t for t in tiers if re.search(r'name = "words"', t)), tiers[0] if tiers else "")
    marks = re.findall(r'^\s*text = "((?:[^"]|"")*)"\s*$', tier, flags=re.MULTILINE)
    return " ".join(mark.replace('""', '"').strip() for mark in marks if mark.strip())
