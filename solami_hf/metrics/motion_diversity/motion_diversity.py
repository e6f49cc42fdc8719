"""How different the generated motions are from each other, beside the same figure of the references."""

from solami_hf.metrics import metric_base
from solami_hf.metrics import motion_math


class MotionDiversity(metric_base.MotionMetric):
    """See README.md beside this file."""

    description = "Mean distance between kinetic features of different motions. Best near the references' own."

    def _compute(self, predictions, references, mode="corrected", fps=motion_math.FPS, seed=0):
        motion_math.check_mode(mode)
        checked, references = motion_math.check_pairs(predictions, references)
        generated = motion_math.kinetic_set([motion for motion in checked if motion is not None], fps)
        real = motion_math.kinetic_set(references, fps)
        if mode == "upstream":
            ours, theirs = motion_math.diversity_upstream(
                motion_math.standardize_upstream(generated), motion_math.standardize_upstream(real), seed
            )
        else:
            ours = motion_math.diversity(motion_math.standardize(generated, real))
            theirs = motion_math.diversity(motion_math.standardize(real, real))
        return {"diversity": ours, "reference_diversity": theirs, **motion_math.counts(checked, mode)}
