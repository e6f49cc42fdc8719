"""The free body's skin: a mesh on the 55 joints with shapes, 52 face units and colours, posed by linear blending.

`README.md` beside it says where `body_mesh.npz` comes from, and what each of its arrays holds.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ....modeling.motion_vq.kinematics import axis_angle_to_matrix, global_rotations, place_on_tree
from ..body import Body, free_body
from ..face import FACE_FPS, FACE_UNITS, checked_face
from ..smplx_motion import SmplxMotion

_CHUNK = 64  # frames at a time: the transforms of all vertices take 0.4 MB each
_LARGEST_BETA = 3.0


@dataclass(frozen=True, eq=False)
class BodyMesh:
    """The skinned mesh in the rest pose of `body.free_body`: V vertices, F triangles.

    Attributes:
        rest: (V, 3) float32 metres, relative to the pelvis.
        faces: (F, 3) int64, counter-clockwise from outside.
        joints, weights: (V, 4) uint8, the joints that move a vertex, and how much; weights add to 255.
        colours: (V, 3) uint8, sRGB.
        shape_names: of the N shapes; "gender" goes from feminine (-1) to masculine (1), "age" from 0 to old (1).
        shapes, joint_shapes: (V, N, 3) and (55, N, 3) metres, how far a shape of 1 moves vertices and joints.
        units: name of a face unit -> its vertices (n,) and how far it moves them, (n, 3) metres.
    """

    rest: np.ndarray
    faces: np.ndarray
    joints: np.ndarray
    weights: np.ndarray
    colours: np.ndarray
    shape_names: tuple[str, ...]
    shapes: np.ndarray
    joint_shapes: np.ndarray
    units: dict[str, tuple[np.ndarray, np.ndarray]]

    def shaped(self, betas=None) -> tuple[np.ndarray, Body]:
        """Vertices (V, 3) and the skeleton of a shape: `betas` are up to N coefficients, those of `shape_names` (not
        SMPL-X's), -3 to 3; `None` is the free body. Raises ValueError: more coefficients than shapes, or one beyond
        3."""
        values = np.zeros(0) if betas is None else np.asarray(betas, dtype=np.float64).reshape(-1)
        if len(values) > len(self.shape_names) or not (np.abs(values) <= _LARGEST_BETA).all():
            raise ValueError(
                f"`betas` is {values.tolist()}, expected up to {len(self.shape_names)} numbers from "
                f"-{_LARGEST_BETA:g} to {_LARGEST_BETA:g}: {', '.join(self.shape_names)}. "
                "SMPL-X's coefficients mean other shapes."
            )
        if not values.any():
            return self.rest, free_body()
        used = len(values)
        vertices = self.rest + np.einsum("vnc,n->vc", self.shapes[:, :used], values).astype(np.float32)
        rest = free_body().rest + np.einsum("jnc,n->jc", self.joint_shapes[:, :used], values)
        pelvis = rest[0].copy()
        return vertices - pelvis.astype(np.float32), Body(
            rest - pelvis, np.zeros(3), float(vertices[:, 1].min() - pelvis[1])
        )

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Unit normals (V, 3) of vertices (V, 3), smooth over the seams between colours."""
        corners = vertices[self.faces]
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        _, place = np.unique(self.rest, axis=0, return_inverse=True)
        place = place.reshape(-1)
        total = np.zeros((place.max() + 1, 3))
        for corner in range(3):
            np.add.at(total, place[self.faces[:, corner]], flat)
        return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))[place].astype(np.float32)


@lru_cache(maxsize=1)
def body_mesh() -> BodyMesh:
    """The mesh that the package carries; its arrays are shared, so do not write to them."""
    with np.load(Path(__file__).with_name("body_mesh.npz"), allow_pickle=False) as file:
        arrays = dict(file)
    rest_step, shape_step, unit_step = arrays["steps"]
    rows = np.split(arrays["unit_rows"].astype(np.int64), arrays["unit_ends"][:-1])
    moves = np.split((arrays["unit_moves"] * unit_step).astype(np.float32), arrays["unit_ends"][:-1])
    names = map(str, arrays["unit_names"])
    return BodyMesh(
        (arrays["rest"] * rest_step).astype(np.float32),
        arrays["faces"].astype(np.int64),
        *(arrays[name] for name in ("joints", "weights", "colours")),
        tuple(map(str, arrays["shape_names"])),
        (arrays["shapes"] * shape_step).astype(np.float32),
        arrays["joint_shapes"],
        {name: unit for name, *unit in zip(names, rows, moves, strict=True)},
    )


def face_at(face: np.ndarray, motion: SmplxMotion) -> np.ndarray:
    """The face (T, 52) at each frame of a motion, between its frames (30 a second) linearly; its last frame stays.
    ValueError where `face` is not (frames, 52) with values from 0 to 1, see `face.checked_face`, or has no frames."""
    face = checked_face(face)
    if not len(face):
        raise ValueError("`face` has 0 frames, expected at least 1.")
    wanted = np.arange(motion.num_frames) * (FACE_FPS / motion.fps)
    left = np.minimum(np.floor(wanted + 1e-6).astype(int), len(face) - 1)
    share = np.clip(wanted - left, 0, 1)[:, None].astype(np.float32)
    return (1 - share) * face[left] + share * face[np.minimum(left + 1, len(face) - 1)]


def skinned_vertices(motion: SmplxMotion, betas=None, face: np.ndarray | None = None) -> np.ndarray:
    """Vertices of the free body's mesh in a motion of T frames, (T, V, 3) float32 metres, by linear blend skinning.
    The motion's own betas are SMPL-X's and do not count here; `betas`: see `BodyMesh.shaped`; `face` (frames, 52) are
    coefficients in the order of `face.FACE_UNITS` at 30 frames a second. Raises ValueError: betas or a face of another
    form."""
    mesh = body_mesh()
    rest, body = mesh.shaped(betas)
    joints = torch.from_numpy(body.rest)
    weights = torch.zeros(len(rest), len(joints))
    shares = torch.from_numpy(mesh.weights / np.float32(255))
    weights.scatter_add_(1, torch.from_numpy(mesh.joints.astype(np.int64)), shares)
    moved = None if face is None else face_at(face, motion)
    units = [mesh.units[name] for name in FACE_UNITS]
    out = np.empty((motion.num_frames, *rest.shape), dtype=np.float32)
    for start in range(0, motion.num_frames, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        local = axis_angle_to_matrix(torch.from_numpy(motion.poses[chunk]).double())
        turns = global_rotations(local)
        places = place_on_tree(torch.from_numpy(motion.pelvis[chunk]).double(), local, joints)
        shifts = places - (turns @ joints[..., None])[..., 0]
        blended = torch.einsum("vj,tjk->tvk", weights, torch.cat([turns.flatten(-2), shifts], dim=-1).float())
        points = np.repeat(rest[None], len(blended), axis=0)
        for index, (rows, moves) in enumerate(units if moved is not None else ()):
            points[:, rows] += moved[chunk, index, None, None] * moves
        turned = (blended[..., :9].unflatten(-1, (3, 3)) @ torch.from_numpy(points)[..., None])[..., 0]
        out[chunk] = (turned + blended[..., 9:]).numpy()
    return out
