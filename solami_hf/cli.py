"""`solami <command>`: finds the command's module, runs it, and turns a user's mistake into one clear line.

Only the module of the command that was asked for is imported, so `solami --help` answers at once.
"""

import importlib
import logging
import os
import sys

from solami_hf import __version__
from solami_hf.processing.text_files import read_yaml

logger = logging.getLogger(__name__)

# command -> ("module:function", what it does). The functions take `argv` and return an exit code or None.
COMMANDS = {
    "demo": ("solami_hf.demo.run:main", "the whole road on small real data, ending in a report page"),
    "prepare": ("solami_hf.processing.prepare:main", "raw motion, speech or chat folders to token datasets"),
    "convert": ("solami_hf.processing.convert:main", "the original's checkpoints, and motion files between formats"),
    "init": ("solami_hf.training.init:main", "a language model and the codecs to one folder to train"),
    "add-voice": ("solami_hf.processing.add_voice:main", "add a voice to a checkpoint, from 3 to 10 s of speech"),
    "train-motion-vq": ("solami_hf.training.motion_vq:main", "train the body, hand and transform tokenizers"),
    "train-speech-codec": ("solami_hf.training.speech_codec:main", "train the speech codec"),
    "train-soundstorm": ("solami_hf.training.soundstorm:main", "train the acoustic model on a codec's codes"),
    "pretrain": ("solami_hf.training.pretrain:main", "align motion, speech and text on six tasks"),
    "sft": ("solami_hf.training.sft:main", "tune on multi-turn conversations with characters"),
    "merge": ("solami_hf.training.merge:main", "a LoRA adapter and its base to one folder"),
    "generate": ("solami_hf.generation.generate:main", "answers to many files or dialogues, as a results folder"),
    "chat": ("solami_hf.generation.chat:main", "talk to a character with wav and motion files"),
    "evaluate": ("solami_hf.metrics.evaluation.command:main", "figures, sanity rows and controls of such answers"),
    "export": ("solami_hf.hub_cards.export:main", "a checkpoint, codec or adapter to a folder for the Hub"),
    "push": ("solami_hf.hub_cards.push:main", "a checkpoint, adapter, data set or metric to the Hub"),
    "doctor": ("solami_hf.hub_cards.doctor:main", "whether a folder or repository is complete, and how to mend it"),
}

# What bad input raises in the library. Anything else is a fault of ours and keeps its traceback.
USER_ERRORS = (ValueError, KeyError, OSError)  # FileNotFoundError and broken JSON are among them


def usage() -> str:
    """The help text: one line a command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: solami [-h] [--version] <command> [--config recipe.yaml] [options]",
            "",
            "commands:",
            *lines,
            "",
            "`solami <command> --help` lists a command's options. SOLAMI_DEBUG=1 shows full tracebacks.",
        ]
    )


def _message(error: BaseException) -> str:
    # str() of a KeyError is the repr of its argument: quotes and escaped line breaks.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def _check_recipe(words: list[str]) -> None:
    """ValueError for a recipe that is no YAML of names and values; the commands' parser would not name the file."""
    joined = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    apart = [after for word, after in zip(words, words[1:], strict=False) if word == "--config"]
    for path in filter(os.path.isfile, joined + apart):
        recipe = read_yaml(path)
        if not isinstance(recipe, dict) or not all(isinstance(name, str) for name in recipe):
            raise ValueError(f"{path} is no recipe; expected lines of `name: value`")


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; `sys.argv[1:]` when None.

    Returns:
        The exit code: 0 when all went well, 2 for a wrong command line or bad input, 130 when interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage() + "\n")
        return 0 if argv else 2
    if argv[0] == "--version":
        sys.stdout.write(f"solami_hf {__version__}\n")
        return 0
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        sys.stderr.write(f"solami: error: unknown command '{command}', expected one of: {', '.join(COMMANDS)}\n")
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("solami_hf").setLevel(logging.INFO)
    module, function = COMMANDS[command][0].split(":")
    try:
        _check_recipe(rest)
        return getattr(importlib.import_module(module), function)(rest) or 0
    except KeyboardInterrupt:
        sys.stderr.write(f"solami {command}: interrupted\n")
        return 130
    except Exception as error:
        # A recipe that is no YAML and weights that are cut off raise their library's own error, told by its module:
        # importing these here is not worth it.
        users_fault = isinstance(error, USER_ERRORS) or type(error).__module__.startswith(("yaml", "safetensors"))
        if not users_fault or os.environ.get("SOLAMI_DEBUG") == "1":
            raise
        sys.stderr.write(f"solami {command}: error: {_message(error)}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
