"""The metrics as plain functions give what their `evaluate` modules give."""

import inspect
import re
from pathlib import Path

import pytest

import solami_hf.metrics
from solami_hf.metrics import NAMES

from .test_evaluate_ways import inputs, same  # noqa: F401


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"dialogue_judge"}))
def test_both_are_equal(load, inputs, name):  # noqa: F811
    columns, options = inputs[name]
    function = getattr(solami_hf.metrics, name)
    assert function.__name__ == name and list(inspect.signature(function).parameters)[: len(columns)] == list(columns)
    module = load(name).compute(**columns, **options)
    same(function(*columns.values(), **options), module)
    assert function(**columns, **options) == module
    with pytest.raises(TypeError, match="unexpected|multiple"):
        function(*columns.values(), predictions=[])
    with pytest.raises(ValueError, match="`predictions`"):
        function(**{**columns, "predictions": "hello"})


def test_the_judge_and_what_is_no_metric():
    function = solami_hf.metrics.dialogue_judge
    with pytest.raises(ValueError, match="`mode` is 'upstream'"):
        function(["hi"], ["hi"], contexts=[[{"role": "user", "content": "hello"}]], mode="upstream")
    with pytest.raises(AttributeError, match="has no attribute 'fid'"):
        solami_hf.metrics.fid  # noqa: B018
    from solami_hf.metrics import motion_fid

    assert motion_fid is solami_hf.metrics.motion_fid and "predictions: list of joint positions" in motion_fid.__doc__


def test_nobody_imports_a_metric_by_its_folder():
    """The folder, a module of the metric's name, would take the place of the function."""
    root = Path(__file__).parents[2]
    files = [path for part in ("solami_hf", "benchmarks", "examples", "tests") for path in (root / part).rglob("*.py")]
    named = re.compile(rf"^\s*(from|import) solami_hf\.metrics\.({'|'.join(NAMES)})\b", re.MULTILINE)
    assert [path.name for path in files if named.search(path.read_text(encoding="utf-8"))] == []
