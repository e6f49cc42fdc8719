"""Many dialogues rendered at once: Arrow columns of codes to Arrow columns of ids and labels.

What `TokenRenderer.chat` does dialogue by dialogue is done here for all turns of a batch together, one array operation
per part of a turn, so that a dialogue of 2,000 tokens costs some ten microseconds. Both give the same ids (tested).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..modeling.solami.vocabulary import BRACKETS
from .rendering import IGNORE, TokenRenderer

logger = logging.getLogger(__name__)
SYSTEM, USER, ASSISTANT = range(3)
ROLES = ("system", "user", "assistant")
STREAMS = ("trans", "body", "hand", "speech")
REASONS_KEPT = 100


@dataclass
class RenderingCounts:
    """Counts of the dialogues of a data set; nothing is left out without being counted here.

    Attributes:
        rendered: dialogues that became a sample.
        shortened, dropped_rounds: samples that lost their oldest rounds, and the rounds that were lost.
        too_long: dialogues left out because their last round alone is longer than allowed.
        without_answer: dialogues left out because the character never speaks.
        unanswered_turns: turns left out behind the last answer of a dialogue, from which nothing can be learnt.
        incomplete_answers: trained answers without motion, speech or (where it belongs there) transcript.
        rejected, reasons: dialogues that are no valid dialogue, and `(id, reason)` of the first hundred.
        tokens, trained_tokens: of all samples.
    """

    rendered: int = 0
    shortened: int = 0
    dropped_rounds: int = 0
    too_long: int = 0
    without_answer: int = 0
    unanswered_turns: int = 0
    incomplete_answers: int = 0
    rejected: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def __iadd__(self, other: RenderingCounts) -> RenderingCounts:
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
    """Rendered batches of a stream of `chat` rows; memory is that of one batch.

    Args:
        batches: tables with the columns of a `chat` token dataset, e.g. `dataset.with_format("arrow").iter(256)`.
        renderer: decides tokenizer, vocabulary, and whether answers are interleaved.
        counts: what became of the dialogues is added to it.
        answer_format: with `text_motion_speech` the character's answers begin with their transcript.
        max_length: longer dialogues lose whole rounds from the front, the system prompt is kept.
        systems: character -> system prompt, for dialogues without one.

    Yields:
        tables with the columns `input_ids`, `labels` (int32), `task` ("chat") and `id`.
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
    """One batch of `render_chats`; the samples have the order of the dialogues.

    A dialogue is rejected when a role is unknown, a system turn does not come first, a code lies outside its codebook,
    body and hand differ in length, there are hand codes but no tokens for them (the layout of a bound motion codec),
    or a text holds reserved tokens.
    """
    batch = _Batch(table, renderer, answer_format == "text_motion_speech", systems or {})
    kept = batch.choose(max_length)
    ids, trained, row_lengths = batch.write(kept)
    labels = np.where(trained, ids, np.int32(IGNORE))
    batch.counts.tokens, batch.counts.trained_tokens = len(ids), int(trained.sum())
    rows = np.flatnonzero(row_lengths)
    offsets = pa.array(np.concatenate([[0], np.cumsum(row_lengths[rows])]).astype(np.int32))
    rendered = {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(ids)),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(labels)),
        "task": pa.array(["chat"] * len(rows), pa.string()),
        "id": batch.ids.take(pa.array(rows)).cast(pa.string()),
    }
    batch.counts.rendered = len(rows)
    return pa.table(rendered), batch.counts


