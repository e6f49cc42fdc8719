"""Where an interrupted run goes on."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from torch import distributed
from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)


def last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The newest whole checkpoint of a run's folder, None without one.

    Trainer writes `trainer_state.json` after weights and optimizer; a checkpoint without it is what a killed run left
    half written, and is removed. On several ranks (torch.distributed) the first removes, while the others wait; all
    of them have to call this.
    """
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if not several or distributed.get_rank() == 0:
        _remove_half_written(Path(output_dir))
    if several:
        distributed.barrier()
    return get_last_checkpoint(str(output_dir)) if os.path.isdir(output_dir) else None


def _remove_half_written(folder: Path) -> None:
    """Removes the newest checkpoints up to the first whole one."""
    while folder.is_dir() and (last := get_last_checkpoint(str(folder))) is not None:
        weights = [*Path(last).glob("*model*.safetensors"), *Path(last).glob("global_step*")]
        if weights and (Path(last) / "trainer_state.json").is_file():
            return
        logger.warning("%s is not complete and is removed.", last)
        shutil.rmtree(last)
