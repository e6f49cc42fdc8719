"""Our trainer and TRL's on the same packed rows: `trainers` of `training.py`, and the training part of `gpu.py`.

Both get the same weights, the rows in the same order, one optimizer (AdamW) and one learning rate, and log every step.
TRL's `SFTTrainer` packs by itself; here the rows are packed before, so that both see the same ones. It puts the rows
of a batch end to end in one row, which only flash attention takes without cost: with others, give it one row a step.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback

from solami_hf.training.language_model.adapters import add_adapters
from solami_hf.training.language_model.chunked_loss import add_chunked_loss
from solami_hf.training.language_model.language_model_training import LanguageModelTrainingArguments
from solami_hf.training.language_model.loss_by_modality import SplitLossTrainer
from solami_hf.training.language_model.packed_mixture import PackedRowsCollator


@dataclass(frozen=True)
class Run:
    """What a trainer did.

    Args:
        seconds: of each step, from the end of the one before it; the first, which warms up, is left out.
        tokens: of each of these steps, padding not counted.
        losses: as logged, of all steps.
    """

    seconds: list[float]
    tokens: list[int]
    losses: list[float]

    @property
    def rates(self) -> list[float]:
        """Useful tokens a second of each step."""
        return [count / seconds for count, seconds in zip(self.tokens, self.seconds, strict=True)]


class StepTimes(TrainerCallback):
    """Notes when each step has ended, on the device too."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        """Waits for the device."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def arguments(config_class: type, steps: int, batch: int, **more):
    """Training arguments of either trainer; what these have beside it goes into `more`."""
    return config_class(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=5e-4,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        disable_tqdm=True,
        **more,
    )


def train_ours(model: PreTrainedModel, tokenizer, rows: Dataset, steps: int, lora=None, **more) -> Run:
    """`SplitLossTrainer` as `solami sft` sets it up.

    Args:
        model: its config has `modalities` and `markers`; it is changed.
        tokenizer: has a padding token.
        rows: packed, with `input_ids`, `labels` and `seq_lengths`.
        steps: how many.
        lora: `LanguageModelArguments` where not all weights are trained.
        more: for the training arguments; `batch` (rows of a step), `bf16`, `max_length`, `activation_checkpointing`.
    """
    batch = more.pop("batch")
    args = arguments(LanguageModelTrainingArguments, steps, batch, **more)
    add_chunked_loss(model)
    collator = PackedRowsCollator(tokenizer.pad_token_id, "flash" in model.config._attn_implementation)
    layout = model.config
    model = model if lora is None else add_adapters(model, lora)
    return _timed(
        lambda times: SplitLossTrainer(
            model=model, args=args, train_dataset=rows, data_collator=collator, callbacks=[times], layout=layout
        ),
        rows,
        batch,
    )


def train_trl(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset, steps: int, lora=None, **more
) -> Run:
    """TRL's `SFTTrainer`; arguments as in `train_ours`."""
    from trl import SFTConfig, SFTTrainer

    batch = more.pop("batch")
    args = arguments(SFTConfig, steps, batch, packing=True, dataset_kwargs={"skip_prepare_dataset": True}, **more)
    model = model if lora is None else add_adapters(model, lora)
    return _timed(
        lambda times: SFTTrainer(
            model=model, args=args, train_dataset=rows, processing_class=tokenizer, callbacks=[times]
        ),
        rows,
        batch,
    )


def _timed(make_trainer: Callable, rows: Dataset, batch: int) -> Run:
    times = StepTimes()
    trainer = make_trainer(times)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    lengths = [sum(row) for row in rows["seq_lengths"]]
    # the rows are read in their order, again and again
    tokens = [sum(lengths[(i * batch + k) % len(lengths)] for k in range(batch)) for i in range(len(times.ends))]
    seconds = [end - begin for begin, end in zip(times.ends, times.ends[1:], strict=False)]
    return Run(seconds, tokens[1:], losses)
