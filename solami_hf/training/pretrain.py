"""`solami pretrain`: stage 2, the six tasks on motion and speech tokens, on transformers' Trainer.

Samples are drawn, rendered and packed while the model trains (`PackedMixture`): neither the start nor memory depends
on the length of the run. Also `python -m solami_hf.training.pretrain --config recipe.yaml`, and the same under
`accelerate launch`.
"""

import sys
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from ..command_line import option, run_command
from ..processing.datasets.split_hygiene import held_out_rows, without_leaks
from ..processing.datasets.tasks import MOTION_TASKS
from ..processing.datasets.token_dataset import load_tokens, split_names
from ..processing.files.folder_or_hub import check_source
from ..processing.rendering import TASKS, TokenRenderer
from .held_out import evaluation_split
from .language_model.language_model_training import (
    LanguageModelArguments,
    LanguageModelTrainingArguments,
    load_model_and_processor,
    rendered_dataset,
    rows_of_step,
    train_language_model,
)
from .language_model.mixture import PairRenderer
from .language_model.packed_mixture import PackedMixture
from .language_model.plan import plan_or_train
from .language_model.task_rows import task_sources
from .sft import chat_samples

CHAT = "chat"  # in `task_weights`: the dialogues of stage 3


@dataclass
class PretrainArguments(LanguageModelArguments):
    """Model, data and mixture of stage 2."""

    motion_share: float = option(0.4, "Share of motion samples after the warm-up over the first half of the run.")
    task_weights: str = option(
        "",
        "How often tasks are drawn in their modality: speech_to_text=4,text_to_speech=0.5. chat=1 draws dialogues, "
        "too, among the motion tasks, so that a tuned model keeps them.",
    )
    eval_samples: int = option(100, "Held-out samples of each task to evaluate.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    return plan_or_train(argv, PretrainArguments, pretrain, "solami pretrain")


def pretrain(args: PretrainArguments, training_args: LanguageModelTrainingArguments) -> dict:
    """Runs stage 2 and writes a complete folder to `training_args.output_dir`; see `train_language_model`. Raises
    ValueError: no `max_steps` (the run has no epochs), data of another codec, or nothing to train on."""
    if training_args.max_steps <= 0:
        raise ValueError(f"the mixture has no epochs: set max_steps, got {training_args.max_steps}")
    check_source("token dataset", args.data)  # before the model is loaded
    model, processor = load_model_and_processor(args, training_args)
    train = training_rows(args, processor, training_args)
    evals = {} if training_args.eval_strategy == "no" else evaluation_samples(args, processor, training_args)
    return train_language_model(model, processor, args, training_args, train, evals)


def training_rows(args: PretrainArguments, processor, training_args) -> PackedMixture:
    """The rows of the run, drawn by the mixture; a data folder may have motion, speech, or both."""
    sources, renderer = load_sources(args, processor, "train", training_args.max_length)
    weights = parse_task_weights(args.task_weights)
    if weights.get(CHAT):
        sources[CHAT] = chat_samples(args, processor, "train", training_args)
    beside_speech = (*MOTION_TASKS, CHAT)
    return PackedMixture(
        {task: pairs for task, pairs in sources.items() if task in beside_speech},
        {task: pairs for task, pairs in sources.items() if task not in beside_speech},
        training_args.max_steps * rows_of_step(training_args),
        training_args.max_length,
        training_args.seed,
        final=args.motion_share,
        weights={task: weight for task, weight in weights.items() if task in sources},
        transform=PairRenderer(renderer),
        packing=training_args.packing,
    )


def evaluation_samples(args: PretrainArguments, processor, training_args) -> dict[str, Dataset]:
    """Task -> up to `eval_samples` rendered samples from all over its held-out split, always the same."""
    evals = {}
    for config in ("motion", "speech"):
        split = evaluation_split(split_names(args.data, config), training_args, f"{config} of {args.data}")
        if split is None:
            continue
        sources, renderer = load_sources(args, processor, split, training_args.max_length, (config,))
        render = PairRenderer(renderer)
        for task, pairs in sources.items():
            chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), args.eval_samples)).astype(int)
            samples = (render(pairs[i], np.random.default_rng([training_args.seed, i])) for i in chosen)
            evals[task] = rendered_dataset(samples, split)
    return evals


def load_sources(args: PretrainArguments, processor, split: str, max_length: int, configs=("motion", "speech")):
    """`(task -> pairs, renderer)` of a split; configs that are not there are left out."""
    rows = {}
    for config in configs:
        try:
            rows[config] = load_tokens(args.data, config, split, processor)
        except FileNotFoundError:
            continue
        if split == "train":
            rows[config] = without_leaks(rows[config], held_out_rows(args.data, config))
    renderer = TokenRenderer(processor.tokenizer, processor)
    return task_sources(rows, renderer, max_length), renderer


def parse_task_weights(text: str) -> dict[str, float]:
    """`task=weight,task=weight` as a dictionary; ValueError for an unknown task or a weight that is no number."""
    weights = {}
    for part in filter(None, text.split(",")):
        task, _, weight = (piece.strip() for piece in part.partition("="))
        if task not in (*TASKS, CHAT):
            raise ValueError(f"task_weights names {task!r}; expected {', '.join((*TASKS, CHAT))}")
        try:
            weights[task] = float(weight)
        except ValueError:
            raise ValueError(f"task_weights gives {task} the weight {weight!r}; expected a number") from None
    return weights


if __name__ == "__main__":
    sys.exit(run_command("solami pretrain", main))
