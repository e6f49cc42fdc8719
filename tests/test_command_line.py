"""Flags over recipes, and what a user sees of logs, warnings and progress bars."""

import io
import logging
import os
import warnings
from dataclasses import dataclass, field

import pytest
from transformers.utils import logging as transformers_logging

from solami_hf.command_line import parse_arguments, run_command, take_kind


@dataclass
class Talk:
    """Arguments of a command."""

    who: str
    words: list[str] = field(default_factory=list)
    rate: float = 1.0
    loud: bool = True
    settings: str | dict | None = None


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes a recipe and parses flags over it."""
    monkeypatch.delenv("SOLAMI_TEST_RATE", raising=False)
    path = tmp_path / "recipe.yaml"

    def parsed(text, *flags, **settings):
        path.write_text(text, encoding="utf-8")
        return parse_arguments([Talk], [*flags, "--config", str(path)], "solami talk", **settings)[0]

    return parsed


def test_flags_go_over_a_recipe(recipe):
    text = "who: Zoë\nwords: [a, b]\nrate: 1e-3\nloud: false\nsettings: {x: 1}\nenv: {SOLAMI_TEST_RATE: 2}\n"
    assert recipe(text) == Talk("Zoë", ["a", "b"], 0.001, False, {"x": 1})
    assert recipe(text, "--who", "Ben", "--words", "c", "--loud") == Talk("Ben", ["c"], 0.001, True, {"x": 1})
    assert os.environ["SOLAMI_TEST_RATE"] == "2"
    assert recipe("rate: 2", defaults={"who": "any", "rate": 3.0}) == Talk("any", rate=2)
    (quiet,) = parse_arguments([Talk], ["--who", "Ada", "--no_loud", "--rate", "-2"])
    assert quiet == Talk("Ada", rate=-2, loud=False)


@pytest.mark.parametrize(
    ("text", "flags", "told"),
    [
        ("who: a\nwhom: b\nspeed: 1", (), "has speed, whom, which `solami talk --help` does not list"),
        ("who: a", ("--speed", "3"), "got --speed 3, which `solami talk --help` does not list"),
        ("- who", (), "is no recipe"),
        ("env: [a]", (), "is no recipe"),
        ("", (), "is no recipe"),
    ],
)
def test_what_is_not_understood(recipe, text, flags, told):
    with pytest.raises(ValueError, match=told):
        recipe(text, *flags)


def test_a_missing_value_is_asked_for(recipe, capsys):
    with pytest.raises(SystemExit):
        recipe("rate: 2")
    assert "required: --who" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="gone.yaml"):
        parse_arguments([Talk], ["--config=gone.yaml"])


OTHERS = ("bitsandbytes.ops", "DeepSpeed", "transformers.x", "transformers.modeling_utils")
LOGGERS = ("", "solami_hf", "transformers.training_args", "transformers", *OTHERS)


@pytest.fixture
def shown(monkeypatch):
    """What comes to the screen of a program that has set up logging: all that libraries say, and a progress bar."""
    loggers, screen = [logging.getLogger(name) for name in LOGGERS], io.StringIO()
    before = [(logger.level, logger.handlers, logger.filters, logger.propagate) for logger in loggers]
    hook = transformers_logging.set_tqdm_hook(None)
    for logger in loggers:
        logger.handlers, logger.filters, logger.propagate = [], [], True
        logger.setLevel(logging.NOTSET)
    monkeypatch.setattr("sys.warnoptions", [])

    def lines():
        # pytest has its own of both
        monkeypatch.setattr("sys.stderr", screen)
        monkeypatch.setattr(logging.root, "handlers", [])
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: screen.write(f"{message}\n")
            warnings.simplefilter("always")
            run_command("solami talk", lambda argv: None)
            logging.getLogger("DeepSpeed").setLevel(logging.WARNING)  # as its import does
            for name in ("solami_hf.x", *OTHERS):
                for level in ("info", "warning", "error"):
                    getattr(logging.getLogger(name), level)("%s %s", name, level)
            warnings.warn("old name", FutureWarning, stacklevel=1)
            list(transformers_logging.tqdm([1], desc="Loading weights", file=screen))
        return screen.getvalue().splitlines()

    yield lines
    transformers_logging.set_tqdm_hook(hook)
    for logger, (level, *rest) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers, logger.filters, logger.propagate = rest


@pytest.mark.parametrize(
    ("rank", "ours"),
    [("0", ["solami_hf.x info", "solami_hf.x warning", "solami_hf.x error"]), ("1", ["solami_hf.x error"])],
)
def test_what_is_shown(shown, monkeypatch, rank, ours):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("SOLAMI_DEBUG", raising=False)
    errors = [f"{name} error" for name in OTHERS]
    assert shown() == ours + errors[:3] + ["transformers.modeling_utils warning"] + errors[3:]


def test_debugging_shows_everything(shown, monkeypatch):
    monkeypatch.setenv("SOLAMI_DEBUG", "1")
    lines = shown()
    assert {f"{name} warning" for name in OTHERS} | {"old name"} <= set(lines) and "Loading weights" in lines[-1]


def test_an_option_of_another_name_says_the_new_one(recipe):
    with pytest.raises(ValueError, match="recipe.yaml has use_lora, .*; use_lora is called use_peft now"):
        recipe("who: Ada\nuse_lora: true\n")
    with pytest.raises(ValueError, match="got --quantization int4, .*; quantization is called load_in_4bit or"):
        recipe("who: Ada\n", "--quantization", "int4")
    with pytest.raises(ValueError, match="got --volume=3, which `solami talk --help` does not list$"):
        recipe("who: Ada\n", "--volume=3")


@dataclass
class Copy:
    """Arguments of a command with words."""

    kind: str
    paths: list[str] = field(default_factory=list)
    to: str = ""


def test_first_words_may_come_without_their_flags():
    def parsed(*argv, words):
        return parse_arguments([Copy], list(argv), "solami copy", words=words)[0]

    assert parsed("wav", "a", "b", "--to", "c", words=["kind", "paths..."]) == Copy("wav", ["a", "b"], "c")
    assert parsed("wav", "--to", "c", words=["kind", "paths..."]) == Copy("wav", [], "c")
    assert parsed("--kind", "wav", words=["kind", "to"]) == parsed("wav", words=["kind", "to"]) == Copy("wav")
    with pytest.raises(ValueError, match=r"unexpected words \['x'\]; expected at most --kind, --to"):
        parsed("wav", "c", "x", words=["kind", "to"])
    with pytest.raises(ValueError, match="got wav, which `solami copy --help` does not list"):
        parsed("wav", "--kind", "x", words=[])
    assert take_kind(["wav", "--to", "c"]) == ("wav", ["--to", "c"]) and take_kind(["--to", "c"]) == (
        None,
        ["--to", "c"],
    )
