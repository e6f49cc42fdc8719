"""`python -m solami_hf.processing.synthesize`: the command on its own."""

import logging
import sys

from .run import main

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
