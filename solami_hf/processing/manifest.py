"""`manifest.jsonl`: what a folder of captures or recordings holds, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path

SPLITS = ("train", "validation", "test")


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
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number} is not JSON ({error.msg}); write one object a line") from None
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise ValueError(f"{path}:{number} needs a JSON object with a string id")
        if row["id"] in seen:
            raise ValueError(f"{path}:{number}: id {row['id']!r} occurs twice; ids must be unique over all splits")
        if row.setdefault("split", "train") not in SPLITS:
            raise ValueError(f"{path}:{number}: split is {row['split']!r}, expected one of {', '.join(SPLITS)}")
        seen.add(row["id"])
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows
