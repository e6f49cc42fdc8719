"""The files of a Hub repository: its kind, what is missing of it, and what must not be pushed with it.

Refused are secrets, pickles, paths of this machine and licensed body models. Nothing is unpickled.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open

from ..processing.files.text_files import text_of
from ..processing.media_files import files_below

# Kind -> the Hub's type of repository.
KINDS = {"checkpoint": "model", "codec": "model", "adapter": "model", "dataset": "dataset", "metric": "space",
         "space": "space"}  # fmt: skip
# `model_type` -> the folder inside a checkpoint.
CODECS = {
    "solami_motion_vq": "motion_codec",
    "solami_speech_codec": "speech_codec",
    "solami_soundstorm": "acoustic_model",
    "solami_talker": "talker",
    "solami_lips": "lips",
}
# Folders of a checkpoint that hold a model each.
MODEL_FOLDERS = (*CODECS.values(), "motion_filler")
_SKIPPED_FOLDERS = ("__pycache__", ".shards", ".cache", ".git", ".ipynb_checkpoints")
_HOW_TO_COMPLETE = "save model and processor into one folder, or push the folder of a finished run"
_NEEDED = {
    "checkpoint": {
        "config.json": _HOW_TO_COMPLETE,
        "generation_config.json": "model.save_pretrained writes it",
        "processor_config.json": "processor.save_pretrained writes it",
        "tokenizer_config.json": "processor.save_pretrained writes it",
        "chat_template.jinja": "processor.save_pretrained writes it",
        "motion_codec/config.json": "give the processor a motion_codec and save it",
        "speech_codec/config.json": "give the processor a speech_codec and save it",
    },
    "codec": {"config.json": "codec.save_pretrained writes it"},
    "adapter": {
        "adapter_config.json": "PEFT's save_pretrained writes it; name the folder of the adapter itself",
        "adapter_model.safetensors": "PEFT's save_pretrained writes it; an adapter_model.bin is a pickle",
    },
    "dataset": {},
    "space": {"Dockerfile": "`solami push space` writes it"},
    "metric": {
        "app.py": "solami_hf.metrics.metric_export writes it",
        "requirements.txt": "solami_hf.metrics.metric_export writes it",
    },
}


@dataclass(frozen=True)
class Finding:
    """A fault, its file, and what to do about it; a note is worth knowing, but no fault."""

    where: str
    what: str
    remedy: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def kind_of(folder: str | Path) -> str:
    """`checkpoint`, `codec`, `adapter`, `dataset`, `space` or `metric`, by what lies in a folder.

    Raises:
        FileNotFoundError: no such folder. ValueError: it is none of these.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if (folder / "config.json").is_file():
        return "codec" if read_json(folder / "config.json").get("model_type") in CODECS else "checkpoint"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if any(name.endswith(".parquet") for name in files_of(folder)):
        return "dataset"
    if (folder / "Dockerfile").is_file():
        return "space"
    if (folder / "app.py").is_file() or (folder / f"{folder.name}.py").is_file():
        return "metric"
    raise ValueError(
        f"{folder} holds neither a model (config.json), an adapter (adapter_config.json), a data set (*.parquet), "
        "a Space (Dockerfile) nor a metric (app.py)"
    )


def adapter_folder(source: str | Path) -> Path:
    """The folder with `adapter_config.json`: that of an adapter, or `adapter/` of a run.

    Raises:
        FileNotFoundError: neither has one.
    """
    for folder in (Path(source), Path(source) / "adapter"):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"there is no adapter in {source}: expected adapter_config.json in it or in its folder adapter/; a run "
        "with trainable: all has none, its folder is a whole model already"
    )


def files_of(folder: Path) -> list[str]:
    """The files below a folder that belong to a repository, relative and sorted; no caches, half files or locks."""
    names = []
    for path in files_below(folder, hidden=True):
        parts = path.relative_to(folder).parts
        half = parts[-1].startswith(".") and parts[-1].endswith((".tmp", ".lock"))
        if not half and not set(parts) & set(_SKIPPED_FOLDERS):
            names.append("/".join(parts))
    return sorted(names)


