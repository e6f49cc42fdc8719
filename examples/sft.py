# /// script
# requires-python = ">=3.11"
# dependencies = ["solami_hf"]
# ///
"""Stage 3 on a machine where nothing is installed: `uv run`, or a job on the Hub's hardware.

    uv run examples/sft.py --model org/solami --data org/dialogues --output_dir my_character
    hf jobs uv run --flavor a10g-small --secrets HF_TOKEN examples/sft.py \
        --model org/solami --data org/dialogues --output_dir my_character --push me/my_character

Options are those of `solami sft --help`, and `--push REPOSITORY`, which sends the result to the Hub: a job's disk is
not kept.
"""

import sys

from solami_hf.cli import main


def run(argv: list[str]) -> int:
    """Trains, then pushes where that was asked for; returns the exit code."""
    repository = None
    if "--push" in argv:
        at = argv.index("--push")
        repository, argv = argv[at + 1], argv[:at] + argv[at + 2 :]
    code = main(["sft", *argv])
    if code or repository is None:
        return code
    return main(["push", "checkpoint", argv[argv.index("--output_dir") + 1], repository])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
