"""SMPL-X's 55 joints on a small free body: names, parents, rest skeleton and forward kinematics.

The rest skeleton (`body/free_body.json`, see the card beside it) stands in a T-pose: metres, y up, facing +z, left is
+x, the pelvis at the origin.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .motion import NUM_JOINTS, NUM_PARAMS, PARAM_JOINTS, SmplxMotion
from .rotations import axis_angle_to_matrix

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
SMPLX_JOINT_NAMES: tuple[str, ...] = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("jaw", "left_eye_smplhf", "right_eye_smplhf"),
    *(f"{s}_{f}{i}" for s in ("left", "right") for f in _FINGERS for i in (1, 2, 3)),
)
"""The 55 joints in SMPL-X order."""

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


@lru_cache(maxsize=1)
def _body() -> dict[str, Any]:
    path = Path(__file__).parent / "body" / "free_body.json"
    return json.loads(path.read_text(encoding="utf-8"))


def rest_joints() -> np.ndarray:
    """(55, 3) float64 rest positions in metres, T-pose, pelvis at the origin. A fresh array at each call."""
    return np.array(_body()["rest"], dtype=np.float64)


def standing_height() -> float:
    """Height of the pelvis above the floor, in metres, when the free body stands in its rest pose on its soles."""
    return -float(_body()["sole"])


@lru_cache(maxsize=1)
def _levels() -> tuple[tuple[list[int], list[int]], ...]:
    """Joints by depth below the pelvis, each level with its parents, so that a level is one batched product."""
    depth = [0]
    for joint in range(1, NUM_JOINTS):
        depth.append(depth[SMPLX_PARENTS[joint]] + 1)
    levels = []
    for d in range(1, max(depth) + 1):
        joints = [j for j in range(NUM_JOINTS) if depth[j] == d]
        levels.append((joints, [SMPLX_PARENTS[j] for j in joints]))
    return tuple(levels)


def _root_and_poses(motion: "SmplxMotion | np.ndarray | torch.Tensor") -> tuple[torch.Tensor, torch.Tensor]:
    """Splits a motion or its parameters into translation (..., 3) and rotations (..., 55, 3)."""
    if isinstance(motion, SmplxMotion):
        return torch.from_numpy(motion.transl), torch.from_numpy(motion.poses)
    params = torch.as_tensor(motion)
    if params.ndim < 1 or params.shape[-1] != NUM_PARAMS:
        raise ValueError(
            f"`motion` has shape {tuple(params.shape)}, expected an SmplxMotion or parameters (..., 159): "
            "translation, root, 21 body, 15 left-hand and 15 right-hand rotations (see SmplxMotion.to_params)."
        )
    if not params.is_floating_point():
        params = params.float()
    poses = params.new_zeros(*params.shape[:-1], NUM_JOINTS, 3)
    poses[..., list(PARAM_JOINTS), :] = params[..., 3:].unflatten(-1, (len(PARAM_JOINTS), 3))
    return params[..., :3], poses


def joint_positions(motion: "SmplxMotion | np.ndarray | torch.Tensor") -> "np.ndarray | torch.Tensor":
    """Joint positions of the free body in metres, by forward kinematics.

    Args:
        motion: an `SmplxMotion` of T frames, or its parameters (..., 159) as numpy array or tensor (any leading shape,
            so padded batches work; tensors keep device, precision and gradient).

    Returns:
        (T, 55, 3), or (..., 55, 3) for parameters, in SMPL-X joint order; a tensor for a tensor, else a numpy array.
        The pelvis is at `transl`; jaw and eyes follow the head where the parameters do not hold them.

    Raises:
        ValueError: parameters whose last dimension is not 159.
    """
    transl, poses = _root_and_poses(motion)
    rest = torch.as_tensor(rest_joints(), dtype=poses.dtype, device=poses.device)
    local = axis_angle_to_matrix(poses)
    turned: list[torch.Tensor] = [local[..., 0, :, :]] * NUM_JOINTS
    places: list[torch.Tensor] = [transl] * NUM_JOINTS
    for joints, parents in _levels():
        above = torch.stack([turned[p] for p in parents], dim=-3)
        start = torch.stack([places[p] for p in parents], dim=-2)
        here = start + (above @ (rest[joints] - rest[parents])[..., None]).squeeze(-1)
        below = above @ local[..., joints, :, :]
        for i, joint in enumerate(joints):
            turned[joint], places[joint] = below[..., i, :, :], here[..., i, :]
    result = torch.stack(places, dim=-2)
    return result if isinstance(motion, torch.Tensor) else result.numpy()
