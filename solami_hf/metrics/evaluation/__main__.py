"""`accelerate launch -m solami_hf.metrics.evaluation chat RESULTS`: the command on several processes."""

import logging
import sys

from .command import main

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
