"""Recordings listed in a table: Common Voice and LJSpeech.

    Common Voice    train.tsv, dev.tsv, test.tsv (or validated.tsv), columns client_id, path, sentence; clips/
    LJSpeech        metadata.csv, lines `id|text|text with numbers written out`; wavs/ID.wav

The source id is the speaker for Common Voice and the book's chapter (`LJ001` of `LJ001-0001`) for LJSpeech.
https://commonvoice.mozilla.org, https://keithito.com/LJ-Speech-Dataset
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..manifests import BadRow
from .tables import table_rows

_SPLIT_OF = {"train": "train", "dev": "validation", "test": "test"}
_HEADER = ("client_id", "path", "sentence")


def is_common_voice(source: Path) -> bool:
    """Whether a folder, or the folder of a `.tsv` file, has this layout."""
    folder = source.parent if source.is_file() else source
    return (folder / "clips").is_dir() and bool(_tables(source))


def _tables(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix == ".tsv" else []
    tables = [source / f"{name}.tsv" for name in _SPLIT_OF]
    tables = [path for path in tables if path.is_file()] or [source / "validated.tsv"]
    return [path for path in tables if path.is_file()]


def read_common_voice(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind speech, table by table; a file that is not train, dev or test says nothing about splits."""
    for table in _tables(source):
        split = {"split": _SPLIT_OF[table.stem]} if table.stem in _SPLIT_OF else {}
        for number, row in table_rows(table, "\t", quoted=False):
            if not isinstance(row, BadRow) and (missing := [name for name in _HEADER if name not in row]):
                row = BadRow(f"{table.name}:{number}", f"lacks {', '.join(missing)}")
            if isinstance(row, BadRow):
                yield row
                continue
            file = row["path"] if "." in row["path"] else f"{row['path']}.mp3"  # as in the first releases
            turn = {"text": row["sentence"], "audio": f"clips/{file}", "speaker": row["client_id"]}
            yield {"id": file.rsplit(".", 1)[0], "turns": [turn], "source": row["client_id"], **split}


def is_ljspeech(source: Path) -> bool:
    """Whether a folder has this layout."""
    return (source / "metadata.csv").is_file() and (source / "wavs").is_dir()


def read_ljspeech(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind speech, in the order of `metadata.csv`; the speaker is the folder's name."""
    for number, row in table_rows(source / "metadata.csv", "|", ["id", "text", "normalised"], quoted=False):
        if isinstance(row, BadRow):
            yield row
        elif "id" not in row or not (row.get("normalised") or row.get("text")):
            yield BadRow(row.get("id", f"metadata.csv:{number}"), "is not id|text|normalised text")
        else:
            text = row.get("normalised") or row["text"]
            turn = {"text": text, "audio": f"wavs/{row['id']}.wav", "speaker": source.resolve().name}
            yield {"id": row["id"], "turns": [turn], "source": row["id"].split("-")[0]}
