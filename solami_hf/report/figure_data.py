"""Packs the free body's skeleton and mesh for the pages' scripts `skeleton.js` and `mesh_figure.js`."""

import base64

import numpy as np

from ..modeling.motion_vq.kinematics import SMPLX_PARENTS
from ..processing.motion.body import free_body
from ..processing.motion.face import FACE_UNITS
from ..processing.motion.mesh.body_mesh import body_mesh
from ..processing.motion.skeleton_names import joint_names
from ..processing.motion.smplx_motion import NUM_PARAMS

_STEPS = (5e-5, 5e-6)  # metres: of vertices, of what a face unit moves them by
_RADIANS = 1e-4


def figure_data() -> dict:
    """Parents, rest positions and the height of a foot above its sole in metres, the mesh as base64 of arrays."""
    body, mesh = free_body(), body_mesh()
    units = [mesh.units[name] for name in FACE_UNITS]
    arrays = {
        "steps": _STEPS,
        "rest": _text(mesh.rest / _STEPS[0], "<i2"),
        "normals": _text(127 * mesh.normals(mesh.rest), "i1"),
        "faces": _text(mesh.faces, "<u2"),
        **{name: _text(getattr(mesh, name), "u1") for name in ("joints", "weights", "colours")},
        "names": FACE_UNITS,
        "ends": np.cumsum([len(rows) for rows, _ in units]).tolist(),
        "rows": _text(np.concatenate([rows for rows, _ in units]), "<u2"),
        "moves": _text(np.concatenate([moves for _, moves in units]) / _STEPS[1], "<i2"),
    }
    rest, sole = body.rest.round(6).reshape(-1).tolist(), round(float(body.rest[10, 1] - body.sole), 4)
    return {"parents": list(SMPLX_PARENTS), "rest": rest, "sole": sole, "bones": joint_names("vrm"), "mesh": arrays}


def encode_params(params: np.ndarray) -> str:
    """Motion (T, 159) -> base64 of little-endian int16: the pelvis in millimetres, rotations in 0.1 milliradians."""
    values = np.array(params, dtype=np.float64)
    rotations = values[:, 3:].reshape(len(values), -1, 3)
    angle = np.linalg.norm(rotations, axis=-1, keepdims=True)
    whole = 2 * np.pi * np.round(angle / (2 * np.pi))
    rotations *= 1 - whole / np.maximum(angle, 1e-12)  # at most half a turn, the same rotation
    return _text(np.concatenate([values[:, :3] * 1000, rotations.reshape(len(values), -1) / _RADIANS], axis=1), "<i2")


def decode_params(text: str) -> np.ndarray:
    """The inverse of `encode_params`, float64 (T, 159)."""
    values = np.frombuffer(base64.b64decode(text), dtype="<i2").reshape(-1, NUM_PARAMS).astype(np.float64)
    return values * ([1e-3] * 3 + [_RADIANS] * (NUM_PARAMS - 3))


def encode_face(face: np.ndarray) -> str:
    """Curves (frames, 52) from 0 to 1 -> base64 of bytes from 0 to 255."""
    return _text(255 * np.asarray(face, dtype=np.float64), "u1")


def _text(values: np.ndarray, kind: str) -> str:
    whole = np.rint(values) if np.issubdtype(np.asarray(values).dtype, np.floating) else values
    return base64.b64encode(np.ascontiguousarray(whole).astype(kind).tobytes()).decode("ascii")
