"""HumanML3D's motion vectors (Guo et al., "Generating Diverse and Natural 3D Human Motions from Text", CVPR 2022).

A row of `new_joint_vecs/*.npy` has 263 values: the turn of the root about y (half the angle, per frame), its step x, z
in the facing frame (metres per frame), its height, 21 joints' positions in the facing frame (63), 6D rotations (126),
velocities (66) and foot contacts (4); 20 frames a second, y-up.

Its 6D rotations are not SMPL's: they were solved from positions and only aim the bones of a skeleton of its own (issue
117 of its repository). The same directions are in the positions, so these are read, and SMPL-X's joints are turned to
match them. What the vectors do not tell is lost: twist about a bone, except for pelvis and chest, whose three bones
fix it; the turn of head, hands and feet; fingers, face, body shape and the place and facing of the start. Heights are
those of the data set's own skeleton, to which everybody was scaled.
"""

from pathlib import Path

import numpy as np
import torch

from ....modeling.motion_vq.kinematics import matrix_to_axis_angle, rotation_y, shortest_turn
from ..body import SMPLX_PARENTS, rest_joints
from ..smplx_motion import NUM_JOINTS, SmplxMotion, check_frames
from .motion_npz import read_npy

FPS = 20.0
WIDTH = 263

_BODY = 22
_CHILDREN = [[child for child in range(_BODY) if SMPLX_PARENTS[child] == joint] for joint in range(_BODY)]
_SHORTEST_BONE, _LONGEST_BONE = 0.005, 1.5  # metres


def read_humanml3d(path: str | Path) -> SmplxMotion:
    """The motion of HumanML3D vectors (T, 263) at 20 fps; the pelvis is at `transl` and starts at x = z = 0. Raises
    ValueError: the file is broken, holds something else (positions of `new_joints`), or normalised vectors."""
    vectors = read_npy(path)
    if vectors.ndim != 2 or vectors.shape[1] != WIDTH or vectors.dtype.kind not in "fiu":
        raise ValueError(
            f"its array has shape {vectors.shape} of {vectors.dtype}, expected HumanML3D's (T, {WIDTH}) of "
            "`new_joint_vecs`."
        )
    check_frames(len(vectors))
    if not np.isfinite(vectors).all():
        raise ValueError("its vectors hold NaN or infinite values.")
    values = torch.from_numpy(vectors[:, : 4 + 63].astype(np.float64))
    # what frame t tells of turn and step leads to frame t + 1
    before = torch.cat([torch.zeros(1, 3, dtype=torch.float64), values[:-1, :3]])
    facing = rotation_y(-2 * before[:, 0].cumsum(0))
    step = torch.stack([before[:, 1], torch.zeros_like(before[:, 1]), before[:, 2]], dim=-1)
    transl = (facing @ step[..., None])[..., 0].cumsum(0)
    transl[:, 1] = values[:, 3]
    pelvis = torch.zeros(len(values), 1, 3, dtype=torch.float64)
    pelvis[:, 0, 1] = values[:, 3]
    local = _aim_bones(torch.cat([pelvis, values[:, 4:].unflatten(-1, (_BODY - 1, 3))], dim=1))
    local[:, 0] = facing @ local[:, 0]
    poses = torch.zeros(len(values), NUM_JOINTS, 3, dtype=torch.float64)
    poses[:, :_BODY] = matrix_to_axis_angle(local)
    return SmplxMotion(transl.numpy(), poses.numpy(), fps=FPS)


def _aim_bones(joints: torch.Tensor) -> torch.Tensor:
    """Local rotations (T, 22, 3, 3) that turn the rest skeleton's bones into those between `joints` (T, 22, 3)."""
    parents = list(SMPLX_PARENTS[1:_BODY])
    bones = joints[:, 1:] - joints[:, parents]
    lengths = bones.norm(dim=-1, keepdim=True)
    if not (_SHORTEST_BONE < lengths.min() and lengths.max() < _LONGEST_BONE):
        raise ValueError(
            f"its bones are {float(lengths.min()):.3g} to {float(lengths.max()):.3g} m long, which no body is; "
            "normalised vectors must be multiplied by the standard deviation and added to the mean first."
        )
    wanted = bones / lengths
    rest = torch.from_numpy(rest_joints()[:_BODY])
    rest = rest[1:] - rest[parents]
    rest = rest / rest.norm(dim=-1, keepdim=True)
    world = torch.eye(3, dtype=joints.dtype).repeat(len(joints), _BODY, 1, 1)
    local = world.clone()
    for joint in range(_BODY):
        above = world[:, SMPLX_PARENTS[joint]] if joint else world[:, 0]
        ends = [child - 1 for child in _CHILDREN[joint]]
        if len(ends) == 1:
            swing = shortest_turn(above @ rest[ends[0]], wanted[:, ends[0]])
            world[:, joint] = swing @ above
        elif ends:
            world[:, joint] = best_turn(rest[ends], wanted[:, ends])
        else:
            world[:, joint] = above
        local[:, joint] = above.transpose(-1, -2) @ world[:, joint] if joint else world[:, joint]
    return local


def best_turn(rest: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Rotations (T, 3, 3) that bring directions (N, 3) nearest to (T, N, 3) (Kabsch, 1976)."""
    left, _, right = torch.linalg.svd(wanted.transpose(-1, -2) @ rest)
    sign = torch.ones(len(wanted), 3, dtype=rest.dtype)
    sign[:, 2] = torch.linalg.det(left @ right)
    return left @ (sign[..., None] * right)