class _Batch:
    """The turns of a batch as arrays (N,) over all turns, in order; `row` says whose they are."""

    def __init__(self, table: pa.Table, renderer: TokenRenderer, transcripts: bool, systems: dict[str, str]):
        self.renderer, self.layout, self.counts = renderer, renderer.layout, RenderingCounts()
        self.ids, turns = _whole(table["id"]), _whole(table["turns"])
        sizes = pc.fill_null(pc.list_value_length(turns), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        self.num_rows, self.row = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
        self.first = np.concatenate([[0], np.cumsum(sizes)])[:-1][self.row] == np.arange(len(self.row))
        turns = turns.flatten()
        names = turns.field("role")
        self.role = np.full(len(names), -1)
        for number, name in enumerate(ROLES):
            self.role[pc.fill_null(pc.equal(names, name), False).to_numpy(zero_copy_only=False)] = number
        self.count, self.values, self.begin = {}, {}, {}
        for name in STREAMS:
            self._read(name, turns.field(name))
        bad = self._find_bad()
        for name in STREAMS:
            belongs = self.role != SYSTEM if name != "trans" else (self.role == USER) & (self.count["body"] > 0)
            self.count[name] = np.where(belongs, self.count[name], 0)
        self._read_texts(turns.field("text"), transcripts, bad)
        self._add_systems(table, systems)
        self._reject(bad)
        self._measure()

    def _read(self, name: str, column: pa.Array) -> None:
        """The codes of a part: all in one array, and where those of each turn begin."""
        count = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        values = column.flatten()
        if values.null_count:
            raise ValueError(f"the {name} column holds nulls among its codes; prepare the data again")
        self.count[name], self.begin[name] = count, np.cumsum(count) - count
        self.values[name] = values.to_numpy(zero_copy_only=False)

    def _find_bad(self) -> list[tuple[np.ndarray, str]]:
        """`(mask of turns, reason)` of what makes a dialogue invalid."""
        role, bad = self.role, []
        bad.append((role < 0, "role must be system, user or assistant"))
        bad.append(((role == SYSTEM) & ~self.first, "a system turn must be the first turn, and the only one"))
        if "hand" in self.layout.modalities:
            bad.append((self.count["body"] != self.count["hand"], "body and hand have different numbers of codes"))
        for name in STREAMS:
            if name not in self.layout.modalities:
                bad.append((self.count[name] > 0, f"{name} codes have no tokens here; another codec made them"))
                continue
            size, values = self.layout.modalities[name]["size"], self.values[name]
            if len(values) and (values.min() < 0 or values.max() >= size):
                turn = np.repeat(np.arange(len(role)), self.count[name])[(values < 0) | (values >= size)]
                reason = f"{name} codes must lie in 0..{size - 1}; they were probably made by another codec"
                bad.append((np.isin(np.arange(len(role)), turn), reason))
        return bad

    def _read_texts(self, column: pa.Array, transcripts: bool, bad: list) -> None:
        """Tokenizes what is written as text: system prompts, transcripts, and turns that are nothing but text."""
        self.has_media = (self.count["body"] > 0) | (self.count["speech"] > 0)
        wanted = (self.role == SYSTEM) | ~self.has_media
        if transcripts:
            wanted |= self.role == ASSISTANT
        turns = np.flatnonzero(wanted)
        strings = [text or "" for text in column.take(pa.array(turns)).to_pylist()]
        system = self.role[turns] == SYSTEM
        keys = [(text + "\n" if s else text, bool(s)) for text, s in zip(strings, system, strict=True)]
        ids = self.renderer.texts(keys)
        reserved = np.zeros(len(self.role), dtype=bool)
        reserved[[t for t, found in zip(turns, ids, strict=True) if found is None]] = True
        bad.append((reserved, "a text holds reserved tokens such as <eos> or a modality token"))
        ids = [np.zeros(0, np.int64) if found is None else found for found in ids]
        count = np.zeros(len(self.role), dtype=np.int64)
        count[turns] = [len(found) for found in ids]
        self.count["text"], self.begin["text"] = count, np.cumsum(count) - count
        self.values["text"] = np.concatenate(ids) if ids else np.zeros(0, np.int64)
        parts = (self.count["body"], self.count["speech"], *([count] if transcripts else []))
        self.incomplete = (self.role == ASSISTANT) & np.any([part == 0 for part in parts], axis=0)

    def _add_systems(self, table: pa.Table, systems: dict[str, str]) -> None:
        """Prompts of rows that have none of their own: ids of a text for each row, or None."""
        self.prompt: dict[int, np.ndarray] = {}
        if systems:
            has_own = np.isin(np.arange(self.num_rows), self.row[self.role == SYSTEM])
            for i, character in enumerate(table["character"].to_pylist()):
                if not has_own[i] and character in systems:
                    self.prompt[i] = self.renderer.text(systems[character] + "\n", first=True)

    def _reject(self, bad: list[tuple[np.ndarray, str]]) -> None:
        """Marks invalid rows and remembers why, the first reason found of each."""
        self.valid = np.ones(self.num_rows, dtype=bool)
        for turns, reason in bad:
            for row in np.unique(self.row[turns]):
                if self.valid[row]:
                    self.counts.reasons.append((self.ids[int(row)].as_py(), reason))
                self.valid[row] = False
        self.counts.rejected = int((~self.valid).sum())
        self.counts.reasons = self.counts.reasons[:REASONS_KEPT]

    def _measure(self) -> None:
        """Tokens of each turn, without the line break before it."""
        self.spoken = self.role != SYSTEM
        self.eot = (self.role == ASSISTANT) & (self.count["text"] > 0) & self.has_media
        self.length = self.count["text"] + self.eot + 2 * self.spoken
        for name in STREAMS:
            brackets = 2 * (self.count[name] > 0) if name in BRACKETS else 0
            self.length += self.count[name] + brackets
        self.line_break = self.renderer.text("\n")

    def choose(self, max_length: int | None) -> np.ndarray:
        """Indices of the turns that are written: as many whole rounds from the end as fit, ending with an answer."""
        number, row, counts = np.arange(len(self.row)), self.row, self.counts
        last = np.full(self.num_rows, -1)
        np.maximum.at(last, row, np.where(self.role == ASSISTANT, number, -1))
        counts.without_answer = int((self.valid & (last < 0)).sum())
        answered = self.valid & (last >= 0)
        wanted = self.spoken & (number <= last[row]) & answered[row]
        counts.unanswered_turns = int((self.spoken & answered[row] & (number > last[row])).sum())
        # Tokens from each turn to the end of its dialogue, with the system prompt.
        cost = np.where(wanted, self.length + len(self.line_break), 0)
        row_cost = np.bincount(row, cost, self.num_rows).astype(np.int64)
        fixed = np.bincount(row, np.where(self.spoken, 0, self.length), self.num_rows).astype(np.int64)
        for i, prompt in self.prompt.items():
            fixed[i] += len(prompt)
        remaining = (np.cumsum(row_cost) + fixed)[row] - (np.cumsum(cost) - cost) - len(self.line_break)
        after_system = np.concatenate([[False], ~self.spoken])[:-1]
        opens = wanted & ((self.role == USER) | self.first | after_system)
        fits = opens if max_length is None else opens & (remaining <= max_length)
        self.start = np.full(self.num_rows, len(number))
        np.minimum.at(self.start, row, np.where(fits, number, len(number)))
        used = answered & (self.start < len(number))
        counts.too_long = int((answered & ~used).sum())
        dropped = opens & used[row] & (number < self.start[row])
        counts.dropped_rounds, counts.shortened = int(dropped.sum()), len(np.unique(row[dropped]))
        kept = (wanted & (number >= self.start[row])) | (~self.spoken & used[row])
        counts.incomplete_answers = int((kept & self.incomplete & used[row]).sum())
        return np.flatnonzero(kept & used[row])

    def write(self, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(ids, trained, tokens per row)` of the given turns, ids int32 and trained bool over all their tokens."""
        spoken, row, markers = self.spoken[turns], self.row[turns], self.layout.markers
        answer = self.role[turns] == ASSISTANT
        opening = turns == self.start[row]
        breaks = np.where(spoken & ~opening, len(self.line_break), 0)
        prompt = np.zeros(len(turns), dtype=np.int64)
        if self.prompt:
            lengths = np.array([len(self.prompt.get(r, ())) for r in row], dtype=np.int64)
            prompt = np.where(opening, lengths, 0)
        length = self.length[turns] + breaks + prompt
        begin = np.cumsum(length) - length
        out = np.empty(int(length.sum()), dtype=np.int32)
        for place in np.flatnonzero(prompt):
            out[begin[place] : begin[place] + prompt[place]] = self.prompt[row[place]]
        for i, token in enumerate(self.line_break):
            out[begin[breaks > 0] + i] = token
        place = begin + breaks + prompt
        out[place[spoken]] = np.where(answer, markers["mmgpt"], markers["human"])[spoken]
        place += spoken
        untrained = np.where(answer, place - begin, length)
        trained = np.repeat(
            np.tile([False, True], len(turns)), np.stack([untrained, length - untrained], axis=1).reshape(-1)
        )
        chunk = None if self.renderer.chunks is None else np.zeros(len(out), dtype=np.int64)
        self._write_parts(out, turns, place, chunk)
        out[(begin + length - 1)[spoken]] = np.where(answer, markers["eos"], markers["eoh"])[spoken]
        if chunk is not None:
            top = int(chunk.max(initial=0)) + 1
            chunk[begin + length - 1] = top
            places, whose = np.flatnonzero(trained), np.repeat(np.arange(len(turns)), length - untrained)
            out[places] = out[places][np.argsort(whose * (top + 1) + chunk[places], kind="stable")]
        return out, trained, np.bincount(row, length, self.num_rows).astype(np.int64)

    def _write_parts(self, out, turns, place, chunk) -> None:
        """Text and codes of the turns from `place` on. `chunk`, if any, gets the order of an answer's tokens."""
        self._copy(out, "text", turns, place, 0)
        place = place + self.count["text"][turns]
        eot = self.eot[turns]
        out[place[eot]] = self.layout.markers["eot"]
        place += eot
        for name in STREAMS:
            count = self.count[name][turns]
            present, bracketed = count > 0, name in BRACKETS
            if bracketed:
                first, last = (self.layout.markers[marker] for marker in BRACKETS[name])
                out[place[present]] = first
                out[(place + count + 1)[present]] = last
                place = place + present
            first_id = self.layout.modalities.get(name, {}).get("first_id", 0)  # without tokens, without codes
            target = self._copy(out, name, turns, place, first_id)
            if chunk is not None and bracketed:
                # Text comes before all of it, so chunks count from 1 here.
                chunk[target] = 1 + self.renderer.chunks.of_codes(name, target - np.repeat(place, count))
                chunk[(place - 1)[present]] = 1
                chunk[(place + count)[present]] = chunk[(place + count - 1)[present]]
            place = place + count + (present if bracketed else 0)

    def _copy(self, out, name: str, turns, place, first_id: int) -> np.ndarray:
        """Writes a part of all turns at `place` and returns where its tokens went."""
        count = self.count[name][turns]
        ends = np.cumsum(count)
        number, before = np.arange(int(count.sum())), ends - count
        target = np.repeat(place - before, count) + number
        source = np.repeat(self.begin[name][turns] - before, count) + number
        out[target] = self.values[name][source] + np.int32(first_id)
        return target


def _whole(column) -> pa.Array:
    """A column as one array."""
    if isinstance(column, pa.Array):
        return column
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


__all__ = ["RenderingCounts", "render_chats", "render_chat_batch"]
