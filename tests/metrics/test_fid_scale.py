"""What the corrected FID sees and the original's does not, on real motion."""

import numpy as np

from solami_hf.metrics import motion_math as mm


def test_motion_that_hardly_moves_is_far_worse_than_fresh_real_motion(load, mocap_joints):
    # Windows of the recordings, more than the features are many, cut at random into two halves.
    windows = [motion[start : start + 24] for motion in mocap_joints for start in range(0, len(motion) - 24, 2)]
    order = np.random.default_rng(0).permutation(len(windows))[: len(windows) // 2 * 2]
    first, second = ([windows[i] for i in half] for half in np.split(order, 2))
    assert len(first) > 5 * 3 * len(mm.KINETIC_JOINTS)
    fid = load("motion_fid")
    fresh = fid.compute(predictions=first, references=second)["fid"]
    tiny = fid.compute(predictions=[0.001 * motion for motion in first], references=second)["fid"]
    assert tiny > 50 * fresh
    blind = fid.compute(predictions=[0.001 * motion for motion in first], references=second, mode="upstream")["fid"]
    assert blind < 2 * fid.compute(predictions=first, references=second, mode="upstream")["fid"]
