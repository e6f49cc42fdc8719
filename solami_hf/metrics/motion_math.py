"""The maths of the motion metrics, in numpy float64 on joint positions in metres, y up.

Kinetic features are those of fairmotion and AIST++ (Li et al. 2021, arXiv 2101.08779, after Onuma et al. 2008), on the
32 joints that SOLAMI (arXiv 2412.00174) evaluates; the Fréchet distance is Heusel et al. 2017 (arXiv 1706.08500).
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

FPS = 30.0
NUM_JOINTS = 55
POSITIONS = "positions in metres"
MODES = ("corrected", "upstream")

# Pelvis to wrists, then the first joint of each finger.
KINETIC_PARTS = (slice(0, 22), slice(25, NUM_JOINTS, 3))
KINETIC_JOINTS = tuple(joint for part in KINETIC_PARTS for joint in range(NUM_JOINTS)[part])
# Velocities and accelerations are averaged over this many frames to either side.
WINDOW = 2
MIN_FRAMES = 3
MIN_STD = 1e-6
# Least deviation of a feature, as a share of the typical one of its kind: feet that always stand must not decide.
LEAST_SHARE = 0.01
MOTIONS_AT_ONCE = 256
UPSTREAM_EPS = 1e-10
UPSTREAM_PAIRS = 50
UPSTREAM_MISSING = -2.0
# The original leaves pelvis and hips out of its "angle error".
UPSTREAM_ANGLE_JOINTS = slice(3, NUM_JOINTS)
FEET = (10, 11)  # the joints at the ball of the left and right foot
CONTACT_HEIGHT = 0.05
# Index of each joint's parent, as in `solami_hf.processing.motion.body`: this file travels to the Hub without it.
PARENTS = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15),
    *(20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38),
    *(21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53),
)


def check_mode(mode: str) -> None:
    """Raises ValueError unless `mode` is "corrected" or "upstream"."""
    if mode not in MODES:
        raise ValueError(f"`mode` is {mode!r}, expected 'corrected' or 'upstream'")


def check_corrected(mode: str) -> None:
    """Raises ValueError unless `mode` is "corrected", for a metric that the original does not have."""
    if mode != "corrected":
        raise ValueError(f"`mode` is {mode!r}, expected 'corrected': the original has no such metric")


def check_fps(fps: float | Sequence[float], reference_fps: float | Sequence[float] | None = None) -> float:
    """The one rate (frames a second) that all motions have; each may be one number, or one for every motion. Raises
    ValueError: for different rates, and for a rate that is not above 0."""
    given = np.concatenate([np.ravel(fps), np.ravel(fps if reference_fps is None else reference_fps)])
    if given.dtype.kind not in "fiu":
        raise ValueError(f"`fps` is {fps!r} and `reference_fps` {reference_fps!r}, expected frames a second")
    rates = {float(rate) for rate in given}
    if len(rates) != 1:
        raise ValueError(
            f"`fps` and `reference_fps` hold the rates {sorted(rates)}, expected one for all motions: resample them "
            "first (`SmplxMotion` files are by `read_motion(path, fps=30)`)"
        )
    (rate,) = rates
    if not 0 < rate < float("inf"):
        raise ValueError(f"`fps` is {rate}, expected frames a second above 0")
    return rate


def check_joints(joints: Any, name: str, min_frames: int = MIN_FRAMES, what: str = POSITIONS) -> np.ndarray:
    """Joint positions, or what else each joint has three numbers of, as a float64 array `(T, 55, 3)`. Raises
    ValueError: for another shape, too few frames, or values that are NaN or infinite."""
    expected = f"expected (T, {NUM_JOINTS}, 3): joint {what} of one motion"
    try:
        array = np.asarray(joints)
    except (TypeError, ValueError):  # rows of different lengths, a tensor of a GPU
        raise ValueError(f"`{name}` is no array of numbers, {expected}") from None
    if array.dtype.kind not in "fiu":  # text of digits is no number either
        raise ValueError(f"`{name}` is no array of numbers, {expected}")
    array = array.astype(np.float64, copy=False)
    if array.ndim != 3 or array.shape[1:] != (NUM_JOINTS, 3):
        raise ValueError(f"`{name}` has shape {array.shape}, {expected}")
    if len(array) < min_frames:
        raise ValueError(
            f"`{name}` has {len(array)} frames, expected at least {min_frames}; pass None for a missing prediction"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` holds NaN or infinite values; pass None for a prediction that failed")
    return array


def check_counts(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Raises ValueError for lists that are empty or of different lengths, and where there is no prediction at all."""
    if len(predictions) != len(references) or not len(references):
        raise ValueError(
            f"got {len(predictions)} `predictions` and {len(references)} `references`, expected one or more pairs"
        )
    if all(motion is None for motion in predictions):
        raise ValueError("every item of `predictions` is None, expected at least one motion")


