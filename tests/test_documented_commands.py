"""Every command, option, file and name that README and docs show exists. Nothing is run beyond the parsing."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from transformers import HfArgumentParser

from solami_hf import cli, command_line

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
RECIPES = ROOT / "solami_hf" / "training" / "recipes"
# They start a module of ours, or a command, with options of their own before it.
LAUNCHERS = {"torchrun", "accelerate", "deepspeed", "python"}


class _Parsed(Exception):
    """Raised instead of running a command: what it would have parsed, and with what."""


@pytest.fixture(autouse=True)
def no_command_runs(monkeypatch):
    def stop(parser, args=None, *_, **__):
        raise _Parsed(parser, list(args or []))

    def recipe(name):
        path = next((p for p in (ROOT / name, RECIPES / name) if p.is_file()), None)
        assert path, f"no such recipe: {name}"
        return read(path)

    read = command_line.read_recipe
    monkeypatch.setattr(command_line, "read_recipe", recipe)
    monkeypatch.setattr(HfArgumentParser, "parse_args_into_dataclasses", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)


def blocks(page: Path, *languages: str) -> list[str]:
    return [textwrap.dedent(code) for kind, code in FENCE.findall(page.read_text("utf-8")) if kind in languages]


def commands(page: Path) -> list[tuple[str, bool]]:
    """Command lines of a page, and whether each is whole: from bash blocks, and `solami ...` in running text."""
    found = []
    for block in blocks(page, "bash", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            found += [(part.strip(), True) for part in line.split("&&") if part.strip() and line.strip()[0] != "#"]
    prose = FENCE.sub("", page.read_text("utf-8"))
    for code in re.findall(r"`((?:solami|trl|torchrun|accelerate) [^`]+)`", prose):
        found.append((code, " --" in code and not re.search(r"[|<\[]|\.\.\.| [A-Z]\b", code)))
    return found


def check_command(line: str, whole: bool) -> None:
    """Raises AssertionError, with what does not exist, for one command line."""
    words = shlex.split(line, comments=True)
    whole = whole and "..." not in words
    words = [word for word in words if word != "..."]
    if not words:
        return
    program, rest = words[0], words[1:]
    if program == "solami":
        check_solami(rest, whole)
    elif program == "trl":
        check_trl(rest)
    elif program == "transformers":
        assert importlib.util.find_spec(f"transformers.cli.{rest[0]}"), f"no such command: {rest[0]}"
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(rest) <= set(targets), f"no such target: {rest}"
    elif program == "pip":
        extras = re.findall(r"\[(\w+)\]", line.split("#")[0])
        known = re.findall(r'^    "(\w+)": ', (ROOT / "setup.py").read_text("utf-8"), re.MULTILINE)
        assert set(extras) <= set(known), f"no such extra: {extras}"
    elif program == "cd":
        assert (ROOT / rest[0]).is_dir(), f"no such folder: {rest[0]}"
    elif program in LAUNCHERS:
        check_launched(rest, whole)
    else:
        raise AssertionError(f"no test knows {program!r}")


def check_launched(words: list[str], whole: bool) -> None:
    """`-m module ...`, or a script of this repository, behind a launcher's own options."""
    if "-m" in words:
        module, rest = words[words.index("-m") + 1], words[words.index("-m") + 2 :]
        if module.startswith("solami_hf"):
            check_options(lambda: importlib.import_module(module).main, rest, whole)
        else:
            assert importlib.util.find_spec(module.split(".")[0]), f"no module {module}"
    else:
        scripts = [word for word in words if word.endswith(".py")]
        assert scripts and (ROOT / scripts[0]).is_file(), f"no such script: {words}"


