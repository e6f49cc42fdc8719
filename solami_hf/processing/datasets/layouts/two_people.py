"""Two people in one recording: Seamless Interaction, and turns by voice activity.

Seamless Interaction, as its download script leaves it, in folders of any depth (`improvised/dev/0000/0023/`):

    V00_S0809_I00000582_P0947.npz    motion, see `processing/motion/formats/seamless.py`
    V00_S0809_I00000582_P0947.json   metadata:vad [{start, end}], metadata:transcript [{words: [{word, start, end}]}]
    V00_S0809_I00000582_P0947.wav    the participant's own voice

https://github.com/facebookresearch/seamless_interaction. Participants of one interaction (all of an id but its last
part) are a pair; the session (`V00_S0809`) is the source id, and a folder `dev`, `test` or `train` the split.

Voice activity becomes turns (`turns_of`). As chat, each of the two is once the character (`ID`, the turns of the other
are the user's), in rows of about `TURNS_A_ROW` turns that begin with the user and end with the character. As speech,
an interaction is a row. As motion, each turn gives two rows, one's who talks and one's who listens, each the other's
partner. Left out, and told in `rejected.jsonl`: interactions of one person or of three, turns without words (speech
and chat) or mostly without valid motion (motion and chat), and of a chat what is not answered or answers nothing.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...files.text_files import read_json
from ...motion.formats.motion_npz import load_arrays
from ...motion.formats.seamless import SEAMLESS_FPS
from ..manifests import BadRow

MIN_PAUSE, BACK_CHANNEL = 0.5, 1.0
TURNS_A_ROW, LEAST_VALID = 12, 0.5
_ID = re.compile(r"(?P<interaction>(?P<session>V\d+_S\d+)_I\w+?)_P\w+$")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_SLACK = 0.1  # seconds that a word may lie outside of its turn


@dataclass
class Turn:
    """What one of two people says until the other takes over.

    Attributes:
        person: 0 or 1.
        start, end: seconds; turns may overlap, as people do.
        back_channels: (start, end) of what the other says meanwhile without taking over.
    """

    person: int
    start: float
    end: float
    back_channels: list[tuple[float, float]] = field(default_factory=list)


def turns_of(
    voices: Sequence[Sequence[tuple[float, float]]], min_pause: float = MIN_PAUSE, back_channel: float = BACK_CHANNEL
) -> list[Turn]:
    """Turns of two people by when each is heard.

    Args:
        voices: of each of the two, (start, end) in seconds.
        min_pause: a shorter silence of one person is no pause.
        back_channel: what is not longer and lies inside the other's speech ("mhm") is no turn of its own.
    """
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
        around = (span for span in spans[1 - person] if span[0] <= start and end <= span[1])
        if end - start <= back_channel and any(s < start or end < e for s, e in around):
            aside.append((start, end, person))
        elif turns and turns[-1].person == person:
            turns[-1].end = max(turns[-1].end, end)
        else:
            turns.append(Turn(person, start, end))
    for start, end, person in aside:
        owner = next(turn for turn in turns if turn.person != person and turn.start <= start and end <= turn.end)
        owner.back_channels.append((start, end))
    return turns


def is_seamless(source: Path) -> bool:
    """True if a folder has this layout."""
    return source.is_dir() and next(_recordings(source), None) is not None


def _recordings(source: Path) -> Iterator[Path]:
    """The `.json` files of participants, folder by folder; of a large source one folder's names are in memory."""
    for folder, below, names in os.walk(source):
        below.sort()
        yield from (
            Path(folder) / name
            for name in sorted(names)
            if name.endswith(".json") and _ID.match(name[: -len(".json")])
        )


@dataclass
class _Person:
    id: str
    path: Path
    voice: list[tuple[float, float]]
    words: list[tuple[float, float, str]]

    def said(self, turn: Turn) -> str:
        """The words whose middle lies in a turn."""
        begin, end = turn.start - _SLACK, turn.end + _SLACK
        return " ".join(word for start, stop, word in self.words if begin <= (start + stop) / 2 <= end)

    def valid(self) -> np.ndarray | None:
        """Valid frames (T,), None where there is no motion."""
        file = self.path.with_suffix(".npz")
        arrays = load_arrays(file, {"smplh:is_valid.npy": "is_valid"}) if file.is_file() else {}
        return arrays["is_valid"].reshape(len(arrays["is_valid"]), -1).all(-1) if arrays else None


