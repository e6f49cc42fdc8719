"""Shared by pretraining and SFT: arguments, the Trainer set-up, packing, resuming, the complete output folder."""

import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets import Dataset, NamedSplit
from transformers import TrainerCallback, TrainingArguments, set_seed

from ...command_line import option
from ...processing.datasets.rendered_data import RENDERED
from ...processing.files.folder_or_hub import model_source
from ..checkpoints import last_checkpoint
from ..trainer import LogBeforeCheckpoint, avoid_slow_bf16, finished_state, log_of_run
from .adapters import add_adapters, check_adapter_arguments, loading_options
from .chunked_loss import add_chunked_loss
from .complete_folder import complete_history, save_complete, write_settings
from .loss_by_modality import SplitLossTrainer
from .packed_mixture import KeepFirstRows, PackedMixture, PackedRowsCollator
from .shuffled_rows import ShuffledEpochs
from .zero3 import check_gathering, prepare_zero3

logger = logging.getLogger(__name__)
MASKED_ATTENTION = ("sdpa", "eager", "flex_attention")
"""Kinds of attention whose mask transformers builds from the positions of packed documents."""


@dataclass
class LanguageModelArguments:
    """Model and data of a language-model run."""

    model: str = option(..., "Folder or hub id of a model with its SolamiProcessor, see `solami init`.")
    data: str = option(..., "Token dataset folder or hub id, made by `solami prepare`.")
    use_peft: bool = option(False, "Train LoRA adapters instead of all weights.")
    trainable: Literal["all", "new_tokens"] = option("all", "Without LoRA: all, or only rows of modality tokens.")
    load_in_4bit: bool = option(False, "QLoRA: frozen linear layers in 4 bits (needs solami_hf[qlora]).")
    load_in_8bit: bool = option(False, "The same in 8 bits.")
    frozen_dtype: Literal["float32", "bfloat16"] = option(
        "float32", "Of weights that are not trained; bfloat16 halves their memory and needs bf16: true."
    )
    chunked_loss: bool = option(True, "Never build the matrix of logits, and log the loss by modality.")
    lora_r: int = option(8, "LoRA rank.")
    lora_alpha: int = option(16, "LoRA alpha.")
    lora_dropout: float = option(0.05, "LoRA dropout.")
    lora_target_modules: list[str] = option(["q_proj", "v_proj"], "Layers to adapt; all-linear: all but the head.")
    lora_modules_to_save: list[str] = option(
        ["embeddings"],
        "What is trained beside the adapters: embeddings (with the head), new_tokens (their rows of the "
        "modality tokens only), none, or names of layers.",
    )
    attn_implementation: str | None = option(
        None,
        "Attention of transformers: sdpa, eager, flex_attention, flash_attention_2, flash_attention_3, or "
        "a kernel of the Hub; by default the architecture's own.",
    )
    embedding_learning_rate: float | None = option(
        None, "Learning rate of lora_modules_to_save, which LoRA's is too high for; learning_rate if not given."
    )

    def __post_init__(self):
        check_adapter_arguments(self)

    @property
    def trained(self) -> str:
        """Of the model: `all`, `lora` or `new_tokens`."""
        return "lora" if self.use_peft else self.trainable

    @property
    def bits(self) -> int:
        """Of frozen linear layers: 4, 8, or 0 where they are not quantised."""
        return 4 if self.load_in_4bit else 8 if self.load_in_8bit else 0


