"""How many threads an answer on a CPU is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 20_000_000
"""Weights of all models together; the demo's character has about 14 million."""


@contextmanager
def fitting_threads(pipeline) -> Iterator[None]:
    """Small models answer on one thread, larger ones on all.

    Small ones gain nothing by more: one of 3.9M weights took 2.4 s for an answer on two threads and 2.6 s on one. But
    where another program keeps a core busy, each of their thousands of short shared steps waits until the thread on
    that core has its turn: that answer took 8.3 s on two threads and 3.1 s on one.
    """
    processor, before = pipeline.processor, torch.get_num_threads()
    models = pipeline.model, processor.motion_codec, processor.speech_codec, processor.acoustic_model
    weights = sum(weight.numel() for model in models if model is not None for weight in model.parameters())
    if weights <= SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["fitting_threads"]
