"""Output of a run of pretraining or SFT: one folder with everything, its page and its card."""

import logging
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import metadata_load
from yaml import YAMLError

from ...hub_cards.card_facts import card_of_folder
from ...hub_cards.cards import write_loss_plot
from ...modeling.solami.configuration_solami import follow_formats
from ...processing.files.atomic_write import atomic_write, follow_umask
from ...processing.files.folder_or_hub import hub_id
from ...processing.files.text_files import read_json, write_json, write_text
from ...report.page import MetricRow, write_report
from ..held_out import last_step
from ..run_page import curves_of_log
from .adapters import load_merged
from .zero3 import whole_weights

logger = logging.getLogger(__name__)

# Of a saved model; one of our own brings its code.
MODEL_FILES = (
    "config.json", "generation_config.json", "adapter_config.json",
    "*.safetensors", "*.safetensors.index.json", "*.py",
)  # fmt: skip
_RECIPE = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "max_length", "packing", "per_device_train_batch_size",
    "gradient_accumulation_steps", "world_size", "bf16", "fp16", "seed",
)  # fmt: skip
_TRAINED = {
    "all": "all weights",
    "lora": "LoRA adapters, merged; `adapter/` has them alone",
    "new_tokens": "the rows of the modality tokens, merged; `adapter/` has them alone",
}


def save_complete(
    weights: Path, processor, args, training_args, history: list[dict], splits: Sequence[str] = ("test",)
) -> None:
    """Writes model (adapters merged in), tokenizer, template, codecs, arguments, page, card and history. One rank
    alone calls this. What was trained is read from files, since no rank has it all under ZeRO-3: `weights` is a folder
    that Trainer saved the model or adapter to, a checkpoint, or `.staging` of the output folder, which is removed.
    `history`, Trainer's log, is the last file; with it the folder is complete. `splits` of the data are those
    evaluated on."""
    folder = Path(training_args.output_dir)
    with whole_weights(training_args):
        if (weights / "adapter_config.json").is_file():
            _place(weights, folder / "adapter")
            model = load_merged(folder / "adapter", args.model)
            follow_formats(model.config, processor)
            model.save_pretrained(folder)
        else:
            _place(weights, folder)
        processor.save_pretrained(folder)
    follow_umask(folder)
    write_settings(args, training_args)
    write_page(folder, history)
    for part in (folder, folder / "adapter"):
        if part == folder or (part / "adapter_config.json").is_file():
            write_text(part / "README.md", run_card(part, args, training_args, history, splits))
    shutil.rmtree(folder / ".staging", ignore_errors=True)
    write_json(folder / "history.json", history)


def write_settings(args, training_args) -> None:
    """Writes all arguments of a run to `OUTPUT/training_args.json`."""
    settings = {"command": asdict(args), "training": training_args.to_dict()}
    write_json(Path(training_args.output_dir) / "training_args.json", settings, default=str)


def complete_history(folder: str | Path, step: int) -> list[dict] | None:
    """The history of a folder that `save_complete` wrote after this step, None of any other."""
    path = Path(folder) / "history.json"
    history = read_json(path) if path.is_file() else []
    return history if any(row.get("step") == step for row in history) else None


def write_page(folder: Path, history: list[dict]) -> Path:
    """Writes `folder/report.html`: loss and accuracy, of each modality, and of each held-out data set."""
    names = list(dict.fromkeys(name for row in history for name in row))
    evaluations = last_evaluations(history)
    charts = {
        "Loss": ("nats a token", "loss"),
        "Loss by modality": ("nats a token", *_beginning(names, "loss_")),
        "Share of tokens that were the most likely one": ("share", *_beginning(names, "accuracy")),
        "Held-out loss": ("nats a token", *evaluations),
        "Learning rate": ("learning rate", "learning_rate"),
    }
    losses = [row["loss"] for row in history if "loss" in row]
    fell = f", the loss fell from {losses[0]:.3f} to {losses[-1]:.3f}." if losses else "."
    rows = [
        MetricRow(_dataset(name), loss, meaning=f"Perplexity {_perplexity(loss)}.", group="Held-out loss, at the end")
        for name, loss in evaluations.items()
    ]
    return write_report(
        folder / "report.html",
        title=f"Language model: {folder.name}",
        lead=f"{last_step(history)} steps{fell}",
        curves=curves_of_log(history, charts),
        metrics=rows,
    )


