"""Position, shape and acceleration errors of joints between paired motions."""

from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import (
    FPS,
    acceleration_error,
    angle_error_upstream,
    bone_angle,
    check_fps,
    check_mode,
    checked_pairs,
    counts,
    position_error,
    procrustes_error,
)


class MotionMpjpe(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> real = numpy.random.default_rng(0).normal(size=(20, 55, 3))
    >>> wrong = real.copy()
    >>> wrong[:, 1, 1] += 0.055  # one of 55 joints, 55 mm
    >>> result = evaluate.load(folder_of("motion_mpjpe")).compute(predictions=[wrong, None], references=[real, real])
    >>> round(result["mpjpe"], 6), result["num_frames"], result["valid"], result["mode"]
    (1.0, 20, 0.5, 'corrected')
    """

    description = "Joint errors of paired motions: MPJPE, PA-MPJPE, acceleration and angles. Lower is better."

    def _compute(self, predictions, references, mode="corrected", fps=FPS, reference_fps=None):
        check_mode(mode)
        check_fps(fps, reference_fps)
        upstream = mode == "upstream"
        errors = {
            "mpjpe": lambda a, b: position_error(a, b, upstream=upstream),
            "pa_mpjpe": lambda a, b: procrustes_error(a, b, upstream),
            "accel": acceleration_error,
            **({"angle_error": angle_error_upstream} if upstream else {"bone_angle": bone_angle}),
        }
        sums = dict.fromkeys(errors, 0.0)
        pairs = frames = reference_frames = 0
        for prediction, reference, whole in checked_pairs(predictions, references):
            pairs, frames, reference_frames = pairs + 1, frames + len(prediction), reference_frames + whole
            for name, error in errors.items():
                sums[name] += float(error(prediction, reference).sum())
        # The original divides sums over the shorter of two motions by the frames of the reference, and the
        # acceleration by the frames of the whole set less two.
        divisor = dict.fromkeys(errors, reference_frames if upstream else frames)
        divisor["accel"] = reference_frames - 2 if upstream else frames - 2 * pairs
        unit = {"mpjpe": 1000, "pa_mpjpe": 1000, "accel": 1000}
        means = {name: unit.get(name, 1) * sums[name] / divisor[name] for name in errors}
        means |= {"covered": frames / reference_frames, "num_frames": frames}
        return {**means, **counts(predictions, mode)}
