"""The split that training is evaluated on: `validation`, or `test` where a data set has no other, with a warning."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from transformers import TrainingArguments

logger = logging.getLogger(__name__)


def evaluation_split(splits: Iterable[str], training_args: TrainingArguments, data: str) -> str | None:
    """The split to evaluate on while training.

    Args:
        splits: that the data set has.
        training_args: say whether the best checkpoint is kept, which then is chosen by that split.
        data: what it is called, for messages.

    Returns:
        `validation`, `test` where there is no validation, None without either.

    Raises:
        ValueError: a checkpoint would be chosen by the test split.
    """
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
