"""Spoken dialogues as JSONL, in the manner of AnyInstruct: `metadata.jsonl`, one dialogue a line.

A line is an object with a list of turns (`chat`, `conversations`, `conversation`, `messages` or `dialogue`). A turn
has words (`message`, `text`, `content` or `value`), the path of its recording (`speech`, `audio`, `wav` or `path`),
and who speaks (`role`, `from` or `speaker`). Paths are relative to the file's folder. Names differ between releases of
such data, so all of these are understood. A dialogue is its own source.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..manifests import BadRow, json_lines

_TURNS = ("chat", "conversations", "conversation", "messages", "dialogue")
_WORDS = ("message", "text", "content", "value")
_SOUND = ("speech", "audio", "wav", "path")
_SPEAKER = ("speaker", "role", "from")


def is_any_instruct(source: Path) -> bool:
    """Whether a `.jsonl` file, or a folder's `metadata.jsonl`, begins with a dialogue of this kind."""
    path = _file(source)
    if not path.is_file() or path.suffix != ".jsonl":
        return False
    first = next((row for _, row in json_lines(path) if not isinstance(row, BadRow)), {})
    return any(isinstance(first.get(name), list) for name in _TURNS)


def _file(source: Path) -> Path:
    return source if source.is_file() else source / "metadata.jsonl"


def read_any_instruct(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind speech, in the order of the file."""
    path = _file(source)
    for number, row in json_lines(path):
        place = f"{path.name}:{number}"
        if isinstance(row, BadRow):
            yield row
            continue
        name = str(row.get("id", f"{path.stem}-{number}"))
        turns = next((row[key] for key in _TURNS if isinstance(row.get(key), list)), None)
        if turns is None:
            yield BadRow(name, f"{place} has no list of turns; expected one of {', '.join(_TURNS)}")
        elif not all(isinstance(turn, dict) for turn in turns):
            yield BadRow(name, f"{place} has turns that are no objects")
        else:
            found = [{"text": _of(t, _WORDS), "audio": _of(t, _SOUND), "speaker": _of(t, _SPEAKER)} for t in turns]
            yield {"id": name, "turns": [{k: v for k, v in t.items() if v is not None} for t in found], "source": name}


def _of(turn: dict, names: tuple[str, ...]) -> str | None:
    return next((turn[name] for name in names if turn.get(name)), None)
