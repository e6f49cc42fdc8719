"""What the readers of folders share: names, lists of splits, lines of text."""

from __future__ import annotations

import os
from pathlib import Path

from ...files.text_files import read_text

_SPLIT_FILES = {"train": "train", "val": "validation", "test": "test"}


def names_in(folder: Path, suffix: str) -> list[str]:
    """Sorted names, without their suffix, of a folder's files; of a large source nothing else is held in memory."""
    with os.scandir(folder) as entries:
        return sorted(
            e.name[: len(e.name) - len(suffix)]
            for e in entries
            if e.name.lower().endswith(suffix) and e.name[0] != "."
        )


def listed_splits(folder: Path) -> dict[str, str] | None:
    """Id -> split of a folder's `train.txt`, `val.txt` and `test.txt` (one id a line), None when there is none."""
    found = {
        name: split
        for file, split in _SPLIT_FILES.items()
        if (folder / f"{file}.txt").is_file()
        for name in text_lines(folder / f"{file}.txt")
    }
    return found or None


def text_lines(path: Path) -> list[str]:
    """The lines of a small text file that are not empty; ValueError where it is no text that can be read."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]
