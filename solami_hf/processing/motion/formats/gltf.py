"""glTF 2.0: a motion as a `.glb` file, for viewers and game engines.

The file holds the free body's 55 joints as nodes, its mesh skinned to them with the 52 face units as morph targets,
and one animation: the pelvis' translation and every joint's rotation at every frame, and the weights of a face. Units
are metres, y is up, as glTF has it. https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ...files.atomic_write import atomic_write
from ..body import SMPLX_PARENTS, Body
from ..face import FACE_UNITS
from ..mesh.body_mesh import body_mesh, face_at
from ..skeleton_names import joint_names
from ..smplx_motion import NUM_JOINTS, SmplxMotion

_COMPONENTS = {"f4": 5126, "u1": 5121, "u2": 5123, "u4": 5125}
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
BODY_NODE = NUM_JOINTS
"""Index of the mesh's node: those before it are the joints."""


class GltfDocument:
    """A glTF document and its buffer, to which arrays are added; `write` makes a `.glb` file of both."""

    def __init__(self, document: dict[str, Any] | None = None, data: bytes = b"") -> None:
        self.document = document or {"asset": {"version": "2.0", "generator": "solami_hf"}, "scene": 0}
        self.data = bytearray(data)

    def _view(self, values: np.ndarray, target: int | None) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        self.data += values.tobytes()
        views = self.document.setdefault("bufferViews", [])
        views.append(view if target is None else view | {"target": target})
        return len(views) - 1

    def add(
        self, values: np.ndarray, kind: str, target: int | None = None, bounds: bool = False, normalized: bool = False
    ) -> int:
        """Appends values (N,) or (N, width), unsigned integers as they are, others as float32; gives the accessor."""
        values = np.ascontiguousarray(values if values.dtype.kind == "u" else values.astype("<f4"))
        accessor = {"bufferView": self._view(values, target), "count": len(values), "type": kind}
        accessor["componentType"] = _COMPONENTS[values.dtype.str[1:]]
        return self._describe(accessor | ({"normalized": True} if normalized else {}), values if bounds else None)

    def add_sparse(self, rows: np.ndarray, values: np.ndarray, count: int) -> int:
        """Appends vectors (count, 3), zero but for `rows` (n,), which are `values` (n, 3); gives the accessor."""
        values = np.ascontiguousarray(values, "<f4")
        indices = {"bufferView": self._view(rows.astype("<u2"), None), "componentType": _COMPONENTS["u2"]}
        sparse = {"count": len(rows), "indices": indices, "values": {"bufferView": self._view(values, None)}}
        accessor = {"componentType": _COMPONENTS["f4"], "count": count, "type": "VEC3", "sparse": sparse}
        return self._describe(accessor, np.concatenate([values, np.zeros((1, 3), "<f4")]))

    def _describe(self, accessor: dict[str, Any], bounded: np.ndarray | None) -> int:
        if bounded is not None:
            rows = bounded.reshape(len(bounded), -1)
            accessor |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        accessors = self.document.setdefault("accessors", [])
        accessors.append(accessor)
        return len(accessors) - 1

    def animate(self, times: np.ndarray, channels: dict[tuple[int, str], np.ndarray], name: str = "motion") -> None:
        """Appends an animation: (node, path) -> values at `times` (T,) seconds; glTF's paths."""
        seconds = self.add(np.asarray(times), "SCALAR", bounds=True)
        samplers, targets = [], []
        for (node, path), values in channels.items():
            kind = {"translation": "VEC3", "rotation": "VEC4", "weights": "SCALAR"}[path]
            values = values.reshape(-1) if path == "weights" else values
            targets.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
            samplers.append({"input": seconds, "output": self.add(values, kind)})
        animation = {"name": name, "samplers": samplers, "channels": targets}
        self.document.setdefault("animations", []).append(animation)

    def write(self, path: str | Path) -> None:
        """Writes the binary form, whole or not at all."""
        self.data += b"\0" * (-len(self.data) % 4)
        if self.data:
            self.document["buffers"] = [{"byteLength": len(self.data)}]
        text = json.dumps(self.document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        binary = struct.pack("<I4s", len(self.data), b"BIN\0") + self.data if self.data else b""
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + len(binary)))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text + binary)


def write_gltf(path: str | Path, motion: SmplxMotion, face=None, names: str = "smplx", betas=None) -> None:
    """Writes `motion` on the free body as a binary glTF file, whole or not at all; its own betas are not kept. `face`
    (frames, 52) at 30 frames a second, in the order of `face.FACE_UNITS`, are the morph targets' weights; `names` of
    the joints' nodes are a kind of `skeleton_names.JOINT_NAMES`; `betas` the shape, see `BodyMesh.shaped`. Raises
    ValueError: a suffix other than `.glb`, or a face, names or betas of another form."""
    path = with_suffix(path, ".glb")
    gltf = figure(names, betas)
    animate_figure(gltf, motion, face)
    gltf.write(path)


