"""Embeddings of a text-motion evaluator (`solami train-evaluator`), refused where it cannot tell motions apart.

evaluator = load_evaluator("org/motion-evaluator")
evaluator.embed_motions(joints, fps=30) @ evaluator.embed_texts(["a person waves"] * len(joints)).T   # cosines
"""

import os
from functools import lru_cache
from typing import Any

import numpy as np

from ..modeling.motion_evaluator.evaluator_scores import (
    GALLERY,
    Evaluator,
    beats,
    chances_to_find,
    distances,
    shuffled_order,
    with_interval,
)
from .motion_math import Moments, frechet_of_moments


def load_evaluator(
    evaluator: Any, revision: str | None = None, device: str = "cpu", trust_remote_code: bool = False
) -> Any:
    """An evaluator by folder or Hub id; an object that has `embed_motions`, `embed_texts`, `ground_truth` as it is.
    Raises ValueError: none is named, or its own held-out motions were found no better than by shuffled texts;
    OSError: there is no such evaluator."""
    if evaluator is None:
        raise ValueError("`evaluator` is missing: a folder of `solami train-evaluator`, or its Hub id")
    if isinstance(evaluator, str | os.PathLike):
        evaluator = _loaded(os.fspath(evaluator), revision, device, trust_remote_code)
    truth = evaluator.ground_truth
    if not truth.get("beats_shuffled"):
        told = "was never measured on held-out pairs" if not truth else "finds real motions no better than by chance"
        raise ValueError(
            f"this evaluator {told} (R@1 {truth.get('r_precision_1')}, with shuffled texts "
            f"{truth.get('shuffled_r_precision_1')}), so its scores say nothing: train it longer or on more data"
        )
    return evaluator


@lru_cache(maxsize=2)
def _loaded(name: str, revision: str | None, device: str, trust_remote_code: bool) -> Evaluator:
    from transformers import AutoModel, AutoTokenizer

    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    model = AutoModel.from_pretrained(name, **options).float().to(device)
    if not hasattr(model, "encode_motion"):
        raise ValueError(f"`evaluator` {name!r} is a {type(model).__name__}, expected one of `solami train-evaluator`")
    return Evaluator(model, AutoTokenizer.from_pretrained(name, revision=revision))


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of embeddings (N, D) and (M, D), both of length 1."""
    return frechet_of_moments(Moments([first]), Moments([second]))


__all__ = [
    "GALLERY",
    "Evaluator",
    "beats",
    "chances_to_find",
    "distances",
    "frechet",
    "load_evaluator",
    "shuffled_order",
    "with_interval",
]
