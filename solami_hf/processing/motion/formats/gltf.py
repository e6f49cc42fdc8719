"""glTF 2.0: a motion as a `.glb` file, for viewers and game engines.

The file holds the free body's 55 joints as nodes under SMPL-X's names, a mesh of one octahedron a bone skinned to it,
and one animation: the pelvis' translation and every joint's rotation at every frame. Units are metres, y is up, as
glTF has it. https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ...files.atomic_write import atomic_write
from ..body import SMPLX_JOINT_NAMES, SMPLX_PARENTS, standing_joints
from ..smplx_motion import NUM_JOINTS, SmplxMotion
from .bvh import end_offsets

_FLOAT, _UNSIGNED_BYTE = 5126, 5121
_ARRAY_BUFFER = 34962
_HEAD = SMPLX_JOINT_NAMES.index("head")
_FACE = (22, 23, 24)  # jaw and eyes, drawn as part of the head
_CROWN = (0.0, 0.15, 0.0)  # metres from the head's joint to the top of the skull

# an octahedron along the first axis: start, a ring of four at a fifth of its length, end; faces seen from outside
_CORNERS = np.array([[0, 0, 0], [0.2, 1, 0], [0.2, 0, 1], [0.2, -1, 0], [0.2, 0, -1], [1, 0, 0]])
_FACES = np.array([[0, 2, 1], [0, 3, 2], [0, 4, 3], [0, 1, 4], [5, 1, 2], [5, 2, 3], [5, 3, 4], [5, 4, 1]])
_THICKNESS, _THINNEST, _THICKEST = 0.2, 0.004, 0.05  # radius: share of the length, and metres


class _Buffer:
    """The binary part of the file, with the bufferViews and accessors that describe it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, values: np.ndarray, kind: str, target: int | None = None, bounds: bool = False) -> int:
        """Appends `values` (N,) or (N, width) as float32, or as they are if they are uint8; gives the accessor."""
        values = values if values.dtype == np.uint8 else values.astype("<f4")
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        self.views.append(view if target is None else view | {"target": target})
        component = _UNSIGNED_BYTE if values.dtype == np.uint8 else _FLOAT
        accessor = {"bufferView": len(self.views) - 1, "componentType": component, "count": len(values), "type": kind}
        if bounds:
            rows = values.reshape(len(values), -1)
            accessor |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        self.accessors.append(accessor)
        self.data += values.tobytes()  # every value takes 4 bytes, or 4 of them together: always aligned
        return len(self.accessors) - 1


def write_gltf(path: str | Path, motion: SmplxMotion) -> None:
    """Writes `motion` on the free body as a binary glTF file, whole or not at all.

    Betas and gender are not kept: the free body has one shape. ValueError where the name does not end in `.glb`.
    """
    path = Path(path)
    if path.suffix.lower() != ".glb":
        raise ValueError(f"`path` is {path}, expected a name that ends in .glb (the binary form of glTF).")
    buffer = _Buffer()
    places = standing_joints()
    document = {
        "asset": {"version": "2.0", "generator": "solami_hf"},
        "scene": 0,
        "scenes": [{"nodes": [0, NUM_JOINTS]}],
        "nodes": [*_joint_nodes(places), {"name": "body", "mesh": 0, "skin": 0}],
        "skins": [{"joints": list(range(NUM_JOINTS)), "skeleton": 0, "inverseBindMatrices": _bind(buffer, places)}],
        "meshes": [{"name": "bones", "primitives": [{"attributes": _bones(buffer, places), "material": 0}]}],
        "materials": [
            {"name": "bone", "pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.62, 0.4, 1.0], "metallicFactor": 0.0}}
        ],
        "animations": [_animation(buffer, motion)],
        "bufferViews": buffer.views,
        "accessors": buffer.accessors,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(buffer.data)))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", len(buffer.data), b"BIN\0") + buffer.data)


