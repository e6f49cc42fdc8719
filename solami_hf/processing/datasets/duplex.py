"""Two people on one clock: `duplex` rows cut into ticks of 0.4 s, and rendered to ids tick by tick.

A row has two streams that begin together, each with codes of body, hand and speech. One of the two is the character,
whose codes of a tick stand before the partner's, so that all it does follows from what was there before:

    [MMGPT]: b b b h h h s..20..s [Human]: b b b h h h s..20..s [MMGPT]: ... <eos>

There are no words, spans or turns: who listens is a character too. The same tokens as in a chat, no new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ...modeling.solami.configuration_solami import require_layout
from ..answers import CHUNK_SECONDS, PARTS, Chunks
from ..rendering import IGNORE, TokenRenderer

LEARN = ("character", "both")
ROLES = ("mmgpt", "human")
"""The markers before the character's and the partner's codes of a tick."""
_SLACK = 1.0  # ticks by which the streams of a row may differ in length: codecs round, and motion loses a frame


@dataclass(frozen=True)
class DuplexFormat:
    """What a tick holds; `config.duplex` of a checkpoint has its fields: the parts that are written of `character` and
    `partner`, in the order of `PARTS`; `sizes`, codes of each part in a tick, all levels of speech counted;
    `speech_levels`, codes of a speech frame; `seconds`, length of a tick."""

    character: tuple[str, ...]
    partner: tuple[str, ...]
    sizes: dict[str, int]
    speech_levels: int = 1
    seconds: float = CHUNK_SECONDS

    @classmethod
    def of(cls, layout, character: Sequence[str] | None = None, partner: Sequence[str] | None = None) -> DuplexFormat:
        """That of a checkpoint trained on duplex rows (`layout.duplex`), else all parts that a layout has tokens for;
        `character` and `partner` are other parts than these. Raises ValueError: unknown parts, or rates
        (`layout.frame_rates`) that have no whole codes in a tick."""
        require_layout(layout)
        known, chunks = getattr(layout, "duplex", None) or {}, Chunks.of(layout)
        parts = tuple(part for part in PARTS if part in layout.modalities)
        frames = {part: chunks.frames(part) for part in parts}
        if uneven := [part for part in parts if abs(frames[part] - round(frames[part])) > 1e-6]:
            told = ", ".join(f"{frames[part]:g} of {part}" for part in uneven)
            raise ValueError(
                f"a tick of {chunks.seconds:g} s has {told} at the rates {chunks.rates}, expected whole codes; take "
                "codecs of 7.5 motion codes and 50 speech frames a second, or of other multiples of 2.5"
            )
        levels = {part: chunks.speech_levels if part == "speech" else 1 for part in parts}
        sizes = {part: round(frames[part]) * levels[part] for part in parts}
        chosen = []
        for name, given in (("character", character), ("partner", partner)):
            given = given or known.get(name) or parts
            if unknown := set(given) - set(parts):
                raise ValueError(f"{name} has parts {sorted(unknown)}, expected some of {', '.join(parts)}")
            chosen.append(tuple(part for part in parts if part in given))
        return cls(*chosen, sizes, chunks.speech_levels, chunks.seconds)

    @property
    def tokens(self) -> int:
        """Tokens of a tick."""
        return 2 + sum(self.sizes[part] for parts in (self.character, self.partner) for part in parts)

    def to_dict(self) -> dict:
        """What `config.duplex` holds."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def spans(self, layout) -> list[tuple[int, int]]:
        """First id and end of the ids that may stand in each place of a tick, markers included."""
        places = []
        for role, parts in zip(ROLES, (self.character, self.partner), strict=True):
            places.append((layout.markers[role], layout.markers[role] + 1))
            for part in parts:
                first, size = layout.modalities[part]["first_id"], layout.modalities[part]["size"]
                levels = self.speech_levels if part == "speech" else 1
                starts = [first + i % levels * (size // levels) for i in range(self.sizes[part])]
                places += [(start, start + size // levels) for start in starts]
        return places


def whole_ticks(people: Sequence[Mapping], sizes: Mapping[str, int]) -> int:
    """Ticks that all streams of two people fill, `{"body", "hand", "speech"}` of codes (n,) with `sizes` of a tick.
    Raises ValueError: not two people, a stream is missing, or they differ in length by more than a tick."""
    if len(people) != 2:
        raise ValueError(f"a duplex row has two people, got {len(people)}")
    codes = {(i, part): person.get(part) for i, person in enumerate(people) for part in sizes}
    ticks = {stream: 0.0 if c is None else len(c) / sizes[stream[1]] for stream, c in codes.items()}
    told = ", ".join(f"{part} of person {i} {count:.1f}" for (i, part), count in ticks.items())
    if max(ticks.values()) - min(ticks.values()) > _SLACK:
        raise ValueError(f"the streams are no two people on one clock; in ticks: {told}; cut them to one time")
    if min(ticks.values()) < 1:
        raise ValueError(f"the row is shorter than a tick; in ticks: {told}")
    return int(min(ticks.values()))


def cut_to_ticks(row: dict, sizes: Mapping[str, int]) -> dict:
    """A row whose streams are cut to the ticks that all of them fill; ValueError as `whole_ticks`."""
    ticks = whole_ticks(row["people"], sizes)
    return {**row, "people": [p | {s: p[s][: ticks * n] for s, n in sizes.items()} for p in row["people"]]}


class DuplexRenderer:
    """Renders rows of the `duplex` config with the tokens of a layout; `duplex` is by default what it says."""

    def __init__(self, layout, duplex: DuplexFormat | None = None):
        self.layout, self.format = layout, duplex or DuplexFormat.of(layout)
        self._codes = TokenRenderer(None, layout).codes
        self._spans = np.array(self.format.spans(layout))

    def streams(self, row: Mapping, character: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a row, (ticks, tokens of the character's tick) and (ticks, tokens of the partner's). Raises
        ValueError: streams that differ in length, see `whole_ticks`, or a code outside its codebook."""
        people, found = row["people"], []
        ticks = whole_ticks(people, self.format.sizes)
        roles = zip(ROLES, (self.format.character, self.format.partner), (character, 1 - character), strict=True)
        for role, parts, person in roles:
            columns = [np.full((ticks, 1), self.layout.markers[role])]
            for part in parts:
                size = self.format.sizes[part]
                columns.append(self._codes(part, people[person][part])[: ticks * size].reshape(ticks, size))
            found.append(np.concatenate(columns, 1))
        return found[0], found[1]

    def write(self, character: np.ndarray, partner: np.ndarray, learn: str = "character") -> dict:
        """`{"input_ids", "labels"}`, arrays (tokens,), of some ticks of `streams`. Labels are the codes of the
        character, or of both; never the markers, which stand in their places, nor `<eos>`: where a row ends says
        nothing."""
        if learn not in LEARN:
            raise ValueError(f"learn is {learn!r}, expected one of {', '.join(LEARN)}")
        ids, size = np.concatenate([character, partner], 1), character.shape[1]
        places = np.arange(ids.shape[1])
        trained = (places > 0) & (places != size) & ((learn == "both") | (places < size))
        labels = np.where(trained, ids, IGNORE)
        return {"input_ids": np.append(ids, self.layout.markers["eos"]), "labels": np.append(labels, IGNORE)}

    def most_ticks(self, max_length: int) -> int:
        """Ticks of the longest sample; ValueError where none fits."""
        if (most := (max_length - 1) // self.format.tokens) < 1:
            raise ValueError(f"max_length is {max_length}, but a tick has {self.format.tokens} tokens; raise it")
        return most

    def samples(self, row: Mapping, max_length: int, learn: str = "character") -> Iterator[dict]:
        """`{"input_ids", "labels", "task", "id"}` of a row with each of the two as the character; a long one is cut
        into equal pieces that may overlap."""
        most = self.most_ticks(max_length)
        for person in (0, 1):
            character, partner = self.streams(row, person)
            for start in windows(len(character), most):
                piece = slice(start, start + most)
                sample = self.write(character[piece], partner[piece], learn)
                yield {**sample, "task": "duplex", "id": f"{row['id']}#{person}@{start}"}

    def parse(self, ids: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Codes of the character and of the partner that ids (tokens,) hold, as strictly as `write` writes them. What
        follows `<eos>` is ignored; without one, ids end behind a tick too. Raises ValueError: ids that are no whole
        ticks, or one that does not belong in its place."""
        ids, eos = np.asarray(ids, dtype=np.int64).reshape(-1), self.layout.markers["eos"]
        ids = ids[: np.argmax(ids == eos)] if (ids == eos).any() else ids
        if len(ids) == 0 or len(ids) % self.format.tokens:
            raise ValueError(f"{len(ids)} ids are no whole ticks of {self.format.tokens} tokens")
        table = ids.reshape(-1, self.format.tokens)
        wrong = (table < self._spans[:, 0]) | (table >= self._spans[:, 1])
        if wrong.any():
            tick, place = np.argwhere(wrong)[0]
            raise ValueError(f"id {table[tick, place]} does not belong in place {place} of tick {tick}")
        found, place = [], 0
        for parts in (self.format.character, self.format.partner):
            place, codes = place + 1, {}
            for part in parts:
                stop = place + self.format.sizes[part]
                codes[part] = table[:, place:stop].reshape(-1) - self.layout.modalities[part]["first_id"]
                place = stop
            found.append(codes)
        return found


def windows(ticks: int, most: int) -> list[int]:
    """First ticks of pieces of at most `most` ticks that together cover all, evenly overlapping."""
    count = max(1, -(-ticks // most))
    return [i * (ticks - most) // (count - 1) for i in range(count)] if count > 1 else [0]