def last_evaluations(history: list[dict]) -> dict[str, float]:
    """`eval_<data set>_loss` -> the last finite one."""
    values = ((name, value) for row in history for name, value in row.items())
    return {n: v for n, v in values if n.startswith("eval_") and n.endswith("loss") and math.isfinite(v)}


def _beginning(names: list[str], start: str) -> list[str]:
    return [name for name in names if name.startswith(start)]


def run_card(folder: Path, args, training_args, history: list[dict], splits: Sequence[str] = ("test",)) -> str:
    """The README.md of the folder: what was trained on what and how, and the losses that were measured. Writes the
    plot of the loss that it shows, too."""
    losses = [row["loss"] for row in history if "loss" in row]
    recipe = {name: getattr(training_args, name) for name in _RECIPE}
    recipe["lr_scheduler_type"] = getattr(training_args.lr_scheduler_type, "value", training_args.lr_scheduler_type)
    training = {
        "trained from": Path(args.model).name,
        **({} if (folder / "adapter_config.json").is_file() else {"trained": _TRAINED[args.trained]}),
        "steps": last_step(history),
        **{name.replace("_", " "): value for name, value in recipe.items()},
    }
    if losses:
        training["training loss, first and last logged"] = f"{losses[0]:.4f}, {losses[-1]:.4f}"
    evaluations = last_evaluations(history)
    data, licences = _origins(args)
    return card_of_folder(
        folder,
        data=data,
        training=training,
        plot=write_loss_plot(folder, history),
        results={f"loss, {_dataset(name)}": loss for name, loss in evaluations.items()},
        evaluated_on=f"the {' and the '.join(splits)} split of {Path(args.data).name}" if evaluations else "",
        limits=["`training_args.json` has all settings, `history.json` and `report.html` the course of the run."],
        inherited=licences,
        base_model=hub_id(args.model),
        datasets=[hub_id(args.data)] if hub_id(args.data) else [],
    )


def _origins(args) -> tuple[dict, dict]:
    """Facts from the cards of the training data and of the base: codecs that made the data, and licences."""
    data, licences = {"data": Path(args.data).name}, {}
    for what, source in (("base model", args.model), ("training data", args.data)):
        known = _head(Path(source) / "README.md")
        if known.get("license"):
            kinds = known["license"] if isinstance(known["license"], list) else [known["license"]]
            licences[f"{what}, {Path(source).name}"] = ", ".join(kinds)
        for name, fingerprint in (known.get("codecs") or {}).items():
            origin = (known.get("codec_sources") or {}).get(name, {})
            told = [f"{origin[key]}" for key in ("id", "revision") if origin.get(key)]
            data[f"its {name} codes by"] = " at ".join(told) + f" (fingerprint `{fingerprint}`)"
    return data, licences


def _head(card: Path) -> dict:
    """The YAML head of a card; empty where there is none that can be read."""
    try:
        return (metadata_load(card) or {}) if card.is_file() else {}
    except (ValueError, YAMLError) as error:
        logger.warning("%s has no readable head, so its licence is not in the card (%s)", card, error)
        return {}


def _dataset(name: str) -> str:
    return name.removeprefix("eval_").removesuffix("loss").strip("_").replace("_", " ") or "all"


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):.4g}" if loss < 100 else "beyond measure"


def _place(weights: Path, folder: Path) -> None:
    """Brings the files of a model into a folder, each whole; those of `.staging` are moved."""
    staged = weights.name == ".staging"
    for path in sorted({path for pattern in MODEL_FILES for path in weights.glob(pattern)}):
        with atomic_write(folder / path.name) as temporary:
            os.replace(path, temporary) if staged else shutil.copyfile(path, temporary)
