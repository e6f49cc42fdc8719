"""`accelerate launch -m solami_hf.metrics.evaluation chat RESULTS`: the command on several processes."""

import sys

from ...command_line import run_command
from .command import main

if __name__ == "__main__":
    sys.exit(run_command("solami evaluate", main))
