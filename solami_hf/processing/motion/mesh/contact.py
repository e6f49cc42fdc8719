"""Leads hands around the skin of trunk, head and thighs, by small turns of shoulders and elbows.

A motion was recorded or learnt on other bodies than the one that is drawn. The turns of an arm are smoothed over time,
which needs later frames, so a live stream is left as it is. The body is told by how far its skin lies from upright
axes, in the T-pose of `body_mesh`.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ....modeling.motion_vq.kinematics import SMPLX_PARENTS, axis_angle_to_matrix, global_rotations
from ..body import free_body, joint_positions
from ..smplx_motion import SmplxMotion
from .body_mesh import body_mesh

_ARMS = {16: (18, (20, *range(25, 40))), 17: (19, (21, *range(40, 55)))}  # shoulder: elbow, joints of the hand
_TRUNK, _HEAD = (0, 1, 2, 3, 6, 9), (12, 15, 22)
_CLEAR = 0.008  # metres that a hand stays off the skin
_FADE = 0.04  # metres over which a part begins and ends
_ANGLES = np.linspace(-np.pi, np.pi, 33)
_PASSES, _ROUNDS, _SOFTNESS = 2, 4, 1e-4
_LARGEST = 0.15  # radians a round
_SECONDS = 0.1  # deviation of the smoothing over time
_EVERY = 12  # vertex of a hand


@dataclass(frozen=True, eq=False)
class _Part:
    """Skin about an upright axis: its radius (heights, angles), in the axes of a joint at rest."""

    joint: int
    axis: np.ndarray
    heights: np.ndarray
    radius: np.ndarray

    def pushes(self, points: np.ndarray, turns: np.ndarray, place: np.ndarray) -> np.ndarray:
        """How far and whereto (T, P, 3) points (T, P, 3) have to go to be outside; 0 for those that are."""
        x, y, z = np.moveaxis((points - place[:, None]) @ turns - self.axis, -1, 0)
        low, high = self.heights[[0, -1]]
        here = np.clip(np.minimum(y - low, high - y) / _FADE, 0, 1)
        row = np.clip((y - low) / (self.heights[1] - low), 0, len(self.heights) - 1.001)
        column = np.clip((np.arctan2(x, z) + np.pi) / (_ANGLES[1] + np.pi), 0, len(_ANGLES) - 1.001)
        i, j = row.astype(int), column.astype(int)
        a, b = row - i, column - j
        table = self.radius
        radius = (1 - a) * ((1 - b) * table[i, j] + b * table[i, j + 1])
        radius += a * ((1 - b) * table[i + 1, j] + b * table[i + 1, j + 1])
        away = np.hypot(x, z)
        depth = here * np.maximum(0, radius + _CLEAR - away) / np.maximum(away, 1e-3)
        return np.stack([depth * x, np.zeros_like(x), depth * z], axis=-1) @ turns.swapaxes(-1, -2)


@lru_cache(maxsize=1)
def _parts() -> tuple[list[_Part], dict[int, tuple[np.ndarray, np.ndarray]]]:
    """The body without its arms, and of each shoulder the hand's points: their joints (P,) and places from these."""
    mesh, rest = body_mesh(), free_body().rest
    owner = mesh.joints[np.arange(len(mesh.rest)), mesh.weights.argmax(axis=1)]
    middles = [rest[1, 1] - 0.12, *rest[[3, 6, 9], 1], rest[9, 1] + 0.16]
    parts = [(joint, _TRUNK, middles[i], middles[i + 1]) for i, joint in enumerate((0, 3, 6, 9))]
    parts += [(15, _HEAD, rest[15, 1] - 0.03, rest[15, 1] + 0.22)]
    parts += [(hip, (hip,), rest[4, 1], rest[1, 1] + 0.02) for hip in (1, 2)]
    found = []
    for joint, owners, low, high in parts:
        skin = mesh.rest[np.isin(owner, owners)]
        near = skin[(skin[:, 1] > low) & (skin[:, 1] < high)]
        axis = (near.max(axis=0) + near.min(axis=0)) / 2 * [1, 0, 1]
        if joint in (0, 3, 6, 9):
            axis[0] = 0
        flat = skin - axis
        size = np.hypot(flat[:, 0], flat[:, 2])
        width = np.median(size)
        angle = np.arctan2(flat[:, 0], flat[:, 2])
        spread = [np.stack([angle * width + turn * 2 * np.pi * width, flat[:, 1]], axis=1) for turn in (-1, 0, 1)]
        heights = np.arange(low - _FADE / 2, high + _FADE / 2, 0.02)
        wanted = np.stack(np.meshgrid(_ANGLES * width, heights), axis=-1)
        distance, rows = cKDTree(np.concatenate(spread)).query(wanted, k=4)
        shares = 1 / (distance + 0.004) ** 2
        radius = (np.tile(size, 3)[rows] * shares).sum(-1) / shares.sum(-1)
        found.append(_Part(joint, (axis - rest[joint]) * [1, 0, 1], heights - rest[joint, 1], radius))
    hands = {}
    for shoulder, (_, joints) in _ARMS.items():
        points = np.flatnonzero(np.isin(owner, joints))[::_EVERY]
        hands[shoulder] = owner[points].astype(int), mesh.rest[points] - rest[owner[points]]
    return found, hands