def _joint_nodes(places: np.ndarray) -> list[dict[str, Any]]:
    nodes = []
    for joint, parent in enumerate(SMPLX_PARENTS):
        offset = places[joint] - places[parent] if parent >= 0 else places[joint]
        node = {"name": SMPLX_JOINT_NAMES[joint], "translation": offset.tolist()}
        children = [child for child, above in enumerate(SMPLX_PARENTS) if above == joint]
        nodes.append(node | {"children": children} if children else node)
    return nodes


def _bind(buffer: _Buffer, places: np.ndarray) -> int:
    """Inverse bind matrices, from the rest pose into each joint's own axes: 55, columns first."""
    matrices = np.tile(np.eye(4), (NUM_JOINTS, 1, 1))
    matrices[:, 3, :3] = -places
    return buffer.add(matrices.reshape(NUM_JOINTS, 16), "MAT4")


def _bones(buffer: _Buffer, places: np.ndarray) -> dict[str, int]:
    """An octahedron from each joint to each of its children and to its end, moved by the joint it begins at."""
    bones = [(parent, places[j] - places[parent]) for j, parent in enumerate(SMPLX_PARENTS) if j and j not in _FACE]
    bones += [(joint, end) for joint, end in end_offsets().items() if joint not in _FACE] + [(_HEAD, np.array(_CROWN))]
    joints = np.array([joint for joint, _ in bones])
    along = np.array([end for _, end in bones])
    length = np.linalg.norm(along, axis=1, keepdims=True)
    radius = np.clip(_THICKNESS * length, _THINNEST, _THICKEST)
    # any two directions across the bone; the axis that is least along it gives the first
    across = np.cross(along, np.eye(3)[np.abs(along).argmin(axis=1)])
    across *= radius / np.linalg.norm(across, axis=1, keepdims=True)
    third = np.cross(along, across) / length
    corners = places[joints][:, None] + np.einsum("ca,bax->bcx", _CORNERS, np.stack([along, across, third], axis=1))
    triangles = corners[:, _FACES].reshape(-1, 3, 3)  # corners are not shared, so that faces are flat
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    vertices = len(triangles) * 3
    moved_by = np.zeros((vertices, 4), dtype=np.uint8)
    moved_by[:, 0] = np.repeat(joints, vertices // len(bones))
    return {
        "POSITION": buffer.add(triangles.reshape(-1, 3), "VEC3", _ARRAY_BUFFER, bounds=True),
        "NORMAL": buffer.add(np.repeat(normals, 3, axis=0), "VEC3", _ARRAY_BUFFER),
        "JOINTS_0": buffer.add(moved_by, "VEC4", _ARRAY_BUFFER),
        "WEIGHTS_0": buffer.add(np.tile([1.0, 0.0, 0.0, 0.0], (vertices, 1)), "VEC4", _ARRAY_BUFFER),
    }


def _animation(buffer: _Buffer, motion: SmplxMotion) -> dict[str, Any]:
    times = buffer.add(np.arange(motion.num_frames) / motion.fps, "SCALAR", bounds=True)
    rotations = Rotation.from_rotvec(motion.poses.reshape(-1, 3).astype(np.float64)).as_quat()
    rotations = rotations.reshape(motion.num_frames, NUM_JOINTS, 4)
    # q and -q turn alike, but a viewer that mixes them component by component needs neighbours of one sign
    flips = np.where((rotations[1:] * rotations[:-1]).sum(axis=-1) < 0, -1.0, 1.0)
    rotations[1:] *= flips.cumprod(axis=0)[..., None]
    samplers = [{"input": times, "output": buffer.add(motion.to_params()[:, :3], "VEC3")}]
    channels = [{"sampler": 0, "target": {"node": 0, "path": "translation"}}]
    for joint in range(NUM_JOINTS):
        channels.append({"sampler": len(samplers), "target": {"node": joint, "path": "rotation"}})
        samplers.append({"input": times, "output": buffer.add(rotations[:, joint], "VEC4")})
    return {"name": "motion", "samplers": samplers, "channels": channels}