def with_suffix(path: str | Path, *suffixes: str) -> Path:
    """The path; ValueError where its name ends in none of the suffixes."""
    if Path(path).suffix.lower() not in suffixes:
        raise ValueError(f"`path` is {path}, expected a name that ends in {', '.join(suffixes)}.")
    return Path(path)


def figure(names: str = "smplx", betas=None) -> GltfDocument:
    """The free body in its rest pose, standing on the floor: nodes of joints, then the node of the skinned mesh."""
    gltf, mesh = GltfDocument(), body_mesh()
    vertices, body = mesh.shaped(betas)
    standing = np.array([0.0, -body.sole, 0.0])
    vertices = vertices + standing.astype(np.float32)
    linear = (np.arange(256) / 255.0) ** 2.2  # colours of vertices are linear in glTF
    colours = np.round(255 * np.pad(linear[mesh.colours], ((0, 0), (0, 1)), constant_values=1)).astype(np.uint8)
    weights, joints = mesh.weights, np.where(mesh.weights > 0, mesh.joints, 0).astype(np.uint8)
    attributes = {
        "POSITION": gltf.add(vertices, "VEC3", _ARRAY_BUFFER, bounds=True),
        "NORMAL": gltf.add(mesh.normals(vertices), "VEC3", _ARRAY_BUFFER),
        "COLOR_0": gltf.add(colours, "VEC4", _ARRAY_BUFFER, normalized=True),
        "JOINTS_0": gltf.add(joints, "VEC4", _ARRAY_BUFFER),
        "WEIGHTS_0": gltf.add(weights, "VEC4", _ARRAY_BUFFER, normalized=True),
    }
    indices = gltf.add(mesh.faces.reshape(-1).astype("<u2"), "SCALAR", _ELEMENT_BUFFER)
    targets = [{"POSITION": gltf.add_sparse(*mesh.units[name], len(vertices))} for name in FACE_UNITS]
    primitive = {"attributes": attributes, "indices": indices, "material": 0, "targets": targets}
    material = {"name": "body", "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}}
    bind = np.tile(np.eye(4), (NUM_JOINTS, 1, 1))  # into each joint's own axes, columns first
    bind[:, 3, :3] = -(body.rest + standing)
    skin = {"joints": list(range(NUM_JOINTS)), "skeleton": 0}
    skin["inverseBindMatrices"] = gltf.add(bind.reshape(NUM_JOINTS, 16), "MAT4")
    gltf.document |= {
        "scenes": [{"nodes": [0, BODY_NODE]}],
        "nodes": [*joint_nodes(body, standing, names), {"name": "body", "mesh": 0, "skin": 0}],
        "skins": [skin],
        "meshes": [{"name": "body", "primitives": [primitive], "extras": {"targetNames": list(FACE_UNITS)}}],
        "materials": [material],
    }
    return gltf


def joint_nodes(body: Body, pelvis: np.ndarray, names: str) -> list[dict[str, Any]]:
    """The 55 joints as nodes, none of them turned, the first at `pelvis` (3,)."""
    nodes = []
    for joint, (name, parent) in enumerate(zip(joint_names(names), SMPLX_PARENTS, strict=True)):
        offset = body.rest[joint] - body.rest[parent] if parent >= 0 else pelvis
        children = [child for child, above in enumerate(SMPLX_PARENTS) if above == joint]
        nodes.append({"name": name, "translation": offset.tolist()} | ({"children": children} if children else {}))
    return nodes


def animate_figure(gltf: GltfDocument, motion: SmplxMotion, face=None) -> None:
    """Appends a motion, and the face's, to a document whose first nodes are `joint_nodes`."""
    channels = joint_channels(motion)
    if face is not None:
        channels[BODY_NODE, "weights"] = face_at(face, motion)
    gltf.animate(np.arange(motion.num_frames) / motion.fps, channels)


def joint_channels(motion: SmplxMotion) -> dict[tuple[int, str], np.ndarray]:
    """The pelvis' translation (T, 3), and each joint's rotations (T, 4), x, y, z, w."""
    rotations = Rotation.from_rotvec(motion.poses.reshape(-1, 3).astype(np.float64)).as_quat()
    rotations = one_sign(rotations.reshape(motion.num_frames, NUM_JOINTS, 4))
    channels = {(0, "translation"): motion.pelvis}
    return channels | {(joint, "rotation"): rotations[:, joint] for joint in range(NUM_JOINTS)}


def one_sign(rotations: np.ndarray) -> np.ndarray:
    """Quaternions (T, ..., 4) in which neighbours have one sign: viewers mix them component by component."""
    flips = np.where((rotations[1:] * rotations[:-1]).sum(axis=-1) < 0, -1.0, 1.0)
    return np.concatenate([rotations[:1], rotations[1:] * flips.cumprod(axis=0)[..., None]])
