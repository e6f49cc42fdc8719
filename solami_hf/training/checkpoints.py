"""Where an interrupted run goes on, and what becomes of a checkpoint that cannot be written."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import distributed
from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)


def last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The newest whole checkpoint of a run's folder, None without one.

    Trainer writes `trainer_state.json` after weights and optimizer; a checkpoint without it, or with a part of it, is
    what a killed run left half written, and is removed. On several ranks (torch.distributed) the first removes, while
    the others wait; all of them have to call this.
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
        if weights and _is_json(Path(last) / "trainer_state.json"):
            return
        logger.warning("%s is not complete and is removed.", last)
        shutil.rmtree(last)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def checkpoint_or_nothing(output_dir: str | os.PathLike, step: int) -> Iterator[None]:
    """The block writes a checkpoint; when it cannot, what there is of it is removed, and the message says what to do.

    Raises:
        OSError: with the way out, for what torch, safetensors and the file system raise on a full disk.
    """
    folder = Path(output_dir) / f"checkpoint-{step}"
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch reports what it could not write as a RuntimeError
        if not isinstance(error, OSError | SafetensorError) and "writing" not in str(error):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(output_dir).free / 2**20
        raise OSError(
            f"{folder} could not be written ({error}; {free:.0f} MB are free): make space and run again, it goes on "
            "from the checkpoint before"
        ) from error
