"""A folder of motion files, also in folders below it: `.bvh` and `.npz`.

A caption a line in a `.txt` beside a file (`walk/01.bvh`, `walk/01.txt`); without one the file's name is the caption,
`sit_down-slowly` read as "sit down slowly". The id is the path without its suffix. As many things are `.npz`, a folder
without `.bvh` is recognised only where captions lie beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..manifest import BadRow
from .folders import text_lines

_SUFFIXES = (".bvh", ".npz")


def is_motion_folder(source: Path) -> bool:
    """Whether a folder has this layout."""
    return any(
        path.suffix.lower() == ".bvh" or (path.suffix.lower() == ".npz" and path.with_suffix(".txt").is_file())
        for path in source.rglob("*")
    )


def read_motion_folder(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, sorted by path."""
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in _SUFFIXES and p.name[0] != "."):
        if not path.is_file():
            continue
        captions = path.with_suffix(".txt")
        name = re.sub(r"[\W_]+", " ", path.stem).strip()
        text = text_lines(captions) if captions.is_file() else [name]
        place = path.relative_to(source)
        yield {"id": place.with_suffix("").as_posix(), "motion": place.as_posix(), "text": text}
