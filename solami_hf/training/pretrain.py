"""`solami pretrain`: stage 2, the six tasks on motion and speech tokens, on transformers' Trainer.

Also `python -m solami_hf.training.pretrain --config recipe.yaml`, and the same under `accelerate launch`.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field

from .language_model import (
    LanguageModelArguments,
    LanguageModelTrainingArguments,
    load_model_and_processor,
    rendered_dataset,
    train_language_model,
)

logger = logging.getLogger(__name__)


@dataclass
class PretrainArguments(LanguageModelArguments):
    """Model, data and mixture of stage 2."""

    motion_share: float = field(
        default=0.4, metadata={"help": "Share of motion samples after the warm-up over the first half of the run."}
    )
    task_weights: str = field(
        default="",
        metadata={
            "help": "How often tasks are drawn within their modality, e.g. speech_to_text=4,text_to_speech=0.5."
        },
    )
    eval_samples: int = field(default=100, metadata={"help": "Samples of each modality's test split to evaluate."})


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--plan" in argv:
        from .plan import plan_command

        return plan_command(argv, PretrainArguments, "solami pretrain")
    from trl import TrlParser

    parser = TrlParser(dataclass_types=[PretrainArguments, LanguageModelTrainingArguments], prog="solami pretrain")
    args, training_args = parser.parse_args_and_config(argv)
    pretrain(args, training_args)
    return 0


def pretrain(args: PretrainArguments, training_args) -> dict:
    """Runs stage 2 and writes a complete folder to `training_args.output_dir`.

    Args:
        args: `PretrainArguments`.
        training_args: `LanguageModelTrainingArguments` with `max_steps` and `max_length` set; the run has no epochs.

    Returns:
        `{"history": [...]}`.

    Raises:
        ValueError: no `max_steps`, data of another codec, or nothing to train on.
    """
    if training_args.max_steps <= 0:
        raise ValueError(f"the mixture has no epochs: set max_steps, got {training_args.max_steps}")
    model, processor = load_model_and_processor(args)
    tokens = (
        training_args.max_steps
        * training_args.max_length
        * training_args.per_device_train_batch_size
        * training_args.gradient_accumulation_steps
        * training_args.world_size
    )
    train = rendered_dataset(pretraining_samples(args, processor, "train", tokens, training_args))
    evals = {}
    if training_args.eval_strategy != "no":
        test = list(pretraining_samples(args, processor, "test", args.eval_samples * 200, training_args))
        evals = {task: rendered_dataset(s for s in test if s["task"] == task) for task in {s["task"] for s in test}}
    logger.info("%d samples drawn for %d tokens", len(train), tokens)
    return train_language_model(model, processor, args, training_args, train, evals)


def pretraining_samples(args: PretrainArguments, processor, split: str, num_tokens: int, training_args):
    """Rendered samples of a split, drawn by the mixture; a data folder may have motion, speech, or both."""
    from ..processing.rendering import TokenRenderer
    from ..processing.split_hygiene import held_out_rows, without_leaks
    from ..processing.tasks import motion_pairs, speech_pairs
    from ..processing.token_data import load_tokens
    from .mixture import draw_pretraining

    pairs = []
    for config, to_pairs in (("motion", motion_pairs), ("speech", speech_pairs)):
        try:
            rows = load_tokens(args.data, config, split, processor)
        except FileNotFoundError:
            continue
        if split == "train":
            rows = without_leaks(rows, held_out_rows(args.data, config))
        pairs += to_pairs(rows.to_list())
    renderer = TokenRenderer(processor.tokenizer, processor)
    # Packing leaves a little of each block empty; the margin makes the samples last for all steps.
    wanted = int(num_tokens * 1.02) if split == "train" else num_tokens
    weights = parse_task_weights(args.task_weights)
    seed, longest = training_args.seed, training_args.max_length
    return draw_pretraining(pairs, renderer, wanted, longest, seed, args.motion_share, weights)


def parse_task_weights(text: str) -> dict[str, float]:
    """`task=weight,task=weight` as a dictionary; ValueError for an unknown task or a weight that is no number."""
    from ..processing.rendering import TASKS

    weights = {}
    for part in filter(None, text.split(",")):
        task, _, weight = (piece.strip() for piece in part.partition("="))
        if task not in TASKS:
            raise ValueError(f"task_weights names {task!r}; expected {', '.join(TASKS)}")
        try:
            weights[task] = float(weight)
        except ValueError:
            raise ValueError(f"task_weights gives {task} the weight {weight!r}; expected a number") from None
    return weights


if __name__ == "__main__":
    sys.exit(main())
