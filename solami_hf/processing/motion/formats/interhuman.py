"""Motion of InterHuman, one person of two (Liang et al., "InterGen", IJCV 2024): github.com/tr3e/InterGen.

A row of `motions_processed/person1/*.npy` has 492 values, 30 a second: the positions of 62 joints (metres, z up), of
which SMPL's 22 are read, and 6D rotations of 51 joints relative to their parents, of which the body's 21 are read: the
first two columns of the matrix, row by row, as follows from how the project mirrors them. The root's rotation is not
there, so the pelvis is turned to its three bones. Fingers stay at rest, as nothing says in which order they are. Both
people keep their places in the room; each is put on the floor by the lowest joint of the clip, as InterGen does.
"""

import numpy as np
import torch

from ....modeling.motion_vq.kinematics import matrix_to_axis_angle, rotation_6d_to_matrix
from ..body import rest_joints, standing_height
from ..smplx_motion import NUM_JOINTS, SmplxMotion, check_frames
from .humanml3d import best_turn

INTERHUMAN_FPS = 30.0
WIDTH = 492
_ROTATIONS, _BODY, _FOOT = 3 * 62, 22, 10
_AT_PELVIS = [1, 2, 3]  # hips and spine


def read_interhuman(vectors: np.ndarray) -> SmplxMotion:
    """The motion of vectors (T, 492); `transl` is the pelvis. Raises ValueError: NaN, or positions and rotations that
    do not belong together."""
    check_frames(len(vectors))
    if not np.isfinite(vectors).all():
        raise ValueError("its vectors hold NaN or infinite values.")
    values = torch.from_numpy(vectors.astype(np.float64))
    joints = values[:, : 3 * _BODY].unflatten(-1, (_BODY, 3))
    joints = torch.stack([joints[..., 0], joints[..., 2], -joints[..., 1]], dim=-1)
    sixes = values[:, _ROTATIONS : _ROTATIONS + 6 * (_BODY - 1)].unflatten(-1, (_BODY - 1, 3, 2))
    lengths = sixes.norm(dim=-2)
    if not ((0.9 < lengths) & (lengths < 1.1)).all():
        raise ValueError("its rotations are none: it may be normalised, or of another data set.")
    rest = torch.from_numpy(rest_joints()[:_BODY])
    bones = joints[:, _AT_PELVIS] - joints[:, :1]
    root = best_turn(*(part / part.norm(dim=-1, keepdim=True) for part in (rest[_AT_PELVIS], bones)))
    local = torch.cat([root[:, None], rotation_6d_to_matrix(sixes.transpose(-1, -2).flatten(-2))], dim=1)
    poses = torch.zeros(len(values), NUM_JOINTS, 3, dtype=torch.float64)
    poses[:, :_BODY] = matrix_to_axis_angle(local)
    transl = joints[:, 0].clone()
    transl[:, 1] += standing_height() + rest[_FOOT, 1] - joints[..., 1].min()
    return SmplxMotion(transl.numpy(), poses.numpy(), fps=INTERHUMAN_FPS)
