"""The scripts of examples/ have heads that `uv run` and `hf jobs uv run` read, and show their command's options."""

import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest

from solami_hf import cli

EXAMPLES = Path(__file__).parents[1] / "examples"
HEAD = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")  # as PEP 723 gives it


@pytest.mark.parametrize("name", ["sft", "pretrain", "evaluate"])
def test_heads(name):
    (found,) = HEAD.finditer((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    head = tomllib.loads("".join(line[2:] for line in found["content"].splitlines(keepends=True)))
    assert head["requires-python"] == ">=3.11" and head["dependencies"][0].startswith("solami_hf")


@pytest.mark.parametrize("name", ["sft", "pretrain", "evaluate"])
def test_options_are_the_commands(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0 and "--output" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sft", "pretrain"])
def test_a_result_is_pushed_when_asked_for(name, monkeypatch):
    run, calls = runpy.run_path(str(EXAMPLES / f"{name}.py"))["run"], []
    codes = {name: 0, "push": 0}
    monkeypatch.setitem(run.__globals__, "main", lambda argv: calls.append(argv) or codes[argv[0]])
    assert run(["--model", "m", "--push", "me/x", "--output_dir", "o"]) == 0
    assert calls == [[name, "--model", "m", "--output_dir", "o"], ["push", "checkpoint", "o", "me/x"]]
    calls.clear()
    codes[name] = 2
    assert run(["--push", "me/x", "--output_dir", "o"]) == 2 and calls == [[name, "--output_dir", "o"]]


def test_evaluate_generates_then_measures(monkeypatch, capsys):
    run, calls = runpy.run_path(str(EXAMPLES / "evaluate.py"))["run"], []
    codes = {"generate": 1, "evaluate": 0}
    monkeypatch.setitem(run.__globals__, "main", lambda argv: calls.append(argv) or codes[argv[0]])
    assert run(["--checkpoint", "c", "--input", "i", "--output", "o"]) == 0
    assert calls == [
        ["generate", "--task", "chat", "--checkpoint", "c", "--input", "i", "--output", "o"],
        ["evaluate", "chat", "o"],
    ]
    calls.clear()
    codes["generate"] = 2
    assert run(["--task", "t2m", "--output", "o"]) == 2 and calls == [["generate", "--task", "t2m", "--output", "o"]]
    assert run(["--checkpoint", "c"]) == 2 and "give --output" in capsys.readouterr().err
    assert {"generate", "evaluate", "sft", "pretrain"} <= set(cli.COMMANDS)
