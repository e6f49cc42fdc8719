"""Feet that slide on the floor, joints under it, and motion that trembles."""

import numbers

import numpy as np
from solami_hf.metrics.metric_base import JOINTS, DirectMetric
from solami_hf.metrics.motion_math import (
    CONTACT_HEIGHT,
    FPS,
    check_corrected,
    check_fps,
    checked_motions,
    counts,
    foot_steps,
)

# A foot on the floor that moves 2.5 cm from one frame to the next at 20 fps is taken to skate by Karunratanakul et al.
# 2023 (arXiv 2305.12577); the same as a speed.
SKATING_SPEED = 0.5
MIN_FRAMES = 4

CITATION = """\
@inproceedings{karunratanakul2023gmd,
  title = {Guided Motion Diffusion for Controllable Human Motion Synthesis},
  author = {Karunratanakul, Korrawe and others},
  booktitle = {ICCV},
  year = {2023}
}
"""

INPUTS = """\
predictions: list of joint positions, each (T, 55, 3) in metres, y up, SMPL-X joint order; None where there is none.
fps: frames a second. floor: height of the floor in metres.
"""


class FootSkating(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> sliding = numpy.ones((31, 55, 3))
    >>> sliding[:, [10, 11]] = [0.0, 0.02, 0.0]  # both feet on the floor
    >>> sliding[..., 2] += numpy.arange(31)[:, None] * 0.1 / 30  # and everything moves 10 cm in a second
    >>> result = evaluate.load(folder_of("foot_skating")).compute(predictions=[sliding])
    >>> {name: round(result[name], 6) for name in ("foot_skating", "skating_ratio", "contact", "penetration")}
    {'foot_skating': 100.0, 'skating_ratio': 0.0, 'contact': 1.0, 'penetration': 0.0}
    """

    description = "How fast feet slide on the floor, mm/s, with penetration and jitter. Lower is better."
    citation = CITATION
    inputs = INPUTS
    columns = {"predictions": JOINTS}

    def _compute(self, predictions, mode="corrected", fps=FPS, floor=0.0):
        check_corrected(mode)
        fps = check_fps(fps)
        if not isinstance(floor, numbers.Real) or not np.isfinite(floor):
            raise ValueError(f"`floor` is {floor!r}, expected its height in metres")
        motions = checked_motions(predictions, "predictions", missing=True, min_frames=MIN_FRAMES)
        slid, on_floor, skating, steps, depth, frames, jerks, jerk_frames = np.zeros(8)
        lowest = np.inf
        for joints in motions:
            speed, contact = foot_steps(joints, fps, floor)
            slid, on_floor = slid + (speed * contact).sum(), on_floor + contact.sum()
            skating += ((speed > SKATING_SPEED) & contact).any(axis=1).sum()
            steps, frames = steps + len(speed), frames + len(joints)
            depth += penetration(joints, floor).sum()
            jerks, jerk_frames = jerks + jerk(joints, fps).sum(), jerk_frames + len(joints) - 3
            lowest = min(lowest, joints[..., 1].min())
        if not frames:
            raise ValueError("every item of `predictions` is None, expected at least one motion")
        if not on_floor:
            raise ValueError(
                f"no foot stays within {100 * CONTACT_HEIGHT:.0f} cm of the floor at height {floor} m; the lowest "
                f"joint is at {lowest:.2f} m: pass the right `floor`, or leave such motions out"
            )
        return {
            "foot_skating": float(1000 * slid / on_floor),
            "skating_ratio": float(skating / steps),
            "contact": float(on_floor / (2 * steps)),
            "penetration": float(1000 * depth / frames),
            "jitter": float(jerks / jerk_frames),
            "num_frames": int(frames),
            **counts(predictions, mode),
        }


def penetration(joints: np.ndarray, floor: float) -> np.ndarray:
    """Depth of the lowest joint under the floor in each frame, (T,) metres; 0 above it."""
    return np.maximum(floor - joints[..., 1].min(axis=-1), 0.0)


def jerk(joints: np.ndarray, fps: float) -> np.ndarray:
    """Mean size of the joints' change of acceleration, (T - 3,) m/s3."""
    return np.linalg.norm(np.diff(joints, n=3, axis=0), axis=-1).mean(axis=-1) * fps**3
