"""Embody 3D: one person, two or more in one place, each with a sound track of their own.

As its download script leaves it; the source is a section (`acting`, `emotions`, ...) or the folder of all of them:

    acting/dataset.json                              {person: {capture: {length, text, multiperson, audio}}}
    acting/CAPTURE/PERSON/smplx_mesh_*/CAPTURE.npy   motion, see `processing/motion/formats/embody3d.py`
    acting/CAPTURE/PERSON/separated_audio/CAPTURE.wav             or audio_separated/
    acting/CAPTURE/PERSON/text_annotations/CAPTURE.json           {frame: {describe_person_movement: [text]}}

https://github.com/facebookresearch/embody-3d. A capture's name ends in its first and last frame, and the frames of the
annotations count from the same start, every 10 s. Its date, time and people are the source id.

As motion, annotated captures give a row for each 10 s of a person; captures of several people with sound give the
rows of `turn_taking.py`; all others one row, whose caption is the short text of `dataset.json`. As chat, the rows are
those of `turn_taking.py`; who is heard when follows from how loud each track is, and as there are no transcripts, the
turns have no words.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ...audio.waveforms import read_audio
from ...files.text_files import read_json
from ...motion.formats.embody3d import EMBODY_FPS, FEATURE, valid_frames
from ..manifests import BadRow
from .turn_taking import Participant, conversation_rows, heard_spans

_LIST = "dataset.json"
_TRACKS = ("separated_audio", "audio_separated")
_MOVEMENT, _SECONDS = "describe_person_movement", 10.0
_RATE = 16000
_FRAMES = re.compile(r"--(\d+)-\d+$")


def is_embody3d(source: Path) -> bool:
    """True if a folder has this layout."""
    return any(next(section.glob(f"*/*/{FEATURE}transl"), None) for section in _sections(source))


def _sections(source: Path) -> list[Path]:
    folders = [source, *sorted(path for path in source.glob("*") if path.is_dir())] if source.is_dir() else []
    return [folder for folder in folders if (folder / _LIST).is_file()]


def read_embody3d_captures(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, chat or duplex, capture by capture."""
    for section in _sections(source):
        place = section.relative_to(source).as_posix()
        try:
            people = read_json(section / _LIST)
            if not isinstance(people, dict) or not all(isinstance(told, dict) for told in people.values()):
                raise ValueError("is no object {person: {capture: {...}}}")
        except ValueError as error:
            yield BadRow((Path(place) / _LIST).as_posix(), str(error))
            continue
        captures: dict[str, dict] = {}
        for person, told in people.items():
            for capture, facts in told.items():
                captures.setdefault(capture, {})[person] = facts if isinstance(facts, dict) else {}
        for capture, facts in sorted(captures.items()):
            stem = capture.removesuffix(".npy")
            try:
                for row in _rows(source, section / capture, stem, kind, facts):
                    yield row if isinstance(row, BadRow) else {**row, "source": "--".join(stem.split("--")[:3])}
            except ValueError as error:
                yield BadRow(stem, str(error))


def _rows(source: Path, folder: Path, stem: str, kind: str, facts: dict) -> Iterator[dict | BadRow]:
    names = sorted(facts)
    notes = {name: folder / name / "text_annotations" / f"{stem}.json" for name in names}
    talks = len(names) > 1 and all(facts[name].get("audio") for name in names)
    if kind == "motion" and any(path.is_file() for path in notes.values()):
        for name in names:
            try:
                yield from _annotated(source, folder, stem, name, names, notes[name])
            except ValueError as error:
                yield BadRow(f"{stem}/{name}", str(error))
    elif kind == "motion" and not talks:
        for name in names:
            text, partner = facts[name].get("text"), [f"{stem}/{other}" for other in names if other != name]
            captions = [re.sub(r"[\W_]+", " ", text).strip()] if isinstance(text, str) and ".json" not in text else []
            row = {"id": f"{stem}/{name}", "motion": _motion(source, folder, stem, name), "text": captions}
            yield row | ({"partner_id": partner[0]} if len(partner) == 1 else {})
    elif not talks:
        raise ValueError("has no sound of two or more people")
    else:
        yield from conversation_rows(kind, stem, [_participant(source, folder, stem, name) for name in names])


def _motion(source: Path, folder: Path, stem: str, name: str) -> str:
    return (folder / name / f"{FEATURE}transl" / f"{stem}.npy").relative_to(source).as_posix()


def _annotated(source: Path, folder: Path, stem: str, name: str, names: list[str], path: Path) -> Iterator[dict]:
    """A row for each piece of an annotation; the partner's of the same time is there if there is one partner."""
    first = _FRAMES.search(stem)
    pieces = read_json(path) if path.is_file() else {}
    if first is None or not isinstance(pieces, dict):
        raise ValueError(f"{path.name} is no object {{frame: texts}}, or its name does not end in its frames")
    for frame, texts in pieces.items():
        said = texts.get(_MOVEMENT) if isinstance(texts, dict) else None
        said = [said] if isinstance(said, str) else said
        if not str(frame).isdigit() or int(frame) < int(first[1]) or not isinstance(said, list) or not said:
            yield BadRow(f"{stem}/{name}@{frame}", f"is no piece of {path.name} with {_MOVEMENT}")
            continue
        start = (int(frame) - int(first[1])) / EMBODY_FPS
        end, others = start + _SECONDS, [other for other in names if other != name]
        row = {"id": f"{stem}/{name}@{start:g}-{end:g}", "motion": _motion(source, folder, stem, name)}
        row |= {"text": [str(text) for text in said], "start": start, "end": end}
        yield row | ({"partner_id": f"{stem}/{others[0]}@{start:g}-{end:g}"} if len(others) == 1 else {})


def _participant(source: Path, folder: Path, stem: str, name: str) -> Participant:
    track = next((p for t in _TRACKS if (p := folder / name / t / f"{stem}.wav").is_file()), None)
    if track is None:
        raise ValueError(f"has no {_TRACKS[0]}/{stem}.wav of {name}")
    motion = _motion(source, folder, stem, name)
    voice = heard_spans(read_audio(track, _RATE), _RATE)
    valid = valid_frames(source / motion) if (source / motion).is_file() else None
    sound = track.relative_to(source).as_posix()
    return Participant(f"{stem}/{name}", name, motion, sound, voice, None, valid, EMBODY_FPS)
