"""`python -m solami_hf.processing.synthesize`: the command on its own."""

import sys

from ...command_line import run_command
from .command import main

if __name__ == "__main__":
    sys.exit(run_command("solami prepare chat --synthesize", main))