def check_solami(words: list[str], whole: bool) -> None:
    for name in words[0].split("|"):  # `solami prepare motion|speech SRC` shows several at once
        if name.startswith(("-", "<")):
            return
        assert name in cli.COMMANDS, f"no command {name!r}"
        module, function = f"solami_hf.{cli.COMMANDS[name][0]}".split(":")
        kinds = words[1].split("|") if len(words) > 1 and "|" in words[1] else [None]
        for kind in kinds:
            rest = [kind, *words[2:]] if kind else words[1:]
            check_options(lambda m=module, f=function: getattr(importlib.import_module(m), f), rest, whole)


def check_options(main, words: list[str], whole: bool) -> None:
    """Gives a command its words and looks at the parser that it would have used."""
    try:
        main()(list(words))
        return  # nothing to parse
    except _Parsed as parsed:
        parser, given = parsed.args
    except (ValueError, SystemExit) as error:
        if whole:
            raise AssertionError(f"refused: {error}") from error
        return  # a mention of the command, no call of it
    for word in given:
        flag = word.split("=")[0]
        if re.fullmatch(r"--\w[\w-]*", flag):
            assert flag in parser._option_string_actions, f"no option {flag}"
    if not whole:
        return
    try:
        _, unknown = argparse.ArgumentParser.parse_known_args(parser, given)
    except SystemExit:
        pytest.fail(f"the parser refuses {given}")
    assert not unknown, f"not understood: {unknown}"


def check_trl(words: list[str]) -> None:
    module = importlib.import_module(f"trl.scripts.{words[0]}")
    known = module.make_parser()._option_string_actions
    for word in words[1:]:
        assert not word.startswith("--") or word.split("=")[0] in known, f"no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_as_they_are_written(page):
    found, wrong = commands(page), []
    for line, whole in found:
        try:
            check_command(line, whole)
        except AssertionError as error:
            wrong.append(f"{line}: {error}")
        except pytest.fail.Exception as error:
            wrong.append(f"{line}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_parses_and_imports_names_that_are_there(page):
    for code in blocks(page, "python"):
        if signatures_of(code):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                module = importlib.import_module(node.module)
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert not missing, f"{node.module} has no {missing}"
            elif isinstance(node, ast.Import):
                for name in node.names:
                    assert importlib.util.find_spec(name.name), name.name


def signatures_of(code: str) -> tuple[str, list[ast.Call]] | None:
    """The module that a block of signatures names in its first line, and the calls below it; None of other blocks."""
    head = re.match(r"# (solami_hf[\w.]*)\n", code)
    if head is None:
        return None
    return head[1], [node.value for node in ast.parse(code).body]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_signatures_are_those_of_the_code(page):
    for code in blocks(page, "python"):
        module, calls = signatures_of(code) or ("", [])
        for call in calls:
            check_signature(importlib.import_module(module), call)


def check_signature(module, call: ast.Call) -> None:
    path = ast.unparse(call.func)
    found = module
    for name in path.split("."):
        found = getattr(found, name)
    expected = []
    for name, parameter in inspect.signature(found).parameters.items():
        if name != "self":
            star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
            expected.append((star + name, None if parameter.default is parameter.empty else str(parameter.default)))
    shown = [(ast.unparse(argument), None) for argument in call.args]
    for keyword in call.keywords:
        literal = isinstance(keyword.value, ast.Constant)
        default = str(keyword.value.value) if literal else ast.unparse(keyword.value)
        shown.append((keyword.arg, default) if keyword.arg else (f"**{default}", None))
    assert shown == expected, f"{path}: shown {shown}, expected {expected}"


@pytest.mark.parametrize(
    "line",
    [
        "solami dance",
        "solami pretrain --no_such_option 1",
        "solami merge --output x",
        "solami sft --config no_such_recipe.yaml --model m --data d",
        "trl sft --no_such_option 1",
        "transformers no_such_command",
        "make no_such_target",
        'pip install -e ".[no_such_extra]"',
        "python benchmarks/no_such_file.py",
        "sudo reboot",
    ],
)
def test_what_is_not_there_is_found(line):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_command(line, True)
