"""What pretraining and SFT share: arguments, the Trainer set-up, packing, resuming, the complete output folder."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainingArguments

from ..processing.rendered_data import RENDERED
from ..processing.whole_file import whole_file
from .checkpoints import last_checkpoint
from .chunked_loss import add_chunked_loss
from .collator import PackedRowsCollator
from .loss_by_modality import SplitLossTrainer
from .resuming import LogBeforeCheckpoint, finished_state

logger = logging.getLogger(__name__)


@dataclass
class LanguageModelArguments:
    """Model and data of a language-model run."""

    model: str = field(metadata={"help": "Folder or hub id of a SolamiForCausalLM with its SolamiProcessor."})
    data: str = field(metadata={"help": "Token dataset folder or hub id, made by `solami prepare`."})
    use_lora: bool = field(default=False, metadata={"help": "Train LoRA adapters (and the embeddings) instead."})
    chunked_loss: bool = field(
        default=True,
        metadata={"help": "Never build the matrix of logits, and log the loss by modality; no gain for small ones."},
    )
    lora_r: int = field(default=8, metadata={"help": "LoRA rank."})
    lora_alpha: int = field(default=16, metadata={"help": "LoRA alpha."})
    lora_dropout: float = field(default=0.05, metadata={"help": "LoRA dropout."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"], metadata={"help": "Layers that get adapters."}
    )


@dataclass
class LanguageModelTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the length of a sample."""

    max_length: int = field(default=1024, metadata={"help": "Longest sample, and the length of a packed block."})
    packing: bool = field(default=True, metadata={"help": "Fill blocks of max_length with several samples."})


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
    """Trains with transformers' Trainer on rendered samples and writes a complete folder.

    Args:
        model, processor: as loaded by `load_model_and_processor`.
        args: `LanguageModelArguments`.
        training_args: `LanguageModelTrainingArguments`; an unfinished run in its `output_dir` is continued, a finished
            one is only reported.
        train_dataset: rendered samples in training order, which packing nearly keeps.
        eval_datasets: name -> rendered samples.

    Returns:
        `{"history": [...]}`, Trainer's log with loss and accuracy of each modality, also in `OUTPUT/history.json`.

    Raises:
        ValueError: the loss became NaN (the last checkpoint is kept), or packing with an attention that cannot mask.
    """
    folder = training_args.output_dir
    last = last_checkpoint(folder)
    finished = finished_state(last, training_args) if last else None
    if finished:
        logger.info("%s: the run finished at step %d, nothing is left to train", folder, finished.global_step)
        if history := _complete_history(folder, finished.global_step):
            return {"history": history}
    if args.chunked_loss:
        add_chunked_loss(model)
    if args.use_lora:
        from peft import get_peft_model

        model = get_peft_model(model, _lora(args))
    training_args.train_sampling_strategy = "sequential"
    training_args.remove_unused_columns = False
    # Or Trainer would log a mean in place of a loss that is no number
    training_args.logging_nan_inf_filter = False
    trainer = SplitLossTrainer(
        model=model,
        args=training_args,
        train_dataset=_blocks(train_dataset, training_args, model.config._attn_implementation),
        eval_dataset={name: _columns(rows) for name, rows in eval_datasets.items()} or None,
        data_collator=PackedRowsCollator(processor.tokenizer.pad_token_id),
        callbacks=[LogBeforeCheckpoint(), StopOnNan()],
        layout=processor,
    )
    if finished:
        # It was stopped before the folder was complete; Trainer would take one step too many
        trainer._load_from_checkpoint(last)
        trainer.state = finished
    else:
        if last:
            logger.info("resuming from %s", last)
        trainer.train(resume_from_checkpoint=last)
    # Trainer's summary counts the seconds and losses of this call, not of the run
    history = [row for row in trainer.state.log_history if "train_runtime" not in row]
    if trainer.is_world_process_zero():
        save_complete(trainer, processor, folder, history)
    trainer.end()
    return {"history": history}


class StopOnNan(TrainerCallback):
    """Ends a run whose loss is no number any more, before it is saved over a good checkpoint."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Raises ValueError at the first logged loss that is NaN or infinite."""
        if logs and not math.isfinite(float(logs.get("loss", 0.0))):
            raise ValueError(
                f"the loss became {logs['loss']} at step {state.global_step}; lower learning_rate and run again, it "
                f"continues from the last checkpoint in {args.output_dir}"
            )


def _columns(dataset: Dataset) -> Dataset:
    return dataset.select_columns(["input_ids", "labels"])


def _blocks(dataset: Dataset, training_args, attention: str) -> Dataset:
    """The samples, packed into blocks of `max_length` where that is asked for."""
    if not training_args.packing:
        return _columns(dataset)
    if attention not in ("sdpa", "eager"):
        raise ValueError(f"packing needs sdpa or eager attention, got {attention!r}; set one of them")
    from trl import pack_dataset

    blocks = pack_dataset(_columns(dataset), training_args.max_length, "bfd")
    # Best-fit packing takes 1,000 samples at a time, longest first; mixed again, their order is nearly kept.
    window = max(1, round(1000 * len(blocks) / len(dataset)))
    rng = np.random.default_rng(training_args.seed)
    order = [start + rng.permutation(min(window, len(blocks) - start)) for start in range(0, len(blocks), window)]
    return blocks.select(np.concatenate(order))


def save_complete(trainer, processor, folder: str, history: list[dict]) -> None:
    """Model (adapters merged in), tokenizer, template, codecs, generation config and loss history in one folder."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(Path(folder) / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    # The last file: with it the folder is complete
    with whole_file(Path(folder) / "history.json") as temporary:
        temporary.write_text(json.dumps(history, indent=1), encoding="utf-8")


def _complete_history(folder: str, step: int) -> list[dict] | None:
    """The history of a folder that `save_complete` wrote after this step, None of any other."""
    path = Path(folder) / "history.json"
    history = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return history if any(row.get("step") == step for row in history) else None


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
