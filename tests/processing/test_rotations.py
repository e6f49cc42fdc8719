from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.modeling.motion_vq import kinematics as rotations

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "smplx" / "smplx.npz", allow_pickle=False)


def golden(key: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[key])


def test_quaternions_equal_the_original():
    q, r = golden("quat/q"), golden("quat/r")
    torch.testing.assert_close(rotations.quaternion_multiply(q, r), golden("quat/qmul"), atol=1e-5, rtol=0)
    matrix = rotations.quaternion_to_matrix(q)
    torch.testing.assert_close(matrix, golden("quat/matrix"), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotations.quaternion_to_matrix(golden("quat/qinv")), matrix.mT, atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix @ golden("quat/v")[..., None], golden("quat/qrot")[..., None], atol=1e-5, rtol=0)
    torch.testing.assert_close(rotations.matrix_to_rotation_6d(matrix), golden("quat/cont6d"), atol=1e-5, rtol=0)
    back = rotations.matrix_to_quaternion(matrix)
    torch.testing.assert_close(back, torch.where(q[:, :1] < 0, -q, q), atol=1e-5, rtol=0)


def test_6d_equals_the_original_where_that_is_a_rotation():
    matrix = rotations.rotation_6d_to_matrix(golden("cont6d/in"))[2:]
    torch.testing.assert_close(matrix, golden("cont6d/nearest_rotmat")[2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix, golden("cont6d/humanml_matrix")[2:], atol=1e-5, rtol=0)
    rotvec = rotations.matrix_to_axis_angle(matrix)
    torch.testing.assert_close(rotvec, golden("cont6d/nearest_rotvec")[2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "values",
    [[0.0] * 6, [1, 0, 0, 2, 0, 0], [0, 3, 0, 0, -1, 0], [0, 0, 0, 0, 1, 0], [1e-20, 0, 0, 0, 1e-20, 0]],
)
def test_degenerate_6d_gives_a_rotation(values):
    values = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    matrix = rotations.rotation_6d_to_matrix(values)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(matrix).item() == pytest.approx(1)
    matrix.sum().backward()
    assert values.grad.isfinite().all()


def test_zero_6d_is_the_identity():
    assert torch.equal(rotations.rotation_6d_to_matrix(torch.zeros(2, 6)), torch.eye(3).expand(2, 3, 3))


def test_first_column_then_second_column():
    quarter = torch.tensor([0.0, torch.pi / 2, 0.0])  # z -> x, x -> -z
    expected = torch.tensor([0.0, 0, -1, 0, 1, 0])
    torch.testing.assert_close(
        rotations.matrix_to_rotation_6d(rotations.axis_angle_to_matrix(quarter)), expected, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-5, 1e-3, 1.0, 3.0, torch.pi - 1e-6])
def test_axis_angle_survives_the_matrix(angle):
    axis = torch.nn.functional.normalize(torch.tensor([[1.0, -2, 3], [0, 0, 1], [-1, 0, 0]]).double(), dim=-1)
    back = rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(axis * angle))
    torch.testing.assert_close(back, axis * angle, atol=1e-9, rtol=0)


def test_half_turns_survive_up_to_their_sign():
    half = torch.eye(3, dtype=torch.float64) * torch.pi
    back = rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(half))
    torch.testing.assert_close(back.abs(), half, atol=1e-9, rtol=0)


def test_gradients_are_finite_at_zero():
    zero = torch.zeros(3, requires_grad=True)
    rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(zero)).sum().backward()
    torch.testing.assert_close(zero.grad, torch.ones(3))


def test_heading_is_the_innermost_y_rotation():
    matrix = rotations.axis_angle_to_matrix(golden("heading/rotvec"))
    heading = rotations.rotation_y(rotations.heading_angle(matrix))
    torch.testing.assert_close(heading, golden("heading/rotmat_y"), atol=1e-10, rtol=0)
    torch.testing.assert_close(rotations.heading_angle(matrix), golden("heading/euler_yzx")[:, 0], atol=1e-10, rtol=0)


def test_heading_at_the_gimbal():
    matrix = rotations.axis_angle_to_matrix(golden("gimbal/rotvec"))
    torch.testing.assert_close(rotations.heading_angle(matrix), golden("gimbal/euler_yzx")[:, 0], atol=1e-6, rtol=0)


def test_slerp_takes_the_shorter_way():
    start = torch.tensor([1.0, 0, 0, 0])
    end = -rotations.axis_angle_to_quaternion(torch.tensor([0.0, 1.0, 0.0]))
    quarter = rotations.quaternion_slerp(start, end, torch.tensor([0.25]))
    torch.testing.assert_close(rotations.quaternion_to_axis_angle(quarter), torch.tensor([0.0, 0.25, 0.0]))


@pytest.mark.parametrize("name", ["axis_angle_to_matrix", "rotation_6d_to_matrix", "matrix_to_quaternion"])
def test_wrong_width_is_named(name):
    with pytest.raises(ValueError, match=r"has shape \(2, 5\), expected"):
        getattr(rotations, name)(torch.zeros(2, 5))
