"""Many dialogues rendered at once: Arrow columns of codes to Arrow columns of ids and labels.

Nothing of a dialogue passes through Python one by one, so that 2,000 tokens cost some ten microseconds.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..answers import FORMATS
from ..rendering import ASSISTANT, CODES, IGNORE, KINDS, ROLES, SYSTEM, UNHEARD, USER, TokenRenderer, Turns

logger = logging.getLogger(__name__)
STREAMS = (*CODES, "speech")
REASONS_KEPT = 100


@dataclass
class RenderingCounts:
    """Counts of the dialogues of a data set; nothing is left out without being counted here."""

    rendered: int = 0  # dialogues that became a sample
    shortened: int = 0  # samples that lost their oldest rounds
    dropped_rounds: int = 0  # the rounds that were lost so
    too_long: int = 0  # dialogues left out because their last round alone is longer than allowed
    without_answer: int = 0  # dialogues left out because the character never speaks
    unanswered_turns: int = 0  # turns left out behind a dialogue's last answer, from which nothing can be learnt
    incomplete_answers: int = 0  # trained answers without motion, speech or (where it belongs there) transcript
    rejected: int = 0  # dialogues that are no valid dialogue
    tokens: int = 0
    trained_tokens: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)  # `(id, reason)` of the first hundred rejected

    def __iadd__(self, other: "RenderingCounts") -> "RenderingCounts":
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        self.reasons = self.reasons[:REASONS_KEPT]
        return self

    def __str__(self) -> str:
        numbers = {name.replace("_", " "): value for name, value in vars(self).items() if name != "reasons"}
        return ", ".join(f"{value} {name}" for name, value in numbers.items())

    def log(self, what: str) -> None:
        """Says what became of `what`, with the first reasons of what was rejected."""
        logger.info("%s: %s", what, self)
        for row_id, reason in self.reasons[:5]:
            logger.warning("%s: left out %s: %s", what, row_id, reason)


def render_chats(
    batches: Iterable[pa.Table],
    renderer: TokenRenderer,
    counts: RenderingCounts,
    answer_format: str = "motion_speech",
    max_length: int | None = None,
    systems: dict[str, str] | None = None,
) -> Iterator[pa.Table]:
    """Rendered batches of a stream of `chat` rows, tables with the columns `input_ids`, `labels` (int32), `task`
    ("chat") and `id`; memory is that of one batch.

    `batches` are tables with the columns of a `chat` token dataset, e.g. `dataset.with_format("arrow").iter(256)`;
    `renderer` decides tokenizer, vocabulary, and whether answers are interleaved; what became of the dialogues is
    added to `counts`. The character's answers hold what belongs to `answer_format`, see `answers.FORMATS`. Dialogues
    longer than `max_length` lose whole rounds from the front, the system prompt is kept. `systems`: character ->
    system prompt, for dialogues without one.
    """
    for table in batches:
        rendered, new = render_chat_batch(table, renderer, answer_format, max_length, systems)
        counts += new
        if len(rendered):
            yield rendered


def render_chat_batch(
    table: pa.Table,
    renderer: TokenRenderer,
    answer_format: str = "motion_speech",
    max_length: int | None = None,
    systems: dict[str, str] | None = None,
) -> tuple[pa.Table, RenderingCounts]:
    """One batch of `render_chats`; the samples have the order of the dialogues. A dialogue is rejected when a role is
    unknown, a system turn does not come first, a code lies outside its codebook, body and hand differ in length, there
    are hand codes but no tokens for them (the layout of a bound motion codec), or a text holds reserved tokens."""
    counts = RenderingCounts()
    turns, incomplete, valid = _read(table, renderer, FORMATS[answer_format], systems or {}, counts)
    turns = turns.take(_choose(turns, incomplete, valid, len(renderer.text("\n")), max_length, counts))
    ids, trained, lengths = renderer.write(turns)
    labels = np.where(trained, ids, np.int32(IGNORE))
    rows, first = np.unique(turns.row, return_index=True)
    begins = np.cumsum(lengths) - lengths
    offsets = pa.array(np.concatenate([begins[first], [len(ids)]]).astype(np.int32))
    rendered = {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(ids)),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(labels)),
        "task": pa.array(["chat"] * len(rows), pa.string()),
        "id": _whole(table["id"]).take(pa.array(rows)).cast(pa.string()),
    }
    counts.rendered, counts.tokens, counts.trained_tokens = len(rows), len(ids), int(trained.sum())
    return pa.table(rendered), counts


def _read(table: pa.Table, renderer: TokenRenderer, answer: tuple, systems: dict[str, str], counts):
    """The turns of a batch, which of them (N,) are incomplete answers, and which rows (B,) are valid dialogues."""
    column, layout, (transcripts, spoken_parts) = _whole(table["turns"]), renderer.layout, answer
    sizes = _list_lengths(column)
    row, number = np.repeat(np.arange(len(sizes)), sizes), np.arange(sizes.sum())
    first = number == np.repeat(np.cumsum(sizes) - sizes, sizes)
    column = column.flatten()
    role = np.full(len(column), -1)
    for i, name in enumerate(ROLES):
        role[pc.fill_null(pc.equal(column.field("role"), name), False).to_numpy(zero_copy_only=False)] = i
    streams = {name: _codes(column.field(name), name) for name in STREAMS}
    bad, user = _find_bad(role, first, streams, layout), role == USER
    hears_words, unheard = renderer.hearing != "codes", user & (renderer.hearing == "transcript")
    spoken = unheard & (streams["speech"][0] > 0)
    for name, (count, begin, values) in streams.items():
        belongs = role != SYSTEM if name != "trans" else user & (streams["body"][0] > 0)
        if name == "speech":
            belongs &= ~unheard if "speech" in spoken_parts else user & ~unheard
        first_id = layout.modalities.get(name, {}).get("first_id", 0)  # without tokens, without codes
        streams[name] = np.where(belongs, count, 0), begin, values.astype(np.int32) + np.int32(first_id)
    has_media = (streams["body"][0] > 0) | (streams["speech"][0] > 0)
    wanted = (role == SYSTEM) | ~has_media | ((role == ASSISTANT) & transcripts) | (user & hears_words)
    *streams["text"], reserved = _texts(column.field("text"), np.flatnonzero(wanted), role, renderer)
    bad.append((reserved, "a text holds reserved tokens such as <eos> or a modality token"))
    bad.append((spoken & (streams["text"][0] == 0) & ~reserved, UNHEARD))
    needed = ("body", *(["speech"] if "speech" in spoken_parts else []), *(["text"] if transcripts else []))
    incomplete = (role == ASSISTANT) & np.any([streams[name][0] == 0 for name in needed], axis=0)
    parts, pool = [], [np.zeros(0, np.int32)]
    for kind, name in enumerate(KINDS):
        count, begin, values = streams[name]
        (turn,), offset = np.nonzero(count), sum(map(len, pool))
        parts.append(np.stack([turn, np.full(len(turn), kind), begin[turn] + offset, count[turn]]))
        pool.append(values)
    valid = _reject(bad, row, table["id"], len(sizes), counts)
    if systems:
        prompts = _prompts(table, row[role == SYSTEM], sizes, systems)
        at = np.array([np.searchsorted(row, i) for i in prompts], dtype=np.int64)
        texts = [renderer.text(text, first=True) for text in prompts.values()]
        count, places = np.array([len(ids) for ids in texts], dtype=np.int64), at + np.arange(len(at))
        for part in parts:
            part[0] += np.searchsorted(at, part[0], side="right")
        offset = sum(map(len, pool))
        parts.append(np.stack([places, np.zeros_like(places), offset + np.cumsum(count) - count, count]))
        pool += texts
        row, role = np.insert(row, at, list(prompts)), np.insert(role, at, SYSTEM)
        incomplete = np.insert(incomplete, at, False)
    turn, kind, begin, count = np.concatenate(parts, axis=1)
    order = np.argsort(turn * len(KINDS) + kind)
    ids = np.concatenate(pool)
    return Turns(row, role, turn[order], kind[order], begin[order], count[order], ids), incomplete, valid


def _codes(column: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a part: how many codes each turn has, where they begin, and the codes of all turns."""
    count, values = _list_lengths(column), column.flatten()
    if values.null_count:
        raise ValueError(f"the {name} column holds nulls among its codes; prepare the data again")
    return count, np.cumsum(count) - count, values.to_numpy(zero_copy_only=False)


