"""Fréchet distance between the kinetic features of generated and reference motions."""

from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import (
    FPS,
    Moments,
    check_counts,
    check_fps,
    check_mode,
    checked_motions,
    frechet_of_moments,
    kinetic_batches,
)


class MotionFid(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> random = numpy.random.default_rng(0)
    >>> real = [numpy.cumsum(random.normal(size=(20, 55, 3)), axis=0) * 0.01 for _ in range(8)]
    >>> fid = evaluate.load(folder_of("motion_fid"))
    >>> result = fid.compute(predictions=real, references=real)
    >>> round(result["fid"], 3), result["valid"], result["num_references"], result["mode"]
    (0.0, 1.0, 8, 'corrected')
    >>> tiny = [0.001 * motion for motion in real]
    >>> fid.compute(predictions=tiny, references=real)["fid"] > 100
    True
    >>> fid.compute(predictions=tiny, references=real, mode="upstream")["fid"] < 0.1  # the original cannot see it
    True
    """

    description = "Fréchet distance between the kinetic features of generated and reference motions. Lower is better."

    def _compute(self, predictions, references, mode="corrected", fps=FPS, reference_fps=None):
        check_mode(mode)
        fps = check_fps(fps, reference_fps)
        check_counts(predictions, references)
        upstream = mode == "upstream"
        if upstream:  # which leaves out both sides of a pair without a prediction
            pairs = zip(predictions, references, strict=True)
            references = [real for made, real in pairs if made is not None]
        made = Moments(kinetic_batches(checked_motions(predictions, "predictions", missing=True), fps))
        real = Moments(kinetic_batches(checked_motions(references, "references"), fps))
        # The references' statistics for both sides, or a change of scale could not be seen.
        moments = made.standardized(made if upstream else real, upstream), real.standardized(real, upstream)
        distance = frechet_of_moments(*moments)
        found = {"fid": distance, "num_references": real.count, "valid": made.count / len(predictions)}
        return {**found, "num_predictions": len(predictions), "mode": mode}
