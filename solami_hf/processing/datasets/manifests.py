"""`manifest.jsonl`: what a folder of captures or recordings holds, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..files.text_files import read_lines, undecoded

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class BadRow:
    """A row of a source that cannot be read.

    Args:
        id: its id, or where it stands, as `manifest.jsonl:3`.
        reason: what is wrong with it.
    """

    id: str
    reason: str


def json_lines(path: Path) -> Iterator[tuple[int, dict | BadRow]]:
    """Line numbers from 1 and the JSON objects of a file, read line by line; a bad line is a `BadRow`."""
    for number, line in enumerate(read_lines(path), 1):
        line = line.lstrip("\ufeff")  # of files that were joined
        if not line.strip():
            continue
        place = f"{path.name}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            row = BadRow(place, f"is not JSON ({error.msg}); write one object a line")
        except (RecursionError, ValueError) as error:
            row = BadRow(place, f"is not JSON that can be read ({error})")
        if fault := undecoded(line):
            row = BadRow(place, fault)
        known = isinstance(row, dict | BadRow)
        yield number, row if known else BadRow(place, "needs a JSON object with a string id")


def row_fault(row: dict) -> str | None:
    """Fault of the columns that rows of every kind have, None without one."""
    if not isinstance(row.get("id"), str) or not row["id"]:
        return "needs a JSON object with a string id"
    if row.get("split") not in (None, *SPLITS):
        return f"split is {row['split']!r}, expected one of {', '.join(SPLITS)}"
    for name in ("partner_id", "source"):
        if not isinstance(row.get(name), str | None):
            return f"{name} is {row[name]!r}, expected a string"
    try:
        "".join(row.get(name) or "" for name in ("id", "partner_id", "source")).encode()
    except UnicodeEncodeError:
        return "id, partner_id or source is no valid Unicode"
    return None


def read_manifest(folder: str | Path) -> list[dict]:
    """The rows of `folder/manifest.jsonl`, each with its `split`, `train` unless given.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a line that is not a JSON object, a row without id, an id that occurs twice, an unknown split, or
            no rows.
    """
    path = Path(folder) / "manifest.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a source folder needs one, see `solami prepare --help`")
    rows, seen = [], set()
    for number, row in json_lines(path):
        fault = row.reason if isinstance(row, BadRow) else row_fault(row)
        if fault is None and row["id"] in seen:
            fault = f"id {row['id']!r} occurs twice; ids must be unique over all splits"
        if fault is not None:
            raise ValueError(f"{path}:{number}: {fault}")
        row["split"] = row.get("split") or "train"
        seen.add(row["id"])
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows
