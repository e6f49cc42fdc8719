"""A folder of motion files, also in folders below it: `.bvh` and `.npz`.

A caption a line in a `.txt` beside a file (`walk/01.bvh`, `walk/01.txt`); without one the file's name is the caption,
`sit_down-slowly` read as "sit down slowly". The id is the path without its suffix. As many things are `.npz`, a folder
without `.bvh` is recognised only where captions lie beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...media_files import Found, files_below, find_media, names_below, tell_left_out, way_out
from ..manifests import BadRow
from .folders import text_lines

_SUFFIXES = (".bvh", ".npz")


def is_motion_folder(source: Path) -> bool:
    """Whether a folder has this layout."""
    return any(
        path.suffix.lower() == ".bvh" or (path.suffix.lower() == ".npz" and path.with_suffix(".txt").is_file())
        for path in files_below(source)
    )


def read_motion_folder(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, sorted by path."""
    found = find_media(source, "motion", _SUFFIXES)
    tell_left_out(_neither(found), source, "neither motion nor captions")
    for path in found.files:
        captions, place = path.with_suffix(".txt"), path.relative_to(source)
        try:
            text = text_lines(captions) if captions.is_file() else [re.sub(r"[\W_]+", " ", path.stem).strip()]
        except ValueError as error:
            yield BadRow(place.with_suffix("").as_posix(), str(error))
        else:
            yield {"id": place.with_suffix("").as_posix(), "motion": place.as_posix(), "text": text}
    for path in found.unread:
        yield BadRow(path.relative_to(source).as_posix(), f"cannot be read; {way_out(path)}")


def left_out(source: Path) -> list[str]:
    """The files that are neither motions nor captions of one."""
    return names_below(_neither(find_media(source, "motion", _SUFFIXES)), source)


def _neither(found: Found) -> list[Path]:
    captions = {path.with_suffix(".txt") for path in found.files}
    return [path for path in found.others if path not in captions]
