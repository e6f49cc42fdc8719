import importlib.util

import numpy as np
import pytest

from solami_hf.demo.corpus import mocap
from solami_hf.demo.corpus.animation import place
from solami_hf.demo.corpus.mocap import SOURCES, make_mocap, mirror
from solami_hf.processing.motion.body import SMPLX_JOINT_NAMES, joint_positions
from solami_hf.processing.motion.smplx_motion import SmplxMotion


def test_the_thirteen_actions():
    names = "walk run jump kick punch dance spin spinkick cartwheel crawl roll backflip get_up"
    assert list(SOURCES) == names.split()


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'solami_hf\\[demo\\]'"):
        mocap.recordings_folder()


def test_unknown_action_is_refused():
    with pytest.raises(ValueError, match="`action` is 'wave', expected one of walk, run"):
        make_mocap("wave", np.random.default_rng(0))


def test_mirror_reflects_positions():
    rng = np.random.default_rng(0)
    motion = SmplxMotion(rng.normal(size=(3, 3)), rng.normal(0, 0.5, (3, 55, 3)))
    other = [
        SMPLX_JOINT_NAMES.index(n.replace("left", "right") if "left" in n else n.replace("right", "left"))
        for n in SMPLX_JOINT_NAMES
    ]
    expected = joint_positions(motion)[:, other] * [-1, 1, 1]
    np.testing.assert_allclose(joint_positions(mirror(motion)), expected, atol=2e-4)  # the rest is symmetric to 0.1 mm


@pytest.mark.parametrize("action", SOURCES)
def test_take_is_sound(action):
    for seed in range(3):
        motion, details = make_mocap(action, np.random.default_rng(seed))
        assert 1.0 <= motion.duration <= 3.21 and motion.fps == 30 and details["action"] == action
        positions = joint_positions(motion)
        assert positions[..., 1].min() > -0.01  # nothing under the floor
        assert np.abs(motion.poses[:, 25:]).max() > 0.1  # hands have a shape


def test_walk_and_run_are_seamless_and_upright():
    for action, fastest in (("walk", 1.6), ("run", 5.0)):
        motion, _ = make_mocap(action, np.random.default_rng(4))
        step = np.diff(motion.transl[:, [0, 2]], axis=0)
        speed = np.linalg.norm(step, axis=1) * 30
        assert speed.min() > 0.4 and speed.max() < fastest
        body = joint_positions(motion) - motion.transl[:, None]
        assert np.linalg.norm(np.diff(body, axis=0), axis=-1).max() * 30 < 3 * fastest  # no jump between the cycles
        assert motion.transl[:, 1].min() > 0.8


def test_same_seed_same_take():
    first, _ = make_mocap("dance", np.random.default_rng(1))
    again, _ = make_mocap("dance", np.random.default_rng(1))
    assert np.array_equal(first.poses, again.poses)


def test_pelvis_offset_goes_along():
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.5, (3, 55, 3))
    told = SmplxMotion(rng.normal(size=(3, 3)), poses, pelvis_offset=(0.1, -0.3, 0.2))
    pelvis = SmplxMotion(told.pelvis, poses)
    for change in (mirror, lambda motion: place(motion, 2.0, 1.0, -1.0)):
        np.testing.assert_allclose(change(told).to_params(), change(pelvis).to_params(), atol=1e-6)
        assert change(told).pelvis_offset.any()
