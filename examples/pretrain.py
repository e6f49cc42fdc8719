# /// script
# requires-python = ">=3.11"
# dependencies = ["solami_hf"]
# ///
"""Stage 2, the six tasks, on a machine where nothing is installed: `uv run`, or a job on the Hub's hardware.

    uv run examples/pretrain.py --model my_model --data org/tokens --output_dir my_pretrained
    hf jobs uv run --flavor h200 --timeout 1d --secrets HF_TOKEN examples/pretrain.py \
        --model org/model --data org/tokens --output_dir my_pretrained --push me/my_pretrained

Options are those of `solami pretrain --help`, and `--push REPOSITORY`, which sends the result to the Hub: a job's
disk is not kept.
"""

import sys

from solami_hf.cli import main


def run(argv: list[str]) -> int:
    """Trains, then pushes where that was asked for; returns the exit code."""
    repository = None
    if "--push" in argv:
        at = argv.index("--push")
        repository, argv = argv[at + 1], argv[:at] + argv[at + 2 :]
    code = main(["pretrain", *argv])
    if code or repository is None:
        return code
    return main(["push", "checkpoint", argv[argv.index("--output_dir") + 1], repository])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
