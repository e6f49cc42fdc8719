from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.modeling.motion_vq.kinematics import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    rotation_6d_to_matrix,
    rotation_y,
)
from solami_hf.processing.motion.body import SMPLX_JOINT_NAMES, joint_positions
from solami_hf.processing.motion.features import (
    canonicalize,
    facing_rotation,
    features_to_joints,
    features_to_smplx,
    motion_to_features,
    relative_transform,
    smplx_to_features,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "smplx" / "smplx.npz", allow_pickle=False)
TOLERANCE = {"f32": 1e-5, "f64": 1e-10}


def golden(key: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[key])


def placed(person: str) -> torch.Tensor:
    """The parameters of a golden person whose body is at rest."""
    transl, root = golden(f"pre_{person}/transl"), golden(f"pre_{person}/rotvec")
    return torch.cat([transl, root, torch.zeros(len(transl), 153)], dim=-1)


def random_params(*shape: int, seed: int = 0, size: int = 159) -> torch.Tensor:
    """Parameters in float64 of people who are turned anyhow, no joint by half a turn."""
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(*shape, size)))
    rotations = torch.nn.functional.normalize(values[..., 3:].unflatten(-1, (-1, 3)), dim=-1)
    return torch.cat([values[..., :3], (rotations * values[..., 3::3, None].tanh() * 3).flatten(-2)], dim=-1)


