"""Seamless Interaction: two people in one recording.

As its download script leaves it, in folders of any depth (`improvised/dev/0000/0023/`):

    V00_S0809_I00000582_P0947.npz    motion, see `processing/motion/formats/seamless.py`
    V00_S0809_I00000582_P0947.json   metadata:vad [{start, end}], metadata:transcript [{words: [{word, start, end}]}]
    V00_S0809_I00000582_P0947.wav    the participant's own voice

https://github.com/facebookresearch/seamless_interaction. Participants of one interaction (all of an id but its last
part) are a pair; the session (`V00_S0809`) is the source id, and a folder `dev`, `test` or `train` the split. Rows are
those of `turn_taking.py`. Interactions of one person or of three are left out, and told in `rejected.jsonl`.
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...files.text_files import read_json
from ...motion.formats.motion_npz import load_arrays
from ...motion.formats.seamless import SEAMLESS_FPS
from ..manifests import BadRow
from .turn_taking import Participant, Turn, conversation_rows, turns_of

__all__ = ["Turn", "is_seamless", "read_seamless", "turns_of"]

_ID = re.compile(r"(?P<interaction>(?P<session>V\d+_S\d+)_I\w+?)_P\w+$")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def is_seamless(source: Path) -> bool:
    """True if a folder has this layout."""
    return source.is_dir() and next(_recordings(source), None) is not None


def _recordings(source: Path) -> Iterator[Path]:
    """The `.json` files of participants, folder by folder; of a large source one folder's names are in memory."""
    for folder, below, names in os.walk(source):
        below.sort()
        named = [name for name in sorted(names) if name.endswith(".json") and _ID.match(name[: -len(".json")])]
        yield from (Path(folder) / name for name in named)


def read_seamless(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, speech, chat or duplex, interaction by interaction."""
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
    common = {"source": _ID.match(paths[0].stem)["session"]}
    folders = [part for part in paths[0].relative_to(source).parts[:-1] if part in _SPLITS]
    common |= {"split": _SPLITS[folders[-1]]} if folders else {}
    people = [_read_person(source, path, kind) for path in paths]
    for row in conversation_rows(kind, _interaction(paths[0]), people):
        yield row if isinstance(row, BadRow) else {**row, **common}


def _read_person(source: Path, path: Path, kind: str) -> Participant:
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
    motion, valid = path.with_suffix(".npz"), None
    if kind != "speech" and motion.is_file() and (found := load_arrays(motion, {"smplh:is_valid.npy": "is_valid"})):
        valid = found["is_valid"].reshape(len(found["is_valid"]), -1).all(-1)
    names = [file.relative_to(source).as_posix() for file in (motion, path.with_suffix(".wav"))]
    return Participant(path.stem, path.stem.split("_")[-1], *names, voice, sorted(words), valid, SEAMLESS_FPS)
