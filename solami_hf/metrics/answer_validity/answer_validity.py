"""Share of generated answers that follow the answer format."""

import math
import numbers

import datasets
import numpy as np
from solami_hf.metrics.metric_base import DirectMetric, check_list
from solami_hf.metrics.motion_math import check_mode

Z_95 = 1.959963984540054


class AnswerValidity(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate
    >>> from solami_hf.metrics import folder_of
    >>> result = evaluate.load(folder_of("answer_validity")).compute(predictions=[True, True, False, None])
    >>> {name: round(result[name], 3) for name in ("valid", "low", "high")}
    {'valid': 0.5, 'low': 0.15, 'high': 0.85}
    """

    description = "Share of generated answers that follow the answer format. Higher is better."
    inputs = "predictions: list of bool, None where no answer came; mode: both give the same."
    columns = {"predictions": datasets.Value("bool")}

    def add(self, *, prediction=None, **options):
        """Keep one answer for `compute()`."""
        _check_answers([prediction])  # a bool column would take any text for True
        super().add(prediction=prediction, **options)

    def add_batch(self, *, predictions=None, **options):
        """Keep answers for `compute()`."""
        check_list(predictions, "predictions")
        _check_answers(predictions)
        super().add_batch(predictions=predictions, **options)

    def _compute(self, predictions, mode="corrected"):
        check_mode(mode)
        _check_answers(predictions)
        count = len(predictions)
        if not count:
            raise ValueError("got 0 `predictions`, expected one or more")
        share = sum(bool(valid) for valid in predictions) / count
        # Wilson's interval: sensible also where every answer is valid.
        centre = share + Z_95**2 / (2 * count)
        spread = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
        low, high = ((centre + sign * spread) / (1 + Z_95**2 / count) for sign in (-1, 1))
        return {"valid": share, "low": max(low, 0.0), "high": min(high, 1.0), "num_predictions": count, "mode": mode}


def _check_answers(predictions):
    for i, valid in enumerate(predictions):
        is_bool = isinstance(valid, (bool, np.bool_)) or (isinstance(valid, numbers.Integral) and valid in (0, 1))
        if valid is not None and not is_bool:
            raise ValueError(f"`predictions[{i}]` is {valid!r}, expected True, False, or None for no answer")
