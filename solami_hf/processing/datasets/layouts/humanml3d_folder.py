"""HumanML3D: captions in `texts/ID.txt`, splits in `train.txt`, `val.txt`, `test.txt`, one id a line.

    texts/000021.txt            a man walks.#a/DET man/NOUN walk/VERB#0.0#0.0
    new_joint_vecs/000021.npy   or motions/000021.npz, .bvh or .npy

A line is `caption#tokens#start#end`; times in seconds say which piece of the clip the caption is about, 0 to 0 is all
of it. Captions of a piece become a row of their own, `ID@start-end`. Clips whose id begins with `M` are mirrored
copies, so the source id of both is the number. `new_joint_vecs` know less than `.npz` files: see
`processing/humanml3d.py`. https://github.com/EricGuo5513/HumanML3D
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from ..manifests import BadRow
from .folders import listed_splits, names_in, text_lines

_PLACES = [("motions", ".npz"), ("motions", ".bvh"), ("motions", ".npy"), ("new_joint_vecs", ".npy")]


def is_humanml3d(source: Path) -> bool:
    """Whether a folder has this layout."""
    return (source / "texts").is_dir() and any((source / folder).is_dir() for folder, _ in _PLACES)


def read_humanml3d_folder(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, sorted by id."""
    splits = listed_splits(source)
    for name in names_in(source / "texts", ".txt"):
        if splits is not None and name not in splits:
            yield BadRow(name, "is in none of train.txt, val.txt and test.txt")
            continue
        motion = next((f"{f}/{name}{s}" for f, s in _PLACES if (source / f / f"{name}{s}").is_file()), None)
        if motion is None:
            yield BadRow(
                name, f"texts/{name}.txt has no motion; expected new_joint_vecs/{name}.npy or motions/{name}.*"
            )
            continue
        pieces: dict[tuple[float, float], list[str]] = {}
        try:
            lines = text_lines(source / "texts" / f"{name}.txt")
        except ValueError as error:
            yield BadRow(name, str(error))
            continue
        for number, line in enumerate(lines, 1):
            try:
                text, piece = _caption(line)
            except ValueError as error:
                yield BadRow(f"{name}.txt:{number}", str(error))
            else:
                pieces.setdefault(piece, []).append(text)
        if not pieces:
            yield BadRow(name, f"texts/{name}.txt holds no caption")
        for (start, end), texts in sorted(pieces.items()):
            row = {"id": name, "motion": motion, "text": texts, "source": re.sub(r"^M(?=\d)", "", name)}
            if end:
                row |= {"id": f"{name}@{start:g}-{end:g}", "start": start, "end": end}
            yield row if splits is None else {**row, "split": splits[name]}


def _caption(line: str) -> tuple[str, tuple[float, float]]:
    parts = line.split("#")
    if len(parts) not in (1, 4) or not parts[0].strip():
        raise ValueError(f"is {line!r}, expected caption#tokens#start#end")
    try:
        start, end = (float(part) for part in parts[2:]) if len(parts) == 4 else (0.0, 0.0)
    except ValueError:
        raise ValueError(f"has times {parts[2]!r} and {parts[3]!r}, expected seconds") from None
    start, end = (0.0 if math.isnan(time) else time for time in (start, end))
    if (start or end) and not 0 <= start < end < math.inf:
        raise ValueError(f"has times from {start:g} to {end:g} s, expected the end behind the start")
    return parts[0].strip(), (start, end)