def read_seamless(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, speech or chat, interaction by interaction."""
    waiting: list[Path] = []
    for path in [*_recordings(source), None]:
        if waiting and (path is None or _interaction(path) != _interaction(waiting[0])):
            try:
                yield from _rows(source, kind, waiting)
            except ValueError as error:
                yield BadRow(_interaction(waiting[0]), str(error))
            waiting = []
        waiting += [path] if path else []


def _interaction(path: Path) -> str:
    return _ID.match(path.stem)["interaction"]


def _rows(source: Path, kind: str, paths: list[Path]) -> Iterator[dict | BadRow]:
    if len(paths) != 2:
        raise ValueError(f"has {len(paths)} participants, expected two")
    people, name = [_read_person(path) for path in paths], _interaction(paths[0])
    common = {"source": _ID.match(paths[0].stem)["session"]}
    folders = [part for part in paths[0].relative_to(source).parts[:-1] if part in _SPLITS]
    common |= {"split": _SPLITS[folders[-1]]} if folders else {}
    turns, valid = turns_of([person.voice for person in people]), [person.valid() for person in people]
    kept = []
    for turn in turns:
        fault = _fault(kind, turn, people, valid)
        if fault:
            yield BadRow(f"{name}@{turn.start:.2f}-{turn.end:.2f}", fault)
        else:
            kept.append(turn)
    if not kept:
        raise ValueError("has no turn that can be used")
    make = {"motion": _motion_rows, "speech": _speech_rows, "chat": _chat_rows}[kind]
    for row in make(source, name, people, kept):
        yield row if isinstance(row, BadRow) else {**row, **common}


def _fault(kind: str, turn: Turn, people: list[_Person], valid: list) -> str | None:
    """Why a turn cannot be used, None if it can."""
    if kind != "motion" and not people[turn.person].said(turn):
        return "has no words in metadata:transcript"
    if kind == "speech":
        return None
    frames = slice(round(turn.start * SEAMLESS_FPS), max(1, round(turn.end * SEAMLESS_FPS)))
    for person in (0, 1) if kind == "motion" else (turn.person,):
        if valid[person] is None:
            return f"has no motion: {people[person].id}.npz is not there, or has no smplh:is_valid"
        if not len(valid[person][frames]) or valid[person][frames].mean() < LEAST_VALID:
            return f"has less than {100 * LEAST_VALID:.0f} % valid frames of {people[person].id}"
    return None


def _read_person(path: Path) -> _Person:
    """What a `.json` file tells; ValueError where it is damaged."""
    told = read_json(path)
    if not isinstance(told, dict) or not isinstance(told.get("metadata:vad"), list):
        raise ValueError(f"{path.name} has no list metadata:vad")
    segments = told.get("metadata:transcript") or []
    try:
        voice = [(float(part["start"]), float(part["end"])) for part in told["metadata:vad"]]
        words = [word for segment in segments for word in segment.get("words") or [] if "start" in word]
        words = [(float(w["start"]), float(w["end"]), str(w["word"]).strip()) for w in words]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} has an entry without start, end or word ({error!r})") from None
    if not all(0 <= start <= end < math.inf for start, end, *_ in [*voice, *words]):
        raise ValueError(f"{path.name} has times that are no seconds, or end before they start")
    return _Person(path.stem, path, voice, sorted(words))


def _motion_rows(source: Path, name: str, people: list[_Person], turns: list[Turn]) -> Iterator[dict]:
    for turn in turns:
        piece = f"@{turn.start:.2f}-{turn.end:.2f}"
        said = people[turn.person].said(turn)
        for index, person in enumerate(people):
            text = f"a person talks: {said}" if said else "a person talks"
            yield {
                "id": person.id + piece, "motion": person.path.with_suffix(".npz").relative_to(source).as_posix(),
                "text": [text if index == turn.person else "a person listens"], "start": turn.start, "end": turn.end,
                "partner_id": people[1 - index].id + piece,
            }  # fmt: skip


def _turn_of(source: Path, person: _Person, turn: Turn) -> dict:
    sound = person.path.with_suffix(".wav").relative_to(source).as_posix()
    return {"text": person.said(turn), "audio": sound, "start": turn.start, "end": turn.end}


def _speech_rows(source: Path, name: str, people: list[_Person], turns: list[Turn]) -> Iterator[dict]:
    told = [_turn_of(source, people[t.person], t) | {"speaker": people[t.person].id.split("_")[-1]} for t in turns]
    yield {"id": name, "turns": told}


def _chat_rows(source: Path, name: str, people: list[_Person], turns: list[Turn]) -> Iterator[dict | BadRow]:
    for character, person in enumerate(people):
        rows, alone = _rounds(turns, character)
        for turn in alone:
            told = "has no turn of the other beside it" if turn.person == character else "is not answered"
            yield BadRow(f"{person.id}@{turn.start:.2f}-{turn.end:.2f}", told)
        for number, row in enumerate(rows):
            told = []
            for turn in row:
                motion = people[turn.person].path.with_suffix(".npz").relative_to(source).as_posix()
                role = "assistant" if turn.person == character else "user"
                told.append(_turn_of(source, people[turn.person], turn) | {"role": role, "motion": motion})
                if turn.back_channels:
                    told[-1]["back_channels"] = turn.back_channels
            yield {"id": f"{person.id}#{number}", "topic": "", "character": person.id.split("_")[-1], "turns": told}


def _rounds(turns: list[Turn], character: int) -> tuple[list[list[Turn]], list[Turn]]:
    """Rows of turns by turns, from the user to the character, and what fits into none.

    A turn that was dropped between two of one person ends a row: the later one may answer to it.
    """
    rows: list[list[Turn]] = [[]]
    alone = []
    for turn in turns:
        row, opens = rows[-1], turn.person != character
        if row and (row[-1].person == turn.person or (opens and len(row) >= TURNS_A_ROW)):
            rows.append(row := [])
        (row if row or opens else alone).append(turn)
    for row in rows:
        if row and row[-1].person != character:
            alone.append(row.pop())
    return [row for row in rows if row], alone
