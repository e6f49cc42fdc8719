"""Inter-X: a folder per interaction with a file for each of two people, and captions of the interaction.

    motions/G001T000A000R000/P1.npz, P2.npz     (or .bvh)
    texts/G001T000A000R000.txt                  one caption a line
    splits/train.txt, val.txt, test.txt         one id a line, if there

Both people become rows, `ID_P1` and `ID_P2`, each the other's partner, with the interaction as source id and all its
captions. Where one of the two files is missing, the other is an orphan. https://github.com/liangxuy/Inter-X
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..manifests import BadRow
from .folders import listed_splits, names_in, text_lines

_PEOPLE, _SUFFIXES = ("P1", "P2"), (".npz", ".bvh")


def is_inter_x(source: Path) -> bool:
    """Whether a folder has this layout."""
    folders = (path for path in (source / "motions").glob("*") if path.is_dir())
    return any(_file(folder, person) for folder in folders for person in _PEOPLE)


def read_inter_x(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, pair by pair."""
    splits = listed_splits(source / "splits")
    for name in names_in(source / "motions", ""):
        folder = source / "motions" / name
        if not folder.is_dir():
            continue
        if splits is not None and name not in splits:
            yield BadRow(name, "is in none of splits/train.txt, val.txt and test.txt")
            continue
        files = {person: _file(folder, person) for person in _PEOPLE}
        if not any(files.values()):
            yield BadRow(name, f"motions/{name} has neither P1 nor P2 as .npz or .bvh")
        texts = source / "texts" / f"{name}.txt"
        try:
            text = text_lines(texts) if texts.is_file() else []
        except ValueError as error:
            yield BadRow(name, str(error))
            continue
        for person, partner in (_PEOPLE, _PEOPLE[::-1]):
            if files[person]:
                row = {"id": f"{name}_{person}", "motion": files[person].relative_to(source).as_posix(), "text": text}
                row |= {"partner_id": f"{name}_{partner}", "source": name}
                yield row if splits is None else {**row, "split": splits[name]}


def _file(folder: Path, person: str) -> Path | None:
    return next((p for suffix in _SUFFIXES if (p := folder / f"{person}{suffix}").is_file()), None)
