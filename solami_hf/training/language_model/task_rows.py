"""The six tasks as sources of a `Mixture`: token rows stay in Arrow, a pair is made of them when it is drawn."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ...processing.datasets.tasks import audio_block, motion_block, phrasings, text_block
from ...processing.rendering import TASKS

logger = logging.getLogger(__name__)
# Role markers, ends, brackets and the words between instruction and input, generously
_FRAME = 32


class TaskRows(Sequence):
    """The `(task, id, source, target)` pairs of one task of a token data set, of its `motion` or `speech` rows.
    `places` (N, 2) has of each pair its row and its caption or turn, for `motion_to_motion` the partner's row."""

    def __init__(self, task: str, rows: Dataset, places: np.ndarray):
        self.task, self.places = task, places
        self._rows = rows.with_format("arrow")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[str, str, dict, dict]:
        """The pair with that number, media as arrays of codes."""
        row, part = (int(place) for place in self.places[number])
        table = self._rows[row]
        if "turns" in table.column_names:
            turns = table["turns"][0].values
            blocks = {"audio": _audio(turns[part]), "text": text_block(turns[part]["text"].as_py())}
            other = _audio(turns[part + 1]) if self.task == "speech_to_speech" else None
        else:
            blocks, other = {"motion": _motion(table)}, None
            if self.task == "motion_to_motion":
                other = _motion(self._rows[part])
            else:
                blocks["text"] = text_block(table["text"][0].values[part].as_py())
        source, target = TASKS[self.task]
        return self.task, table["id"][0].as_py(), blocks[source], blocks[target] if other is None else other


def _motion(table: pa.Table) -> dict:
    return motion_block({name: _codes(table[name][0]) for name in ("body", "hand")})


def _audio(turn: pa.StructScalar) -> dict:
    return audio_block({"speech": _codes(turn["speech"])})


def _codes(scalar: pa.ListScalar) -> np.ndarray:
    return scalar.values.to_numpy(zero_copy_only=False) if scalar.is_valid else np.zeros(0, np.int64)


def task_sources(rows: dict[str, Dataset], renderer, max_length: int) -> dict[str, TaskRows]:
    """Task -> its pairs that fit into `max_length` with the longest phrasing; tasks without any are left out. Every
    caption and every turn of the `motion` and `speech` rows is used both ways, and each row with its partner, each
    turn with the one after it. Raises ValueError: there are pairs, and none of them fits."""
    sources, left_out = {}, 0
    for config, places_of in (("motion", _motion_places), ("speech", _speech_places)):
        found = places_of(rows[config]) if len(rows.get(config, ())) else {}
        for task, (places, lengths) in found.items():
            pairs = TaskRows(task, rows[config], places)
            pairs.places = places[_fits(pairs, lengths, renderer, max_length)]
            left_out += len(places) - len(pairs)
            if len(pairs):
                sources[task] = pairs
    counts = ", ".join(f"{len(pairs)} {task}" for task, pairs in sources.items())
    logger.info("%s; %d left out as longer than %d tokens", counts or "no pairs", left_out, max_length)
    if left_out and not sources:
        raise ValueError(f"no sample fits into max_length={max_length}; raise it")
    return sources


def _fits(pairs: TaskRows, lengths: np.ndarray, renderer, max_length: int) -> np.ndarray:
    """True if each pair fits. A text has at most as many tokens as bytes: what fits so need not be rendered."""
    longest = max(phrasings(pairs.task), key=lambda phrasing: len(renderer.text(phrasing)))
    fits = lengths + len(renderer.text(longest)) + _FRAME <= max_length
    for i in np.flatnonzero(~fits):
        _, _, source, target = pairs[i]
        fits[i] = len(renderer.task(longest, source, target)["input_ids"]) <= max_length
    return fits


def _motion_places(rows: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Task -> places, and of each an upper limit of its tokens without instruction and markers."""
    codes, counts, texts, ids, partners = [], [], [], [], []
    for table in _batches(rows, ["id", "partner_id", "text", "body", "hand"]):
        codes.append(_list_lengths(table["body"]) + _list_lengths(table["hand"]))
        counts.append(_list_lengths(table["text"]))
        texts += [_bytes(chunk.flatten()) for chunk in table["text"].chunks]
        ids += table["id"].to_pylist()
        partners += table["partner_id"].to_pylist()
    codes, captions = np.concatenate(codes), _items(np.concatenate(counts))
    of_captions = codes[captions[:, 0]] + np.concatenate(texts)
    number_of = {row_id: i for i, row_id in enumerate(ids)}
    found = [(i, number_of[partner]) for i, partner in enumerate(partners) if partner in number_of]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    both = (captions, of_captions)
    return {"motion_to_text": both, "text_to_motion": both, "motion_to_motion": (pairs, codes[pairs].sum(1))}


def _speech_places(rows: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """As `_motion_places`."""
    counts, codes, texts = [], [], []
    for table in _batches(rows, ["turns"]):
        counts.append(_list_lengths(table["turns"]))
        for part in (chunk.flatten() for chunk in table["turns"].chunks):
            codes.append(_list_lengths(pc.struct_field(part, "speech")))
            texts.append(_bytes(pc.struct_field(part, "text")))
    turns, codes = _items(np.concatenate(counts)), np.concatenate(codes)
    both = codes + np.concatenate(texts)
    answered = np.flatnonzero(turns[:-1, 0] == turns[1:, 0])  # followed by a turn of the same row
    spoken = (turns[answered], codes[answered] + codes[answered + 1])
    return {"text_to_speech": (turns, both), "speech_to_text": (turns, both), "speech_to_speech": spoken}


def _batches(rows: Dataset, columns: list[str]) -> Iterator[pa.Table]:
    """Some columns, some rows at a time: all at once they would be copied where rows were left out."""
    return rows.select_columns(columns).with_format("arrow").iter(4096)


def _items(counts: np.ndarray) -> np.ndarray:
    """(N, 2): row and place in it of every item of lists with so many items."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return np.stack([rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)], axis=1)


def _list_lengths(lists) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)


def _bytes(texts) -> np.ndarray:
    return pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64)
