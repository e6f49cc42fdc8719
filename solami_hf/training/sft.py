"""`solami sft`: stage 3, multi-turn instruction tuning on dialogues, full or LoRA, on transformers' Trainer.

Also `python -m solami_hf.training.sft --config recipe.yaml`, and the same under `accelerate launch`.
"""

import logging
import sys
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from datasets import Dataset, NamedSplit

from ..command_line import option, run_command
from ..modeling.solami.configuration_solami import ANSWER_FORMATS, HEARING, follow_formats
from ..processing.datasets.duplex import LEARN, DuplexFormat, DuplexRenderer
from ..processing.datasets.token_dataset import split_names
from ..processing.files.folder_or_hub import check_source
from .held_out import evaluation_split
from .language_model.language_model_training import (
    LanguageModelArguments,
    LanguageModelTrainingArguments,
    load_model_and_processor,
    rendered_dataset,
    train_language_model,
)
from .language_model.plan import plan_or_train

logger = logging.getLogger(__name__)


@dataclass
class SftArguments(LanguageModelArguments):
    """Model, data and answer format of stage 3."""

    answer_format: str | None = option(None, f"One of {', '.join(ANSWER_FORMATS)}; by default the processor's.")
    hearing: Literal[HEARING] | None = option(None, "What is read of the user's speech; by default as the processor.")
    rows: Literal["chat", "duplex"] = option("chat", "chat: dialogues in turns; duplex: two people on one clock.")
    learn: Literal[LEARN] = option("character", "Of duplex rows, in which each is once the character: it, or both.")
    character_parts: list[str] | None = option(None, "Of duplex rows: body, hand, speech of the character, or all.")
    partner_parts: list[str] | None = option(None, "Likewise of the partner.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    return plan_or_train(argv, SftArguments, sft, "solami sft")


def sft(args: SftArguments, training_args: LanguageModelTrainingArguments) -> dict:
    """Runs stage 3 and writes a complete folder to `training_args.output_dir`; see `train_language_model`. Dialogues
    longer than `training_args.max_length` lose whole rounds from the front; one whose last round alone is too long is
    left out, and both are counted in the log. Only the character's answers are trained on. Raises ValueError: data of
    another codec, or no dialogue fits into `max_length`."""
    check_source("token dataset", args.data)  # before the model is loaded
    model, processor = load_model_and_processor(args, training_args)
    processor.answer_format = args.answer_format or processor.answer_format
    processor.hearing = args.hearing or processor.hearing
    args = replace(args, answer_format=processor.answer_format, hearing=processor.hearing)
    follow_formats(model.config, processor)
    read = chat_samples
    if args.rows == "duplex":
        read = duplex_samples
        duplex = DuplexFormat.of(model.config, args.character_parts, args.partner_parts)
        most = DuplexRenderer(model.config, duplex).most_ticks(training_args.max_length)
        model.config.duplex = {**duplex.to_dict(), "max_ticks": most}
        args = replace(args, character_parts=list(duplex.character), partner_parts=list(duplex.partner))
    train = read(args, processor, "train", training_args)
    train = train.select(np.random.default_rng(training_args.seed).permutation(len(train)))
    evals = {}
    if training_args.eval_strategy != "no":
        split = evaluation_split(split_names(args.data, args.rows), training_args, args.data) or "validation"
        evals = {args.rows: read(args, processor, split, training_args)}
    return train_language_model(model, processor, args, training_args, train, evals)


def chat_samples(args: SftArguments, processor, split: str, training_args) -> Dataset:
    """Rendered dialogues of a split with answers in the processor's format, cut to `max_length` by whole rounds; what
    became of them is logged."""
    from ..processing.datasets.batch_rendering import RenderingCounts, render_chats
    from ..processing.datasets.rendered_data import RENDERED, ROWS_PER_GROUP
    from ..processing.datasets.split_hygiene import held_out_rows, without_leaks
    from ..processing.datasets.token_dataset import load_tokens
    from ..processing.rendering import TokenRenderer

    rows, counts = load_tokens(args.data, "chat", split, processor), RenderingCounts()
    if split == "train":
        rows = without_leaks(rows, held_out_rows(args.data, "chat"))
    batches, renderer = rows.with_format("arrow").iter(ROWS_PER_GROUP), TokenRenderer(processor.tokenizer, processor)
    systems = {name: character["system"] for name, character in processor.characters.items()}
    formats = processor.answer_format, training_args.max_length, systems
    tables = list(render_chats(batches, renderer, counts, *formats))
    counts.log(f"{split} dialogues")
    if not tables:
        raise ValueError(f"no {split} dialogue fits into max_length={training_args.max_length}; raise it")
    return Dataset(pa.concat_tables(tables).cast(RENDERED.arrow_schema), split=NamedSplit(split))


def duplex_samples(args: SftArguments, processor, split: str, training_args) -> Dataset:
    """Rendered pieces, of at most `max_length` tokens, of the `duplex` rows of a split, each read from both sides."""
    from ..processing.datasets.split_hygiene import held_out_rows, without_leaks
    from ..processing.datasets.token_dataset import load_tokens

    rows = load_tokens(args.data, "duplex", split, processor)
    if split == "train":
        rows = without_leaks(rows, held_out_rows(args.data, "duplex"))
    renderer = DuplexRenderer(processor, DuplexFormat.of(processor, args.character_parts, args.partner_parts))
    samples = (s for row in rows for s in renderer.samples(row, training_args.max_length, args.learn))
    made = rendered_dataset(samples, split)
    told = "%s: %d duplex rows in %d samples of up to %d ticks"
    logger.info(told, split, len(rows), len(made), renderer.most_ticks(training_args.max_length))
    return made


if __name__ == "__main__":
    sys.exit(run_command("solami sft", main))
