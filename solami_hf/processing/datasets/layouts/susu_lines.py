"""SuSuInterActs: a character's lines, each with motion, voice and tags (huggingface.co/Chuhaojin/SuSuInterActs).

    motion_data/NAME.npy          see `processing/motion/formats/susu.py`
    wav_data/NAME.wav             what is said
    text_data/motion2text.json    {NAME: "【表情：...】【动作：...】words"}, or {NAME: {expression, action, dialogue}}
    split/train_file_list.txt     names, one a line; also val and test; if there

A name may have folders in it; these are the source id. As motion, the caption is the action, else the expression. As
speech, a row is a line. Who is answered is not in the data, so there are no dialogues.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ...files.text_files import read_json
from ..manifests import BadRow
from .motion_folders import listed_splits

_TEXTS = "text_data/motion2text.json"
_TAG = re.compile(r"【(表情|动作)[：:]([^】]*)】")
_FIELDS = {"表情": "expression", "动作": "action"}


def is_susu(source: Path) -> bool:
    """True if a folder has this layout."""
    return (source / _TEXTS).is_file() and ((source / "motion_data").is_dir() or (source / "wav_data").is_dir())


def read_susu_lines(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion or speech, sorted by name."""
    try:
        lines = read_json(source / _TEXTS)
        if not isinstance(lines, dict):
            raise ValueError("is no object {name: text}")
    except ValueError as error:
        yield BadRow(_TEXTS, str(error))
        return
    split_of = listed_splits(source, "split/", "_file_list")
    folder, suffix = ("motion_data", ".npy") if kind == "motion" else ("wav_data", ".wav")
    for name, line in sorted(lines.items()):
        try:
            told, file = _told(line), f"{folder}/{name}{suffix}"
            if not (source / file).is_file():
                raise ValueError(f"has no {file}")
            row = {"id": name, "source": name.rpartition("/")[0] or name, **split_of(name)}
            if kind == "motion":
                caption = told.get("action") or told.get("expression")
                yield {**row, "motion": file, "text": [caption] if caption else []}
            elif not told["dialogue"]:
                raise ValueError(f"has no words in {_TEXTS}")
            else:
                yield {**row, "turns": [{"text": told["dialogue"], "audio": file, "speaker": "SuSu"}]}
        except ValueError as error:
            yield BadRow(name, str(error))


def _told(line) -> dict[str, str]:
    """Expression, action and dialogue of a line in either form."""
    if isinstance(line, str):
        told = {_FIELDS[tag]: text.strip() for tag, text in _TAG.findall(line)}
        return told | {"dialogue": _TAG.sub("", line).strip()}
    if not isinstance(line, dict) or not all(isinstance(text, str | None) for text in line.values()):
        raise ValueError(f"is {line!r} in {_TEXTS}, expected text, or an object of texts")
    return {"dialogue": "", **{name: (text or "").strip() for name, text in line.items()}}
