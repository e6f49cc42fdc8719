"""Rotations, and the tree of SMPL-X's 55 joints: from parent to pelvis and back, and where the joints are.

Conventions: matrices act on column vectors; quaternions are ``(w, x, y, z)``; axis-angle vectors are in radians;
`rotation_6d` is the first, then the second column of the matrix (Zhou et al., "On the Continuity of Rotation
Representations in Neural Networks", CVPR 2019). Every function keeps dtype and device.
"""

from functools import lru_cache

import torch
from torch.nn import functional as F

_FINGER_PARENTS = tuple(
    wrist if i == 0 else first + 3 * finger + i - 1
    for wrist, first in ((20, 25), (21, 40))
    for finger in range(5)
    for i in range(3)
)
SMPLX_PARENTS: tuple[int, ...] = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15),
    *_FINGER_PARENTS,
)
"""Index of each joint's parent; -1 for the pelvis."""


def check_last(tensor: torch.Tensor, shape: tuple[int, ...], name: str) -> None:
    """ValueError where a tensor does not end with these dimensions."""
    if tuple(tensor.shape[-len(shape) :]) != shape:
        expected = ", ".join(str(size) for size in shape)
        raise ValueError(f"`{name}` has shape {tuple(tensor.shape)}, expected (..., {expected}).")


def matrix_to_rotation_6d(matrix: torch.Tensor) -> torch.Tensor:
    """The first, then the second column (..., 6) of rotation matrices (..., 3, 3)."""
    check_last(matrix, (3, 3), "matrix")
    return torch.cat([matrix[..., 0], matrix[..., 1]], dim=-1)


def rotation_6d_to_matrix(rotation_6d: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) of any six values (..., 6), by Gram-Schmidt.

    A network can predict columns of length zero or parallel ones. They get the nearest sensible axis instead of NaN:
    all zeros give the identity.
    """
    check_last(rotation_6d, (6,), "rotation_6d")
    eye = torch.eye(3, dtype=rotation_6d.dtype, device=rotation_6d.device)
    first, degenerate = _unit(rotation_6d[..., :3])
    first = torch.where(degenerate, eye[0], first)
    second, _ = _unit(rotation_6d[..., 3:])
    second, degenerate = _unit(second - (first * second).sum(-1, keepdim=True) * first)
    # where both columns are parallel, take the axis that is least parallel to the first; y comes first
    fallback = torch.where(first[..., 1:2].abs() < 0.9, eye[1], eye[2])
    fallback, _ = _unit(fallback - (first * fallback).sum(-1, keepdim=True) * first)
    second = torch.where(degenerate, fallback, second)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def _unit(vector: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalised vector and where it was too short to have a direction."""
    norm = vector.norm(dim=-1, keepdim=True)
    degenerate = norm < 1e-8
    return vector / torch.where(degenerate, torch.ones_like(norm), norm), degenerate


def axis_angle_to_quaternion(axis_angle: torch.Tensor) -> torch.Tensor:
    """Unit quaternions (..., 4) of axis-angle vectors (..., 3) in radians; exact and differentiable at zero."""
    check_last(axis_angle, (3,), "axis_angle")
    squared = axis_angle.square().sum(-1, keepdim=True)
    small = squared < 1e-8
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    # sin(a/2)/a and cos(a/2); their series where the quotient loses digits
    factor = torch.where(small, 0.5 - squared / 48, (0.5 * angle).sin() / angle)
    real = torch.where(small, 1 - squared / 8, (0.5 * angle).cos())
    return torch.cat([real, factor * axis_angle], dim=-1)


def quaternion_to_axis_angle(quaternion: torch.Tensor) -> torch.Tensor:
    """Axis-angle vectors (..., 3) with angles in [0, pi] of quaternions (..., 4), which need not be normalised."""
    check_last(quaternion, (4,), "quaternion")
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    squared = imaginary.square().sum(-1, keepdim=True)
    small = squared <= 1e-12 * real.square()
    norm = torch.where(small, torch.ones_like(squared), squared).sqrt()
    safe_real = torch.where(small & (real == 0), torch.ones_like(real), real)
    factor = torch.where(small, 2 / torch.where(small, safe_real, torch.ones_like(real)), 2 * torch.atan2(norm, real))
    return imaginary * torch.where(small, factor, factor / norm)