def checked_motions(
    motions: Sequence[Any], name: str, missing: bool = False, min_frames: int = MIN_FRAMES
) -> Iterator[np.ndarray]:
    """Each of the motions through `check_joints`, one by one; with `missing`, those that are None are left out."""
    for index, motion in enumerate(motions):
        if not (missing and motion is None):
            yield check_joints(motion, f"{name}[{index}]", min_frames)


def checked_pairs(
    predictions: Sequence[Any], references: Sequence[Any], min_frames: int = MIN_FRAMES, what: str = POSITIONS
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Each prediction that is there with its reference, as far as both go, and the frames of the whole reference.
    Raises ValueError: for what `check_counts` refuses, a missing reference, or what `check_joints` refuses."""
    check_counts(predictions, references)
    for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        reference = check_joints(reference, f"references[{i}]", min_frames, what)
        if prediction is not None:
            prediction = check_joints(prediction, f"predictions[{i}]", min_frames, what)
            yield prediction[: len(reference)], reference[: len(prediction)], len(reference)


def both_sides(
    predictions: Sequence[Any], references: Sequence[Any], mode: str, fps: Any, reference_fps: Any = None
) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """The predictions that are there, all references, and their rate; ValueError for what the checks above refuse."""
    check_corrected(mode)
    fps = check_fps(fps, reference_fps)
    check_counts(predictions, references)
    made = list(checked_motions(predictions, "predictions", missing=True))
    return made, list(checked_motions(references, "references")), fps


def counts(predictions: Sequence[Any], mode: str) -> dict[str, Any]:
    """Beside the figure of every metric: share of predictions that are there, their number, the mode."""
    present = sum(prediction is not None for prediction in predictions)
    return {"valid": present / len(predictions), "num_predictions": len(predictions), "mode": mode}


# --- kinetic features -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _windows(steps: int, centres: int, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last (exclusive) of `window` steps to either side of 0..centres-1, cut at the ends, and 1 / number.
    The mean of steps x[i + 1] - x[i] from first to last is (x[last] - x[first]) / number."""
    index = np.arange(centres)
    first = np.clip(index - window, 0, steps)
    last = np.clip(index + window + 1, 0, steps)
    return first, last, 1 / np.maximum(last - first, 1)[:, None]


def kinetic_features(positions: np.ndarray, fps: float = FPS, up_axis: int = 1, window: int = WINDOW) -> np.ndarray:
    """Kinetic features (3 J,) of a motion: horizontal and vertical energy (m2/s2) and acceleration (m/s2) of each
    joint, averaged over time. `positions` are (T, J, 3) metres, T >= 3; `up_axis` the vertical one; velocity and
    acceleration are averaged over `window` frames to either side."""
    positions = np.asarray(positions, dtype=np.float64)
    steps = len(positions) - 1
    rows = positions.reshape(len(positions), -1)
    first, last, share = _windows(steps, steps, window)
    mean_velocity = ((rows[last] - rows[first]) * (fps * share)).reshape(steps, -1, 3)
    velocity = np.diff(rows, axis=0) * fps
    first, last, share = _windows(steps - 1, steps, window)
    mean_acceleration = ((velocity[last] - velocity[first]) * (fps * share)).reshape(steps, -1, 3)
    energy = np.einsum("tja,tja->ja", mean_velocity, mean_velocity) / steps
    vertical = energy[:, up_axis]
    horizontal = energy.sum(axis=1) - vertical
    effort = np.sqrt(np.einsum("tja,tja->tj", mean_acceleration, mean_acceleration)).mean(axis=0)
    return np.stack([horizontal, vertical, effort], axis=1).reshape(-1)


def kinetic_batches(motions: Iterable[np.ndarray], fps: float = FPS) -> Iterator[np.ndarray]:
    """Kinetic features (N, 96) of motions (T, 55, 3), some hundred at a time, so that few motions are held at once."""
    rows = []
    for motion in motions:
        joints = np.concatenate([motion[:, part] for part in KINETIC_PARTS], axis=1)  # faster than picking joints
        rows.append(kinetic_features(joints, fps))
        if len(rows) == MOTIONS_AT_ONCE:
            yield np.stack(rows)
            rows = []
    if rows:
        yield np.stack(rows)


def kinetic_set(motions: Iterable[np.ndarray], fps: float = FPS) -> np.ndarray:
    """Kinetic features (N, 96) of motions (T, 55, 3)."""
    return np.concatenate([*kinetic_batches(motions, fps)])


def standardize(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """z-score of kinetic features (N, 3 J) with the mean and deviation (see `scale_of`) of `reference`."""
    return (features - reference.mean(axis=0)) / scale_of(reference.std(axis=0))


def scale_of(std: np.ndarray) -> np.ndarray:
    """Divisors (3 J,) of kinetic features of such deviations. That is the deviation, but at least 1 % of the median
    one of the same kind (horizontal, vertical, acceleration) over the joints; 1 where all of a kind are constant."""
    least = LEAST_SHARE * np.median(std.reshape(-1, 3), axis=0)
    scale = np.maximum(std.reshape(-1, 3), least).reshape(-1)
    return np.where(scale < MIN_STD, 1.0, scale)


def standardize_upstream(features: np.ndarray) -> np.ndarray:
    """z-score with the features' own statistics, as the original does: blind to scale and offset."""
    return (features - features.mean(axis=0)) / (features.std(axis=0) + UPSTREAM_EPS)


class Moments:
    """Mean and covariance of features that come in batches, in memory that does not grow (Chan et al. 1983). `count`
    rows were seen; `mean` is (D,), `scatter` (D, D) the sum of products of differences from it."""

    def __init__(self, batches: Iterable[np.ndarray] = ()):
        self.count, self.mean, self.scatter = 0, 0.0, 0.0
        for batch in batches:
            self.update(batch)

    def update(self, features: np.ndarray) -> None:
        """Adds rows (N, D)."""
        mean = features.mean(axis=0)
        centred, offset = features - mean, mean - self.mean
        total = self.count + len(features)
        apart = np.outer(offset, offset) * self.count * len(features) / total
        self.scatter = self.scatter + centred.T @ centred + apart
        self.mean = self.mean + offset * len(features) / total
        self.count = total

    def standardized(self, reference: "Moments", upstream: bool = False) -> "Moments":
        """These moments as they were if each row had gone through `standardize`, or `standardize_upstream`."""
        std = np.sqrt(np.diag(reference.scatter) / reference.count)
        std = std + UPSTREAM_EPS if upstream else scale_of(std)
        result = Moments()
        result.count = self.count
        result.mean = (self.mean - reference.mean) / std
        result.scatter = self.scatter / np.outer(std, std)
        return result

    def covariance(self) -> np.ndarray:
        """(D, D), without bias. Raises ValueError: with fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"got {self.count} motion, expected at least 2 on each side for a covariance")
        return self.scatter / (self.count - 1)


def frechet_of_moments(a: Moments, b: Moments) -> float:
    """Fréchet distance of two Gaussians. The trace of the root of the product is taken from a symmetric matrix of the
    same eigenvalues, so that it stays real also when there are fewer samples than features. Raises ValueError: with
    fewer than two samples on a side."""
    cov_a, cov_b = a.covariance(), b.covariance()
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    offset = a.mean - b.mean
    return max(float(offset @ offset + np.trace(cov_a) + np.trace(cov_b) - 2 * cross), 0.0)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of Gaussians fitted to feature sets (N, D) and (M, D), see `frechet_of_moments`."""
    return frechet_of_moments(Moments([np.asarray(a)]), Moments([np.asarray(b)]))


def distances_to_others(features: np.ndarray) -> np.ndarray:
    """Mean distance (N,) of each motion of (N, D) to all others; ValueError for fewer than two."""
    if len(features) < 2:
        raise ValueError(f"got {len(features)} motions, expected at least 2 to compare")
    from scipy.spatial.distance import cdist

    # By rows, since all distances of 10,000 motions at once would take 800 MB.
    rows = (features[i : i + MOTIONS_AT_ONCE] for i in range(0, len(features), MOTIONS_AT_ONCE))
    return np.concatenate([cdist(row, features).sum(axis=1) for row in rows]) / (len(features) - 1)


def diversity(features: np.ndarray) -> float:
    """Mean distance over all pairs of different motions of (N, D); no sampling, so the same on every call."""
    return float(distances_to_others(features).mean())


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
    for features in (predictions[order], references[order]):
        first, second = (random.choice(len(features), pairs, replace=False) for _ in range(2))
        results.append(float(np.linalg.norm(features[first] - features[second], axis=1).mean()))
    return results[0], results[1]


# --- errors between paired motions, per frame ----------------------------------------------------------------------


def foot_steps(joints: np.ndarray, fps: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal speed of each foot from frame to frame, and whether it is on the floor at both. Returns speed (T -
    1, 2) in m/s and contact (T - 1, 2), boolean: lower than `CONTACT_HEIGHT` above the floor."""
    feet = joints[:, FEET]
    speed = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1) * fps
    low = feet[..., 1] < floor + CONTACT_HEIGHT
    return speed, low[1:] & low[:-1]


def joint_distances(
    prediction: np.ndarray, reference: np.ndarray, align_joint: int | Sequence[int] | None = 0
) -> np.ndarray:
    """Distance of each joint (T, J) in metres, with `align_joint`, or the mean of several, at the origin (or None)."""
    if align_joint is not None:
        joints = np.atleast_1d(align_joint)
        prediction, reference = (m - m[:, joints].mean(axis=1, keepdims=True) for m in (prediction, reference))
    return np.linalg.norm(prediction - reference, axis=-1)


def position_error(
    prediction: np.ndarray, reference: np.ndarray, align_joint: int | Sequence[int] | None = 0, upstream: bool = False
) -> np.ndarray:
    """Mean of `joint_distances` in each frame, (T,) metres. With `upstream` without joints whose reference has x =
    -2.0, the original's mark for a missing one (ValueError for a frame of such joints)."""
    counted = reference[..., 0] != UPSTREAM_MISSING if upstream else np.ones(reference.shape[:2], bool)
    if not counted.any(axis=-1).all():
        raise ValueError(f"a reference has a frame without joints: all have x = {UPSTREAM_MISSING}, for missing")
    return (joint_distances(prediction, reference, align_joint) * counted).sum(axis=-1) / counted.sum(axis=-1)


def similarity_align(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best rotation, scale and translation of point sets (B, N, D) onto others (Umeyama 1991), without reflection.
    Gives aligned (B, N, D), scale (B,), rotation (B, D, D) and translation (B, D)."""
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
    """Mean joint distance (T,) in metres after aligning each frame by similarity (PA-MPJPE). The original takes clips
    of 2 or 3 frames for transposed ones and aligns coordinates instead of joints; `upstream` does so too."""
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


def bone_angle(prediction: np.ndarray, reference: np.ndarray, parents: Sequence[int] = PARENTS) -> np.ndarray:
    """Mean angle between the directions of corresponding bones, (T,) degrees; bones without length are left out."""
    child = np.arange(1, len(parents))
    parent = np.asarray(parents)[child]
    a, b = (motion[:, child] - motion[:, parent] for motion in (prediction, reference))
    # atan2 keeps its precision near 0 and 180 degrees, where arccos loses it.
    angle = np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1))
    has_length = (np.linalg.norm(a, axis=-1) > 1e-6) & (np.linalg.norm(b, axis=-1) > 1e-6)
    return np.degrees((angle * has_length).sum(axis=-1) / np.maximum(has_length.sum(axis=-1), 1))
