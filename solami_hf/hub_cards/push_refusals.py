"""Refuses what must not go to the Hub: secrets, pickles, paths of this machine, licensed body models."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..processing.files.text_files import text_of

MAX_TEXT_BYTES = 64 << 20
_TEXT = (".json", ".jsonl", ".yaml", ".yml", ".md", ".txt", ".py", ".jinja", ".html", ".js", ".css", ".csv", ".toml",
         ".cfg", ".ini", ".sh", ".env", "")  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
_SECRET_FILES = (".env", ".netrc", ".git-credentials", "id_rsa", "id_ed25519", "stored_tokens")
_SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an OpenAI or Anthropic key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}",
    "an AWS key": r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Slack token": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password": r"(?i)[\"']?(?:password|passwd|api_?key|secret_?key|access_?token|hf_token)[\"']?\s*[:=]\s*"
    r"[\"'](?=[^\"']*\d)[^\"'\s{}<>$]{12,}[\"']",
}
# A path is told by where it begins, since "/" also begins parts of a vocabulary and of addresses.
_ROOTS = "home|Users|root|tmp|mnt|data|var|opt|srv|work|workspace|scratch|media|private|content|kaggle|nfs|gpfs|lustre"
_PATH_IN_TEXT = re.compile(
    rf"(?<![\w/.:>*-])(?:/(?:{_ROOTS})/[\w.@+-]+[\w./@+-]*|[A-Z]:\\\\?[\w.]+\\[\w.\\]+|file://\S+)"
)
_WHOLE_PATH = re.compile(r"(?:/[\w.@+-]+){2,}/?|~/\S+|[A-Za-z]:[\\/]\S+|file://\S+")
# Their text is words, not settings.
_NOT_SEARCHED_FOR_PATHS = ("tokenizer.json", "vocab.json", "merges.txt")
_BODY_NAME = re.compile(
    r"(?:basic_?model|(?:smpl[xh]?|mano|flame|smil|star|skel)[_-](?:neutral|male|female|left|right|generic))"
    r".*\.(?:npz|npy|pkl|safetensors)",
    re.IGNORECASE,
)
_BODY_ARRAYS = {"v_template", "shapedirs"}


@dataclass(frozen=True)
class Finding:
    """A fault, its file, and what to do about it; a note is worth knowing, but no fault."""

    where: str
    what: str
    remedy: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def refusals(folder: Path, names: Iterable[str]) -> list[Finding]:
    """Findings about files that must not be pushed. Nothing is unpickled, nothing large is read."""
    found: list[Finding] = []
    for name in names:
        found += (finding for check in _CHECKS for finding in check(folder / name, name))
    return found


def _secrets(path: Path, name: str) -> Iterator[Finding]:
    if path.name in _SECRET_FILES:
        yield Finding(name, "a file of secrets", "leave it out, and change what it holds if it was ever public")
        return
    text = _text_of(path)
    for what, pattern in _SECRETS.items():
        if match := re.search(pattern, text):
            line = text.count("\n", 0, match.start()) + 1
            yield Finding(name, f"{what} in line {line}", "take it out, and have a new one issued")


def _pickles(path: Path, name: str) -> Iterator[Finding]:
    remedy = "save weights as safetensors and arrays without objects; a pickle runs code when it is opened"
    if path.suffix.lower() in _PICKLES or _is_pickle(path):
        yield Finding(name, "a pickle", remedy)


def _is_pickle(path: Path) -> bool:
    """By content: a pickle under another name, torch's archive of one, or numpy's arrays of objects."""
    with path.open("rb") as file:
        head = file.read(512)
    if re.match(rb"\x80[\x02-\x05]", head):
        return True
    if head[:6] == b"\x93NUMPY":
        return _holds_objects(head)
    if head[:4] != b"PK\x03\x04" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith((".pkl", ".pickle")):
                return True
            if member.endswith(".npy"):
                with archive.open(member) as file:
                    if _holds_objects(file.read(512)):
                        return True
    return False


def _holds_objects(npy_head: bytes) -> bool:
    return b"'descr': '|O'" in npy_head or b"('|O'" in npy_head or b", '|O')" in npy_head


def _paths(path: Path, name: str) -> Iterator[Finding]:
    if path.name in _NOT_SEARCHED_FOR_PATHS:
        return
    text, found = _text_of(path), None
    if path.suffix in (".json", ".jsonl", ".yaml", ".yml"):
        found = next((value for value in _strings(_parsed(path, text)) if _WHOLE_PATH.fullmatch(value)), None)
    if found is None and path.suffix in (".json", ".jsonl", ".yaml", ".yml", ".md", ".txt", ".html"):
        found = match[0] if (match := _PATH_IN_TEXT.search(text)) else None
    if found is not None:
        yield Finding(
            name, f"{found!r} is a path of this machine", "write a Hub id or a relative path, or leave it out"
        )


def _parsed(path: Path, text: str):
    """Contents of a settings file; of one that is damaged its text, which is searched as it is."""
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text) if path.suffix == ".json" else list(yaml.safe_load_all(text))
    except (ValueError, yaml.YAMLError):
        return text


def _strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)


def _body_models(path: Path, name: str) -> Iterator[Finding]:
    remedy = "leave it out: its licence forbids to pass it on; name in the card where others get it"
    if _BODY_NAME.fullmatch(path.name) or _BODY_ARRAYS <= _array_names(path):
        yield Finding(name, "a licensed body model (SMPL-X or a relative)", remedy)


def _array_names(path: Path) -> set[str]:
    if path.suffix == ".npz" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return {member.removesuffix(".npy") for member in archive.namelist()}
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            head = file.read(size) if size < MAX_TEXT_BYTES else b""
        try:
            return set(json.loads(head or b"{}"))
        except ValueError:
            return set()
    return set()


def _text_of(path: Path) -> str:
    """A text file's text; nothing of one that is binary or huge."""
    if path.suffix.lower() not in _TEXT or path.stat().st_size > MAX_TEXT_BYTES:
        return ""
    data = path.read_bytes()
    try:
        return text_of(data, path, "replace")
    except ValueError:  # zero bytes
        return "" if b"\0" in data[:4096] else data.decode("utf-8", errors="replace")


_CHECKS: tuple[Callable[[Path, str], Iterator[Finding]], ...] = (_secrets, _pickles, _paths, _body_models)
