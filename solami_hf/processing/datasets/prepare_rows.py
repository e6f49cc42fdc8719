"""Rows of a source turned into rows of a token dataset; the files that they name are encoded once, in batches.

What cannot be used is told why: a file has a ValueError in place of its codes, and a row that needs it raises this.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..audio.waveforms import read_audio
from ..batching import map_in_batches
from ..motion.motion_io import read_motion
from ..motion.smplx_motion import SmplxMotion
from .manifests import SPLITS
from .token_dataset import load_tokens

ROLES = ("system", "user", "assistant")
_READ_TOGETHER = 16  # batches whose files are in memory at once, so that like lengths find each other ...
_READ_SECONDS = 2 * 3600.0  # ... and no more sound than that
_BATCH_SECONDS = 600.0  # of sound in a batch, padding included


class MediaFile(NamedTuple):
    """A file that a row names, or a piece of it. `kind` is `motion` or `audio`, `motion_id` for a motion of a token
    dataset instead of a file; `name` the path relative to the source, or the id; `start` and `end` seconds of the
    piece, `end` None is the end of the file."""

    kind: str
    name: str
    start: float = 0.0
    end: float | None = None


def files_of(kind: str, row: dict) -> list[MediaFile]:
    """The files that a row needs, as far as it is well-formed; `token_row` tells what is not."""
    files: list[MediaFile] = []

    def note(file: MediaFile) -> dict:
        files.append(file)
        return {}

    with suppress(KeyError, ValueError):
        _COLUMNS_OF[kind](row, note)
    return files


def token_row(kind: str, row: dict, codes: Mapping[MediaFile, object]) -> dict:
    """A manifest's row of kind `motion`, `speech`, `chat` or `duplex` in the columns of `token_dataset.SCHEMAS[kind]`,
    with the codes of its files, see `Media.encode`. Raises ValueError: a column is missing or of a wrong type, or a
    file cannot be used."""

    def codes_of(file: MediaFile):
        if isinstance(found := codes[file], ValueError):
            raise found
        return found

    try:
        return {"id": row["id"], "source": row.get("source") or "", **_COLUMNS_OF[kind](row, codes_of)}
    except KeyError as error:
        raise ValueError(f"missing {error}") from None


def _motion(row: dict, codes) -> dict:
    captions = row["text"] if isinstance(row["text"], list) else [row["text"]]
    text = [_text(caption, "text") for caption in captions]
    return {"text": text, **codes(_piece(row, "motion")), "partner_id": row.get("partner_id")}


def _speech(row: dict, codes) -> dict:
    turns = []
    for turn in _turns(row):
        text, speech = _text(turn["text"], "text"), codes(_piece(turn, "audio"))
        turns.append({"text": text, "speech": speech, "speaker": _text(turn.get("speaker") or "", "speaker")})
    return {"turns": turns}


def _chat(row: dict, codes) -> dict:
    turns = []
    for turn in _turns(row):
        if turn["role"] not in ROLES:
            raise ValueError(f"role must be system, user or assistant, got {turn['role']!r}")
        source = next((key for key in ("motion", "motion_id") if turn.get(key)), None)
        motion = codes(_piece(turn, source)) if source else {}
        about = turn.get("motion_text")
        turns.append(
            {
                "role": turn["role"],
                "text": _text(turn["text"], "text"),
                "motion_text": None if about is None else _text(about, "motion_text"),
                **{name: motion.get(name) for name in ("body", "hand", "trans")},
                "speech": codes(_piece(turn, "audio")) if turn.get("audio") else None,
            }
        )
    texts = {"topic": _text(row.get("topic") or "", "topic"), "character": _text(row["character"], "character")}
    return {**texts, "turns": turns}


def _duplex(row: dict, codes) -> dict:
    """One time for the files of both people: `start` and `end` of the row."""
    people, time = [], {name: row[name] for name in ("start", "end") if row.get(name) is not None}
    for person in _turns(row, "people"):
        motion = codes(_piece(person | time, "motion"))
        streams = {name: motion.get(name) for name in ("body", "hand", "trans")}
        streams["speech"] = codes(_piece(person | time, "audio"))
        name = _text(person.get("person") or "", "person")
        people.append({"person": name, **streams, "talks": _talks(person.get("talks") or [])})
    return {"people": people}


def _talks(spans) -> list[list[float]]:
    try:
        return [[float(start), float(end)] for start, end in spans]
    except (TypeError, ValueError):
        raise ValueError(f"talks is {spans!r}, expected pairs of seconds") from None


_COLUMNS_OF = {"motion": _motion, "speech": _speech, "chat": _chat, "duplex": _duplex}


def _turns(row: dict, name: str = "turns") -> list[dict]:
    turns = row[name]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{name} must be a list of objects")
    if not turns:
        raise ValueError(f"no {name}")
    return turns


def _piece(row: dict, kind: str) -> MediaFile:
    """The file that a row or turn names as `kind`, from its `start` to its `end` (seconds), if there."""
    if kind == "motion_id":
        return MediaFile(kind, _text(row[kind], kind))
    start, end = row.get("start") or 0.0, row.get("end")
    try:
        start, end = float(start), None if end is None else float(end)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"start and end are {start!r} and {end!r}, expected seconds") from None
    if not 0 <= start < (math.inf if end is None else end) or end == math.inf:
        raise ValueError(f"start and end are {start!r} and {end!r}, expected seconds, the end behind the start")
    return MediaFile(kind, _text(row[kind], kind), start, end)


def _text(value, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is no valid Unicode") from None
    return value


def is_inside(name: str) -> bool:
    """True if the name of a file leads to a place in the folder of its source."""
    return not os.path.isabs(name) and ".." not in Path(name).parts and "\0" not in name


class Media:
    """Encodes files of a source folder, to which paths are relative, `batch_size` together, by a processor with the
    codecs that are needed. `known` are codes of files that another call with the same processor has encoded, by `key`;
    not changed here. `motion_tokens` is the folder or Hub id of the token dataset with the motions that rows name by
    id; it is read when the first is asked for."""

    def __init__(self, folder: Path, processor, batch_size: int, known: dict | None = None, motion_tokens=None):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.folder, self.processor, self.batch_size = folder, processor, batch_size
        self.known, self.motion_tokens = known or {}, motion_tokens

    def key(self, file: MediaFile) -> tuple:
        """Key of a file: two names of one file are one."""
        return file.kind, os.path.realpath(self.folder / file.name), file.start, file.end

    def path(self, file: MediaFile) -> Path:
        """Path of a file; ValueError when it is outside the source folder."""
        if not is_inside(file.name):
            raise ValueError(f"{file.name} lies outside {self.folder}; paths of a source are relative to its folder")
        return self.folder / file.name

    def encode(
        self, files: Iterable[MediaFile], done: Callable[[int, float], None] = lambda files, seconds: None
    ) -> dict[MediaFile, object]:
        """The codes of each file of motion or sound; a `ValueError` in place of those of a file that cannot be used.
        The result depends on the set of files alone. `done` is called with the number and the seconds of files that
        were encoded."""
        found, keys, codes = {}, {}, {}
        for file in files:
            if file.kind != "motion_id":
                try:
                    self.path(file)
                    keys[file] = self.key(file)
                except ValueError as error:
                    found[file] = error
        for kind, read, encode, seconds in (
            ("motion", self._read_motion, self._encode_motion, lambda m: m.duration),
            ("audio", self._read_audio, self._encode_audio, lambda w: len(w) / self._sampling_rate),
        ):
            wanted: dict[tuple, MediaFile] = {}
            for file in sorted((f for f in keys if f.kind == kind), key=lambda f: (f.name, f.start, f.end or 0.0)):
                wanted.setdefault(keys[file], file)
            loaded, length = {}, 0.0
            for key, file in wanted.items():
                if key in self.known:
                    codes[key] = self.known[key]
                    continue
                try:
                    loaded[key] = read(file)
                    length += seconds(loaded[key])
                except (ValueError, OSError) as error:
                    codes[key] = ValueError(str(error))
                    done(1, 0.0)
                full = len(loaded) == _READ_TOGETHER * self.batch_size or length > _READ_SECONDS
                if full and len(loaded) % self.batch_size == 0:
                    codes |= self._encode_some(loaded, encode)
                    done(len(loaded), length)
                    loaded, length = {}, 0.0
            codes |= self._encode_some(loaded, encode)
            done(len(loaded), length)
        return found | {file: codes[key] for file, key in keys.items()}

    def motions_by_id(self, files: Iterable[MediaFile], split: str) -> dict[MediaFile, object]:
        """`body`, `hand` and `trans` of the motions that a dialogue of a split names by id. There is a `ValueError`
        instead where there is no such row, for motions of another codec, and for a held-out motion of a dialogue to
        train on."""
        found = {}
        for file in files:
            if file.kind == "motion_id":
                try:
                    found[file] = self._motion_by_id(file.name, split)
                except ValueError as error:
                    found[file] = error
        return found

    def _motion_by_id(self, row_id: str, split: str) -> dict[str, list[int]]:
        if row_id not in self._places:
            raise ValueError(
                f"motion_id {row_id!r} is no motion of {self.motion_tokens}; run `solami prepare motion` into it "
                "first, or say with --motion_tokens where it is"
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
                tables[split] = load_tokens(self.motion_tokens, "motion", split, self.processor)
            except FileNotFoundError:
                continue
        return tables

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        ids = {split: table.data.column("id").to_pylist() for split, table in self._tables.items()}
        return {row_id: (split, number) for split, names in ids.items() for number, row_id in enumerate(names)}

    def _encode_some(self, loaded: dict, encode: Callable) -> dict:
        if not loaded:
            return {}
        try:
            return dict(zip(loaded, encode(list(loaded.values())), strict=True))
        except ValueError:  # one bad file must not cost the batch: find it
            codes = {}
            for key, value in loaded.items():
                try:
                    codes[key] = encode([value])[0]
                except ValueError as error:
                    codes[key] = ValueError(str(error))
            return codes

    def _read_motion(self, file: MediaFile) -> SmplxMotion:
        motion = read_motion(self.path(file), fps=self.processor.motion_codec.config.fps)
        if not file.start and file.end is None:
            return motion
        start, end = (None if t is None else round(t * motion.fps) for t in (file.start, file.end))
        if start >= motion.num_frames:
            raise ValueError(f"{file.name} lasts {motion.duration:.2f} s, but the row begins at {file.start:g} s")
        return replace(motion, transl=motion.transl[start:end], poses=motion.poses[start:end])

    def _encode_motion(self, motions: list[SmplxMotion]) -> list[dict]:
        codes = self.processor.encode_motion(motions, batch_size=self.batch_size)
        return [{**c, "num_frames": m.num_frames} for c, m in zip(codes, motions, strict=True)]

    @property
    def _sampling_rate(self) -> int:
        return self.processor.speech_codec.config.sampling_rate

    def _read_audio(self, file: MediaFile):
        values, rate = read_audio(self.path(file), sampling_rate=self._sampling_rate), self._sampling_rate
        piece = values[round(file.start * rate) : None if file.end is None else round(file.end * rate)]
        if not len(piece):
            raise ValueError(f"{file.name} lasts {len(values) / rate:.2f} s, but the row begins at {file.start:g} s")
        return piece

    def _encode_audio(self, waves: list) -> list:
        def encode(batch: list) -> list:
            return self.processor.encode_speech(batch, batch_size=len(batch))

        most = round(_BATCH_SECONDS * self._sampling_rate)
        return map_in_batches(waves, len, self.batch_size, encode, most_steps=most)
