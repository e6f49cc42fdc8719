"""Embeddings of a text-motion evaluator, and how well those of texts find their motions: R-precision (Guo et al., CVPR
2022), beside chance."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

GALLERY = 32
_DRAWS = 1000
_BATCH = 32


class Evaluator:
    """A trained evaluator with its text tokenizer. `ground_truth` is what its training measured on held-out pairs:
    `r_precision_1`, `shuffled_r_precision_1`, ..."""

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model.eval(), tokenizer
        self.ground_truth = dict(getattr(model.config, "ground_truth", None) or {})

    def embed_motions(self, motions: Sequence[np.ndarray], fps: float = 30.0) -> np.ndarray:
        """Embeddings (N, D) float64 of length 1 of joint positions (T, 55, 3) in metres. Raises ValueError: another
        rate than the evaluator's."""
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


def distances(texts: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, M) of embeddings (N, D) and (M, D)."""
    return np.sqrt(np.clip((texts**2).sum(1)[:, None] + (motions**2).sum(1) - 2 * texts @ motions.T, 0, None))


def chances_to_find(
    texts: np.ndarray, motions: np.ndarray, labels: Sequence[Hashable], most: int = 3, gallery: int = GALLERY
) -> np.ndarray:
    """Chance (N, most) that a text's own motion is among its 1, 2, ... nearest of a gallery, by embeddings (N, D) of
    pairs. A gallery is the text's own motion and `gallery` - 1 others at random, all others where there are fewer. The
    chance over all such galleries is hypergeometric, so nothing is drawn. Motions with the same of the `labels` (N,),
    e.g. captions, do not compete, and one at the same distance counts as nearer, so that embeddings that are all alike
    find nothing. Raises ValueError: a motion has no other to compete with."""
    from scipy.stats import hypergeom

    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    index = np.array([numbers[label] for label in labels])
    rivals = index[:, None] != index
    count = rivals.sum(axis=1)
    if not count.all():
        raise ValueError(f"all {len(index)} motions have the same text, expected at least 2 different ones")
    gap = distances(texts, motions)
    nearer = (rivals & (gap <= np.diag(gap)[:, None] + 1e-9)).sum(axis=1)
    drawn = np.minimum(count, gallery - 1)
    return np.stack([hypergeom.cdf(rank, count, nearer, drawn) for rank in range(most)], axis=1)


def shuffled_order(labels: Sequence[Hashable]) -> np.ndarray:
    """Places (N,) of other items: the rotation in which fewest keep their own label, of such ones the nearest to a
    half, as neighbours are often alike."""
    index = np.arange(len(labels))
    turns = sorted(index[1:], key=lambda turn: abs(turn - len(labels) / 2))
    kept = [sum(a == labels[i] for i, a in zip(np.roll(index, turn), labels, strict=True)) for turn in turns]
    return np.roll(index, turns[int(np.argmin(kept))]) if turns else index


def with_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of the values (N,) and its 95 % bootstrap interval over them."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(_DRAWS, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def beats(truth: np.ndarray, shuffled: np.ndarray) -> bool:
    """True if the chances (N,) of real pairs are above those of shuffled ones, by two standard errors at least."""
    gain = truth - shuffled
    return bool(gain.mean() > 0 and gain.mean() >= 2 * gain.std() / np.sqrt(len(gain)))
