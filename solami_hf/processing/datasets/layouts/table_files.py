"""Plain manifests: JSONL, CSV and TSV files with a row for each clip, recording or dialogue, read line by line.

`manifest.jsonl`, `manifest.csv` or `manifest.tsv` in the source folder, or a file that is named instead of a folder;
paths are relative to its folder. Besides the columns that `solami prepare --help` lists, flat rows of these work:

| kind | columns |
|---|---|
| motion | `motion` (or `path`, `file`), `text` (or `caption`; several in a cell are separated by `|`), `id`? |
| speech | `audio` (or `path`, `file`), `text` (or `sentence`, `transcript`), `speaker`?, `id`? |

Without `id`, the path is the id. `split`, `source`, `partner_id`, `start` and `end` (seconds) may be there too.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ...files.text_files import read_lines, undecoded
from ..manifests import BadRow, json_lines

NAMES = ("manifest.jsonl", "manifest.csv", "manifest.tsv")
_PATH = {"motion": ("motion", "path", "file"), "speech": ("audio", "path", "file")}
_TEXT = {"motion": ("text", "caption"), "speech": ("text", "sentence", "transcript")}
_KEPT = ("split", "source", "partner_id")


def manifest_file(source: Path) -> Path | None:
    """The manifest of a source folder, or the file that the source is."""
    candidates = [source] if source.is_file() else [source / name for name in NAMES]
    return next((path for path in candidates if path.is_file()), None)


def read_json_lines(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of a JSONL manifest; rows that are flat are brought into the form of their kind."""
    path = manifest_file(source)
    for number, row in json_lines(path):
        if isinstance(row, BadRow):
            yield row
        else:
            flat = kind == "speech" and "turns" not in row or kind == "motion" and not row.get("motion")
            yield _from_flat(row, kind, f"{path.name}:{number}") if flat and "turns" not in row else row


def read_columns(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of a CSV or TSV manifest."""
    path = manifest_file(source)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    for number, row in table_rows(path, delimiter):
        yield row if isinstance(row, BadRow) else _from_flat(row, kind, f"{path.name}:{number}")


def table_rows(
    path: Path, delimiter: str, names: list[str] | None = None, quoted: bool = True
) -> Iterator[tuple[int, dict | BadRow]]:
    """Line numbers and rows of a table as dictionaries without empty cells, one line in memory at a time.

    Args:
        names: of the columns, where the file has no header.
        quoted: whether cells may stand in double quotes.
    """
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
    if kind == "chat":
        return BadRow(str(row.get("id", place)), "a table cannot hold a dialogue's turns; write a manifest.jsonl")
    path = next((row[name] for name in _PATH[kind] if row.get(name)), None)
    text = next((row[name] for name in _TEXT[kind] if row.get(name)), None)
    named = row.get("id", path)
    base = {"id": named, **{name: row[name] for name in _KEPT if row.get(name)}}
    if path is None:  # told as missing when it is prepared
        known = {"id": place if named is None else named}
        return {**known, "turns": [{"text": text}]} if kind == "speech" else {**known, "text": text or []}
    if kind == "speech":
        return {**base, "turns": [{"text": text, "audio": path, "speaker": row.get("speaker", "")}]}
    if isinstance(text, str) and "|" in text:
        text = [caption.strip() for caption in text.split("|") if caption.strip()]
    return {**base, "motion": path, "text": text or [], **{k: row[k] for k in ("start", "end") if row.get(k)}}