def _find_bad(role, first, streams: dict, layout) -> list[tuple[np.ndarray, str]]:
    """`(mask of turns, reason)` of what makes a dialogue invalid."""
    bad = [
        (role < 0, "role must be system, user or assistant"),
        ((role == SYSTEM) & ~first, "a system turn must be the first turn, and the only one"),
    ]
    if "hand" in layout.modalities:
        bad.append((streams["body"][0] != streams["hand"][0], "body and hand have different numbers of codes"))
    for name, (count, _, values) in streams.items():
        if name not in layout.modalities:
            bad.append((count > 0, f"{name} codes have no tokens here; another codec made them"))
            continue
        size = layout.modalities[name]["size"]
        if len(values) and (values.min() < 0 or values.max() >= size):
            turn = np.repeat(np.arange(len(role)), count)[(values < 0) | (values >= size)]
            reason = f"{name} codes must lie in 0..{size - 1}; they were probably made by another codec"
            bad.append((np.isin(np.arange(len(role)), turn), reason))
    return bad


def _texts(column: pa.Array, turns: np.ndarray, role: np.ndarray, renderer: TokenRenderer):
    """Counts, begins and ids of the texts of some turns, as `_codes` has them, and which of all turns are reserved."""
    strings = [text or "" for text in column.take(pa.array(turns)).to_pylist()]
    system = (role[turns] == SYSTEM).tolist()
    ids = renderer.texts([(text + "\n" if s else text, s) for text, s in zip(strings, system, strict=True)])
    reserved, count = np.zeros(len(role), dtype=bool), np.zeros(len(role), dtype=np.int64)
    reserved[turns] = [found is None for found in ids]
    count[turns] = [0 if found is None else len(found) for found in ids]
    values = np.concatenate([np.zeros(0, np.int64), *(found for found in ids if found is not None)])
    return count, np.cumsum(count) - count, values.astype(np.int32), reserved