def read_json(path: Path) -> dict:
    """The object of a JSON file, empty where there is no file; ValueError where it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); write it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def missing(folder: Path, kind: str) -> list[Finding]:
    """The files that a repository of this kind needs and does not have; notes are what only makes it better."""
    needed = dict(_NEEDED[kind])
    command = "solami prepare" if kind == "dataset" else "solami export"
    needed["README.md"] = f"a repository needs a card; `{command}` writes one"
    if kind == "checkpoint" and not any((folder / name).is_file() for name in ("tokenizer.model", "vocab.json")):
        needed["tokenizer.json"] = "processor.save_pretrained writes it"
    found = [Finding(name, "missing", remedy) for name, remedy in needed.items() if not (folder / name).is_file()]
    models = [""] if kind in ("checkpoint", "codec") else []
    if kind == "checkpoint":
        models += [f"{codec}/" for codec in MODEL_FOLDERS if (folder / codec / "config.json").is_file()]
    for inside in models:
        found += [*_missing_weights(folder, inside), *_missing_code(folder, inside)]
    if kind != "checkpoint":
        return found
    if "acoustic_model/" not in models:
        told = "missing: speech is made from the codes of the language model alone"
        found.append(Finding("acoustic_model/", told, "train one with `solami train-soundstorm`", is_note=True))
    elif not (folder / "voices" / "voices.json").is_file():
        told = "missing: no character has a voice"
        found.append(Finding("voices/", told, "add some with `solami add-voice`", is_note=True))
    if read_json(folder / "motion_codec" / "config.json").get("num_levels", 1) > 1 and "motion_filler/" not in models:
        told = "missing: motion is made from level 0 of its codes alone"
        remedy = "train one with `solami train-soundstorm --modality motion`"
        found.append(Finding("motion_filler/", told, remedy, is_note=True))
    if "talker/" not in models and read_json(folder / "config.json").get("answer_format") == "text_motion":
        told = "missing: answers in the format text_motion have no sound without one"
        found.append(Finding("talker/", told, "train one with `solami train-talker`"))
    return found


def _missing_weights(folder: Path, inside: str) -> Iterator[Finding]:
    """Of a model in a folder; of one in shards each that its index names."""
    index = folder / inside / "model.safetensors.index.json"
    for name in sorted(set(read_json(index).get("weight_map", {}).values())):
        if not (folder / inside / name).is_file():
            yield Finding(f"{inside}{name}", "missing, though the index names it", "save the model again")
    if not index.is_file() and not (folder / inside / "model.safetensors").is_file():
        remedy = "model.save_pretrained writes it; weights of other formats are not loaded"
        yield Finding(f"{inside}model.safetensors", "missing", remedy)


def _missing_code(folder: Path, inside: str) -> Iterator[Finding]:
    """The modules that `auto_map` names; transformers looks for those of a folder inside in the root, too."""
    for name in ("config.json", "processor_config.json"):
        settings = read_json(folder / inside / name)
        ours = str(settings.get("model_type", "")).startswith("solami") or name == "processor_config.json"
        if ours and (folder / inside / name).is_file() and not settings.get("auto_map"):
            remedy = "save it again with this version of solami_hf; without, it loads only where solami_hf is imported"
            yield Finding(f"{inside}{name}", "has no auto_map", remedy)
        modules = {str(value).split(".")[0] + ".py" for value in (settings.get("auto_map") or {}).values()}
        for module in sorted(modules):
            if not (folder / module).is_file():
                told = f"missing, though auto_map of {inside}{name} names it"
                yield Finding(module, told, _HOW_TO_COMPLETE)


_MAX_TEXT_BYTES = 64 << 20
_TEXT = (".json", ".jsonl", ".yaml", ".yml", ".md", ".txt", ".py", ".jinja", ".html", ".js", ".css", ".csv", ".toml",
         ".cfg", ".ini", ".sh", ".env", "")  # fmt: skip
_SETTINGS = (".json", ".jsonl", ".yaml", ".yml")
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


def refusals(folder: Path, names: Iterable[str]) -> list[Finding]:
    """Findings about files that must not be pushed."""
    return [finding for name in names for check in _CHECKS for finding in check(folder / name, name)]


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
    if path.suffix.lower() in _PICKLES or _is_pickle(path):
        remedy = "save weights as safetensors and arrays without objects; a pickle runs code when it is opened"
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
        arrays = [member for member in archive.namelist() if member.endswith(".npy")]
        return any(member.endswith((".pkl", ".pickle")) for member in archive.namelist()) or any(
            _holds_objects(archive.open(member).read(512)) for member in arrays
        )


def _holds_objects(npy_head: bytes) -> bool:
    return b"'descr': '|O'" in npy_head or b"('|O'" in npy_head or b", '|O')" in npy_head


def _paths(path: Path, name: str) -> Iterator[Finding]:
    if path.name in _NOT_SEARCHED_FOR_PATHS or path.suffix not in (*_SETTINGS, ".md", ".txt", ".html"):
        return
    text, found = _text_of(path), None
    if path.suffix in _SETTINGS:
        found = next((value for value in _strings(_parsed(path, text)) if _WHOLE_PATH.fullmatch(value)), None)
    if found is None and (match := _PATH_IN_TEXT.search(text)):
        found = match[0]
    if found is not None:
        remedy = "write a Hub id or a relative path, or leave it out"
        yield Finding(name, f"{found!r} is a path of this machine", remedy)


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
    if _BODY_NAME.fullmatch(path.name) or _BODY_ARRAYS <= _array_names(path):
        remedy = "leave it out: its licence forbids to pass it on; name in the card where others get it"
        yield Finding(name, "a licensed body model (SMPL-X or a relative)", remedy)


def _array_names(path: Path) -> set[str]:
    if path.suffix == ".npz" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return {member.removesuffix(".npy") for member in archive.namelist()}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy") as file:
                return set(file.keys())
        except SafetensorError:
            return set()
    return set()


def _text_of(path: Path) -> str:
    """A text file's text; nothing of one that is binary or huge."""
    if path.suffix.lower() not in _TEXT or path.stat().st_size > _MAX_TEXT_BYTES:
        return ""
    data = path.read_bytes()
    try:
        return text_of(data, path, "replace")
    except ValueError:  # zero bytes
        return "" if b"\0" in data[:4096] else data.decode("utf-8", errors="replace")


_CHECKS: tuple[Callable[[Path, str], Iterator[Finding]], ...] = (_secrets, _pickles, _paths, _body_models)
