"""BONES-SEED: captured motions on the SOMA skeleton with descriptions: huggingface.co/datasets/bones-studio/seed.

    metadata/seed_metadata_v004.csv                        filename, move_soma_uniform_path, content_natural_desc_1 ...
    metadata/seed_metadata_v002_temporal_labels.jsonl      {filename, events: [{start_time, end_time, description}]}
    soma_uniform/bvh/DATE/NAME.bvh, soma_proportional/...  77 joints, 120 frames a second, unpacked from the archives

Of several versions the last is read. A motion becomes a row with all its descriptions, and each of its events, where
there are two or more, a row of its own, `ID@start-end`. Those on the uniform skeleton are taken where they are there.
The mirrored copy of a motion (`_M`) has its source id, so both fall into one split.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from ..manifests import BadRow, json_lines, table_rows

_TABLES, _EVENTS = "seed_metadata*.csv", "seed_metadata*temporal_labels.jsonl"
_PATHS = ("move_soma_uniform_path", "move_soma_proportional_path")
_TEXTS = (
    *(f"content_natural_desc_{number}" for number in range(1, 5)),
    *("content_short_description", "content_short_description_2", "content_technical_description"),
)


def is_bones_seed(source: Path) -> bool:
    """True if a folder has this layout."""
    return _last(source, _TABLES) is not None


def _last(source: Path, pattern: str) -> Path | None:
    return max((source / "metadata").glob(pattern), default=None)


def read_bones_seed(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion in the order of the table, then those of the events."""
    motions: dict[str, str] = {}
    table = _last(source, _TABLES)
    for number, row in table_rows(table, ","):
        if isinstance(row, BadRow):
            yield row
            continue
        name, paths = row.get("filename"), [row[column] for column in _PATHS if row.get(column)]
        path = next((path for path in paths if (source / path).is_file()), None)
        if not name:
            yield BadRow(f"{table.name}:{number}", "has no filename")
        elif path is None:
            told = f"has no {paths[0]}; unpack its archive" if paths else f"has no {_PATHS[0]}"
            yield BadRow(name, told)
        else:
            motions[name] = path
            text = list(dict.fromkeys(row[column].strip() for column in _TEXTS if row.get(column)))
            yield {"id": name, "motion": path, "text": text, "source": name.removesuffix("_M")}
    if labels := _last(source, _EVENTS):
        for number, row in json_lines(labels):
            place = f"{labels.name}:{number}"
            yield from [row] if isinstance(row, BadRow) else _events(row, motions, place)


def _events(row: dict, motions: dict[str, str], place: str) -> Iterator[dict | BadRow]:
    name, events = row.get("filename"), row.get("events")
    if not isinstance(name, str) or not isinstance(events, list):
        yield BadRow(place, "has no filename or no list of events")
        return
    if name not in motions or len(events) < 2:  # what has no motion was told, and one event is the whole of it
        return
    for event in events:
        try:
            start, end, text = float(event["start_time"]), float(event["end_time"]), event["description"]
        except (KeyError, TypeError, ValueError) as error:
            yield BadRow(place, f"has an event without start_time, end_time or description ({error!r})")
            continue
        if not isinstance(text, str) or not 0 <= start < end < math.inf:
            yield BadRow(place, f"has an event of {start:g} to {end:g} s, expected text, and the end behind the start")
            continue
        piece = {"id": f"{name}@{start:g}-{end:g}", "motion": motions[name], "text": [text.strip()]}
        yield {**piece, "start": start, "end": end, "source": name.removesuffix("_M")}
