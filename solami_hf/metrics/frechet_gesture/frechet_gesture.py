"""Fréchet distance of generated to real gestures (FGD), in the embeddings of a trained text-motion evaluator."""

import numpy as np
from solami_hf.metrics.evaluator_features import frechet, load_evaluator
from solami_hf.metrics.metric_base import INPUTS, DirectMetric
from solami_hf.metrics.motion_math import FPS, both_sides, counts


class FrechetGesture(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> class Heights:
    ...     ground_truth = {"beats_shuffled": True}
    ...     def embed_motions(self, motions, fps):
    ...         angles = numpy.array([motion[..., 1].mean() for motion in motions])
    ...         return numpy.stack([numpy.cos(angles), numpy.sin(angles)], axis=1)
    >>> real = [numpy.full((120, 55, 3), height) for height in (0.0, 0.5, 1.0, 1.5)]
    >>> metric = evaluate.load(folder_of("frechet_gesture"))
    >>> result = metric.compute(predictions=real, references=real, evaluator=Heights())
    >>> round(result["fgd"], 6), result["reference_halves"] > 0, result["num_windows"]
    (0.0, True, 12)
    """

    description = "Fréchet distance of gestures in a text-motion evaluator's embeddings. Lower is better."
    citation = "Yoon et al.: Speech Gesture Generation from the Trimodal Context, ACM TOG 2020, arXiv 2009.02119"
    inputs = INPUTS + "evaluator: folder or Hub id of an evaluator of `solami train-evaluator`.\n"

    def _compute(self, predictions, references, evaluator=None, window_seconds=2.0, mode="corrected", fps=FPS,
                 reference_fps=None, **loading):  # fmt: skip
        made, real, fps = both_sides(predictions, references, mode, fps, reference_fps)
        evaluator = load_evaluator(evaluator, **loading)
        frames = max(3, round(window_seconds * fps))
        made = evaluator.embed_motions([part for motion in made for part in windows(motion, frames)], fps)
        parts = [windows(motion, frames) for motion in real]
        owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        real = evaluator.embed_motions([part for some in parts for part in some], fps)
        halves = [real[owner % 2 == side] for side in (0, 1)]
        return {
            "fgd": frechet(made, real),
            "reference_halves": frechet(*halves) if min(map(len, halves)) > 1 else None,
            "num_windows": len(made),
            "num_reference_windows": len(real),
            **counts(predictions, mode),
        }


def windows(motion: np.ndarray, frames: int) -> list[np.ndarray]:
    """Windows of a motion (T, ...), each half over the one before; a shorter motion whole."""
    starts = range(0, max(1, len(motion) - frames + 1), max(1, frames // 2))
    return [motion[start : start + frames] for start in starts]
