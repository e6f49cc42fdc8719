"""Position, shape and acceleration errors of joints between paired motions."""

import numpy as np

from solami_hf.metrics import metric_base
from solami_hf.metrics import motion_math
from solami_hf.processing.smplx_body import SMPLX_PARENTS


class MotionMpjpe(metric_base.MotionMetric):
    """See README.md beside this file."""

    description = "Joint errors of paired motions: MPJPE, PA-MPJPE, acceleration and angles. Lower is better."

    def _compute(self, predictions, references, mode="corrected"):
        motion_math.check_mode(mode)
        checked, references = motion_math.check_pairs(predictions, references)
        pairs = [(a, b) for a, b in zip(checked, references, strict=True) if a is not None]
        reference_frames = sum(len(b) for _, b in pairs)
        # Motions of different lengths are compared as far as both go.
        pairs = [(a[: len(b)], b[: len(a)]) for a, b in pairs]
        frames = sum(len(a) for a, _ in pairs)
        upstream = mode == "upstream"

        def total(error, *options):
            return float(sum(error(a, b, *options).sum() for a, b in pairs))

        # The original divides sums over the shorter of two motions by the frames of the reference, and the
        # acceleration by the frames of the whole set less two.
        per_frame = reference_frames if upstream else frames
        per_acceleration = reference_frames - 2 if upstream else frames - 2 * len(pairs)
        result = {
            "mpjpe": 1000 * total(motion_math.position_error) / per_frame,
            "pa_mpjpe": 1000 * total(motion_math.procrustes_error, upstream) / per_frame,
            "accel": 1000 * total(motion_math.acceleration_error) / per_acceleration,
        }
        if upstream:
            result["angle_error"] = total(motion_math.angle_error_upstream) / per_frame
        else:
            result["bone_angle"] = total(motion_math.bone_angle, SMPLX_PARENTS) / per_frame
        covered = float(np.clip(frames / reference_frames, 0, 1))
        return {**result, "covered": covered, **motion_math.counts(checked, mode)}