@dataclass
class LanguageModelTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the length of a sample."""

    max_length: int = option(1024, "Longest sample, and the length of a packed block.")
    packing: bool = option(True, "Fill blocks of max_length with several samples.")
    # transformers has this name from 5.23 on; before, it was gradient_checkpointing alone
    activation_checkpointing: bool | None = option(None, "Compute activations again: less memory, a third slower.")

    def __post_init__(self):
        if self.activation_checkpointing is not None and not hasattr(TrainingArguments, "activation_checkpointing"):
            self.gradient_checkpointing = self.activation_checkpointing
        super().__post_init__()


def load_model_and_processor(args: LanguageModelArguments, training_args: TrainingArguments):
    """`(model, processor)` of a folder; FileNotFoundError or ValueError with the way out when it is incomplete."""
    from transformers import AutoModelForCausalLM

    from ...modeling.solami.configuration_solami import require_layout
    from ...processing.processing_solami import SolamiProcessor

    source = model_source("model", args.model)
    folder = Path(source)
    if folder.is_dir() and not (folder / "processor_config.json").is_file():
        raise ValueError(
            f"{folder} has no processor_config.json; make a folder of a backbone and codecs with `solami init`, or "
            "save a SolamiProcessor into it beside the model"
        )
    processor = SolamiProcessor.from_pretrained(source)
    prepare_zero3(processor, training_args)
    model = AutoModelForCausalLM.from_pretrained(source, **loading_options(args))
    require_layout(model.config)
    return model, processor


def rendered_dataset(samples, split: str | None = None) -> Dataset:
    """A dataset with the columns `input_ids`, `labels`, `task`, `id` of rendered samples, in their order."""
    samples = list(samples)
    columns = {key: [sample[key] for sample in samples] for key in RENDERED}
    return Dataset.from_dict(columns, features=RENDERED, split=split and NamedSplit(split))


def train_language_model(model, processor, args, training_args, train_dataset, eval_datasets) -> dict:
    """Trains with transformers' Trainer on rendered samples and writes a complete folder. An unfinished run in
    `training_args.output_dir` is continued, a finished one is only reported.

    `model`, `processor`, `args`, `training_args` are as loaded by `load_model_and_processor`, and its arguments;
    `train_dataset` are rendered samples, read in another order in every epoch, or a `PackedMixture`, which has one;
    `eval_datasets` name -> rendered samples, whose `split` the card tells. Returns `{"history": [...]}`, Trainer's log
    with loss and accuracy of each modality, also in `OUTPUT/history.json`. Raises ValueError: the loss became NaN (the
    last checkpoint is kept), or packing with an attention that cannot mask.
    """
    folder = training_args.output_dir
    splits = sorted({str(samples.split) for samples in eval_datasets.values() if samples.split is not None})
    training_args.train_sampling_strategy = "sequential"
    training_args.remove_unused_columns = False
    # Or Trainer would log a mean in place of a loss that is no number
    training_args.logging_nan_inf_filter = False
    rows = _rows_of_run(train_dataset, training_args, model.config._attn_implementation)
    last = last_checkpoint(folder)
    finished = finished_state(last, training_args) if last else None
    if finished:
        logger.info("%s: the run finished at step %d, nothing is left to train", folder, finished.global_step)
        if history := complete_history(folder, finished.global_step):
            return {"history": history}
        # It was stopped before the folder was complete
        history = log_of_run(finished)
        if training_args.process_index == 0:
            save_complete(Path(last), processor, args, training_args, history, splits)
        return {"history": history}
    trainer = _trainer(model, processor, args, training_args, rows, eval_datasets)
    if last:
        logger.info("resuming from %s", last)
        if isinstance(rows, PackedMixture):
            rows.load(last)
    if training_args.process_index == 0:
        write_settings(args, training_args)  # also for who looks at, or merges, what an unfinished run has
    trainer.train(resume_from_checkpoint=last)
    history, weights = log_of_run(trainer.state), Path(folder) / ".staging"
    try:
        # Every rank: engines gather here what they have divided; internal, or Trainer would push a part of the folder
        trainer.save_model(str(weights), _internal_call=True)
        if trainer.is_world_process_zero():
            save_complete(weights, processor, args, training_args, history, splits)
    finally:
        if trainer.is_world_process_zero():  # on a full disk it would take what the next run needs
            shutil.rmtree(weights, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.end()
    return {"history": history}


def _trainer(model, processor, args, training_args, rows, eval_datasets) -> SplitLossTrainer:
    """The trainer of a run, which reads the rows in their order."""
    check_gathering()
    if args.chunked_loss:
        add_chunked_loss(model)
    if args.frozen_dtype != "float32" and not (training_args.bf16 or training_args.fp16):
        raise ValueError(f"frozen_dtype {args.frozen_dtype} needs mixed precision; set bf16: true too")
    if not args.bits:
        avoid_slow_bf16(training_args)
    if args.frozen_dtype != "float32" and not (training_args.bf16 or training_args.fp16):
        model, args.frozen_dtype = model.float(), "float32"
    set_seed(training_args.seed)  # Trainer does so after adapters are drawn
    padding_free = "flash" in model.config._attn_implementation
    if padding_free:  # samples that ranks get twice are left out row by row
        training_args.per_device_eval_batch_size = 1
    model = add_adapters(model, args)
    trainer = SplitLossTrainer(
        model=model,
        args=training_args,
        train_dataset=rows,
        eval_dataset={name: _columns(samples) for name, samples in eval_datasets.items()} or None,
        data_collator=PackedRowsCollator(processor.tokenizer.pad_token_id, padding_free),
        callbacks=[LogBeforeCheckpoint(), StopOnNan()],
        layout=processor,
        embedding_learning_rate=args.embedding_learning_rate,
    )
    if trainer.get_cp_size() * trainer.get_sp_size() > 1:
        raise ValueError(
            "context and sequence parallelism cut rows into pieces, and the losses of each modality need whole rows; "
            "set cp_size and sp_size to 1, and make room with ZeRO-3, FSDP2 or activation_checkpointing"
        )
    if isinstance(rows, PackedMixture):
        trainer.add_callback(KeepFirstRows(rows))
    return trainer


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


def rows_of_step(training_args) -> int:
    """Rows that a step takes, accumulated and over all ranks."""
    rows = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps
    return rows * training_args.world_size


def _rows_of_run(dataset: Dataset | PackedMixture, training_args, attention: str) -> PackedMixture | ShuffledEpochs:
    """The rows of all steps in their order. Epochs become steps, as the rows of a run know no others."""
    blocks = _blocks(dataset, training_args, attention)
    if isinstance(blocks, PackedMixture):
        return blocks
    batch = rows_of_step(training_args)
    if training_args.max_steps <= 0:
        training_args.max_steps = math.ceil(len(blocks) * training_args.num_train_epochs / batch)
    for kind in ("eval", "save", "logging"):
        strategy = getattr(training_args, f"{kind}_strategy")
        if strategy == "epoch":
            setattr(training_args, f"{kind}_strategy", type(strategy)("steps"))
            setattr(training_args, f"{kind}_steps", math.ceil(len(blocks) / batch))
    return ShuffledEpochs(blocks, training_args.max_steps * batch, training_args.seed)


def _blocks(dataset: Dataset | PackedMixture, training_args, attention: str) -> Dataset | PackedMixture:
    """The samples, packed into blocks of `max_length` where that is asked for."""
    if training_args.packing and attention not in MASKED_ATTENTION and "flash" not in attention:
        expected = f"{', '.join(MASKED_ATTENTION)}, or a flash attention"
        raise ValueError(f"packing knows no attention {attention!r}; attn_implementation takes {expected}")
    if isinstance(dataset, PackedMixture):
        return dataset
    if not training_args.packing:
        return _columns(dataset)
    from trl import pack_dataset

    return pack_dataset(_columns(dataset), training_args.max_length, "bfd")
