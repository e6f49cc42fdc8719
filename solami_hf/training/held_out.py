"""Measuring what is held out: the split, some clips of many, a model in evaluation mode, the last figures of a log."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import TrainingArguments

logger = logging.getLogger(__name__)


def evaluation_split(splits: Iterable[str], training_args: TrainingArguments, data: str) -> str | None:
    """Of the `splits` of `data` the one to evaluate on while training: `validation`, `test` where there is none,
    None without either. Raises ValueError: the best checkpoint, which `training_args` keep, would be chosen by the
    test split."""
    splits = set(splits)
    if "validation" in splits or "test" not in splits:
        return "validation" if "validation" in splits else None
    if training_args.load_best_model_at_end or training_args.save_strategy == "best":
        raise ValueError(
            f"{data} has no validation split, so the best checkpoint would be chosen by its test split: prepare it "
            "with one (--split_by source --validation_share 0.05), or keep the last checkpoint "
            "(load_best_model_at_end: false, save_strategy: steps)"
        )
    logger.warning(
        "%s has no validation split, so training is evaluated on its test split; settings that are chosen by these "
        "figures have seen it",
        data,
    )
    return "test"


def spread(items: Sequence, count: int) -> list:
    """At most `count` of the items, from all over them."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode and records no gradients; then its mode is what it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def last_evaluation(log: list[dict[str, float]], marker: str) -> dict[str, float]:
    """The last row of a log with `marker`, empty without one."""
    return next((row for row in reversed(log) if marker in row), {})


def last_step(log: list[dict[str, float]]) -> int:
    """The step that a log has come to."""
    return max((row.get("step", 0) for row in log), default=0)
