"""Writes token datasets as `load_dataset`-able folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from ..files.atomic_write import atomic_write
from .token_card import card_data, write_card
from .token_schema import schema

_GROUP_ROWS = 500  # rows of a Parquet row group: what a streaming reader has in memory


def write_token_dataset(
    folder: str | Path, config: str, splits: dict[str, list[dict]], prints: dict[str, str]
) -> None:
    """Writes one config of a token dataset folder from rows in memory, and its card; other configs are kept.

    Args:
        folder: the dataset folder, made when missing.
        config: `motion`, `speech` or `chat`.
        splits: rows per split, in the columns of `SCHEMAS[config]`.
        prints: codec fingerprints, see `token_schema.fingerprints`.

    Raises:
        ValueError: a row does not fit the schema, or the folder's other configs were made by other codecs.
    """
    folder = Path(folder)
    check_codecs(folder, prints)
    turns = [turn for rows in splits.values() for row in rows for turn in row.get("turns", ())]
    speech = [turn["speech"] for turn in turns if turn.get("speech") is not None]
    features = schema(config, max((int(np.max(codes, initial=0)) for codes in speech), default=0))
    for split, rows in splits.items():
        write_parquet(folder / config / f"{split}-00000-of-00001.parquet", rows, features)
    counts = {split: {"rows": len(rows), "shards": 1} for split, rows in splits.items()}
    write_json(folder / config / "report.json", {"splits": counts, "codecs": prints})
    write_card(folder)


def check_codecs(folder: Path, prints: dict[str, str]) -> None:
    """ValueError when a folder's configs were made by other codecs than those of these fingerprints."""
    path = folder / "README.md"
    known = (card_data(path).get("codecs") or {}) if path.is_file() else {}
    clash = {name for name in prints if known.get(name, prints[name]) != prints[name]}
    if clash:
        raise ValueError(f"{folder} holds codes of another {' and '.join(sorted(clash))} codec; write to a new folder")


def write_parquet(path: Path, rows: Iterable[dict], features: Features) -> None:
    """Writes rows as one Parquet file, whole or not at all; the same rows give the same bytes.

    Raises:
        ValueError: a row does not fit the columns.
    """
    arrow = features.arrow_schema
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, arrow) as writer:
        rows = iter(rows)
        while group := [_plain(row) for row in islice(rows, _GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(group, schema=arrow))


def write_json(path: Path, value: dict) -> None:
    """Writes a JSON file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_json_lines(path: Path, rows: Iterable[dict]) -> int:
    """Writes a JSONL file, whole or not at all; the number of its lines."""
    count = 0
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count


def _plain(value):
    """A row whose arrays are lists; Arrow then checks every number against its column's type."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict | np.ndarray):
        return [_plain(entry) for entry in value]
    return value