def _reject(bad: list, row: np.ndarray, ids, num_rows: int, counts: RenderingCounts) -> np.ndarray:
    """Which rows (B,) are valid dialogues; the first reason found of each other one is remembered."""
    valid = np.ones(num_rows, dtype=bool)
    for turns, reason in bad:
        for number in np.unique(row[turns]):
            if valid[number]:
                counts.reasons.append((ids[int(number)].as_py(), reason))
            valid[number] = False
    counts.rejected = int((~valid).sum())
    counts.reasons = counts.reasons[:REASONS_KEPT]
    return valid


def _prompts(table: pa.Table, with_own, sizes, systems: dict[str, str]) -> dict[int, str]:
    """Row -> text of the system prompt of its character, for rows with turns but without a prompt of their own."""
    characters = enumerate(table["character"].to_pylist())
    lacking = np.setdiff1d(np.flatnonzero(sizes), with_own)
    return {i: systems[name] + "\n" for i, name in characters if name in systems and i in lacking}


def _choose(turns: Turns, incomplete, valid, gap: int, max_length: int | None, counts: RenderingCounts) -> np.ndarray:
    """Indices of the turns that are written: as many whole rounds from the end as fit, ending with an answer."""
    row, role, number, num_rows = turns.row, turns.role, np.arange(len(turns.row)), len(valid)
    last = np.full(num_rows, -1)
    np.maximum.at(last, row, np.where(role == ASSISTANT, number, -1))
    counts.without_answer = int((valid & (last < 0)).sum())
    answered = valid & (last >= 0)
    wanted = turns.spoken & (number <= last[row]) & answered[row]
    counts.unanswered_turns = int((turns.spoken & answered[row] & (number > last[row])).sum())
    # Tokens from each turn to the end of its dialogue, with the system prompt.
    cost = np.where(wanted, turns.length + gap, 0)
    row_cost = np.bincount(row, cost, num_rows).astype(np.int64)
    fixed = np.bincount(row, np.where(turns.spoken, 0, turns.length), num_rows).astype(np.int64)
    remaining = (np.cumsum(row_cost) + fixed)[row] - (np.cumsum(cost) - cost) - gap
    first = np.concatenate([[True], (row[1:] != row[:-1]) | ~turns.spoken[:-1]])[: len(row)]
    opens = wanted & ((role == USER) | first)
    fits = opens if max_length is None else opens & (remaining <= max_length)
    start = np.full(num_rows, len(number))
    np.minimum.at(start, row, np.where(fits, number, len(number)))
    used = answered & (start < len(number))
    counts.too_long = int((answered & ~used).sum())
    dropped = opens & used[row] & (number < start[row])
    counts.dropped_rounds, counts.shortened = int(dropped.sum()), len(np.unique(row[dropped]))
    kept = ((wanted & (number >= start[row])) | ~turns.spoken) & used[row]
    counts.incomplete_answers = int((kept & incomplete).sum())
    return np.flatnonzero(kept)


def _list_lengths(column) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _whole(column) -> pa.Array:
    """A column as one array."""
    if isinstance(column, pa.Array):
        return column
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
