"""Figures over repetitions and their bootstrap intervals."""

import numpy as np
import pytest

from solami_hf.metrics.evaluation.intervals import OfSets, Ratio, difference, summarize


def interval(estimates):
    found = summarize(estimates)
    return found["low"], found["high"]


def test_mean_deviation_and_count():
    found = summarize([Ratio(["a", "b"], [1.0, 3.0]), Ratio(["a", "b"], [3.0, 5.0])])
    assert (found["mean"], found["values"], found["count"]) == (3.0, [2.0, 4.0], 4)
    assert found["std"] == pytest.approx(2**0.5)
    assert summarize([Ratio(["a", "b"], [1.0, 3.0])])["std"] is None


def test_a_ratio_weighs_by_its_wholes():
    # 2 errors in 10 words and 1 in 2.
    assert Ratio(["a", "b"], [2, 1], [10, 2]).value == 0.25
    assert np.isnan(Ratio([], []).value)


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval([Ratio([str(i) for i in range(400)], values)])
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_rounds_of_a_dialogue_are_drawn_together():
    rng = np.random.default_rng(0)
    rounds = np.repeat(rng.normal(size=50), 8)
    apart = interval([Ratio([str(i) for i in range(400)], rounds)])
    together = interval([Ratio([str(i // 8) for i in range(400)], rounds)])
    assert (together[1] - together[0]) > 2.5 * (apart[1] - apart[0])


def test_no_interval_of_one_item_and_a_narrow_one_without_spread():
    assert interval([Ratio(["a", "a"], [1.0, 2.0])]) == (None, None)
    assert interval([Ratio(["a", "b"], [1.0, 1.0])]) == (1.0, 1.0)


def test_figures_of_sets_are_computed_anew_and_centred():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 1

    def biased(a, b):  # the fewer different rows, the larger
        return float(np.square(a.mean(0) - b.mean(0)).sum() + 10 / len(np.unique(a, axis=0)))

    estimate = OfSets([str(i) for i in range(60)], first, second, biased, draws=60)
    low, high = interval([estimate])
    assert estimate.value == biased(first, second) and low < estimate.value < high and high - low < 3


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=100) * 10
    items = [str(i) for i in range(100)]
    found = difference([Ratio(items, hard + 1)], [Ratio(items, hard)])
    assert found["mean"] == pytest.approx(1) and found["low"] == pytest.approx(1) and found["high"] == pytest.approx(1)
