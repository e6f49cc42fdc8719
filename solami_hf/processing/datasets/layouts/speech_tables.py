"""Recordings listed in a table, and spoken dialogues listed as JSONL: Common Voice, LJSpeech, AnyInstruct.

    Common Voice    train.tsv, dev.tsv, test.tsv (or validated.tsv), columns client_id, path, sentence; clips/
    LJSpeech        metadata.csv, lines `id|text|text with numbers written out`; wavs/ID.wav
    AnyInstruct     metadata.jsonl, one dialogue a line

The source id is the speaker for Common Voice and the book's chapter (`LJ001` of `LJ001-0001`) for LJSpeech.
https://commonvoice.mozilla.org, https://keithito.com/LJ-Speech-Dataset

A line of AnyInstruct is an object with a list of turns (`chat`, `conversations`, `conversation`, `messages` or
`dialogue`). A turn has words (`message`, `text`, `content` or `value`), the path of its recording (`speech`, `audio`,
`wav` or `path`), and who speaks (`role`, `from` or `speaker`). Paths are relative to the file's folder. Names differ
between releases of such data, so all of these are understood. A dialogue is its own source.
"""

from collections.abc import Iterator
from pathlib import Path

from ..manifests import BadRow, json_lines, table_rows

_SPLIT_OF = {"train": "train", "dev": "validation", "test": "test"}
_HEADER = ("client_id", "path", "sentence")


def is_common_voice(source: Path) -> bool:
    """True if a folder, or the folder of a `.tsv` file, has this layout."""
    folder = source.parent if source.is_file() else source
    return (folder / "clips").is_dir() and bool(_tables(source))


def _tables(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix == ".tsv" else []
    tables = [path for name in _SPLIT_OF if (path := source / f"{name}.tsv").is_file()]
    return tables or [path for path in [source / "validated.tsv"] if path.is_file()]


def read_common_voice(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind speech, table by table; a file that is not train, dev or test says nothing about splits."""
    for table in _tables(source):
        split = {"split": _SPLIT_OF[table.stem]} if table.stem in _SPLIT_OF else {}
        for number, row in table_rows(table, "\t", quoted=False):
            if not isinstance(row, BadRow) and (missing := [name for name in _HEADER if name not in row]):
                row = BadRow(f"{table.name}:{number}", f"lacks {', '.join(missing)}")
            if isinstance(row, BadRow):
                yield row
                continue
            file = row["path"] if "." in row["path"] else f"{row['path']}.mp3"  # as in the first releases
            turn = {"text": row["sentence"], "audio": f"clips/{file}", "speaker": row["client_id"]}
            yield {"id": file.rsplit(".", 1)[0], "turns": [turn], "source": row["client_id"], **split}


def read_ljspeech(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind speech, in the order of `metadata.csv`; the speaker is the folder's name."""
    for number, row in table_rows(source / "metadata.csv", "|", ["id", "text", "normalised"], quoted=False):
        if isinstance(row, BadRow):
            yield row
        elif "id" not in row or not (row.get("normalised") or row.get("text")):
            yield BadRow(row.get("id", f"metadata.csv:{number}"), "is not id|text|normalised text")
        else:
            text = row.get("normalised") or row["text"]
            turn = {"text": text, "audio": f"wavs/{row['id']}.wav", "speaker": source.resolve().name}
            yield {"id": row["id"], "turns": [turn], "source": row["id"].split("-")[0]}


_TURNS = ("chat", "conversations", "conversation", "messages", "dialogue")
_WORDS = ("message", "text", "content", "value")
_SOUND = ("speech", "audio", "wav", "path")
_SPEAKER = ("speaker", "role", "from")


def is_any_instruct(source: Path) -> bool:
    """True if a `.jsonl` file, or a folder's `metadata.jsonl`, begins with a dialogue of this kind."""
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
