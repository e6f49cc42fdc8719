"""Checkpoints of all trainers: where an interrupted run goes on, and what becomes of one that cannot be written."""

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
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import get_last_checkpoint

from ..processing.files.atomic_write import atomic_write, follow_umask

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


class SafeTrainer(Trainer):
    """A Trainer whose checkpoints are whole or removed, follow the umask, and have the arguments as JSON alone."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            # Nobody should have to load a pickle
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            with atomic_write(folder / "training_args.json") as temporary:
                temporary.write_text(json.dumps(self.args.to_dict(), indent=1, default=str), encoding="utf-8")
            for path in folder.glob("*.safetensors"):
                follow_umask(path)

    def _save_checkpoint(self, model, trial) -> None:
        with checkpoint_or_nothing(self.args.output_dir, self.state.global_step):
            super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The state that makes a checkpoint a whole one comes next: all ranks have to have written theirs
        self.accelerator.wait_for_everyone()


@contextmanager
def checkpoint_or_nothing(output_dir: str | os.PathLike, step: int) -> Iterator[None]:
    """The block writes a checkpoint; when it cannot, what there is of it is removed, see [`written_or_nothing`]."""
    folder = Path(output_dir) / f"checkpoint-{step}"
    try:
        with written_or_nothing(folder):
            yield
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def written_or_nothing(folder: str | os.PathLike) -> Iterator[None]:
    """The block writes a part of a run; when it cannot, the message says what to do.

    Raises:
        OSError: with the way out, for what torch, safetensors and the file system raise on a full disk.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch reports what it could not write as a RuntimeError
        if not isinstance(error, OSError | SafetensorError) and "writing" not in str(error):
            raise
        there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
        raise OSError(
            f"{folder} could not be written ({error}; {shutil.disk_usage(there).free / 2**20:.0f} MB are free): make "
            "space and run again, it goes on from the checkpoint before"
        ) from error
