"""What our metrics have in common as `evaluate` modules."""

from typing import Any

import datasets
import evaluate

CITATION = """\
@inproceedings{jiang2025solami,
  title = {SOLAMI: Social Vision-Language-Action Modeling for Immersive Interaction with 3D Autonomous Characters},
  author = {Jiang, Jianping and others},
  booktitle = {CVPR},
  year = {2025}
}
"""

INPUTS = """\
predictions: list of joint positions, each (T, 55, 3) in metres, y up, SMPL-X joint order; None where there is none.
references: list of joint positions of the same number of motions; lengths may differ within a pair.
mode: "corrected" (default), or "upstream" for the original's way, faults included.
"""


class DirectMetric(evaluate.Metric):
    """An `evaluate.Metric` over pairs, whose predictions may be None."""

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any] | None:
        """Compute the metric; see the module's card.

        Whole lists go straight to the maths: through Arrow and back, nested lists of every coordinate would take a
        hundred times longer than the metric itself, and a text that is None in the first place would be refused. What
        was collected by `add` and `add_batch` takes the usual way.
        """
        if predictions is None or references is None or self.writer is not None:
            return super().compute(predictions=predictions, references=references, **options)
        if len(predictions) != len(references) or not len(references):
            raise ValueError(
                f"got {len(predictions)} `predictions` and {len(references)} `references`, expected one or more pairs"
            )
        return self._compute(predictions=predictions, references=references, **options)


class MotionMetric(DirectMetric):
    """An `evaluate.Metric` over pairs of joint positions."""

    description = ""

    def _info(self) -> evaluate.MetricInfo:
        joints = datasets.List(datasets.List(datasets.List(datasets.Value("float32"))))
        return evaluate.MetricInfo(
            description=self.description,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": joints, "references": joints}),
        )
