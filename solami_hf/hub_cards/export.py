"""A checkpoint, codec, evaluator or adapter as a clean Hub repository: what loads it anywhere, and nothing else.

    solami export runs/sft out/solami

A run's folder also has checkpoints, optimizer states and paths of this machine; those stay here.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import metadata_load, metadata_save

from ..command_line import option, parse_arguments
from ..processing.files.folder_or_hub import hub_id, model_source
from ..processing.files.output_folder import atomic_folder
from ..processing.files.text_files import write_json
from ..processing.hub_upload import refusals
from .card_facts import card_of_folder
from .repository_files import CODECS, EVALUATOR, adapter_folder, read_json

logger = logging.getLogger(__name__)

MAX_SHARD_SIZE = "5GB"
_KEPT = ("README.md", "report.html", "LICENSE", "NOTICE", "*.svg", "*.png")


def export_checkpoint(
    source: str | Path,
    output: str | Path,
    model_id: str | None = None,
    max_shard_size: str = MAX_SHARD_SIZE,
    dtype: str = "auto",
) -> None:
    """Writes a checkpoint with its processor, a codec or an evaluator as one folder, whole or not at all.

    Besides weights, configs, tokenizer, template, codecs, acoustic model and voices it holds the code that loads them
    with `trust_remote_code=True`, and in `config.json` the fingerprints of the codecs. `source` is the folder or hub
    id of a language model with its processor, or of a motion codec, speech codec, acoustic model or text-motion
    evaluator; `output` must not exist yet; `model_id` is `owner/name` on the Hub, for the card; `max_shard_size` that
    of a file of weights, whose `dtype` is by default the one that they have. Raises OSError: there is nothing to load;
    FileExistsError: there is something at `output`; ValueError: a checkpoint without layout, processor or codecs, or
    with codecs that it was not trained with.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    source = model_source("checkpoint", source)
    config = AutoConfig.from_pretrained(source)
    with atomic_folder(output) as folder:
        if config.model_type in (*CODECS, EVALUATOR):
            AutoModel.from_pretrained(source, dtype=dtype).save_pretrained(folder, max_shard_size=max_shard_size)
            if config.model_type == EVALUATOR:
                AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        else:
            _write_checkpoint(source, folder, max_shard_size, dtype)
        _complete(source, folder, model_id)


def _write_checkpoint(source: str | Path, folder: Path, max_shard_size: str, dtype: str) -> None:
    from transformers import AutoModelForCausalLM

    from ..modeling.solami.backbones import allow_cache
    from ..modeling.solami.configuration_solami import follow_formats, require_layout
    from ..modeling.speech_codec.codec_interface import codec_fingerprint
    from ..processing.processing_solami import SolamiProcessor

    processor = SolamiProcessor.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    require_layout(model.config)
    allow_cache(model)
    codecs = {name: codec_fingerprint(getattr(processor, f"{name}_codec")) for name in ("motion", "speech")}
    known = getattr(model.config, "codecs", None) or codecs
    if known != codecs:
        raise ValueError(
            f"{source} was trained with the codecs {known}, but its folder has {codecs}; put back those that made its "
            "training data"
        )
    model.config.codecs = codecs
    follow_formats(model.config, processor)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    processor.save_pretrained(folder)


def _complete(source: str | Path, folder: Path, model_id: str | None) -> None:
    """Adds card, page, plots and licence of a local source, without those that tell of this machine; else a new card.
    The name that a card bears and uses in its examples becomes the one on the Hub."""
    source = Path(source)
    for path in sorted({path for pattern in _KEPT for path in source.glob(pattern)}):
        shutil.copyfile(path, folder / path.name)
        if found := refusals(folder, [path.name]):
            logger.warning("%s is left out: %s", path.name, found[0])
            (folder / path.name).unlink()
    card, name = folder / "README.md", source.resolve().name
    if card.is_file() and model_id:
        text, title = card.read_text(encoding="utf-8"), model_id.rsplit("/", 1)[-1]
        for line in ("\n# {}\n", "\n- name: {}\n"):
            text = text.replace(line.format(name), line.format(title), 1)
        card.write_text(text.replace(f'"{name}"', f'"{model_id}"'), encoding="utf-8")
    if not card.is_file():
        card.write_text(card_of_folder(folder, model_id or name), encoding="utf-8")


def export_adapter(
    source: str | Path, output: str | Path, base: str | None = None, model_id: str | None = None
) -> None:
    """Writes a PEFT adapter as a Hub repository: its weights, its configuration with the id of its base, its card.

    `source` is the folder of an adapter, or of a run that has one in `adapter/`; `output` must not exist yet. `base`
    is the Hub id of the model that it was trained on, needed where the adapter names a folder of this machine;
    `model_id` is `owner/name` on the Hub, for the card. Raises FileNotFoundError: no adapter there; FileExistsError:
    there is something at `output`; ValueError: the base is a folder, or the weights are a pickle.
    """
    found = adapter_folder(source)
    config = read_json(found / "adapter_config.json")
    named = base or config.get("base_model_name_or_path")
    config["base_model_name_or_path"] = base = hub_id(named or "")
    if base is None:
        raise ValueError(f"{found} names {named!r} as its base, which others do not have; pass --base OWNER/NAME")
    if not (found / "adapter_model.safetensors").is_file():
        raise ValueError(f"{found} has no adapter_model.safetensors; save the adapter with PEFT's save_pretrained")
    with atomic_folder(output) as folder:
        write_json(folder / "adapter_config.json", config, indent=2, sort_keys=True)
        shutil.copyfile(found / "adapter_model.safetensors", folder / "adapter_model.safetensors")
        _complete(found, folder, model_id)
        card = folder / "README.md"
        if "[More Information Needed]" in card.read_text(encoding="utf-8"):  # the empty form that PEFT leaves
            card.write_text(card_of_folder(folder, model_id or found.resolve().name), encoding="utf-8")
        metadata_save(card, {**(metadata_load(card) or {}), "base_model": base})


@dataclass
class ExportArguments:
    """A checkpoint, and the folder for the Hub that is made of it."""

    source: str = option(..., "Checkpoint, run, codec or adapter (also accepted as the first word).")
    output: str = option(..., "Folder to write (also the second word); it must not exist yet.")
    base: str | None = option(None, "Hub id of an adapter's base, where it names a folder.")
    max_shard_size: str = option(MAX_SHARD_SIZE, "Largest file of weights.")
    dtype: str = option("auto", "float32, bfloat16, float16, or auto: as they are.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of `solami export`; returns the exit code."""
    (args,) = parse_arguments([ExportArguments], argv, "solami export", words=["source", "output"])
    folder = Path(args.source)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        export_adapter(args.source, args.output, args.base)
    else:
        export_checkpoint(args.source, args.output, max_shard_size=args.max_shard_size, dtype=args.dtype)
    logger.info("wrote %s", args.output)
    return 0
