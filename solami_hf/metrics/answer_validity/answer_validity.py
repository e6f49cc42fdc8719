"""Share of generated answers that follow the answer format."""

import math

import datasets
import evaluate

Z_95 = 1.959963984540054


class AnswerValidity(evaluate.Metric):
    """See README.md beside this file."""

    def _info(self):
        return evaluate.MetricInfo(
            description="Share of generated answers that follow the answer format. Higher is better.",
            citation="",
            inputs_description="predictions: list of bool, None where no answer came; mode: both give the same.",
            features=datasets.Features({"predictions": datasets.Value("bool")}),
        )

    def _compute(self, predictions, mode="corrected"):
        if mode not in ("corrected", "upstream"):
            raise ValueError(f"`mode` is {mode!r}, expected 'corrected' or 'upstream'")
        if not predictions:
            raise ValueError("`predictions` is empty, expected at least one answer")
        count = len(predictions)
        share = sum(bool(valid) for valid in predictions) / count
        # Wilson's interval: sensible also where every answer is valid.
        centre = share + Z_95**2 / (2 * count)
        spread = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
        low, high = ((centre + sign * spread) / (1 + Z_95**2 / count) for sign in (-1, 1))
        return {
            "valid": share,
            "low": max(low, 0.0),
            "high": min(high, 1.0),
            "num_predictions": count,
            "mode": mode,
        }