def quaternion_to_matrix(quaternion: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4); a zero quaternion gives the identity."""
    check_last(quaternion, (4,), "quaternion")
    w, x, y, z = quaternion.unbind(-1)
    squared = quaternion.square().sum(-1)
    scale = torch.where(squared > 0, 2 / squared.clamp_min(torch.finfo(squared.dtype).tiny), torch.zeros_like(squared))
    rows = [
        1 - scale * (y * y + z * z), scale * (x * y - z * w), scale * (x * z + y * w),
        scale * (x * y + z * w), 1 - scale * (x * x + z * z), scale * (y * z - x * w),
        scale * (x * z - y * w), scale * (y * z + x * w), 1 - scale * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: torch.Tensor) -> torch.Tensor:
    """Unit quaternions (..., 4) with a real part >= 0 of rotation matrices (..., 3, 3). Of the four formulas, each of
    which divides by another component, the one of a component that is at least 1/2 is taken, so half turns are exact
    as well."""
    check_last(matrix, (3, 3), "matrix")
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrix.flatten(-2).unbind(-1)
    below = m22 < 0  # x or y is large, else z or w
    first = torch.where(below, m00 > m11, m00 < -m11)  # x of the former, z of the latter
    w_x, w_y, w_z = m21 - m12, m02 - m20, m10 - m01
    x_y, x_z, y_z = m10 + m01, m02 + m20, m21 + m12

    def pick(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.where(below, torch.where(first, x, y), torch.where(first, z, w))

    quaternion = torch.stack(
        [
            pick(w_x, w_y, w_z, 1 + m00 + m11 + m22),
            pick(1 + m00 - m11 - m22, x_y, x_z, w_x),
            pick(x_y, 1 - m00 + m11 - m22, y_z, w_y),
            pick(x_z, y_z, 1 - m00 - m11 + m22, w_z),
        ],
        dim=-1,
    )
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def axis_angle_to_matrix(axis_angle: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3) in radians."""
    return quaternion_to_matrix(axis_angle_to_quaternion(axis_angle))


def matrix_to_axis_angle(matrix: torch.Tensor) -> torch.Tensor:
    """Axis-angle vectors (..., 3) with angles in [0, pi] of rotation matrices (..., 3, 3)."""
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def quaternion_multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Hamilton product (..., 4): the rotation `right`, then `left`."""
    check_last(left, (4,), "left")
    check_last(right, (4,), "right")
    lw, lv, rw, rv = left[..., :1], left[..., 1:], right[..., :1], right[..., 1:]
    lv, rv = torch.broadcast_tensors(lv, rv)
    real = lw * rw - (lv * rv).sum(-1, keepdim=True)
    return torch.cat([real, lw * rv + rw * lv + torch.linalg.cross(lv, rv)], dim=-1)


def quaternion_slerp(start: torch.Tensor, end: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    """Unit quaternions (..., 4) at `fraction` (..., 1) in [0, 1] of the shorter way from `start` to `end`."""
    check_last(start, (4,), "start")
    check_last(end, (4,), "end")
    cosine = (start * end).sum(-1, keepdim=True)
    end = torch.where(cosine < 0, -end, end)
    cosine = cosine.abs().clamp(max=1)
    angle = cosine.acos()
    sine = angle.sin()
    near = sine < 1e-4
    sine = torch.where(near, torch.ones_like(sine), sine)
    left = torch.where(near, 1 - fraction, ((1 - fraction) * angle).sin() / sine)
    right = torch.where(near, fraction, (fraction * angle).sin() / sine)
    mixed = left * start + right * end
    return mixed / mixed.norm(dim=-1, keepdim=True)


def rotation_y(angle: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) about the vertical y axis of angles (...) in radians; +z turns towards +x."""
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [cosine, zero, sine, zero, torch.ones_like(angle), zero, -sine, zero, cosine]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def heading_angle(matrix: torch.Tensor) -> torch.Tensor:
    """Heading (...) in radians of rotation matrices (..., 3, 3): c in R = Rx(a) Rz(b) Ry(c). This innermost y rotation
    is what SOLAMI's features call heading; for a tilted body it differs from the yaw of the facing direction by up to
    101 degrees. At b = +-90 degrees, where only a + c is defined, a is taken as zero."""
    check_last(matrix, (3, 3), "matrix")
    m00, m01, m02 = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2]
    locked = m00.square() + m02.square() < 1e-12
    sign = -m01.sign()
    # atan2 has no gradient at (0, 0), so its arguments are chosen before the call
    sine = torch.where(locked, sign * matrix[..., 1, 2], m02)
    cosine = torch.where(locked, sign * matrix[..., 1, 0], m00)
    return torch.atan2(sine, cosine)


