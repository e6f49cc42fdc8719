"""Turns of people who talk with one another, by when each is heard, and the rows that a conversation makes.

As chat, each of the people is once the character, and the turns of another are the user's, in rows of about
`TURNS_A_ROW` turns that begin with the user and end with the character. Among three or more, a row goes on as long as
the two alternate. As speech, a conversation is a row. As motion, each turn gives a row for everybody, one who talks
and the others who listen; a listener's partner is who talks, and the partner of who talks is who talked before. As
duplex, the files of two people in pieces of `DUPLEX_SECONDS`, whatever is said.

What is left out is told as `BadRow`: turns without words (speech and chat, where the data has words), turns that are
mostly without valid motion (motion and chat; duplex: pieces), and of a chat what is not answered or answers nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..manifests import BadRow

MIN_PAUSE, BACK_CHANNEL = 0.5, 1.0
TURNS_A_ROW, LEAST_VALID, DUPLEX_SECONDS = 12, 0.5, 60.0
_SLACK = 0.1  # seconds that a word may lie outside of its turn
_WINDOW, _SHORTEST, _FAINTEST = 0.02, 0.1, 1e-3  # seconds, seconds, root mean square


@dataclass
class Turn:
    """What one person, the one of that index, says from `start` to `end` until another takes over. In seconds; turns
    may overlap, as people do. `back_channels` are (start, end) of what others say meanwhile without taking over."""

    person: int
    start: float
    end: float
    back_channels: list[tuple[float, float]] = field(default_factory=list)


def turns_of(
    voices: Sequence[Sequence[tuple[float, float]]], min_pause: float = MIN_PAUSE, back_channel: float = BACK_CHANNEL
) -> list[Turn]:
    """Turns of people by when each is heard, (start, end) in seconds. A silence of one person that is shorter than
    `min_pause` is no pause; what is not longer than `back_channel` and lies inside another's speech ("mhm") is no turn
    of its own."""
    spans: list[list[tuple[float, float]]] = []
    for voice in voices:
        joined: list[list[float]] = []
        for start, end in sorted(voice):
            if joined and start - joined[-1][1] < min_pause:
                joined[-1][1] = max(joined[-1][1], end)
            elif end > start:
                joined.append([start, end])
        spans.append([(start, end) for start, end in joined])
    heard = sorted((start, end, person) for person, voice in enumerate(spans) for start, end in voice)
    turns: list[Turn] = []
    aside = []
    for start, end, person in heard:
        others = (span for other, voice in enumerate(spans) if other != person for span in voice)
        inside = any(s <= start and end <= e and (s < start or end < e) for s, e in others)
        if end - start <= back_channel and inside:
            aside.append((start, end, person))
        elif turns and turns[-1].person == person:
            turns[-1].end = max(turns[-1].end, end)
        else:
            turns.append(Turn(person, start, end))
    for start, end, person in aside:
        owner = next(turn for turn in turns if turn.person != person and turn.start <= start and end <= turn.end)
        owner.back_channels.append((start, end))
    return turns


def heard_spans(values: np.ndarray, sampling_rate: int, decibels: float = 35.0) -> list[tuple[float, float]]:
    """When a voice is heard (start, end) in seconds, in sound (samples,) that holds this voice alone. A piece of 20 ms
    that lies further below the loudest one than `decibels` is silent, as is any below -60 dB."""
    piece = max(1, round(_WINDOW * sampling_rate))
    pieces = np.pad(values.astype(np.float64), (0, -len(values) % piece)).reshape(-1, piece)
    loudness = np.sqrt((pieces**2).mean(axis=1))
    loud = loudness >= max(loudness.max(initial=0.0) * 10 ** (-decibels / 20), _FAINTEST)
    edges = np.flatnonzero(np.diff(loud, prepend=False, append=False)).reshape(-1, 2) * piece / sampling_rate
    return [(float(start), float(end)) for start, end in edges if end - start >= _SHORTEST]


@dataclass
class Participant:
    """One person of a conversation.

    Attributes:
        id, speaker: of the person in this conversation, and of the person.
        motion, sound: paths relative to the source.
        voice: (start, end) of what is heard of the person, in seconds.
        words: (start, end, word); None where the data has no words.
        valid: (T,) frames whose motion is good; None where there is none.
        fps: of `valid`.
    """

    id: str
    speaker: str
    motion: str
    sound: str
    voice: list[tuple[float, float]]
    words: list[tuple[float, float, str]] | None
    valid: np.ndarray | None
    fps: float

    def said(self, turn: Turn) -> str:
        """The words whose middle lies in a turn."""
        begin, end = turn.start - _SLACK, turn.end + _SLACK
        return " ".join(word for start, stop, word in self.words or () if begin <= (start + stop) / 2 <= end)


def conversation_rows(kind: str, name: str, people: list[Participant]) -> Iterator[dict | BadRow]:
    """Rows of kind motion, speech, chat or duplex of one conversation; ValueError where nothing of it can be used."""
    if kind == "duplex":
        yield from _duplex_rows(name, people)
        return
    kept = []
    for turn in turns_of([person.voice for person in people]):
        fault = _fault(kind, turn, people)
        if fault:
            yield BadRow(f"{name}@{turn.start:.2f}-{turn.end:.2f}", fault)
        else:
            kept.append(turn)
    if not kept:
        raise ValueError("has no turn that can be used")
    if kind == "motion":
        yield from _motion_rows(people, kept)
    elif kind == "speech":
        told = [_turn_of(people[t.person], t) | {"speaker": people[t.person].speaker} for t in kept]
        yield {"id": name, "turns": told}
    else:
        yield from _chat_rows(people, kept)


def _fault(kind: str, turn: Turn, people: list[Participant]) -> str | None:
    """Why a turn cannot be used, None if it can."""
    talks = people[turn.person]
    if kind != "motion" and talks.words is not None and not talks.said(turn):
        return "has no words in metadata:transcript"
    if kind == "speech":
        return None
    for person in people if kind == "motion" else [talks]:
        frames = slice(round(turn.start * person.fps), max(1, round(turn.end * person.fps)))
        if fault := _fault_of(person, frames):
            return fault
    return None


def _fault_of(person: Participant, frames: slice) -> str | None:
    """Why the motion of a person cannot be used in these frames, None if it can."""
    if person.valid is None:
        return f"has no motion: {person.motion} is not there, or does not say which frames are valid"
    if not len(person.valid[frames]) or person.valid[frames].mean() < LEAST_VALID:
        return f"has less than {100 * LEAST_VALID:.0f} % valid frames of {person.id}"
    return None


def _motion_rows(people: list[Participant], turns: list[Turn]) -> Iterator[dict]:
    for number, turn in enumerate(turns):
        piece = f"@{turn.start:.2f}-{turn.end:.2f}"
        said = people[turn.person].said(turn)
        before = [other.person for other in [*turns[:number][::-1], *turns[number + 1 :]]]
        addressed = next((other for other in before if other != turn.person), turn.person - 1)
        for index, person in enumerate(people):
            talks = index == turn.person
            text = (f"a person talks: {said}" if said else "a person talks") if talks else "a person listens"
            partner = people[addressed if talks else turn.person].id
            row = {"id": person.id + piece, "motion": person.motion, "text": [text]}
            yield {**row, "start": turn.start, "end": turn.end, "partner_id": partner + piece}


def _duplex_rows(name: str, people: list[Participant]) -> Iterator[dict | BadRow]:
    """Pieces of two people on one clock; `talks` are seconds from the piece's start on."""
    if len(people) != 2:
        raise ValueError(f"has {len(people)} participants, expected two")
    for person in people:
        if person.valid is None:
            raise ValueError(_fault_of(person, slice(None)))
    seconds = min(len(person.valid) / person.fps for person in people)
    for start in np.arange(0, seconds, DUPLEX_SECONDS).tolist():
        end = min(seconds, start + DUPLEX_SECONDS)
        piece, told = f"{name}@{start:.2f}-{end:.2f}", []
        faults = [_fault_of(p, slice(round(start * p.fps), round(end * p.fps))) for p in people]
        if fault := next(filter(None, faults), None):
            yield BadRow(piece, fault)
            continue
        for person in people:
            heard = [(max(s, start) - start, min(e, end) - start) for s, e in person.voice if s < end and e > start]
            told.append({"person": person.speaker, "motion": person.motion, "audio": person.sound, "talks": heard})
        yield {"id": piece, "start": start, "end": end, "people": told}


