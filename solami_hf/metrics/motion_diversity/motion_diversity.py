"""Distances between the generated motions, beside the same figure of the references."""

from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import (
    FPS,
    check_counts,
    check_fps,
    check_mode,
    checked_motions,
    counts,
    diversity,
    diversity_upstream,
    kinetic_set,
    standardize,
    standardize_upstream,
)


class MotionDiversity(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> random = numpy.random.default_rng(0)
    >>> real = [numpy.cumsum(random.normal(size=(20, 55, 3)), axis=0) * 0.01 for _ in range(8)]
    >>> result = evaluate.load(folder_of("motion_diversity")).compute(predictions=[real[0]] * 8, references=real)
    >>> result["diversity"], result["reference_diversity"] > 10, result["mode"]
    (0.0, True, 'corrected')
    """

    description = "Mean distance between kinetic features of different motions. Best near the references' own."

    def _compute(self, predictions, references, mode="corrected", fps=FPS, reference_fps=None, seed=0):
        check_mode(mode)
        fps = check_fps(fps, reference_fps)
        check_counts(predictions, references)
        made = kinetic_set(checked_motions(predictions, "predictions", missing=True), fps)
        real = kinetic_set(checked_motions(references, "references"), fps)
        if mode == "upstream":
            # It leaves out both sides of a pair without a prediction.
            real = real[[motion is not None for motion in predictions]]
            ours, theirs = diversity_upstream(standardize_upstream(made), standardize_upstream(real), seed)
        else:
            ours, theirs = diversity(standardize(made, real)), diversity(standardize(real, real))
        found = {"diversity": ours, "reference_diversity": theirs, "num_references": len(real)}
        return {**found, **counts(predictions, mode)}