@pytest.mark.parametrize("clip", ["a", "b", "tilted"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_features_and_inverse_equal_the_original(clip, dtype):
    features = smplx_to_features(golden(f"{clip}/{dtype}/params"))
    torch.testing.assert_close(features, golden(f"{clip}/{dtype}/feature"), atol=TOLERANCE[dtype], rtol=0)
    params = features_to_smplx(features)
    torch.testing.assert_close(params, golden(f"{clip}/{dtype}/recovered"), atol=TOLERANCE[dtype], rtol=0)


def test_a_batch_equals_the_original():
    features = smplx_to_features(golden("batch/params"))
    torch.testing.assert_close(features, golden("batch/feature"), atol=1e-5, rtol=0)
    torch.testing.assert_close(features_to_smplx(features), golden("batch/recovered"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rotations", ["local", "global"])
def test_a_batch_is_its_clips(rotations):
    params = torch.stack([golden("a/f32/params"), golden("tilted/f32/params")])[:, None]
    features = smplx_to_features(params, rotations)
    assert features.shape == (2, 1, 24, 315)
    torch.testing.assert_close(features[1, 0], smplx_to_features(golden("tilted/f32/params"), rotations))
    back = features_to_smplx(features, rotations)
    torch.testing.assert_close(back[0, 0], features_to_smplx(features[0, 0], rotations))


def test_global_rotations_of_54_joints_equal_the_original():
    params = golden("a/f32/params")
    params = torch.cat([params[:, :69], torch.zeros(len(params), 9), params[:, 69:]], dim=-1)
    features = smplx_to_features(params, "global")
    torch.testing.assert_close(features, golden("global54/feature"), atol=1e-5, rtol=0)
    back = features_to_smplx(golden("global54/feature"), "global")
    torch.testing.assert_close(back, golden("global54/recovered"), atol=1e-5, rtol=0)
    # 51 joints are the same without jaw and eyes; the original bends the hands here
    features = torch.cat([features[:, :135], features[:, 153:]], dim=-1)
    torch.testing.assert_close(smplx_to_features(golden("a/f32/params"), "global"), features, atol=1e-6, rtol=0)
    torch.testing.assert_close(features_to_smplx(features, "global"), golden("a/f32/recovered"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [159, 168])
@pytest.mark.parametrize("rotations", ["local", "global"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_is_exact_but_for_the_start(size, rotations, dtype):
    params = random_params(2, 3, 20, size=size).to(dtype).requires_grad_()
    back = features_to_smplx(smplx_to_features(params, rotations), rotations)
    start = params[..., :1, :3] * torch.tensor([1, 0, 1], dtype=dtype)
    expected = torch.cat([params[..., :-1, :3] - start, params[..., :-1, 3:]], dim=-1)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5  # sums of 20 steps
    torch.testing.assert_close(back, expected, atol=tolerance, rtol=0)
    back.sum().backward()
    assert params.grad.isfinite().all()


def test_global_rotation_says_where_a_bone_points_seen_from_the_pelvis():
    params = random_params(2, seed=1)
    features = smplx_to_features(params, "global")[0]
    elbow, wrist = SMPLX_JOINT_NAMES.index("left_elbow"), SMPLX_JOINT_NAMES.index("left_wrist")
    elbow_feature = features[9:].unflatten(0, (51, 6))[elbow - 1]
    turned = axis_angle_to_matrix(params[0, 3:6]) @ rotation_6d_to_matrix(elbow_feature)
    rest, posed = joint_positions(torch.zeros(159).double()), joint_positions(params[0])
    torch.testing.assert_close(posed[wrist] - posed[elbow], turned @ (rest[wrist] - rest[elbow]))


def test_a_locked_heading_comes_back():
    params = random_params(2, 5)
    params[..., 3:6] = golden("gimbal/rotvec")
    back = features_to_smplx(smplx_to_features(params))
    expected = params[..., :-1, :3] - params[..., :1, :3] * torch.tensor([1, 0, 1])
    torch.testing.assert_close(back[..., :3], expected, atol=1e-6, rtol=0)  # the file's angle has 8 digits
    torch.testing.assert_close(back[..., 3:], params[..., :-1, 3:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("rotations", ["local", "global"])
def test_what_a_network_says_is_always_a_motion(rotations):
    features = torch.zeros(2, 4, 315)
    features[0, 1] = 1.0  # two equal columns
    features[1, 2, 12:] = 1e-12
    features.requires_grad_()
    params = features_to_smplx(features, rotations)
    assert params.isfinite().all()
    params.sum().backward()
    assert features.grad.isfinite().all()


def test_walking_straight_ahead_is_one_velocity_whatever_the_facing():
    params = torch.zeros(2, 3, 159)
    params[0, :, 2] = torch.tensor([0.0, 0.1, 0.2])  # facing +Z, walking to +Z
    params[1, :, 4] = torch.pi / 2  # facing +X
    params[1, :, 0] = torch.tensor([0.0, 0.1, 0.2])
    torch.testing.assert_close(smplx_to_features(params)[..., :2], torch.tensor([0.0, 0.1]).expand(2, 2, 2))


@pytest.mark.parametrize("person", ["a", "b"])
def test_canonicalize_with_joints_equals_the_original(person):
    result = canonicalize(placed(person), golden(f"pre_{person}/joints"))
    torch.testing.assert_close(result[:, :3], golden(f"pre_{person}/new_transl"), atol=1e-5, rtol=0)
    torch.testing.assert_close(result[:, 3:6], golden(f"pre_{person}/new_rotvec"), atol=1e-5, rtol=0)


def test_canonicalize_takes_several_people_at_once():
    params = torch.stack([placed("a"), placed("b")])
    joints = torch.stack([golden("pre_a/joints"), golden("pre_b/joints")])
    result = canonicalize(params, joints)
    for i, person in enumerate("ab"):  # the original fails on two
        torch.testing.assert_close(result[i, :, :3], golden(f"pre_{person}/new_transl"), atol=1e-5, rtol=0)
        torch.testing.assert_close(result[i], canonicalize(params[i], joints[i]))


@pytest.mark.parametrize("turn", [0.0, 1.0, torch.pi, -torch.pi, -2.0])
def test_facing_by_hips_and_shoulders_is_right_for_every_facing(turn):
    params = torch.zeros(2, 159, dtype=torch.float64)
    params[:, 4] = turn
    joints = joint_positions(torch.zeros(2, 159).double())
    joints = joints @ rotation_y(torch.tensor(turn).double()).T
    if turn == torch.pi:  # exactly -Z, where the original says NaN
        joints = joint_positions(torch.zeros(2, 159).double()) * torch.tensor([-1, 1, -1])
    expected = rotation_y(torch.tensor(-turn).double()).expand(2, 3, 3)
    torch.testing.assert_close(facing_rotation(params, joints), expected, atol=1e-3, rtol=0)  # 1 mm of asymmetry
    assert canonicalize(params[:, None], joints[:, None]).isfinite().all()


def test_facing_by_the_root_is_the_outer_yaw():
    params = torch.zeros(40, 159, dtype=torch.float64)
    params[:, 3:6] = golden("heading/rotvec")
    expected = rotation_y(-golden("heading/outer_yaw"))
    torch.testing.assert_close(facing_rotation(params), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("turn", [0.0, 1.0, torch.pi, -torch.pi, -2.0])
def test_canonicalize_turns_every_facing_to_z(turn):
    params = torch.zeros(2, 4, 159, dtype=torch.float64)
    params[..., 4] = turn
    params[..., :3] = torch.tensor([3.0, 0.9, -2.0])
    params[:, 3, :3] += axis_angle_to_matrix(params[0, 0, 3:6])[:, 2]  # one step ahead
    result = canonicalize(params)
    assert result.isfinite().all()
    torch.testing.assert_close(result[0, 3, :3], torch.tensor([0, 0.9, 1.0]).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(result[..., 3:6], torch.zeros(2, 4, 3).double(), atol=1e-9, rtol=0)


def test_tokenizers_do_not_see_where_a_person_stands_and_faces():
    params = golden("a/f64/params")
    turned = params.clone()
    turn = axis_angle_to_matrix(torch.tensor([0, 2.0, 0], dtype=torch.float64))
    turned[:, :3] = params[:, :3] @ turn.T + torch.tensor([5.0, 0, -3.0])
    turned[:, 3:6] = matrix_to_axis_angle(turn @ axis_angle_to_matrix(params[:, 3:6]))
    torch.testing.assert_close(motion_to_features(turned), motion_to_features(params), atol=1e-9, rtol=0)


def test_relative_transform_equals_the_original():
    """Of a as b sees a, of b as a sees b, and of both at once."""
    params = torch.stack([placed("a")[0], placed("b")[0]])
    joints = torch.stack([golden("pre_a/joints")[0], golden("pre_b/joints")[0]])
    result = relative_transform(params, params.flip(0), joints, joints.flip(0))
    torch.testing.assert_close(result[0], golden("rel/transform5"), atol=1e-5, rtol=0)
    for i, name in enumerate(("1in2", "2in1")):
        cosine, sine = result[i, :2]
        zero = torch.zeros(())
        rotation = torch.stack([cosine, zero, sine, zero, zero + 1, zero])  # the turn is about y
        torch.testing.assert_close(rotation, golden(f"rel/c6_{name}"), atol=1e-5, rtol=0)
        torch.testing.assert_close(result[i, 2:], golden(f"rel/pos_{name}"), atol=1e-5, rtol=0)
    one = relative_transform(params[1], params[0], joints[1], joints[0])
    torch.testing.assert_close(result[1], one)


def test_relative_transform_of_two_who_face_each_other():
    user, character = torch.zeros(159), torch.zeros(159)
    user[:3], character[:3] = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.9, 0.0])
    user[4] = torch.pi
    expected = torch.tensor([-1.0, 0.0, 0.0, 0.1, 2.0])
    torch.testing.assert_close(relative_transform(user, character), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smplx_to_features(torch.zeros(5, 158)), r"`params` has shape \(5, 158\), expected \(..., T, 159\)"),
        (lambda: smplx_to_features(torch.zeros(5, 159), "world"), "`rotations` is 'world', expected one of"),
        (lambda: features_to_smplx(torch.zeros(5, 333), "both"), "`rotations` is 'both'"),
        (lambda: smplx_to_features(torch.zeros(1, 159)), "`params` has 1 frames, expected at least 2"),
        (lambda: features_to_smplx(torch.zeros(0, 315)), "`features` has 0 frames"),
        (lambda: features_to_smplx(torch.zeros(4, 314)), r"expected \(..., T, 315\)"),
        (lambda: canonicalize(torch.zeros(159)), r"`params` has shape \(159,\)"),
        (lambda: smplx_to_features(np.zeros((5, 159))), "`params` is ndarray, expected a floating-point torch"),
        (lambda: relative_transform(torch.zeros(5), torch.zeros(159)), "`params_user` has shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("width", "rotations"), [(315, "local"), (333, "local"), (315, "global")])
def test_joints_of_features_are_those_of_their_parameters(width, rotations):
    features = torch.randn(2, 6, width, dtype=torch.float64)
    expected = joint_positions(features_to_smplx(features, rotations))
    torch.testing.assert_close(features_to_joints(features, rotations), expected, atol=1e-9, rtol=0)


def test_joints_of_degenerate_features_have_finite_gradients():
    features = torch.zeros(1, 3, 315, requires_grad=True)
    features_to_joints(features).square().sum().backward()
    assert features.grad.isfinite().all()
