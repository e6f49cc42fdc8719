"""`solami <command>`: finds the command's module, runs it, and turns a user's mistake into one clear line.

Only the module of the command that was asked for is imported.
"""

import importlib
import sys

from solami_hf import __version__
from solami_hf.command_line import run_command

# command -> ("module:function" in solami_hf, what it does). The functions take `argv` and return an exit code.
COMMANDS = {
    "demo": ("demo.command:main", "the whole road on small real data, ending in a report page"),
    "prepare": ("processing.prepare:main", "raw motion, speech or chat folders to token datasets"),
    "convert": ("processing.convert_command:main", "the original's checkpoints, and motion files between formats"),
    "init": ("training.init:main", "a language model and the codecs to one folder to train"),
    "add-voice": ("processing.add_voice:main", "add a voice to a checkpoint, from 3 to 10 s of speech"),
    "train-motion-vq": ("training.motion_vq.train_motion_vq:main", "train the body, hand and transform tokenizers"),
    "train-speech-codec": ("training.speech.train_speech_codec:main", "train the speech codec"),
    "train-soundstorm": ("training.soundstorm.train_soundstorm:main", "train the acoustic model on a codec's codes"),
    "train-talker": ("training.speech.train_talker:main", "train the talker, text to the codes of speech"),
    "train-lips": ("training.face.train_lips:main", "train the lips, codes or sound to shapes of the mouth"),
    "train-evaluator": ("training.train_evaluator:main", "train the text-motion evaluator that metrics score with"),
    "pretrain": ("training.pretrain:main", "align motion, speech and text on six tasks"),
    "sft": ("training.sft:main", "tune on multi-turn conversations with characters"),
    "merge": ("training.merge:main", "a LoRA adapter and its base to one folder"),
    "generate": ("generation.folder.generate:main", "answers to many files or dialogues, as a results folder"),
    "chat": ("generation.chat:main", "talk to a character with wav and motion files"),
    "serve": ("generation.live.serve:main", "talk to a character in the browser, by voice"),
    "bench": ("demo.bench.command:main", "make the benchmark solami_bench, or an entry to it"),
    "evaluate": ("metrics.evaluation.command:main", "figures, sanity rows and controls of such answers"),
    "export": ("hub_cards.export:main", "a checkpoint, codec or adapter to a folder for the Hub"),
    "push": ("hub_cards.push:main", "a checkpoint, adapter, evaluator, data set, metric or Space to the Hub"),
    "doctor": ("hub_cards.doctor:main", "whether a folder or repository is complete, and how to mend it"),
}


def usage() -> str:
    """The help text: one line a command."""
    lines = [f"  {name:<{max(map(len, COMMANDS))}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: solami [-h] [--version] <command> [--config recipe.yaml] [options]\n\ncommands:",
            *lines,
            "\n`solami <command> --help` lists a command's options. SOLAMI_DEBUG=1 shows tracebacks and all logs.",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one command of `argv`, `sys.argv[1:]` when None. Returns the exit code: 0 when all went well, 2 for a wrong
    command line or bad input, 130 when interrupted."""
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
    module, function = COMMANDS[command][0].split(":")

    def run(words):
        return getattr(importlib.import_module(f"solami_hf.{module}"), function)(words)

    return run_command(f"solami {command}", run, rest)


if __name__ == "__main__":
    sys.exit(main())
