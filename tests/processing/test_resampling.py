import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from solami_hf.processing.motion import SmplxMotion, resample_motion
from solami_hf.processing.motion import smplx_motion as resampling


def spinning(frames: int, fps: float) -> SmplxMotion:
    """Every joint turns at a constant rate about an axis of its own, some beyond half a turn; the way is straight."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(55, 3))
    rates = rng.uniform(-4, 4, (55, 1)) * axes / np.linalg.norm(axes, axis=-1, keepdims=True)
    start = Rotation.from_rotvec(rng.normal(size=(55, 3)))
    turned = [(Rotation.from_rotvec(rates * t / fps) * start).as_rotvec() for t in range(frames)]
    transl = np.arange(frames)[:, None] / fps * [0.5, 0.0, -1.0]
    return SmplxMotion(transl, turned, betas=np.ones(10), gender="male", fps=fps, pelvis_offset=(0, -0.3, 0))


def angles_between(poses, others):
    a, b = (Rotation.from_rotvec(p.reshape(-1, 3).astype(np.float64)) for p in (poses, others))
    return (a.inv() * b).magnitude()


@pytest.mark.parametrize(("source", "fps"), [(120, 30), (30, 120), (20, 30), (25, 30), (59.94, 30), (30, 7)])
def test_constant_speed_stays_exact(source, fps):
    frames = int(2 * source) + 1
    motion = resample_motion(spinning(frames, source), fps)
    expected = spinning(motion.num_frames, fps)
    assert motion.num_frames == int((frames - 1) / source * fps + 1e-4) + 1
    assert angles_between(motion.poses, expected.poses).max() < 2e-6
    np.testing.assert_allclose(motion.transl, expected.transl, atol=1e-6)


def test_every_fourth_frame_of_120_fps():
    motion = spinning(121, 120)
    slow = resample_motion(motion, 30)
    assert slow.num_frames == 31
    assert angles_between(slow.poses, motion.poses[::4]).max() < 1e-6


def test_what_is_no_frame_is_kept():
    motion = resample_motion(spinning(9, 60), 30)
    assert motion.betas.tolist() == [1] * 10 and motion.gender == "male" and motion.fps == 30
    np.testing.assert_allclose(motion.pelvis_offset, [0, -0.3, 0], atol=1e-7)
    assert resample_motion(motion, 30) is motion


def test_chunks_meet(monkeypatch):
    motion = spinning(50, 60)
    whole = resample_motion(motion, 45)
    monkeypatch.setattr(resampling, "_CHUNK", 4)
    assert np.array_equal(resample_motion(motion, 45).poses, whole.poses)


def test_one_frame_stays_one():
    assert resample_motion(spinning(1, 120), 30).num_frames == 1


def test_turns_the_shorter_way():
    poses = np.zeros((2, 55, 3))
    poses[:, 3, 1] = [3.0, -3.0]  # 0.28 rad apart, across the half turn
    fast = resample_motion(SmplxMotion(np.zeros((2, 3)), poses, fps=1), 2)
    assert abs(fast.poses[1, 3, 1]) == pytest.approx(np.pi, abs=1e-6)


@pytest.mark.parametrize(
    ("source", "fps", "message"), [(1e-6, 30, "30000001 frames"), (30, 1e9, "`fps` is 1"), (30, 0, "`fps` is 0")]
)
def test_absurd_rates(source, fps, message):
    with pytest.raises(ValueError, match=message):
        resample_motion(SmplxMotion(np.zeros((2, 3)), np.zeros((2, 55, 3)), fps=source), fps)
