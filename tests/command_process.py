"""Commands as children of a process that has imported everything, so that one starts in a second and not in fifteen.

    commands = Commands(folder)
    command = commands.start(["sft", "--config", ...])
    commands.end(command, seconds=60), commands.told(command)

The process that they are forked from (`multiprocessing`'s forkserver) begins with the first of them, and keeps the
environment of that moment.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

# Beside the modules of the commands, what they import when they need it.
PRELOADED = [
    "accelerate", "datasets", "deepspeed", "evaluate", "huggingface_hub.hf_api", "matplotlib.backends.backend_agg",
    "matplotlib.figure", "peft", "pytest", "scipy.stats", "soundfile", "torch", "transformers.trainer",
    "transformers.models.llama.modeling_llama", "trl", "trl.trainer.sft_trainer", "solami_hf.cli",
    "solami_hf.generation.chat", "solami_hf.generation.folder.folder_run", "solami_hf.generation.pipeline",
    "solami_hf.hub_cards.cards", "solami_hf.hub_cards.push", "solami_hf.metrics.evaluation.command",
    "solami_hf.metrics.evaluation.evaluate_results", "solami_hf.processing.prepare",
    "solami_hf.processing.processing_solami", "solami_hf.report.page", "solami_hf.training.motion_vq.train_motion_vq",
    "solami_hf.training.pretrain", "solami_hf.training.sft",
]  # fmt: skip


def run_command(argv: list[str], log: str, variables: dict[str, str]) -> None:
    """Runs `solami ARGV` in this process, which writes to `log` and exits with the command's code."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(variables)
    tempfile.tempdir = None  # as TMPDIR says now
    from solami_hf import cli

    code = cli.main(argv)
    sys.stdout.flush()
    sys.exit(code)


class Commands:
    """Starts commands whose output goes to files of a folder."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def start(self, argv, **variables: str):
        """A process that runs `solami ARGV`, with further environment variables."""
        self.count += 1
        log = str(self.folder / f"{self.count}.log")
        process = self.context.Process(target=run_command, args=(list(map(str, argv)), log, variables), name=log)
        process.start()
        return process

    def end(self, process, seconds: float) -> int | None:
        """The exit code; None of a command that has not ended by then, which is killed."""
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None
        return process.exitcode

    def told(self, process) -> str:
        """What it wrote to stdout and stderr."""
        return Path(process.name).read_text(encoding="utf-8", errors="replace") if Path(process.name).is_file() else ""
