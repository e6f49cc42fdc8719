"""Shared by all commands: flags over a recipe, what is logged, and one line for a user's mistake."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, field, fields
from pathlib import Path

# Options by the names that they had before -> what they are called now.
RENAMED = {
    "use_lora": "use_peft",
    "lora_beside_rate": "embedding_learning_rate",
    "quantization": "load_in_4bit or load_in_8bit",
}
# Bad input raises these in the library. Anything else is a fault of ours and keeps its traceback.
USER_ERRORS = (ValueError, KeyError, OSError)  # FileNotFoundError and broken JSON are among them


def option(default, help: str, **settings):
    """A field of a command's dataclass: its default, `...` where it must be given, and the line of `--help`."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": help}, **settings)
    return field(default=MISSING if default is ... else default, metadata={"help": help}, **settings)


def parse_arguments(
    dataclasses: Iterable[type],
    argv: list[str] | None = None,
    prog: str | None = None,
    description: str | None = None,
    defaults: dict | None = None,
    words: Sequence[str] = (),
) -> tuple:
    """A command line as one object per dataclass; `--config RECIPE` names a YAML file whose values are the defaults.

    Recipes are TRL's: fields by their names, and `env` for environment variables. TRL's own parser does the same, but
    importing it takes seconds that no other command than training needs. `argv` are arguments without the program's
    name; `prog` and `description`, which is shown as it is written, are for `--help`. `defaults` are values of fields
    that the command does not need, under those of a recipe; `words` the names of the options that the first words, up
    to the first flag, may give without their flags: one that ends with "..." takes all that are left. Raises
    FileNotFoundError: no such recipe; ValueError: a recipe that is none, or a name in it or a flag that no dataclass
    has.
    """
    from transformers import HfArgumentParser

    argv = _with_flags(list(sys.argv[1:] if argv is None else argv), words)
    first = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    found, argv = first.parse_known_args(argv)
    values = dict(defaults or {})
    if found.config is not None:
        recipe = read_recipe(found.config)
        os.environ.update({name: str(value) for name, value in recipe.pop("env", {}).items()})
        known = {field.name for dataclass in dataclasses for field in fields(dataclass) if field.init}
        if unknown := sorted(map(str, recipe.keys() - known)):
            raise ValueError(_not_listed(f"{found.config} has {', '.join(unknown)}", unknown, prog))
        values |= recipe

    class Parser(HfArgumentParser):
        def add_argument(self, *flags, **settings):
            name = flags[0].removeprefix("--")
            if name in values:
                settings |= {"default": values[name], "required": False}
            return super().add_argument(*flags, **settings)

    shown = {"formatter_class": argparse.RawDescriptionHelpFormatter} if description else {}
    parser = Parser(list(dataclasses), prog=prog, description=description, **shown)
    parser.add_argument("--config", help="YAML recipe with defaults of the others.")
    found = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True, look_for_args_file=False)
    *parsed, _, rest = found
    if rest:
        raise ValueError(_not_listed(f"got {' '.join(rest)}", rest, prog))
    return tuple(parsed)


def take_kind(argv: list[str] | None) -> tuple[str | None, list[str]]:
    """The first word of a command line, None where it begins with a flag, and the rest of it."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)


def _with_flags(argv: list[str], names: Sequence[str]) -> list[str]:
    """A command line whose first words, up to the first flag, get the flags of these names."""
    count = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    if count > len(names) and not (names and names[-1].endswith("...")):
        if not names:
            return argv  # told as what the command does not list
        expected = ", ".join(f"--{name}" for name in names)
        raise ValueError(f"unexpected words {argv[len(names) : count]}; expected at most {expected}")
    named = []
    for i, name in enumerate(names[:count]):
        given = argv[i:count] if name.endswith("...") else [argv[i]]
        named += [f"--{name.removesuffix('...')}", *given]
    return named + argv[count:]


def _not_listed(told: str, words: list[str], prog: str | None) -> str:
    """The message about options that a command does not have, with the new names of those that had another one."""
    new = {name: RENAMED[name] for word in words if (name := word.removeprefix("--").split("=")[0]) in RENAMED}
    return f"{told}, which `{prog} --help` does not list" + "".join(f"; {a} is called {b} now" for a, b in new.items())


def read_recipe(path: str | Path) -> dict:
    """Contents of a YAML recipe; ValueError where it is no mapping of names to values."""
    import yaml

    try:
        recipe = yaml.safe_load(Path(path).read_bytes())  # of bytes it knows the encoding
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date of month 13
        raise ValueError(f"{path} is not YAML ({error})") from None
    if not isinstance(recipe, dict) or not isinstance(recipe.get("env", {}), dict):
        raise ValueError(f"{path} is no recipe: it, and `env` in it, must be a YAML mapping of names to values")
    return recipe


def run_command(name: str, main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Runs a command as a program does. `name` is the program's, for what is told of errors ("solami sft"); `main`
    takes `argv` and returns an exit code or None. Returns the exit code: 0 when all went well, 2 for a wrong command
    line or bad input, 130 when interrupted."""
    set_up_logging()
    try:
        return main(argv) or 0
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        return 130
    except Exception as error:
        # A recipe that is no YAML and weights that are cut off raise their library's own error, told by its module:
        # importing these here is not worth it.
        users_fault = isinstance(error, USER_ERRORS) or type(error).__module__.startswith(("yaml", "safetensors"))
        if not users_fault or _debugging():
            raise
        sys.stderr.write(f"{name}: error: {_message(error)}\n")
        return 2


def set_up_logging() -> None:
    """Shows what our modules log, on the first of several processes, and hides what other libraries say on their way.
    Their errors stay, and what transformers says of weights that are missing. `SOLAMI_DEBUG=1` shows everything."""
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(format="%(message)s")
    logging.getLogger("solami_hf").setLevel(logging.INFO if first else logging.ERROR)
    if _debugging():
        return
    from transformers.utils import logging as of_transformers

    logging.getLogger().setLevel(logging.ERROR)
    of_transformers.set_verbosity_error()
    for name in ("modeling_utils", "training_args"):  # of missing weights; Trainer's own progress goes by the other
        logging.getLogger(f"transformers.{name}").setLevel(logging.WARNING)
    of_transformers.set_tqdm_hook(lambda bar, args, settings: bar(*args, **{**settings, "disable": True}))
    # Its level is set, and its handler added, when it is imported
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _debugging() -> bool:
    return os.environ.get("SOLAMI_DEBUG") == "1"


def _message(error: BaseException) -> str:
    # str() of a KeyError is the repr of its argument: quotes and escaped line breaks.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
