"""Several processes that share one piece of work, started by `accelerate launch` or torchrun."""

import os
from collections.abc import Callable
from datetime import timedelta

_WAIT = timedelta(days=7)  # for processes that have more to do


def is_first_process() -> bool:
    """True if this is the process that finishes what several do together."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> tuple[int, int, Callable[[], None]]:
    """Rank, number of processes and what waits for all of them; under `accelerate launch` or torchrun, else alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1, lambda: None
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_WAIT)
    return state.process_index, state.num_processes, state.wait_for_everyone
