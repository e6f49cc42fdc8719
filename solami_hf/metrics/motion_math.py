"""The maths of the motion metrics, in numpy float64 on joint positions in metres, y up.

Kinetic features are those of fairmotion and AIST++ (Li et al. 2021, arXiv 2101.08779, after Onuma et al. 2008), on the
32 joints that SOLAMI (arXiv 2412.00174) evaluates; the Fréchet distance is Heusel et al. 2017 (arXiv 1706.08500).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

FPS = 30.0
NUM_JOINTS = 55
MODES = ("corrected", "upstream")

# Pelvis to wrists, then the first joint of each finger.
KINETIC_JOINTS = (*range(22), *range(25, NUM_JOINTS, 3))
# Velocities and accelerations are averaged over this many frames to either side.
WINDOW = 2
MIN_FRAMES = 3
MIN_STD = 1e-6
UPSTREAM_EPS = 1e-10
UPSTREAM_PAIRS = 50
# The original leaves pelvis and hips out of its "angle error".
UPSTREAM_ANGLE_JOINTS = slice(3, NUM_JOINTS)


def check_mode(mode: str) -> None:
    """Raises ValueError unless `mode` is "corrected" or "upstream"."""
    if mode not in MODES:
        raise ValueError(f"`mode` is {mode!r}, expected 'corrected' or 'upstream'")


def check_joints(joints: Any, name: str, min_frames: int = MIN_FRAMES) -> np.ndarray:
    """Joint positions as a float64 array `(T, 55, 3)`.

    Raises:
        ValueError: for another shape, too few frames, or values that are NaN or infinite.
    """
    try:
        array = np.asarray(joints, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` is no array of joint positions, expected shape (T, {NUM_JOINTS}, 3)") from None
    if array.ndim != 3 or array.shape[1:] != (NUM_JOINTS, 3):
        raise ValueError(
            f"`{name}` has shape {array.shape}, expected (T, {NUM_JOINTS}, 3): joint positions of one motion in metres"
        )
    if len(array) < min_frames:
        raise ValueError(
            f"`{name}` has {len(array)} frames, expected at least {min_frames}; pass None for a missing prediction"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` holds NaN or infinite values; pass None for a prediction that failed")
    return array


def check_pairs(
    predictions: Sequence[Any], references: Sequence[Any]
) -> tuple[list[np.ndarray | None], list[np.ndarray]]:
    """Checked predictions (None stays None) and references, pair by pair.

    Raises:
        ValueError: for lists that are empty or of different lengths, a missing reference, no prediction at all, or
            what `check_joints` refuses.
    """
    if len(predictions) != len(references) or not len(references):
        raise ValueError(
            f"got {len(predictions)} `predictions` and {len(references)} `references`, expected one or more pairs"
        )
    checked = [
        None if motion is None else check_joints(motion, f"predictions[{i}]") for i, motion in enumerate(predictions)
    ]
    if all(motion is None for motion in checked):
        raise ValueError("every item of `predictions` is None, expected at least one motion")
    return checked, [check_joints(motion, f"references[{i}]") for i, motion in enumerate(references)]


def counts(predictions: Sequence[Any], mode: str) -> dict[str, Any]:
    """What every metric reports besides its figure: share of predictions that are there, their number, the mode."""
    present = sum(prediction is not None for prediction in predictions)
    return {"valid": present / len(predictions), "num_predictions": len(predictions), "mode": mode}


# --- kinetic features -----------------------------------------------------------------------------------------------


def _window_mean(values: np.ndarray, centres: int, window: int) -> np.ndarray:
    """Means of `values` (N, ...) over `window` neighbours to either side of 0..centres-1, cut at the ends."""
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    index = np.arange(centres)
    low = np.clip(index - window, 0, len(values))
    high = np.clip(index + window + 1, 0, len(values))
    count = np.maximum(high - low, 1).reshape(-1, *[1] * (values.ndim - 1))
    return (total[high] - total[low]) / count


def kinetic_features(positions: np.ndarray, fps: float = FPS, up_axis: int = 1, window: int = WINDOW) -> np.ndarray:
    """How a motion moves: horizontal energy, vertical energy and acceleration of each joint, averaged over time.

    Args:
        positions: (T, J, 3) metres, T >= 3.
        fps: frames a second.
        up_axis: the vertical axis.
        window: frames to either side over which velocity and acceleration are averaged.

    Returns:
        (3 J,): per joint m2/s2, m2/s2, m/s2.
    """
    positions = np.asarray(positions, dtype=np.float64)
    steps = len(positions) - 1
    velocity = np.diff(positions, axis=0) * fps
    acceleration = np.diff(velocity, axis=0) * fps
    velocity = _window_mean(velocity, steps, window)
    acceleration = _window_mean(acceleration, steps, window)
    vertical = velocity[..., up_axis] ** 2
    horizontal = (velocity**2).sum(-1) - vertical
    effort = np.linalg.norm(acceleration, axis=-1)
    return np.stack([horizontal, vertical, effort], axis=-1).mean(axis=0).reshape(-1)


def kinetic_set(motions: Sequence[np.ndarray], fps: float = FPS) -> np.ndarray:
    """Kinetic features (N, 96) of motions (T, 55, 3)."""
    return np.stack([kinetic_features(motion[:, KINETIC_JOINTS], fps) for motion in motions])


def standardize(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """z-score with the mean and deviation of `reference`; a feature that is constant there is only centred."""
    std = reference.std(axis=0)
    return (features - reference.mean(axis=0)) / np.where(std < MIN_STD, 1.0, std)


def standardize_upstream(features: np.ndarray) -> np.ndarray:
    """z-score with the features' own statistics, as the original does: blind to scale and offset."""
    return (features - features.mean(axis=0)) / (features.std(axis=0) + UPSTREAM_EPS)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two Gaussians fitted to feature sets (N, D) and (M, D).

    The trace of the root of the product is taken from a symmetric matrix of the same eigenvalues, so that it stays
    real also when there are fewer samples than features.

    Raises:
        ValueError: with fewer than two samples on a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"got {len(a)} and {len(b)} motions, expected at least 2 on each side for a covariance")
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    offset = a.mean(axis=0) - b.mean(axis=0)
    return float(offset @ offset + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def diversity(features: np.ndarray) -> float:
    """Mean distance over all pairs of different motions of (N, D); no sampling, so the same on every call."""
    if len(features) < 2:
        raise ValueError(f"got {len(features)} motions, expected at least 2 to compare")
    from scipy.spatial.distance import pdist

    return float(pdist(features).mean())


def diversity_upstream(
    predictions: np.ndarray, references: np.ndarray, seed: int, pairs: int = UPSTREAM_PAIRS
) -> tuple[float, float]:
    """Mean distance of random pairs as the original draws them: one shuffle for both sides, then each side's draw."""
    random = np.random.RandomState(seed)
    if min(len(predictions), len(references)) < pairs:
        raise ValueError(
            f"mode='upstream' draws {pairs} motions a side without repetition, got {len(predictions)} predictions and "
            f"{len(references)} references; use mode='corrected'"
        )
    order = random.permutation(len(references))
    results = []
    for features in (predictions, references):
        # Missing predictions leave fewer rows than the shuffle has; the rest keeps its order.
        features = features[order[order < len(features)]]
        first, second = (random.choice(len(features), pairs, replace=False) for _ in range(2))
        results.append(float(np.linalg.norm(features[first] - features[second], axis=1).mean()))
    return results[0], results[1]


# --- errors between paired motions, per frame ----------------------------------------------------------------------


def position_error(prediction: np.ndarray, reference: np.ndarray, align_joint: int | None = 0) -> np.ndarray:
    """Mean distance of the joints in each frame, (T,) metres, with `align_joint` (None: nothing) at the origin."""
    if align_joint is not None:
        prediction = prediction - prediction[:, align_joint, None]
        reference = reference - reference[:, align_joint, None]
    return np.linalg.norm(prediction - reference, axis=-1).mean(axis=-1)


def similarity_align(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best rotation, scale and translation of point sets (B, N, D) onto others (Umeyama 1991), without reflection.

    Returns:
        aligned (B, N, D), scale (B,), rotation (B, D, D), translation (B, D).
    """
    centre_s, centre_t = source.mean(axis=1, keepdims=True), target.mean(axis=1, keepdims=True)
    moved = source - centre_s
    covariance = moved.swapaxes(1, 2) @ (target - centre_t)
    u, _, vt = np.linalg.svd(covariance)
    signs = np.ones(u.shape[:2])
    signs[:, -1] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (vt.swapaxes(1, 2) * signs[:, None]) @ u.swapaxes(1, 2)
    spread = np.maximum((moved**2).sum(axis=(1, 2)), 1e-12)
    scale = np.trace(rotation @ covariance, axis1=1, axis2=2) / spread
    turned = scale[:, None, None] * (moved @ rotation.swapaxes(1, 2))
    translation = centre_t[:, 0] - scale[:, None] * np.einsum("bij,bj->bi", rotation, centre_s[:, 0])
    return turned + centre_t, scale, rotation, translation


def procrustes_error(prediction: np.ndarray, reference: np.ndarray, upstream: bool = False) -> np.ndarray:
    """Mean joint distance (T,) in metres after aligning each frame by similarity (PA-MPJPE).

    The original takes clips of 2 or 3 frames for transposed ones and aligns coordinates instead of joints; `upstream`
    does so too.
    """
    if upstream and len(prediction) in (2, 3):
        aligned = similarity_align(prediction.swapaxes(1, 2), reference.swapaxes(1, 2))[0].swapaxes(1, 2)
    else:
        aligned = similarity_align(prediction, reference)[0]
    return np.linalg.norm(aligned - reference, axis=-1).mean(axis=-1)


def acceleration_error(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean difference of the joints' accelerations, (T - 2,) metres per frame squared."""
    return np.linalg.norm(np.diff(prediction - reference, n=2, axis=0), axis=-1).mean(axis=-1)


def geodesic_angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle (...,) in radians of the rotation between rotation vectors (..., 3)."""
    from scipy.spatial.transform import Rotation

    relative = Rotation.from_rotvec(a.reshape(-1, 3)).inv() * Rotation.from_rotvec(b.reshape(-1, 3))
    return relative.magnitude().reshape(a.shape[:-1])


def angle_error_upstream(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The original's "angle error" (T,) in radians: joint *positions* read as rotation vectors, to compare."""
    joints = UPSTREAM_ANGLE_JOINTS
    return geodesic_angle(prediction[:, joints], reference[:, joints]).mean(axis=-1)


def bone_angle(prediction: np.ndarray, reference: np.ndarray, parents: Sequence[int]) -> np.ndarray:
    """Mean angle between the directions of corresponding bones, (T,) degrees; bones without length are left out."""
    child = np.arange(1, len(parents))
    parent = np.asarray(parents)[child]
    a, b = (motion[:, child] - motion[:, parent] for motion in (prediction, reference))
    # atan2 keeps its precision near 0 and 180 degrees, where arccos loses it.
    angle = np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1))
    has_length = (np.linalg.norm(a, axis=-1) > 1e-6) & (np.linalg.norm(b, axis=-1) > 1e-6)
    return np.degrees((angle * has_length).sum(axis=-1) / np.maximum(has_length.sum(axis=-1), 1))
