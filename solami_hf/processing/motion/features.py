"""SMPL-X parameters <-> the 315 features a frame that the motion tokenizers read.

Features: root velocity x, z in the heading frame (metres per frame), root height (metres), then 6D rotations of the
root, 21 body joints, 15 left-hand and 15 right-hand joints. The body tokenizer reads 0:135, the hand's 135:315.
After SOLAMI (arXiv 2412.00174) and HumanML3D; `kinematics.heading_angle` defines the heading.

With jaw and eyes between body and hands there are 54 joints below the root: 168 parameters, 333 features.

Rotations of these joints are "local", relative to the joint's parent as in SMPL-X, or "global", relative to the
pelvis: the product of the local rotations from the joint right below the pelvis down to the joint itself. The root's
own rotation, and with it the heading, is in neither: its own feature tells it. The original's way back from global
rotations bends the hands where there are 51 joints; here it is the exact inverse for both.
"""

import torch

from ...modeling.motion_vq.kinematics import (
    axis_angle_to_matrix,
    global_rotations,
    heading_angle,
    local_rotations,
    matrix_to_axis_angle,
    matrix_to_rotation_6d,
    on_the_tree,
    pelvis_way,
    rotation_6d_to_matrix,
    rotation_y,
)
from .body import JOINTS_OF_PARAMS, Body, place_joints

# widths without and with jaw and eyes
_PARAMS_SIZES = tuple(JOINTS_OF_PARAMS)
_FEATURES_SIZES = (315, 333)
_ROTATIONS = ("local", "global")

# SMPL-X joints whose line across the body tells where it faces: (left, right) hips and shoulders
_ACROSS_JOINTS = ((1, 2), (16, 17))


def smplx_to_features(params: torch.Tensor, rotations: str = "local") -> torch.Tensor:
    """Features (..., T-1, 315) of SMPL-X parameters (..., T, 159); (..., T, 168) with jaw and eyes make 333 features.
    The last frame only ends the last velocity. `rotations` are "local" (relative to the parent) or "global" (relative
    to the pelvis), see the module's description. Raises ValueError: another width, fewer than 2 frames, or another
    word for `rotations`."""
    _check_width(params, _PARAMS_SIZES, "params", least_frames=2)
    _check_rotations(rotations)
    root = axis_angle_to_matrix(params[..., 3:6])
    heading = rotation_y(heading_angle(root))[..., :-1, :, :]
    step = params[..., 1:, :3] - params[..., :-1, :3]
    velocity = (heading.transpose(-1, -2) @ step[..., None])[..., 0]
    joints = axis_angle_to_matrix(params[..., :-1, 6:].unflatten(-1, (-1, 3)))
    if rotations == "global":
        joints = _relative_to_pelvis(joints)
    joints = matrix_to_rotation_6d(joints).flatten(-2)
    parts = [velocity[..., 0:1], velocity[..., 2:3], params[..., :-1, 1:2], matrix_to_rotation_6d(root)[..., :-1, :]]
    return torch.cat([*parts, joints], dim=-1)


def motion_to_features(params: torch.Tensor, rotations: str = "local") -> torch.Tensor:
    """Input of the tokenizers: features (..., T-1, 315) of a motion (..., T, 159) that starts facing +Z. Where a
    person stands and faces is said by the transform, once a motion. Left in the features, it would be repeated in
    every code of the body. Arguments and errors as of `smplx_to_features`."""
    _check_width(params, _PARAMS_SIZES, "params", least_frames=2)
    return smplx_to_features(canonicalize(params), rotations)


def features_to_smplx(features: torch.Tensor, rotations: str = "local") -> torch.Tensor:
    """SMPL-X parameters (..., T, 159) of features (..., T, 315), 168 of 333; the way starts at x = z = 0. `rotations`
    are what the features hold, as in `smplx_to_features`. Six values that are no rotation (a network's output) become
    the nearest one by Gram-Schmidt. Raises ValueError: another width, no frames, or another word for `rotations`."""
    pelvis, root, joints = _pelvis_and_rotations(features, rotations)
    return torch.cat([pelvis, matrix_to_axis_angle(root), matrix_to_axis_angle(joints).flatten(-2)], dim=-1)


def features_to_joints(features: torch.Tensor, rotations: str = "local", body: Body | None = None) -> torch.Tensor:
    """Joint positions (..., T, 55, 3) in metres of features (..., T, 315), straight from their rotation matrices. They
    equal `joint_positions(features_to_smplx(features))`; arguments and errors are those of the two. Gradients are
    finite everywhere."""
    pelvis, root, joints = _pelvis_and_rotations(features, rotations)
    local = on_the_tree(joints, _joints(joints))
    return place_joints(pelvis, torch.cat([root[..., None, :, :], local[..., 1:, :, :]], dim=-3), body)