def hands_off_body(motion: SmplxMotion) -> SmplxMotion:
    """The motion with hands led around the free body's skin, by turns that are smooth over a fifth of a second."""
    for _ in range(_PASSES):  # what smoothing leaves inside is led out once more
        motion = _led(motion)
    return motion


def _led(motion: SmplxMotion) -> SmplxMotion:
    parts, hands = _parts()
    turns = global_rotations(axis_angle_to_matrix(torch.from_numpy(motion.poses).double())).numpy()
    places, poses = joint_positions(motion).astype(np.float64), motion.poses.copy()
    for shoulder, (elbow, _) in _ARMS.items():
        joints, offsets = hands[shoulder]
        points = places[:, joints] + np.einsum("tpij,pj->tpi", turns[:, joints], offsets)
        joint, bend = places[:, shoulder], places[:, elbow]
        upper = lower = Rotation.identity(motion.num_frames)
        for _ in range(_ROUNDS):
            push = sum(part.pushes(points, turns[:, part.joint], places[:, part.joint]) for part in parts)
            depth = np.linalg.norm(push, axis=-1)
            if not depth.any():
                break
            way = push / np.maximum(depth, 1e-9)[..., None]
            levers = [np.cross(points - middle[:, None], way) for middle in (joint, bend)]
            levers = np.concatenate(levers, axis=-1)
            # least squares, weighted by depth: the deepest say most, and what just touches says nothing yet
            normal = np.einsum("tpi,tp,tpj->tij", levers, depth, levers) + _SOFTNESS * np.eye(6)
            step = np.linalg.solve(normal, np.einsum("tpi,tp->ti", levers, depth**2)[..., None])[..., 0]
            step *= np.minimum(1, _LARGEST / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9))
            turn, more = Rotation.from_rotvec(step[:, :3]), Rotation.from_rotvec(step[:, 3:])
            fore = points - bend[:, None]
            upper, lower = turn * upper, more * turn * lower
            bend = joint + turn.apply(bend - joint)
            points = bend[:, None] + np.einsum("tij,tpj->tpi", (more * turn).as_matrix(), fore)
        upper, lower = (_smooth(turn, motion.fps) for turn in (upper, lower))
        moved = upper.magnitude() + lower.magnitude() > 1e-6
        if not moved.any():
            continue
        above, arm, fore = (Rotation.from_matrix(turns[moved, j]) for j in (SMPLX_PARENTS[shoulder], shoulder, elbow))
        arm, fore = upper[moved] * arm, lower[moved] * fore
        poses[moved, shoulder], poses[moved, elbow] = (above.inv() * arm).as_rotvec(), (arm.inv() * fore).as_rotvec()
    return replace(motion, poses=poses)


def _smooth(turns: Rotation, fps: float) -> Rotation:
    return Rotation.from_rotvec(gaussian_filter1d(turns.as_rotvec(), _SECONDS * fps, axis=0, mode="nearest"))
