"""Features told as rotations relative to the pelvis and as positions, there and back."""

import pytest
import torch

from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.kinematics import (
    global_rotations,
    local_rotations,
    on_the_tree,
    place_on_tree,
    rotation_6d_to_matrix,
    shortest_turn,
)
from solami_hf.modeling.motion_vq.motion_representation import _TOLD, _rest, raw_features, represent
from solami_hf.processing.motion.features import features_to_joints, smplx_to_features


@pytest.fixture
def params():
    """Two clips of three frames of large random rotations."""
    return torch.cat([torch.randn(2, 3, 3), 0.8 * torch.randn(2, 3, 156)], dim=-1)


def turned(features):
    """Rotations (..., 55, 3, 3) relative to the pelvis."""
    local = rotation_6d_to_matrix(features[..., 9:].unflatten(-1, (51, 6)))
    return global_rotations(on_the_tree(local, _TOLD))


def test_local_rotations_are_the_features_themselves(params):
    features = smplx_to_features(params)
    assert represent(features, "local_rotation") is features is raw_features(features, "local_rotation")


def test_global_rotations_are_those_of_the_features_and_come_back_exactly(params):
    features = smplx_to_features(params)
    told = represent(features, "global_rotation")
    torch.testing.assert_close(told, smplx_to_features(params, "global"), atol=1e-6, rtol=0)
    assert (told - features).abs().max() > 0.5
    torch.testing.assert_close(raw_features(told, "global_rotation"), features, atol=2e-6, rtol=0)


def test_local_is_the_inverse_of_global():
    local = rotation_6d_to_matrix(torch.randn(4, 55, 6, dtype=torch.float64))
    torch.testing.assert_close(local_rotations(global_rotations(local)), local)


def test_joints_are_the_bodys_as_its_pelvis_sees_them(params):
    features = smplx_to_features(params)
    told = represent(features, "joints")
    assert told.shape == (2, 2, 171) and torch.equal(told[..., :9], features[..., :9])
    still = features.clone()
    still[..., :9] = torch.tensor([0, 0, 0, 1, 0, 0, 0, 1, 0.0])  # the pelvis at the origin, not turned
    expected = features_to_joints(still)[..., 1:, :]
    torch.testing.assert_close(told[..., 9:].unflatten(-1, (54, 3)), expected, atol=1e-5, rtol=0)


def test_joints_come_back_to_their_places(params):
    features = smplx_to_features(params)
    told = represent(features, "joints")
    back = raw_features(told, "joints")
    assert back.shape == features.shape and torch.equal(back[..., :9], features[..., :9])
    torch.testing.assert_close(represent(back, "joints"), told, atol=1e-5, rtol=0)
    exact = [9, 15, 20, 21]  # chest, head, wrists: no twist is lost where several bones leave
    torch.testing.assert_close(turned(back)[..., exact, :, :], turned(features)[..., exact, :, :], atol=1e-4, rtol=0)


def test_of_one_bone_the_twist_is_lost_and_nothing_else():
    """A thigh that swings and twists comes back as the swing alone."""
    axis = torch.tensor([0.0, -1.0, 0.0])  # the left thigh hangs straight down
    swing = shortest_turn(axis, torch.nn.functional.normalize(torch.tensor([0.3, -1.0, 0.5]), dim=-1))
    cosine, sine = torch.tensor(0.7).cos(), torch.tensor(0.7).sin()
    twist = torch.tensor([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    features = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(51)
    features = torch.cat([torch.zeros(9), features])
    features[9:15] = torch.cat([(swing @ twist)[:, 0], (swing @ twist)[:, 1]])
    back = turned(raw_features(represent(features, "joints"), "joints"))
    torch.testing.assert_close(back[1], swing, atol=2e-5, rtol=0)
    torch.testing.assert_close(back[16], torch.eye(3), atol=1e-5, rtol=0)


def test_the_shortest_turn_of_random_equal_and_opposite_directions():
    start = torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64), dim=-1)
    end = torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64), dim=-1)
    end[:10], end[10:20] = start[:10], -start[10:20]
    turn = shortest_turn(start, end)
    torch.testing.assert_close((turn @ start[..., None])[..., 0], end)
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3, dtype=torch.float64).expand(100, 3, 3))
    angle = ((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos()
    torch.testing.assert_close(angle, (start * end).sum(-1).clamp(-1, 1).acos(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("representation", ["global_rotation", "joints"])
def test_whatever_a_network_says_becomes_rotations_with_gradients(representation):
    size = 171 if representation == "joints" else 315
    values = torch.stack([torch.zeros(size), torch.randn(size)]).requires_grad_()
    features = raw_features(values, representation)
    columns = features[..., 9:].unflatten(-1, (51, 2, 3))
    torch.testing.assert_close(columns @ columns.mT, torch.eye(2).expand(2, 51, 2, 2), atol=1e-4, rtol=0)
    features.sum().backward()
    assert features.isfinite().all() and values.grad.isfinite().all()


def test_the_free_body_rests_where_no_joint_is_turned():
    rest = _rest(torch.zeros(1))
    eye = torch.eye(3).expand(55, 3, 3)
    torch.testing.assert_close(place_on_tree(torch.zeros(3), eye, rest), rest)


def test_config_sizes_follow_the_representation():
    sizes = {r: SolamiMotionVQConfig(representation=r).input_sizes for r in ("local_rotation", "joints")}
    assert sizes == {"local_rotation": {"body": 135, "hand": 180}, "joints": {"body": 81, "hand": 90}}
    assert SolamiMotionVQConfig(representation="joints", bound=True).input_sizes == {"body": 171}
    lengths = {
        v: SolamiMotionVQConfig(representation="joints", velocity_features=v).velocity_size for v in (75, 135, 315)
    }
    assert lengths == {75: 9 + 3 * 11, 135: 9 + 3 * 21, 315: 171}
    with pytest.raises(ValueError, match="`representation` is 'euler'"):
        SolamiMotionVQConfig(representation="euler")
    with pytest.raises(ValueError, match=r"expected \(315, 135\)"):
        SolamiMotionVQConfig(representation="joints", features_size=333)
