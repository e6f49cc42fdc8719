"""The metrics as plain functions: `solami_hf.metrics.motion_fid(predictions, references, mode="corrected")`.

Each takes what its module's `compute` takes and gives the same; there is one implementation.
"""

import importlib.util
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

from . import folder_of
from .metric_base import DirectMetric


@cache
def metric_function(name: str) -> Callable[..., dict]:
    """The function of a metric, with the arguments of its module's `_compute`. Raises ValueError: there is no such
    metric; ImportError: what it needs is not installed."""
    path = Path(folder_of(name)) / f"{name}.py"
    # Not by its place in the package: imported from there it would hide the function of its name.
    spec = importlib.util.spec_from_file_location(f"solami_hf_metric_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [part for part in vars(module).values() if isinstance(part, type) and issubclass(part, DirectMetric)]
    (metric,) = (part for part in found if not inspect.isabstract(part))
    _, *parameters = inspect.signature(metric._compute).parameters.values()
    signature = inspect.Signature(parameters)

    def compute(*args, **options):
        bound = signature.bind(*args, **options)
        given = dict(bound.arguments)
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(parameter.name, {})
        return metric().compute(**given)

    compute.__name__ = compute.__qualname__ = name
    card = path.with_name("README.md").read_text("utf-8")
    compute.__doc__ = f"{metric.description}\n\nArgs:\n{metric.inputs}\n{card}"
    compute.__signature__ = signature
    return compute
