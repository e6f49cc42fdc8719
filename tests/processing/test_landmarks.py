"""MediaPipe's landmarks as a motion: known clips to landmarks and back, through noise and gaps."""

from pathlib import Path

import numpy as np
import pytest

from solami_hf.demo.corpus.gestures import GESTURES, make_gesture
from solami_hf.processing.motion.body import joint_positions, rest_joints, standing_height
from solami_hf.processing.motion.landmarks import landmarks_to_smplx
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion, resample_motion

BONES = {11: 16, 12: 17, 13: 18, 14: 19, 15: 20, 16: 21, 23: 1, 24: 2, 25: 4, 26: 5, 27: 7, 28: 8, 31: 10, 32: 11}
HAND = (20, 37, 38, 39, -1, 25, 26, 27, -1, 28, 29, 30, -1, 34, 35, 36, -1, 31, 32, 33, -1)  # left; -1 is a tip
# Metres from the head joint, of an upright head that faces +z, and of the heel from the ankle.
FACE = {0: (0, 0.02, 0.13), 2: (0.03, 0.05, 0.1), 5: (-0.03, 0.05, 0.1), 7: (0.08, 0.03, 0.01), 8: (-0.08, 0.03, 0.01),
        9: (0.025, -0.02, 0.105), 10: (-0.025, -0.02, 0.105)}  # fmt: skip
LEGS = list(range(25, 33))


def marks(motion: SmplxMotion, fps: float = 30.0) -> np.ndarray:
    """What a perfect camera before +z would see of a motion."""
    joints = joint_positions(resample_motion(motion, fps)).astype(np.float64)
    points = np.zeros((len(joints), 75, 3))
    for mark, joint in BONES.items():
        points[:, mark] = joints[:, joint]
    for side in (0, 1):
        for i, joint in enumerate(HAND):
            joint += 0 if i == 0 or joint < 0 else 15 * side
            place = points[:, 32 + 21 * side + i] * 2 - points[:, 31 + 21 * side + i]  # a tip goes on straight
            points[:, 33 + 21 * side + i] = place if joint < 0 else joints[:, joint + (side if i == 0 else 0)]
        points[:, 29 + side] = joints[:, 7 + side] * 2 - joints[:, 10 + side]
        points[:, 29 + side, 1] = points[:, 31 + side, 1]
    rest = rest_joints()
    for i, frame in enumerate(joints):
        here, there = ((place[[23, 24]] - place[15]) for place in (rest, frame))
        left, _, right = np.linalg.svd(there.T @ here)
        turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        for mark, offset in FACE.items():
            points[i, mark] = frame[15] + turn @ offset
    points -= points[:, [23, 24]].mean(axis=1, keepdims=True)
    return np.concatenate([points * [1, -1, -1], np.ones((*points.shape[:2], 1))], axis=-1)


def worsen(landmarks: np.ndarray, rng: np.random.Generator, noise: float = 0.015) -> np.ndarray:
    """Noise in metres, a tenth of the points not seen, and each hand gone for four frames."""
    seen = landmarks.copy()
    seen[..., :3] += rng.normal(0, noise, seen[..., :3].shape) * np.where(np.arange(75) < 33, 1, 0.2)[:, None]
    seen[:, :33, 3] = rng.uniform(size=seen[:, :33, 3].shape) > 0.1
    for first in (33, 54):
        start = rng.integers(0, max(1, len(seen) - 4))
        seen[start : start + 4, first : first + 21, 3] = 0
    seen[seen[..., 3] == 0, :3] = 9
    return seen


def errors(found: SmplxMotion, motion: SmplxMotion) -> tuple[float, float]:
    """Mean distances in mm: 21 body joints from the pelvis, 30 finger joints from their wrist."""
    here, there = (joint_positions(each) for each in (found, resample_motion(motion, 30)))
    here, there = here[: len(there)], there[: len(here)]
    body = [(each - each[:, :1])[:, 1:22] for each in (here, there)]
    hands = [
        np.concatenate([each[:, 25:40] - each[:, 20:21], each[:, 40:] - each[:, 21:22]], 1) for each in (here, there)
    ]
    return tuple(1000 * float(np.linalg.norm(a - b, axis=-1).mean()) for a, b in (body, hands))


def clips() -> dict[str, SmplxMotion]:
    rng = np.random.default_rng(0)
    made = {action: make_gesture(action, rng)[0] for action in sorted(GESTURES)}
    return made | {"cmu": resample_motion(read_motion(Path(__file__).parents[1] / "data" / "cmu_01_01.bvh"), 30)}


def arm_of(motion: SmplxMotion) -> tuple[float, float]:
    """How far each wrist moves, in metres, from its shoulder: left and right."""
    joints = joint_positions(motion)
    return tuple(np.ptp(joints[:, 20 + side] - joints[:, 16 + side], axis=0).max() for side in (0, 1))


