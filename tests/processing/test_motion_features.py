from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.processing.motion_features import (
    canonicalize,
    features_to_smplx,
    motion_to_features,
    relative_transform,
    smplx_to_features,
)
from solami_hf.processing.rotations import axis_angle_to_matrix, matrix_to_axis_angle

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "smplx" / "smplx.npz", allow_pickle=False)
TOLERANCE = {"f32": 1e-5, "f64": 1e-10}


def golden(key: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[key])


def placed(person: str) -> torch.Tensor:
    """The parameters of a golden person whose body is at rest."""
    transl, root = golden(f"pre_{person}/transl"), golden(f"pre_{person}/rotvec")
    return torch.cat([transl, root, torch.zeros(len(transl), 153)], dim=-1)


@pytest.mark.parametrize("clip", ["a", "tilted"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_features_and_inverse_equal_the_original(clip, dtype):
    features = smplx_to_features(golden(f"{clip}/{dtype}/params"))
    torch.testing.assert_close(features, golden(f"{clip}/{dtype}/feature"), atol=TOLERANCE[dtype], rtol=0)
    params = features_to_smplx(features)
    torch.testing.assert_close(params, golden(f"{clip}/{dtype}/recovered"), atol=TOLERANCE[dtype], rtol=0)


def test_a_batch_is_its_clips():
    params = torch.stack([golden("a/f32/params"), golden("tilted/f32/params")])[:, None]
    features = smplx_to_features(params)
    assert features.shape == (2, 1, 24, 315)
    torch.testing.assert_close(features[1, 0], smplx_to_features(golden("tilted/f32/params")))
    torch.testing.assert_close(features_to_smplx(features)[0, 0], features_to_smplx(features[0, 0]))


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
    joints = {person: golden(f"pre_{person}/joints")[0] for person in "ab"}
    result = relative_transform(placed("a")[0], placed("b")[0], joints["a"], joints["b"])
    torch.testing.assert_close(result, golden("rel/transform5"), atol=1e-5, rtol=0)


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
