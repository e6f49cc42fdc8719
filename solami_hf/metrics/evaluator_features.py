"""Embeddings of a text-motion evaluator (`solami train-evaluator`), refused where it cannot tell motions apart.

evaluator = load_evaluator("org/motion-evaluator")
evaluator.embed_motions(joints, fps=30) @ evaluator.embed_texts(["a person waves"] * len(joints)).T   # cosines
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..modeling.motion_evaluator.text_motion_retrieval import (
    GALLERY,
    beats,
    chances_to_find,
    distances,
    shuffled_order,
    with_interval,
)
from .motion_math import Moments, frechet_of_moments

_BATCH = 32


class Evaluator:
    """A trained evaluator with its text tokenizer.

    Attributes:
        ground_truth: what its training measured on held-out pairs: `r_precision_1`, `shuffled_r_precision_1`, ...
    """

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model.eval(), tokenizer
        self.ground_truth = dict(getattr(model.config, "ground_truth", None) or {})

    def embed_motions(self, motions: Sequence[np.ndarray], fps: float = 30.0) -> np.ndarray:
        """Embeddings (N, D) float64 of length 1 of joint positions (T, 55, 3) in metres.

        Raises:
            ValueError: another rate than the evaluator's.
        """
        if fps != self.model.config.fps:
            raise ValueError(f"`fps` is {fps:g}, expected motions at the evaluator's {self.model.config.fps:g}")
        return self._in_batches(motions, self._of_motions)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings (N, D) float64 of length 1."""
        return self._in_batches(texts, self._of_texts)

    def _of_motions(self, motions):
        import torch

        lengths = torch.tensor([len(motion) for motion in motions])
        rows = [torch.from_numpy(np.asarray(motion, np.float32)) for motion in motions]
        joints = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(joints.shape[1]) < lengths[:, None]
        return self.model.encode_motion(joints.to(self.model.device), mask.to(self.model.device))

    def _of_texts(self, texts):
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        return self.model.encode_text(tokens["input_ids"], tokens["attention_mask"])

    def _in_batches(self, items, embed) -> np.ndarray:
        """Items of similar size together, each back in its place."""
        import torch

        order = sorted(range(len(items)), key=lambda i: len(items[i]))
        with torch.no_grad():
            rows = [embed([items[i] for i in order[at : at + _BATCH]]) for at in range(0, len(order), _BATCH)]
        return torch.cat(rows).double().cpu().numpy()[np.argsort(order)]


def load_evaluator(
    evaluator: Any, revision: str | None = None, device: str = "cpu", trust_remote_code: bool = False
) -> Any:
    """An evaluator by folder or Hub id; an object that has `embed_motions`, `embed_texts`, `ground_truth` as it is.

    Raises:
        ValueError: none is named, or its own held-out motions were found no better than by shuffled texts.
        OSError: there is no such evaluator.
    """
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
