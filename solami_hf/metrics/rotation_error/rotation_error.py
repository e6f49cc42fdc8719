"""Angles between the joint rotations of paired motions."""

import numpy as np
from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import (
    FPS,
    angle_error_upstream,
    check_fps,
    check_mode,
    checked_pairs,
    counts,
    geodesic_angle,
)

# Without jaw and eyes, which motion tokens do not hold.
PARTS = {"root": slice(0, 1), "body": slice(1, 22), "hands": slice(25, 55)}

INPUTS = """\
predictions: list of poses, each (T, 55, 3): axis-angle rotations to the parent joint in radians, SMPL-X joint order,
    as `SmplxMotion.poses`; None where there is none.
references: list of the same number of poses; lengths may differ within a pair.
mode: "corrected" (default), or "upstream" for the original's "angle error", which is given joint positions in metres.
"""


class RotationError(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> real = numpy.zeros((10, 55, 3))
    >>> bent = real.copy()
    >>> bent[:, 4, 0] = numpy.pi / 2  # the left knee by 90 degrees
    >>> result = evaluate.load(folder_of("rotation_error")).compute(predictions=[bent], references=[real])
    >>> {name: round(result[name], 3) for name in ("rotation_error", "root", "body", "hands")}
    {'rotation_error': 1.731, 'root': 0.0, 'body': 4.286, 'hands': 0.0}
    """

    description = "Mean geodesic angle between the joints of paired motions, degrees. Lower is better."
    inputs = INPUTS

    def _compute(self, predictions, references, mode="corrected", fps=FPS, reference_fps=None):
        check_mode(mode)
        check_fps(fps, reference_fps)
        total, frames, reference_frames = np.zeros(55), 0, 0
        for prediction, reference, whole in checked_pairs(predictions, references, 1, "rotations"):
            frames, reference_frames = frames + len(prediction), reference_frames + whole
            if mode == "upstream":
                total += angle_error_upstream(prediction, reference).sum()
            else:
                total += np.degrees(geodesic_angle(prediction, reference)).sum(axis=0)
        if mode == "upstream":  # sums over the shorter of two motions, over the frames of the reference; radians
            result = {"angle_error": float(total[0]) / reference_frames}
        else:
            joint = total / frames
            judged = np.concatenate([joint[part] for part in PARTS.values()])
            parts = {name: float(joint[part].mean()) for name, part in PARTS.items()}
            result = {"rotation_error": float(judged.mean()), **parts}
        return {**result, "covered": frames / reference_frames, "num_frames": frames, **counts(predictions, mode)}
