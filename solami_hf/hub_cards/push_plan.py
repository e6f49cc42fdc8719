"""Plans a push: the kind of repository, its files that go to the Hub, and those that are missing."""

from __future__ import annotations

import json
from pathlib import Path

from ..processing.media_files import files_below
from .push_refusals import Finding

# Kind -> the Hub's type of repository.
KINDS = {"checkpoint": "model", "codec": "model", "adapter": "model", "dataset": "dataset", "metric": "space"}
CODEC_TYPES = ("solami_motion_vq", "solami_speech_codec", "solami_soundstorm")
CODEC_FOLDERS = ("motion_codec", "speech_codec", "acoustic_model")
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
    "metric": {
        "app.py": "solami_hf.metrics.metric_export writes it",
        "requirements.txt": "solami_hf.metrics.metric_export writes it",
    },
}


def kind_of(folder: str | Path) -> str:
    """`checkpoint`, `codec`, `adapter`, `dataset` or `metric`, by what lies in a folder.

    Raises:
        FileNotFoundError: no such folder. ValueError: it is none of these.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if (folder / "config.json").is_file():
        return "codec" if read_json(folder / "config.json").get("model_type") in CODEC_TYPES else "checkpoint"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if any(name.endswith(".parquet") for name in files_of(folder)):
        return "dataset"
    if (folder / "app.py").is_file() or (folder / f"{folder.name}.py").is_file():
        return "metric"
    raise ValueError(
        f"{folder} holds neither a model (config.json), an adapter (adapter_config.json), a data set (*.parquet) nor "
        "a metric (app.py)"
    )


def files_of(folder: Path) -> list[str]:
    """The files below a folder that belong to a repository, relative and sorted; no caches, half files or locks."""
    names = []
    for path in files_below(folder, hidden=True):
        parts = path.relative_to(folder).parts
        half = parts[-1].startswith(".") and parts[-1].endswith((".tmp", ".lock"))
        hidden = half or any(part in _SKIPPED_FOLDERS for part in parts)
        if not hidden:
            names.append("/".join(parts))
    return sorted(names)


def missing(folder: Path, kind: str) -> list[Finding]:
    """The files that a repository of this kind needs and does not have; notes are what only makes it better."""
    found = [
        Finding(name, "missing", remedy) for name, remedy in _NEEDED[kind].items() if not (folder / name).is_file()
    ]
    if not (folder / "README.md").is_file():
        command = "solami prepare" if kind == "dataset" else "solami export"
        found.append(Finding("README.md", "missing", f"a repository needs a card; `{command}` writes one"))
    if kind in ("checkpoint", "codec"):
        found += _missing_weights(folder, "") + _missing_code(folder, "")
    if kind == "checkpoint":
        if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
            found.append(Finding("tokenizer.json", "missing", "processor.save_pretrained writes it"))
        for codec in CODEC_FOLDERS:
            if (folder / codec / "config.json").is_file():
                found += _missing_weights(folder, f"{codec}/") + _missing_code(folder, f"{codec}/")
        found += _without_voices(folder)
    if kind == "dataset" and not any(name.endswith(".parquet") for name in files_of(folder)):
        found.append(Finding("*.parquet", "missing", "`solami prepare` writes them"))
    return found


def _missing_weights(folder: Path, inside: str) -> list[Finding]:
    """Of a model in a folder; of one in shards each that its index names."""
    index = folder / inside / "model.safetensors.index.json"
    if not index.is_file():
        whole = (folder / inside / "model.safetensors").is_file()
        remedy = "model.save_pretrained writes it; weights of other formats are not loaded"
        return [] if whole else [Finding(f"{inside}model.safetensors", "missing", remedy)]
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    gone = [name for name in shards if not (folder / inside / name).is_file()]
    return [Finding(f"{inside}{name}", "missing, though the index names it", "save the model again") for name in gone]


def _missing_code(folder: Path, inside: str) -> list[Finding]:
    """The modules that `auto_map` names; a folder inside may have them beside it or above."""
    found = []
    for name in ("config.json", "processor_config.json"):
        path = folder / inside / name
        settings = read_json(path) if path.is_file() else {}
        ours = str(settings.get("model_type", "")).startswith("solami") or name == "processor_config.json"
        if path.is_file() and ours and not settings.get("auto_map"):
            remedy = "save it again with this version of solami_hf; without, it loads only where solami_hf is imported"
            found.append(Finding(f"{inside}{name}", "has no auto_map", remedy))
        modules = {str(value).split(".")[0] + ".py" for value in (settings.get("auto_map") or {}).values()}
        for module in sorted(modules):
            if not (folder / inside / module).is_file() and not (folder / module).is_file():
                found.append(Finding(f"{inside}{module}", "missing, though auto_map names it", _HOW_TO_COMPLETE))
    return found


def _without_voices(folder: Path) -> list[Finding]:
    if not (folder / "acoustic_model" / "config.json").is_file():
        told = "missing: speech is made from the codes of the language model alone"
        return [Finding("acoustic_model/", told, "train one with `solami train-soundstorm`", is_note=True)]
    if not (folder / "voices" / "voices.json").is_file():
        return [
            Finding("voices/", "missing: no character has a voice", "add some with `solami add-voice`", is_note=True)
        ]
    return []


def read_json(path: Path) -> dict:
    """A JSON file that holds an object; ValueError of one that does not."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); write it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def size_text(count: int) -> str:
    """A number of bytes as people read it."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
