"""The loss over the steps of a run as an image for its card; the run's page has the same curves to look closer at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..processing.files.atomic_write import atomic_write

NAME = "loss.png"
_WIDTH, _HEIGHT, _DPI = 7, 3, 100


def write_loss_plot(folder: str | Path, log: Sequence[dict]) -> str:
    """Writes `folder/loss.png` from Trainer's log, and returns its name; "" when the log has no loss.

    Held-out losses are those whose names begin with `eval_` and end with `loss`.
    """
    names = dict.fromkeys(name for row in log for name in row if name == "loss" or _held_out(name))
    series = {name: _points(log, name) for name in names}
    if not any(series.values()):
        return ""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.subplots()
    for name, points in series.items():
        if points:
            label = name.replace("eval_", "held-out ").replace("_", " ")
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if _held_out(name) else None, markersize=3)
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(Path(folder) / NAME) as temporary:
        figure.savefig(temporary, format="png")
    return NAME


def _held_out(name: str) -> bool:
    return name.startswith("eval_") and name.endswith("loss")


def _points(log: Sequence[dict], name: str) -> list[tuple[float, float]]:
    points = [(row["step"], row[name]) for row in log if name in row and "step" in row]
    return [point for point in points if math.isfinite(point[1])]
