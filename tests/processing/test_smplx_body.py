import json
from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.processing import smplx_body
from solami_hf.processing.motion import SmplxMotion
from solami_hf.processing.smplx_body import (
    SMPLX_JOINT_NAMES,
    SMPLX_PARENTS,
    joint_positions,
    rest_joints,
    standing_height,
)


def joint(name: str) -> int:
    return SMPLX_JOINT_NAMES.index(name)


def posed(**rotations) -> np.ndarray:
    """Positions (55, 3) of a body with some joints turned, the pelvis at (0, 1, 0)."""
    poses = np.zeros((1, 55, 3))
    for name, vector in rotations.items():
        poses[0, joint(name)] = vector
    return joint_positions(SmplxMotion(transl=[[0.0, 1.0, 0.0]], poses=poses))[0]


def test_joint_order_is_smplx():
    expected = {0: "pelvis", 1: "left_hip", 9: "spine3", 12: "neck", 15: "head", 20: "left_wrist", 22: "jaw"}
    expected |= {25: "left_index1", 31: "left_pinky1", 34: "left_ring1", 37: "left_thumb1", 40: "right_index1"}
    assert {i: SMPLX_JOINT_NAMES[i] for i in expected} == expected
    assert len(SMPLX_JOINT_NAMES) == len(SMPLX_PARENTS) == 55
    assert SMPLX_PARENTS[:25] == (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15)
    assert SMPLX_PARENTS[25:31] == (20, 25, 26, 20, 28, 29) and SMPLX_PARENTS[40:43] == (21, 40, 41)


def test_packaged_file_agrees_with_the_code():
    body = json.loads((Path(smplx_body.__file__).parent / "body" / "free_body.json").read_text(encoding="utf-8"))
    assert tuple(body["names"]) == SMPLX_JOINT_NAMES and tuple(body["parents"]) == SMPLX_PARENTS


def test_rest_is_a_t_pose_of_human_size():
    rest = rest_joints()
    assert np.array_equal(rest[0], [0, 0, 0])
    left = [joint(name) for name in ("left_shoulder", "left_elbow", "left_wrist")]
    assert np.ptp(rest[left, 1:], axis=0) == pytest.approx([0, 0], abs=1e-5) and (np.diff(rest[left, 0]) > 0.2).all()
    mirrored = [SMPLX_JOINT_NAMES.index(n.replace("left", "right")) for n in SMPLX_JOINT_NAMES if n.startswith("left")]
    own = [i for i, n in enumerate(SMPLX_JOINT_NAMES) if n.startswith("left")]
    np.testing.assert_allclose(rest[own] * [-1, 1, 1], rest[mirrored], atol=1e-4)
    assert rest[joint("left_foot"), 2] > rest[joint("left_ankle"), 2] + 0.1  # facing +z
    assert standing_height() == pytest.approx(1.005, abs=0.001)
    assert -rest[:, 1].min() < standing_height() < -rest[:, 1].min() + 0.04


def test_identity_pose_is_the_rest_at_transl():
    np.testing.assert_allclose(posed(), rest_joints() + [0, 1, 0], atol=1e-6)


def test_one_joint_moves_what_hangs_on_it():
    still, moved = posed(), posed(left_elbow=(0, -np.pi / 2, 0))  # the forearm folds forward
    length = still[joint("left_wrist"), 0] - still[joint("left_elbow"), 0]
    np.testing.assert_allclose(moved[joint("left_wrist")] - moved[joint("left_elbow")], [0, 0, length], atol=1e-6)
    below = [joint("left_wrist"), *range(25, 40)]
    others = [i for i in range(55) if i not in below]
    np.testing.assert_allclose(moved[others], still[others], atol=1e-6)
    assert (np.linalg.norm(moved[below] - still[below], axis=1) > 0.1).all()


def test_root_turns_everything_about_the_pelvis():
    turned = posed(pelvis=(0, np.pi / 2, 0))  # +z to +x
    x, y, z = rest_joints().T
    np.testing.assert_allclose(turned, np.stack([z, y + 1, -x], axis=1), atol=1e-6)


def test_params_and_motion_agree_in_numpy_and_torch_and_batches():
    motion = SmplxMotion(
        transl=np.random.default_rng(0).normal(size=(7, 3)),
        poses=np.random.default_rng(1).normal(0, 0.5, (7, 55, 3)) * (np.arange(55) % 25 < 22)[:, None],
    )
    motion.poses[:, 22:25] = 0
    expected, params = joint_positions(motion), motion.to_params()
    assert isinstance(expected, np.ndarray) and expected.shape == (7, 55, 3) and expected.dtype == np.float32
    np.testing.assert_allclose(joint_positions(params), expected, atol=1e-6)
    batch = torch.from_numpy(params).double()[None].repeat(2, 3, 1).requires_grad_()
    result = joint_positions(batch)
    assert result.shape == (2, 21, 55, 3) and result.dtype == torch.float64
    np.testing.assert_allclose(result[1, 7:14].detach().numpy(), expected, atol=1e-5)
    result.sum().backward()
    assert torch.isfinite(batch.grad).all()


def test_bone_lengths_never_change():
    positions = joint_positions(np.random.default_rng(2).normal(size=(5, 159)))
    parents = list(SMPLX_PARENTS[1:])
    lengths = np.linalg.norm(positions[:, 1:] - positions[:, parents], axis=-1)
    rest = rest_joints()
    np.testing.assert_allclose(
        lengths, np.linalg.norm(rest[1:] - rest[parents], axis=-1)[None].repeat(5, 0), atol=1e-6
    )


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 165\), expected an SmplxMotion or parameters \(..., 159\)"):
        joint_positions(np.zeros((4, 165)))
