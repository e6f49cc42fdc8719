"""The files of a Hub repository: its kind, and what is missing of it."""

import json
from collections.abc import Iterator
from pathlib import Path

from ..processing.hub_upload import Finding, files_of

# Kind -> the Hub's type of repository.
KINDS = {"checkpoint": "model", "codec": "model", "adapter": "model", "evaluator": "model", "dataset": "dataset",
         "metric": "space", "space": "space"}  # fmt: skip
# `model_type` -> the folder inside a checkpoint.
CODECS = {
    "solami_motion_vq": "motion_codec",
    "solami_speech_codec": "speech_codec",
    "solami_soundstorm": "acoustic_model",
    "solami_talker": "talker",
    "solami_lips": "lips",
}
EVALUATOR = "solami_motion_evaluator"
# Folders of a checkpoint that hold a model each.
MODEL_FOLDERS = (*CODECS.values(), "motion_filler")
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
    "evaluator": dict.fromkeys(("config.json", "tokenizer_config.json"), "`solami train-evaluator` writes it"),
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


def kind_of(folder: str | Path) -> str:
    """`checkpoint`, `codec`, `evaluator`, `adapter`, `dataset`, `space` or `metric`, by what lies in a folder. Raises
    FileNotFoundError: no such folder; ValueError: it is none of these."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if (folder / "config.json").is_file():
        model_type = read_json(folder / "config.json").get("model_type")
        return "evaluator" if model_type == EVALUATOR else "codec" if model_type in CODECS else "checkpoint"
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
    """The folder with `adapter_config.json`: that of an adapter, or `adapter/` of a run. Raises FileNotFoundError:
    neither has one."""
    for folder in (Path(source), Path(source) / "adapter"):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"there is no adapter in {source}: expected adapter_config.json in it or in its folder adapter/; a run "
        "with trainable: all has none, its folder is a whole model already"
    )


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
    models = [""] if kind in ("checkpoint", "codec", "evaluator") else []
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