def test_known_clips_come_back():
    rng, found = np.random.default_rng(1), []
    for action, motion in clips().items():
        exact = errors(landmarks_to_smplx(marks(motion), 30), motion)
        worse = errors(landmarks_to_smplx(worsen(marks(motion, 15), rng), 15), motion)
        assert exact[0] < 25 and exact[1] < 7 and worse[0] < 32 and worse[1] < 11, (action, exact, worse)
        found.append([*exact, *worse])
    body, hands, body_worse, hands_worse = np.mean(found, axis=0)
    assert body < 9 and hands < 3 and body_worse < 18 and hands_worse < 8, np.mean(found, axis=0)


def test_recorded_movement_comes_back():
    data = pytest.importorskip("pybullet_data")
    for name in ("walk", "dance_a", "kick"):
        motion = resample_motion(read_motion(Path(data.getDataPath()) / f"data/motions/humanoid3d_{name}.txt"), 30)
        seen = worsen(marks(motion, 15), np.random.default_rng(2))
        assert errors(landmarks_to_smplx(seen, 15), motion)[0] < 60, name


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_waving_arm_stays_the_same_arm(side):
    motion = make_gesture("wave", np.random.default_rng(3), side)[0]
    before, after = arm_of(motion), arm_of(landmarks_to_smplx(worsen(marks(motion, 15), np.random.default_rng(4)), 15))
    np.testing.assert_allclose(after, before, atol=0.06)
    assert (after[0] > 0.3, after[1] > 0.3) == (side == "left", side == "right")


def test_the_place_and_the_rate():
    motion = landmarks_to_smplx(marks(make_gesture("wave", np.random.default_rng(5))[0], 12.5), 12.5)
    joints = joint_positions(motion)
    assert motion.fps == 30 and not motion.transl[:, [0, 2]].any()
    np.testing.assert_allclose(np.minimum(joints[:, 10, 1], joints[:, 11, 1]), 0.028, atol=0.01)
    upright = SmplxMotion(np.zeros((2, 3)), np.zeros((2, 55, 3)))
    found = landmarks_to_smplx(marks(upright), 30)
    np.testing.assert_allclose(found.poses[:, :22], 0, atol=0.04)  # the mouth lies before the eyes
    np.testing.assert_allclose(found.transl[0], [0, standing_height(), 0], atol=1e-3)
    assert landmarks_to_smplx(marks(upright)[:1], 15).num_frames == 1


def test_a_body_of_which_only_the_upper_half_is_seen():
    """As before a laptop: no hips, no legs, no hands."""
    motion = make_gesture("wave", np.random.default_rng(3), "left")[0]
    seen = marks(motion)
    yaw = np.arctan2(*(seen[0, 11] - seen[0, 12])[[2, 0]])  # turned towards the camera
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    seen[..., :3] = seen[..., :3] @ turn.T
    seen[:, [17, 18, 19, 20, 21, 22, 23, 24, *LEGS, *range(33, 75)], 3] = 0.1
    found = landmarks_to_smplx(seen, 30)
    assert arm_of(found)[0] > 0.3 > arm_of(found)[1]
    joints = joint_positions(found)
    assert joints[:, 16, 0].min() > 0.1 and np.abs(joints[:, 10, 1] - joints[:, 11, 1]).max() < 0.05
    np.testing.assert_allclose(found.poses[:, 21:22], 0, atol=1e-6)


def test_what_is_not_seen_is_held_and_interpolated():
    motion = make_gesture("wave", np.random.default_rng(3), "left")[0]
    seen = marks(motion)
    whole = landmarks_to_smplx(seen, 30)
    seen[10:14, 15, 3] = seen[:5, 13:17, 3] = 0
    gap = landmarks_to_smplx(seen, 30)
    assert np.abs(joint_positions(gap) - joint_positions(whole))[6:].max() < 0.12
    np.testing.assert_allclose(gap.poses[0, [16, 18]], gap.poses[1, [16, 18]], atol=0.05)
    seen[3:, 33:, 3] = 0  # the hands are lost: they go with their forearms
    lost = landmarks_to_smplx(seen, 30)
    np.testing.assert_allclose(lost.poses[4:, 25:], lost.poses[4:5, 25:].repeat(len(lost.poses) - 4, 0), atol=1e-5)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda seen: seen[:, :33], r"shape \(4, 33, 4\)"),
        (lambda seen: seen[:0], "0 frames"),
        (lambda seen: np.where(np.arange(4) < 3, np.nan, seen), "NaN"),
        (lambda seen: seen * [100, 100, 100, 1], "expected metres"),
        (lambda seen: seen + 1, "visibility is 2"),
        (lambda seen: seen * [0, 0, 0, 1], "at one place"),
        (lambda seen: seen * [1, 1, 1, 0.3], "shoulders are never seen"),
        (lambda seen: seen.astype(str), "expected numbers"),
    ],
)
def test_what_no_camera_sees_is_refused(change, told):
    seen = marks(SmplxMotion(np.zeros((4, 3)), np.zeros((4, 55, 3))))
    with pytest.raises(ValueError, match=told):
        landmarks_to_smplx(change(seen), 30)
    with pytest.raises(ValueError, match="fps"):
        landmarks_to_smplx(seen, 0)
