# /// script
# requires-python = ">=3.11"
# dependencies = ["solami_hf[eval]"]
# ///
"""Answers of a checkpoint to the dialogues of a folder, and their figures, where nothing is installed.

    uv run examples/evaluate.py --checkpoint org/solami --input my_dialogues/ --output results

Options are those of `solami generate --help`; the figures are then written to `OUTPUT/evaluation`.
"""

import sys

from solami_hf.cli import main


def run(argv: list[str]) -> int:
    """Generates the answers, then measures them; returns the exit code."""
    task = argv[argv.index("--task") + 1] if "--task" in argv else "chat"
    if {"-h", "--help"} & set(argv):
        return main(["generate", "--help"])
    if "--output" not in argv:
        sys.stderr.write("evaluate.py: error: give --output, the folder of answers and figures\n")
        return 2
    code = main(["generate", "--task", task, *(word for word in argv if word not in ("--task", task))])
    if code > 1:  # 1: some inputs could not be used, and are named
        return code
    return main(["evaluate", "chat" if task == "chat" else "pretrain", argv[argv.index("--output") + 1]])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
