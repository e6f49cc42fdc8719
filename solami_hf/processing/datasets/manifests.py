"""Manifests: JSONL, CSV and TSV files with a row for each clip, recording or dialogue, read line by line.

`manifest.jsonl`, `manifest.csv` or `manifest.tsv` in the source folder, or a file that is named instead of a folder;
paths are relative to its folder. Besides the columns that `solami prepare --help` lists, flat rows of these work:

| kind | columns |
|---|---|
| motion | `motion` (or `path`, `file`), `text` (or `caption`; several in a cell are separated by `|`), `id`? |
| speech | `audio` (or `path`, `file`), `text` (or `sentence`, `transcript`), `speaker`?, `id`? |

Without `id`, the path is the id. `split`, `source`, `partner_id`, `start` and `end` (seconds) may be there too.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..files.text_files import read_lines, undecoded

SPLITS = ("train", "validation", "test")
NAMES = ("manifest.jsonl", "manifest.csv", "manifest.tsv")
_PATH = {"motion": ("motion", "path", "file"), "speech": ("audio", "path", "file")}
_TEXT = {"motion": ("text", "caption"), "speech": ("text", "sentence", "transcript")}
_KEPT = ("split", "source", "partner_id")


class BadRow(NamedTuple):
    """A row of a source that cannot be read: its id, or where it stands (`manifest.jsonl:3`), and what is wrong."""

    id: str
    reason: str


def json_lines(path: Path) -> Iterator[tuple[int, dict | BadRow]]:
    """Line numbers from 1 and the JSON objects of a file, read line by line; a bad line is a `BadRow`."""
    for number, line in enumerate(read_lines(path), 1):
        line = line.lstrip("\ufeff")  # of files that were joined
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            fault = None if isinstance(row, dict) else "needs a JSON object with a string id"
        except json.JSONDecodeError as error:
            fault = f"is not JSON ({error.msg}); write one object a line"
        except (RecursionError, ValueError) as error:
            fault = f"is not JSON that can be read ({error})"
        fault = undecoded(line) or fault
        yield number, BadRow(f"{path.name}:{number}", fault) if fault else row


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
    """The rows of `folder/manifest.jsonl`, each with its `split`, `train` unless given. Raises FileNotFoundError:
    there is none; ValueError: a line that is not a JSON object, a row without id, an id that occurs twice, an unknown
    split, or no rows."""
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


def manifest_file(source: Path) -> Path | None:
    """The manifest of a source folder, or the file that the source is."""
    candidates = [source] if source.is_file() else [source / name for name in NAMES]
    return next((path for path in candidates if path.is_file()), None)


def manifest_rows(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of a manifest, whatever its format; rows that are flat are brought into the form of their kind."""
    path = manifest_file(source)
    suffix = path.suffix.lower()
    is_table = suffix in (".csv", ".tsv")
    for number, row in table_rows(path, "\t" if suffix == ".tsv" else ",") if is_table else json_lines(path):
        if isinstance(row, BadRow):
            yield row
        elif is_table or not (
            kind in ("chat", "duplex") or "turns" in row or (kind == "motion" and row.get("motion"))
        ):
            yield _from_flat(row, kind, f"{path.name}:{number}")
        else:
            yield row


def table_rows(
    path: Path, delimiter: str, names: list[str] | None = None, quoted: bool = True
) -> Iterator[tuple[int, dict | BadRow]]:
    """Line numbers and rows of a table as dictionaries without empty cells, one line in memory at a time. `names` are
    those of the columns, where the file has no header; with `quoted` cells may stand in double quotes."""
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.DictReader(read_lines(path, newline=""), names, restkey="", delimiter=delimiter, quoting=quoting)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, BadRow(f"{path.name}:{reader.line_num}", f"is no readable line ({error})")
            continue
        if row is None:
            return
        if "" in row:
            fault = f"has more cells than the {len(reader.fieldnames)} columns {', '.join(reader.fieldnames)}"
        else:
            row = {name.strip(): value for name, value in row.items() if value}
            fault = undecoded("".join([*row, *row.values()]))
        yield reader.line_num, BadRow(f"{path.name}:{reader.line_num}", fault) if fault else row


def _from_flat(row: dict, kind: str, place: str) -> dict | BadRow:
    if kind in ("chat", "duplex"):
        return BadRow(str(row.get("id", place)), "a table cannot hold turns, or two people; write a manifest.jsonl")
    path = next((row[name] for name in _PATH[kind] if row.get(name)), None)
    text = next((row[name] for name in _TEXT[kind] if row.get(name)), None)
    named = row.get("id", path)
    base = {"id": named, **{name: row[name] for name in _KEPT if row.get(name)}}
    if path is None:  # told as missing when it is prepared
        base = {"id": place if named is None else named}
        return base | ({"turns": [{"text": text}]} if kind == "speech" else {"text": text or []})
    if kind == "speech":
        return base | {"turns": [{"text": text, "audio": path, "speaker": row.get("speaker", "")}]}
    if isinstance(text, str) and "|" in text:
        text = [caption.strip() for caption in text.split("|") if caption.strip()]
    return base | {"motion": path, "text": text or [], **{k: row[k] for k in ("start", "end") if row.get(k)}}