def _turn_of(person: Participant, turn: Turn) -> dict:
    return {"text": person.said(turn), "audio": person.sound, "start": turn.start, "end": turn.end}


def _chat_rows(people: list[Participant], turns: list[Turn]) -> Iterator[dict | BadRow]:
    used: list[Turn] = []
    for character, person in enumerate(people):
        rows, alone = _rounds(turns, character)
        for turn in alone if len(people) == 2 else ():
            told = "has no turn of the other beside it" if turn.person == character else "is not answered"
            yield BadRow(f"{person.id}@{turn.start:.2f}-{turn.end:.2f}", told)
        for number, row in enumerate(rows):
            used += row
            told = []
            for turn in row:
                role, talks = "assistant" if turn.person == character else "user", people[turn.person]
                told.append(_turn_of(talks, turn) | {"role": role, "motion": talks.motion})
                if turn.back_channels:
                    told[-1]["back_channels"] = turn.back_channels
            yield {"id": f"{person.id}#{number}", "topic": "", "character": person.speaker, "turns": told}
    for turn in turns if len(people) > 2 else ():
        if not any(turn is other for other in used):
            yield BadRow(f"{people[turn.person].id}@{turn.start:.2f}-{turn.end:.2f}", "answers nobody, unanswered")


def _rounds(turns: list[Turn], character: int) -> tuple[list[list[Turn]], list[Turn]]:
    """Rows of turns by turns, from one user to the character, and what fits into none. A turn that was dropped between
    two of one person ends a row: the later one may answer to it. A third ends it too."""
    rows: list[list[Turn]] = [[]]
    alone = []
    for turn in turns:
        row, opens = rows[-1], turn.person != character
        if row and (
            row[-1].person == turn.person or (opens and (len(row) >= TURNS_A_ROW or turn.person != row[0].person))
        ):
            rows.append(row := [])
        (row if row or opens else alone).append(turn)
    for row in rows:
        if row and row[-1].person != character:
            alone.append(row.pop())
    return [row for row in rows if row], alone
