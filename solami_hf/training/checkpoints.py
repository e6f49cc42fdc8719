"""Checkpoints of training runs: whole on all ranks or not there, a full disk told in words, the newest one found."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from safetensors import SafetensorError
from torch import distributed
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint

from ..processing.files.atomic_write import is_full_disk

logger = logging.getLogger(__name__)


class CheckpointInWork(TrainerCallback, ExportableState):
    """The folder of a checkpoint while it is written; its last file waits until all ranks have written their parts."""

    def __init__(self):
        self.folder: Path | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """A checkpoint of the first version knows nothing of this callback."""
        state.stateful_callbacks.setdefault(type(self).__name__, {"args": {}, "attributes": {}})

    def state(self) -> dict:
        """Trainer asks on ranks that write, right before it writes the state; nothing is kept."""
        PartialState().wait_for_everyone()
        return {"args": {}, "attributes": {}}

    def on_save(self, args, state, control, **kwargs):
        """The other ranks have written theirs, and the checkpoint is whole."""
        self.folder = None
        if not args.should_save:
            PartialState().wait_for_everyone()


@contextmanager
def checkpoint_or_nothing(checkpoint: CheckpointInWork) -> Iterator[None]:
    """The block trains; of a checkpoint that it cannot write nothing is left, see [`written_or_nothing`]."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        folder = checkpoint.folder
        if folder is None or _is_json(folder / TRAINER_STATE_NAME):
            raise
        try:
            with written_or_nothing(folder):
                raise error
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def written_or_nothing(folder: str | os.PathLike) -> Iterator[None]:
    """The block writes a part of a run; when it cannot, the message says what to do. Raises OSError: with the way
    out, for what torch, safetensors and the file system raise on a full disk."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch reports what it could not write as a RuntimeError
        if not isinstance(error, OSError | SafetensorError) and "writing" not in str(error):
            raise
        there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free / 2**20
        full = f"disk full at {there}: " if is_full_disk(error, Path(folder)) else ""
        raise OSError(
            f"{folder} could not be written ({full}{error}; {free:.0f} MB are free): make space and run again, it "
            "goes on from the checkpoint before"
        ) from error


def last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The newest whole checkpoint of a run's folder, None without one. Trainer writes `trainer_state.json` after
    weights and optimizer; a checkpoint without it, or with a part of it, is what a killed run left half written, and
    is removed. On several ranks (torch.distributed) the first removes, while the others wait; all of them have to call
    this."""
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