def pelvis_way(features: torch.Tensor) -> torch.Tensor:
    """Places of the pelvis (..., T, 3) in metres of raw features (..., T, 315), from x = z = 0 on."""
    heading = rotation_y(heading_angle(rotation_6d_to_matrix(features[..., 3:9])))
    step = torch.stack([features[..., 0], torch.zeros_like(features[..., 0]), features[..., 1]], dim=-1)
    step = (heading @ step[..., None])[..., 0]
    # frame t stands where the steps before it lead
    way = torch.cat([torch.zeros_like(step[..., :1, :]), step[..., :-1, :].cumsum(-2)], dim=-2)
    return torch.stack([way[..., 0], features[..., 2], way[..., 2]], dim=-1)


def shortest_turn(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """The smallest rotations (..., 3, 3) that lay directions (..., 3) onto others. Two half turns make it: one about
    `start`, one about the middle between both."""
    start, end = (F.normalize(vector, dim=-1) for vector in (start, end))
    middle = start + end
    axis = F.one_hot(start.abs().argmin(-1), 3).to(start)
    opposite = middle.norm(dim=-1, keepdim=True) < 1e-4  # half a turn about any axis across
    middle = torch.where(opposite, torch.linalg.cross(start, axis), middle)
    return _half_turn(middle) @ _half_turn(start)


def _half_turn(axis: torch.Tensor) -> torch.Tensor:
    axis = F.normalize(axis, dim=-1)
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    return 2 * axis[..., :, None] * axis[..., None, :] - eye


@lru_cache(maxsize=1)
def _levels() -> tuple[tuple[tuple[list[int], list[int]], ...], list[int]]:
    """The tree by depth, so that a level is one batched product. Each level below the pelvis is its joints and where
    their parents stand in the level above. Then where each joint stands when all levels are put one after another."""
    joints_number = len(SMPLX_PARENTS)
    levels, order, above = [], [0], [0]
    while len(order) < joints_number:
        joints = [j for j in range(joints_number) if SMPLX_PARENTS[j] in above]
        levels.append((joints, [above.index(SMPLX_PARENTS[j]) for j in joints]))
        order, above = order + joints, joints
    return tuple(levels), [order.index(j) for j in range(joints_number)]


def on_the_tree(rotations: torch.Tensor, joints: list[int]) -> torch.Tensor:
    """Rotations (..., 55, 3, 3) of all joints; the pelvis and those that are not told are not turned."""
    whole = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    whole = whole.repeat(*rotations.shape[:-3], len(SMPLX_PARENTS), 1, 1)
    whole[..., joints, :, :] = rotations
    return whole


def global_rotations(local: torch.Tensor) -> torch.Tensor:
    """Rotations (..., 55, 3, 3) relative to the world of those relative to each joint's parent."""
    levels, order = _levels()
    found = [local[..., :1, :, :]]
    for joints, parents in levels:
        found.append(found[-1][..., parents, :, :] @ local[..., joints, :, :])
    return torch.cat(found, dim=-3)[..., order, :, :]


def local_rotations(turned: torch.Tensor) -> torch.Tensor:
    """The inverse of `global_rotations`."""
    below = turned[..., list(SMPLX_PARENTS[1:]), :, :].transpose(-1, -2) @ turned[..., 1:, :, :]
    return torch.cat([turned[..., :1, :, :], below], dim=-3)


def place_on_tree(pelvis: torch.Tensor, local: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Joint positions (..., 55, 3) of a rest skeleton (55, 3). The pelvis is at (..., 3); rotations (..., 55, 3, 3)
    are relative to the parents."""
    bones = (rest - rest[list(SMPLX_PARENTS)])[..., None]
    levels, order = _levels()
    turned, places = local[..., :1, :, :], [pelvis[..., None, :]]
    for joints, parents in levels:
        above = turned[..., parents, :, :]
        places.append(places[-1][..., parents, :] + (above @ bones[joints]).squeeze(-1))
        turned = above @ local[..., joints, :, :]
    return torch.cat(places, dim=-2)[..., order, :]
