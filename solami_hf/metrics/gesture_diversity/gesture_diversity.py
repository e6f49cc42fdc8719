"""How far the poses of arms and fingers go from their mean, within a clip and from clip to clip."""

import numpy as np
from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import FPS, both_sides, counts

# From the collars to the wrists, and the fingers; the head nods with them.
GESTURING = (*range(12, 22), *range(25, 55))
HIPS, SHOULDERS = (1, 2), (16, 17)  # left and right


class GestureDiversity(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> still = numpy.zeros((10, 55, 3))
    >>> still[:, [1, 16]], still[:, [2, 17]] = [0.1, 0, 0], [-0.1, 0, 0]
    >>> raised = still + 0.0
    >>> raised[:, 20, 1] = 0.4  # the left wrist: 0.2 m from the mean of both
    >>> metric = evaluate.load(folder_of("gesture_diversity"))
    >>> result = metric.compute(predictions=[still, raised], references=[still, still])
    >>> [round(result[name], 6) for name in ("gesture_diversity", "within_clips", "reference_diversity")]
    [5.0, 0.0, 0.0]
    """

    description = "Mean distance of gesturing joints from their mean pose, mm. Best near the references' own."
    citation = "Liu et al.: BEAT, ECCV 2022, arXiv 2203.05297"

    def _compute(self, predictions, references, mode="corrected", fps=FPS, reference_fps=None):
        made, real, _ = both_sides(predictions, references, mode, fps, reference_fps)
        if min(len(made), len(real)) < 2:
            raise ValueError(f"got {min(len(made), len(real))} motion on a side, expected at least 2 to compare")
        ours, theirs = (spread([poses(motion) for motion in side]) for side in (made, real))
        return {
            "gesture_diversity": ours[0],
            "within_clips": ours[1],
            "reference_diversity": theirs[0],
            "reference_within_clips": theirs[1],
            "num_references": len(real),
            **counts(predictions, mode),
        }


def poses(joints: np.ndarray) -> np.ndarray:
    """Gesturing joints (T, 40, 3) from the pelvis, turned so that each frame faces +z."""
    across = sum(joints[:, left] - joints[:, right] for left, right in (HIPS, SHOULDERS))[:, [0, 2]]
    size = np.linalg.norm(across, axis=-1, keepdims=True)
    c, s = np.where(size > 1e-6, across / np.maximum(size, 1e-6), [1.0, 0.0]).T[..., None]
    x, y, z = np.moveaxis(joints[:, GESTURING] - joints[:, :1], -1, 0)
    return np.stack([c * x + s * z, y, c * z - s * x], axis=-1)


def spread(clips: list[np.ndarray]) -> tuple[float, float]:
    """Mean distance in mm of joints from their mean over all clips, and over their own clip; clips count alike."""
    middle = np.mean([clip.mean(axis=0) for clip in clips], axis=0)
    centres = [(middle, clip.mean(axis=0)) for clip in clips]
    distances = [[np.linalg.norm(c - m, axis=-1).mean() for m in both] for c, both in zip(clips, centres, strict=True)]
    total, within = 1000 * np.mean(distances, axis=0)
    return float(total), float(within)
