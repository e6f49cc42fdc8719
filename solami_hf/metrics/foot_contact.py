"""Contacts of a body with the floor, from joint positions (T, 55, 3) in metres, y up."""

import numpy as np

FEET = (10, 11)  # the joints at the ball of the left and right foot
CONTACT_HEIGHT = 0.05
# A foot on the floor that moves 2.5 cm from one frame to the next at 20 fps is taken to skate by Karunratanakul et al.
# 2023 (arXiv 2305.12577); the same as a speed.
SKATING_SPEED = 0.5
MIN_FRAMES = 4


def foot_steps(joints: np.ndarray, fps: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal speed of each foot from frame to frame, and whether it is on the floor at both.

    Returns:
        speed (T - 1, 2) in m/s and contact (T - 1, 2), boolean: lower than `CONTACT_HEIGHT` above the floor.
    """
    feet = joints[:, FEET]
    speed = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1) * fps
    low = feet[..., 1] < floor + CONTACT_HEIGHT
    return speed, low[1:] & low[:-1]


def penetration(joints: np.ndarray, floor: float) -> np.ndarray:
    """Depth of the lowest joint under the floor in each frame, (T,) metres; 0 above it."""
    return np.maximum(floor - joints[..., 1].min(axis=-1), 0.0)


def jerk(joints: np.ndarray, fps: float) -> np.ndarray:
    """Mean size of the joints' change of acceleration, (T - 3,) m/s3."""
    return np.linalg.norm(np.diff(joints, n=3, axis=0), axis=-1).mean(axis=-1) * fps**3
