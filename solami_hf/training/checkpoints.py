"""Where an interrupted run goes on."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)


def last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The newest whole checkpoint of a run's folder, None without one.

    Trainer writes `trainer_state.json` after weights and optimizer; a checkpoint without it is what a killed run left
    half written, and is removed.
    """
    folder = str(output_dir)
    while os.path.isdir(folder) and (last := get_last_checkpoint(folder)) is not None:
        weights = [*Path(last).glob("*model*.safetensors"), *Path(last).glob("global_step*")]
        if weights and (Path(last) / "trainer_state.json").is_file():
            return last
        logger.warning("%s is not complete and is removed.", last)
        shutil.rmtree(last)
    return None
