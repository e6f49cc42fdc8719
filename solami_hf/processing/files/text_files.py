"""Text files: a user's is read whole, in the encoding that its byte order mark tells, else UTF-8; ours are written
whole or not at all."""

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from .atomic_write import atomic_write

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UNREAD = re.compile("[\0\udc80-\udcff]")


def read_text(path: str | Path) -> str:
    """A file's text, its line ends as `\\n`. Raises OSError: it cannot be read. ValueError: it is no UTF-8, nor UTF-16
    or UTF-32 with a byte order mark."""
    return text_of(Path(path).read_bytes(), path)


def text_of(data: bytes, name: str | Path, errors: str = "strict") -> str:
    """The text of a file's bytes; `name` is for the error, `errors` as of `bytes.decode`. See `read_text`."""
    try:
        text = data.decode(_encoding(data), errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no text that can be read ({error}); {_remedy(name)}") from None
    if fault := undecoded(text):
        raise ValueError(f"{name} {fault}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path):
    """Contents of a JSON file; ValueError where it is none."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from None


def read_yaml(path: str | Path):
    """Contents of a YAML file; ValueError where it is none."""
    import yaml

    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date of month 13
        raise ValueError(f"{path} is not YAML ({error})") from None


def read_lines(path: str | Path, newline: str | None = None) -> Iterator[str]:
    """The lines of a file, one in memory at a time. What is no UTF-8 in a line is found by `undecoded`. `newline` ""
    keeps the line ends as they are, as `csv` wants them; None makes them line feeds. Raises OSError: it cannot be
    read; ValueError: UTF-16 or UTF-32 that is damaged."""
    with open(path, "rb") as file:
        encoding = _encoding(file.peek(4)[:4])
        try:
            yield from io.TextIOWrapper(file, encoding, "surrogateescape", newline)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text that can be read ({error}); {_remedy(path)}") from None


def undecoded(text: str) -> str | None:
    """Fault of text that holds bytes of another encoding, None without one."""
    if found := _UNREAD.search(text):
        what = "zero bytes" if found[0] == "\0" else f"the byte 0x{ord(found[0]) & 0xFF:02X}"
        return f"holds {what} where text in UTF-8 has none; {_remedy('FILE')}"
    return None


def _encoding(data: bytes) -> str:
    return next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")


def _remedy(name: str | Path) -> str:
    return f"save it as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8 {Path(name).name} > NEW`"


def write_text(path: str | Path, text: str) -> None:
    """Writes a file of UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value, **options) -> None:
    """Writes a JSON file, whole or not at all; `options` as of `json.dumps`."""
    write_text(path, json.dumps(value, **{"indent": 1, **options}) + "\n")


def write_json_lines(path: str | Path, rows: Iterable, **options) -> int:
    """Writes a JSONL file, whole or not at all; the number of its lines."""
    count = 0
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, **options) + "\n")
            count += 1
    return count
