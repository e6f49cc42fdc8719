"""Base classes of our metrics as `evaluate` modules."""

import abc
from collections.abc import Mapping, Set
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


JOINTS = datasets.List(datasets.List(datasets.List(datasets.Value("float32"))))
"""What each joint has three numbers of, frame by frame."""


def check_list(values: Any, name: str) -> None:
    """Raises ValueError for what is no list of items: one string would be taken for a list of letters."""
    if isinstance(values, str | bytes | Mapping | Set) or not hasattr(values, "__len__"):
        raise ValueError(f"`{name}` is {type(values).__name__}, expected a list with an item for each example")


class DirectMetric(evaluate.Metric, abc.ABC):
    """An `evaluate.Metric` whose predictions may be None. Abstract, because `evaluate.load` takes the first class of a
    module that it could make an instance of. `description`, `citation` and `inputs` are told by `evaluate`; `columns`
    are inputs by name and their `datasets` type, or several such forms to choose from."""

    description = ""
    citation = CITATION
    inputs = INPUTS
    columns: dict | list[dict] = {"predictions": JOINTS, "references": JOINTS}

    def _info(self) -> evaluate.MetricInfo:
        forms = self.columns if isinstance(self.columns, list) else [self.columns]
        features = [datasets.Features(form) for form in forms]
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation,
            inputs_description=self.inputs,
            features=features if len(features) > 1 else features[0],
        )

    @abc.abstractmethod
    def _compute(self, **inputs: Any) -> dict[str, Any]:
        """The metric of whole lists."""

    def input_names(self) -> list[str]:
        """What the metric is computed of: "predictions", "references", ..."""
        return list(self.features[0] if isinstance(self.features, list) else self.features)

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any] | None:
        """Compute the metric; see the module's card. Whole lists go straight to the maths: through Arrow and back,
        nested lists of every coordinate would take a hundred times longer than the metric itself. What was collected
        by `add` and `add_batch`, and the parts of several processes (`num_process`), take the usual way."""
        given = {"predictions": predictions, "references": references, **options}
        inputs = {name: given.get(name) for name in self.input_names()}
        if self.num_process > 1 or self.writer is not None or all(value is None for value in inputs.values()):
            return super().compute(predictions=predictions, references=references, **options)
        missing = [name for name, value in inputs.items() if value is None]
        if missing:
            raise ValueError(f"`{missing[0]}` is missing; this metric needs {', '.join(inputs)}")
        for name, value in inputs.items():
            check_list(value, name)
        sizes = {name: len(value) for name, value in inputs.items()}
        if len(set(sizes.values())) != 1 or not next(iter(sizes.values())):
            found = " and ".join(f"{size} `{name}`" for name, size in sizes.items())
            raise ValueError(f"got {found}, expected one or more of each, and as many of one as of the other")
        return self._compute(**inputs, **{name: value for name, value in options.items() if name not in inputs})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **options: Any) -> None:
        """Keep a batch for `compute()`; lists, like those of `compute`."""
        given = {"predictions": predictions, "references": references, **options}
        for name in self.input_names():
            check_list(given.get(name), name)
        super().add_batch(predictions=predictions, references=references, **options)

    def _infer_feature_from_batch(self, batch: dict[str, Any]) -> Any:
        """The form of a batch shows in its first items that are there."""
        first = {name: next((item for item in items if item is not None), None) for name, items in batch.items()}
        return self._infer_feature_from_example(first)

    def _enforce_nested_string_type(self, schema: Any, obj: Any) -> Any:
        """A prediction that is missing has no wrong type."""
        return None if obj is None else super()._enforce_nested_string_type(schema, obj)
