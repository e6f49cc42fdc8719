"""Means, deviations over repetitions, and bootstrap intervals over items (Efron & Tibshirani 1993).

What is drawn with repetition is the item: a clip, or a dialogue with all its rounds and all its repetitions, because
answers of one dialogue are no independent observations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = (2.5, 97.5)


@dataclass
class Ratio:
    """A sum over a sum, such as word errors over words; with `parts` alone a mean."""

    rows: Sequence[str]  # the item that each part belongs to
    parts: Sequence[float]
    wholes: Sequence[float] | None = None  # of ones for the mean
    value: float | None = None  # the figure, where it is not exactly this ratio but moves with it

    def __post_init__(self):
        self.items, index = _numbered(self.rows)
        self.count = len(self.rows)
        wholes = np.ones(self.count) if self.wholes is None else np.asarray(self.wholes, float)
        self._parts = np.bincount(index, np.asarray(self.parts, float), len(self.items))
        self._wholes = np.bincount(index, wholes, len(self.items))
        if self.value is None:
            self.value = float(self._parts.sum() / self._wholes.sum()) if self._wholes.sum() else float("nan")

    def redrawn(self, weights: np.ndarray) -> np.ndarray:
        """The figure (draws,) for how often each of `items` was drawn, (draws, items); NaN where nothing counts."""
        wholes = weights @ self._wholes
        return np.divide(weights @ self._parts, wholes, out=np.full(len(weights), np.nan), where=wholes > 0)


@dataclass
class OfSets:
    """A figure of two sets of rows, such as an FID, computed anew for every draw."""

    rows: Sequence[str]  # the item that each row of `first` belongs to
    first: np.ndarray  # (rows, features), e.g. of predictions
    second: np.ndarray  # (rows, features), e.g. of references
    figure: Callable[[np.ndarray, np.ndarray], float]
    draws: int = 100  # of the draws that are asked for, how many are computed; the figure is dear
    second_rows: Sequence[str] | None = None  # the item of each row of `second`; those of `first` when None

    def __post_init__(self):
        self.items, index = _numbered([*self.rows, *(self.rows if self.second_rows is None else self.second_rows)])
        self._first, self._second = np.split(index, [len(self.rows)])
        self.count = len(self.rows)
        self.value = self.figure(self.first, self.second)

    def redrawn(self, weights: np.ndarray) -> np.ndarray:
        """As `Ratio.redrawn`; NaN for draws beyond `draws`."""
        found = np.full(len(weights), np.nan)
        for i, weight in enumerate(weights[: self.draws]):
            first, second = (
                side.repeat(weight[index].astype(int), axis=0)
                for side, index in ((self.first, self._first), (self.second, self._second))
            )
            try:
                found[i] = self.figure(first, second)
            except ValueError:  # of a few items, a draw may hold too few different ones
                continue
        return found


Estimate = Ratio | OfSets
"""A figure of one repetition (`value`, which stands on `count` rows of `items`), and what it were of other items."""


def _numbered(rows: Sequence[str]) -> tuple[list[str], np.ndarray]:
    items = sorted(set(rows))
    number = {item: i for i, item in enumerate(items)}
    return items, np.array([number[row] for row in rows], int)


def summarize(estimates: Sequence[Estimate], seed: int = 0) -> dict[str, float | int | list | None]:
    """Mean and deviation of a figure over repetitions, one estimate each, and the interval over items. The interval is
    that of the mean over repetitions, each with the same items drawn. It is moved so that the middle of the draws lies
    on the figure: with items drawn twice an FID is larger than it is. Returns `mean`; `std` over repetitions (n - 1
    below; None for one repetition); `low`, `high` of the 95 % interval (None for a single item); `values` of the
    repetitions; `count` of what the figure stands on, all repetitions together."""
    redrawn = _redrawn(estimates, seed)
    values = [float(estimate.value) for estimate in estimates]
    draws = None if redrawn is None else redrawn.mean(axis=0)
    return _summary(values, draws, sum(estimate.count for estimate in estimates))


def difference(first: Sequence[Estimate], second: Sequence[Estimate], seed: int = 0) -> dict:
    """`summarize` of first minus second, repetition by repetition, with the same items drawn on both sides."""
    redrawn, half = _redrawn([*first, *second], seed), len(first)
    values = [float(a.value - b.value) for a, b in zip(first, second, strict=True)]
    draws = None if redrawn is None else redrawn[:half].mean(axis=0) - redrawn[half:].mean(axis=0)
    return _summary(values, draws, sum(estimate.count for estimate in first))


def _summary(values: list[float], redrawn: np.ndarray | None, count: int) -> dict:
    mean = float(np.mean(values))
    low, high = (None, None) if redrawn is None else _around(mean, redrawn)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": mean, "std": std, "low": low, "high": high, "values": values, "count": count}


def _redrawn(estimates: Sequence[Estimate], seed: int) -> np.ndarray | None:
    """Figures (estimates, draws) of the draws; None where there is no second item."""
    items = sorted({item for estimate in estimates for item in estimate.items})
    if len(items) < 2:
        return None
    number = {item: i for i, item in enumerate(items)}
    weights = np.random.default_rng(seed).multinomial(len(items), np.full(len(items), 1 / len(items)), DRAWS)
    return np.stack([e.redrawn(weights[:, [number[item] for item in e.items]]) for e in estimates])


def _around(value: float, found: np.ndarray) -> tuple[float | None, float | None]:
    found = found[np.isfinite(found)]
    if not len(found):
        return None, None
    low, high = np.percentile(found, LEVEL) - np.median(found) + value
    if (found >= 0).all():  # a figure that cannot be negative
        low = max(low, 0.0)
    return float(low), float(high)
