"""Fréchet distance between the kinetic features of generated and reference motions."""

from solami_hf.metrics import metric_base
from solami_hf.metrics import motion_math


class MotionFid(metric_base.MotionMetric):
    """See README.md beside this file."""

    description = "Fréchet distance between the kinetic features of generated and reference motions. Lower is better."

    def _compute(self, predictions, references, mode="corrected", fps=motion_math.FPS):
        motion_math.check_mode(mode)
        checked, references = motion_math.check_pairs(predictions, references)
        generated = motion_math.kinetic_set([motion for motion in checked if motion is not None], fps)
        real = motion_math.kinetic_set(references, fps)
        if mode == "upstream":
            generated, real = motion_math.standardize_upstream(generated), motion_math.standardize_upstream(real)
        else:
            # The reference's statistics for both sides, or a change of scale could not be seen.
            generated, real = motion_math.standardize(generated, real), motion_math.standardize(real, real)
        return {"fid": motion_math.frechet_distance(generated, real), **motion_math.counts(checked, mode)}
