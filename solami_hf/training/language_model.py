"""What pretraining and SFT share: arguments, the SFTTrainer set-up, resuming, the complete output folder."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset, Features, List, Value
from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)
RENDERED = Features(
    input_ids=List(Value("int32")), labels=List(Value("int32")), task=Value("string"), id=Value("string")
)


@dataclass
class LanguageModelArguments:
    """Model and data of a language-model run."""

    model: str = field(metadata={"help": "Folder or hub id of a SolamiForCausalLM with its SolamiProcessor."})
    data: str = field(metadata={"help": "Token dataset folder or hub id, made by `solami prepare`."})
    use_lora: bool = field(default=False, metadata={"help": "Train LoRA adapters (and the embeddings) instead."})
    lora_r: int = field(default=8, metadata={"help": "LoRA rank."})
    lora_alpha: int = field(default=16, metadata={"help": "LoRA alpha."})
    lora_dropout: float = field(default=0.05, metadata={"help": "LoRA dropout."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"], metadata={"help": "Layers that get adapters."}
    )


def load_model_and_processor(args: LanguageModelArguments):
    """`(model, processor)` of a folder; FileNotFoundError or ValueError with the way out when it is incomplete."""
    from ..modeling.modeling_solami import SolamiForCausalLM
    from ..processing.processing_solami import SolamiProcessor

    folder = Path(args.model)
    if args.model.startswith(("/", ".")) and not folder.is_dir():
        raise FileNotFoundError(f"no such model folder: {folder}")
    if folder.is_dir() and not (folder / "processor_config.json").is_file():
        raise ValueError(f"{folder} has no processor_config.json; save a SolamiProcessor into it beside the model")
    processor = SolamiProcessor.from_pretrained(args.model)
    model = SolamiForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model.config.require_layout()
    return model, processor


def rendered_dataset(samples) -> Dataset:
    """A dataset with the columns `input_ids`, `labels`, `task`, `id` of rendered samples, in their order."""
    samples = list(samples)
    return Dataset.from_dict({key: [s[key] for s in samples] for key in RENDERED}, features=RENDERED)


def train_language_model(model, processor, args, training_args, train_dataset, eval_datasets) -> dict:
    """Trains with TRL's SFTTrainer on rendered samples and writes a complete folder.

    Args:
        model, processor: as loaded by `load_model_and_processor`.
        args: `LanguageModelArguments`.
        training_args: `trl.SFTConfig`; packing keeps the samples' order, documents do not see one another.
        train_dataset: rendered samples in training order.
        eval_datasets: name -> rendered samples.

    Returns:
        `{"history": [...]}`, Trainer's log, also written to `OUTPUT/history.json`.

    Raises:
        ValueError: the loss became NaN; the last checkpoint is kept.
    """
    from trl import SFTTrainer

    training_args.shuffle_dataset = False
    training_args.train_sampling_strategy = "sequential"
    trainer = SFTTrainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_datasets or None,
        processing_class=processor.tokenizer,
        peft_config=_lora(args) if args.use_lora else None,
    )
    last = get_last_checkpoint(training_args.output_dir) if os.path.isdir(training_args.output_dir) else None
    if last:
        logger.info("resuming from %s", last)
    trainer.train(resume_from_checkpoint=last)
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    if any(loss != loss for loss in map(float, losses)):
        raise ValueError(f"the loss became NaN; lower the learning rate and continue from {last or 'the start'}")
    if trainer.is_world_process_zero():
        save_complete(trainer, processor, training_args.output_dir, history)
    trainer.end()
    return {"history": history}


def save_complete(trainer, processor, folder: str, history: list[dict]) -> None:
    """Model (adapters merged in), tokenizer, template, codecs, generation config and loss history in one folder."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(os.path.join(folder, "adapter"))
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    path = Path(folder) / "history.json"
    path.with_suffix(".tmp").write_text(json.dumps(history, indent=1), encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)


def _lora(args: LanguageModelArguments):
    from peft import LoraConfig

    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=list(args.lora_target_modules),
        modules_to_save=["embed_tokens", "lm_head"],
        task_type="CAUSAL_LM",
    )