def _pelvis_and_rotations(features: torch.Tensor, rotations: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The way of the pelvis (..., T, 3), the root's rotations (..., T, 3, 3), the joints' (..., T, J, 3, 3)."""
    _check_width(features, _FEATURES_SIZES, "features", least_frames=1)
    _check_rotations(rotations)
    root = rotation_6d_to_matrix(features[..., 3:9])
    joints = rotation_6d_to_matrix(features[..., 9:].unflatten(-1, (-1, 6)))
    return pelvis_way(features), root, _relative_to_parents(joints) if rotations == "global" else joints


def _relative_to_pelvis(local: torch.Tensor) -> torch.Tensor:
    """Rotations (..., J, 3, 3) of the 51 or 54 joints below the pelvis, from relative to the parent to the pelvis."""
    joints = _joints(local)
    return global_rotations(on_the_tree(local, joints))[..., joints, :, :]


def _relative_to_parents(turned: torch.Tensor) -> torch.Tensor:
    """The inverse of `_relative_to_pelvis`."""
    joints = _joints(turned)
    return local_rotations(on_the_tree(turned, joints))[..., joints, :, :]


def _joints(rotations: torch.Tensor) -> list[int]:
    return list(JOINTS_OF_PARAMS[6 + 3 * rotations.shape[-3]][1:])


def facing_rotation(params: torch.Tensor, joints: torch.Tensor | None = None) -> torch.Tensor:
    """The rotation about y, (..., 3, 3), that turns a person of one frame, (..., 159), towards +Z. With `joints` (...,
    55, 3), positions in metres, the facing direction is taken from hips and shoulders, as the original does; without,
    from the root's rotation (its z axis, or its y axis for a person who lies)."""
    if joints is None:
        root = axis_angle_to_matrix(params[..., 3:6])
        forward, upward = root[..., :, 2], root[..., :, 1]
        flat = forward[..., (0, 2)].norm(dim=-1, keepdim=True) > 0.05
        # lying on the back the head's direction tells as much as the chest's, on the front its opposite
        forward = torch.where(flat, forward, -forward[..., 1:2].sign() * upward)
    else:
        across = sum(joints[..., right, :] - joints[..., left, :] for left, right in _ACROSS_JOINTS)
        forward = torch.stack([across[..., 2], torch.zeros_like(across[..., 0]), -across[..., 0]], dim=-1)
    return rotation_y(-torch.atan2(forward[..., 0], forward[..., 2]))


def canonicalize(params: torch.Tensor, joints: torch.Tensor | None = None) -> torch.Tensor:
    """The same motion (..., T, 159) or (..., T, 168) seen so that it starts at x = z = 0 and faces +Z in its first
    frame. A facing of exactly -Z is an ordinary half turn here. With `joints` (..., T, 55, 3), positions in metres,
    the facing comes from hips and shoulders, the pelvis starts at the origin and the lowest joint of the clip stands
    on y = 0, as in the original; without, the facing comes from the root's rotation and heights stay as they are.
    Raises ValueError: another width, or no frames."""
    _check_width(params, _PARAMS_SIZES, "params", least_frames=1)
    first = None if joints is None else joints[..., 0, :, :]
    turn = facing_rotation(params[..., 0, :], first)[..., None, :, :]
    # what lies between the pelvis and `transl` (the body's rest offset) does not turn with the person
    pelvis = params[..., :3] if joints is None else joints[..., 0, :]
    offset = pelvis - params[..., :3]
    start = pelvis[..., :1, :].clone()
    start[..., 1] = 0 if joints is None else joints[..., 1].amin(dim=(-1, -2))[..., None]
    transl = (turn @ (pelvis - start)[..., None])[..., 0] - offset
    root = matrix_to_axis_angle(turn @ axis_angle_to_matrix(params[..., 3:6]))
    return torch.cat([transl, root, params[..., 6:]], dim=-1)


def relative_transform(
    params_user: torch.Tensor,
    params_character: torch.Tensor,
    joints_user: torch.Tensor | None = None,
    joints_character: torch.Tensor | None = None,
) -> torch.Tensor:
    """Place of the user as the character sees it: (..., 5) of two single frames (..., 159). The five values are
    entries 0 and 2 of the 6D relative rotation (cosine and negative sine of the turn about y), then the user's
    position x, y, z in metres in the frame of the character, who stands at the origin facing +Z. Positions of joints
    (..., 55, 3) are optional, see `facing_rotation`."""
    _check_width(params_user, _PARAMS_SIZES, "params_user")
    _check_width(params_character, _PARAMS_SIZES, "params_character")
    turn_user = facing_rotation(params_user, joints_user)
    turn_character = facing_rotation(params_character, joints_character)
    relative = turn_character @ turn_user.transpose(-1, -2)
    pelvis_user = params_user[..., :3] if joints_user is None else joints_user[..., 0, :]
    pelvis_character = params_character[..., :3] if joints_character is None else joints_character[..., 0, :]
    position = (turn_character @ (pelvis_user - pelvis_character)[..., None])[..., 0]
    return torch.cat([relative[..., 0, 0, None], relative[..., 2, 0, None], position], dim=-1)


def _check_rotations(rotations: str) -> None:
    if rotations not in _ROTATIONS:
        raise ValueError(f"`rotations` is {rotations!r}, expected one of {_ROTATIONS}.")


def _check_width(values: torch.Tensor, widths: tuple[int, int], name: str, least_frames: int = 0) -> None:
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        kind = values.dtype if isinstance(values, torch.Tensor) else type(values).__name__
        raise ValueError(
            f"`{name}` is {kind}, expected a floating-point torch tensor (use torch.from_numpy; of a SmplxMotion, on "
            "`read_motion(motion, fps=30).to_params()`)."
        )
    if values.ndim < (2 if least_frames else 1) or values.shape[-1] not in widths:
        frames = "T, " if least_frames else ""
        raise ValueError(
            f"`{name}` has shape {tuple(values.shape)}, expected (..., {frames}{widths[0]}), or {widths[1]} with jaw "
            "and eyes."
        )
    if least_frames and values.shape[-2] < least_frames:
        raise ValueError(f"`{name}` has {values.shape[-2]} frames, expected at least {least_frames}.")
