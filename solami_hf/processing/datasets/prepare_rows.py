"""Rows of a manifest turned into rows of a token dataset, given the codes of their files."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .manifests import SPLITS
from .token_dataset import load_tokens

ROLES = ("system", "user", "assistant")


class MediaFile(NamedTuple):
    """A file that a row names, or a piece of it.

    Args:
        kind: `motion` or `audio`; `motion_id` for a motion of a token dataset instead of a file.
        name: path relative to the source, or the id.
        start, end: seconds of the piece; `end` None is the end of the file.
    """

    kind: str
    name: str
    start: float = 0.0
    end: float | None = None


def files_of(kind: str, row: dict) -> Iterator[MediaFile]:
    """The files that a row needs; what is not well-formed is left out here and told by `token_row`."""
    if kind == "motion":
        try:
            yield _clip(row)
        except (KeyError, ValueError):
            return
    turns = row.get("turns") if kind != "motion" else None
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, dict):
            keys = ("motion" if turn.get("motion") else "motion_id", "audio")
            names = [(key, turn.get(key)) for key in keys]
            yield from (MediaFile(key, name) for key, name in names if isinstance(name, str) and name)


def token_row(kind: str, row: dict, codes: Callable[[MediaFile], object]) -> dict:
    """A row in the columns of `token_schema.SCHEMAS[kind]`.

    Args:
        kind: `motion`, `speech` or `chat`.
        row: as a manifest has it.
        codes: gives the codes of a file, or raises ValueError with what is wrong with it.

    Raises:
        ValueError: a column is missing or of a wrong type, or a file cannot be used.
    """
    try:
        return {"motion": _motion, "speech": _speech, "chat": _chat}[kind](row, codes)
    except KeyError as error:
        raise ValueError(f"missing {error}") from None


def _motion(row: dict, codes) -> dict:
    captions = row["text"] if isinstance(row["text"], list) else [row["text"]]
    text = [_text(caption, "text") for caption in captions]
    return {**_base(row), "text": text, **codes(_clip(row)), "partner_id": row.get("partner_id")}


def _speech(row: dict, codes) -> dict:
    turns = [
        {
            "text": _text(turn["text"], "text"),
            "speech": codes(MediaFile("audio", _text(turn["audio"], "audio"))),
            "speaker": _text(turn.get("speaker") or "", "speaker"),
        }
        for turn in _turns(row)
    ]
    return {**_base(row), "turns": turns}


def _chat(row: dict, codes) -> dict:
    turns = []
    for turn in _turns(row):
        if turn["role"] not in ROLES:
            raise ValueError(f"role must be system, user or assistant, got {turn['role']!r}")
        source = next((key for key in ("motion", "motion_id") if turn.get(key)), None)
        motion = codes(MediaFile(source, _text(turn[source], source))) if source else {}
        about = turn.get("motion_text")
        turns.append(
            {
                "role": turn["role"],
                "text": _text(turn["text"], "text"),
                "motion_text": None if about is None else _text(about, "motion_text"),
                **{name: motion.get(name) for name in ("body", "hand", "trans")},
                "speech": codes(MediaFile("audio", _text(turn["audio"], "audio"))) if turn.get("audio") else None,
            }
        )
    texts = {"topic": _text(row.get("topic") or "", "topic"), "character": _text(row["character"], "character")}
    return {**_base(row), **texts, "turns": turns}


def _base(row: dict) -> dict:
    return {"id": row["id"], "source": row.get("source") or ""}


def _turns(row: dict) -> list[dict]:
    turns = row["turns"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("turns must be a list of objects")
    if not turns:
        raise ValueError("no turns")
    return turns


def _clip(row: dict) -> MediaFile:
    start, end = row.get("start") or 0.0, row.get("end")
    try:
        start, end = float(start), None if end is None else float(end)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"start and end are {start!r} and {end!r}, expected seconds") from None
    if not 0 <= start < (math.inf if end is None else end) or end == math.inf:
        raise ValueError(f"start and end are {start!r} and {end!r}, expected seconds, the end behind the start")
    return MediaFile("motion", _text(row["motion"], "motion"), start, end)


def _text(value, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is no valid Unicode") from None
    return value


class MotionRows:
    """The `motion` rows of a token dataset, by id; they are read when the first is asked for.

    Args:
        data: folder or Hub id of the token dataset.
        processor: a `SolamiProcessor`; its motion codec has to be the one that made the codes.
    """

    def __init__(self, data: str | Path, processor):
        self.data, self.processor = data, processor

    def codes(self, row_id: str, split: str) -> dict[str, list[int]]:
        """`body`, `hand` and `trans` of a row, for a dialogue of a split.

        Raises:
            ValueError: no such row, motions of another codec, or a held-out motion for a dialogue to train on.
        """
        if row_id not in self._places:
            raise ValueError(
                f"motion_id {row_id!r} is no motion of {self.data}; run `solami prepare motion` into it first, or say "
                "with --motion_tokens where it is"
            )
        found, number = self._places[row_id]
        if split == "train" and found != "train":
            raise ValueError(f"motion_id {row_id!r} is of the {found} split, which no dialogue to train on may use")
        row = self._tables[found][number]
        return {name: row[name] for name in ("body", "hand", "trans")}

    @functools.cached_property
    def _tables(self) -> dict:
        tables = {}
        for split in SPLITS:
            try:
                tables[split] = load_tokens(self.data, "motion", split, self.processor)
            except FileNotFoundError:
                continue
        return tables

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        ids = {split: table.data.column("id").to_pylist() for split, table in self._tables.items()}
        return {row_id: (split, number) for split, names in ids.items() for number, row_id in enumerate(names)}
