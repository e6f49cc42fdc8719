"""USD: a motion as a `.usda` file, plain text with the figure's skeleton, skin, face and animation, for USD's tools.

The schemas are UsdSkel's (https://openusd.org/release/api/usd_skel_page_front.html); metres, y up.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ...files.text_files import write_text
from ..body import SMPLX_PARENTS, free_body
from ..face import FACE_UNITS
from ..mesh.body_mesh import body_mesh, face_at
from ..skeleton_names import joint_names
from ..smplx_motion import NUM_JOINTS, SmplxMotion
from .gltf import one_sign, with_suffix

_PRIM = """
    def {kind} "{name}"{apply}
    {{
{lines}
    }}
"""
_BINDS = ' (\n        prepend apiSchemas = ["SkelBindingAPI"]\n    )'


def _numbers(values: np.ndarray) -> str:
    """An array as USD's text has it: of numbers, of tuples, or of matrices."""
    if values.ndim == 1:
        return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"
    if values.ndim == 3:
        return "[" + ", ".join("(" + _numbers(matrix)[1:-1] + ")" for matrix in values) + "]"
    return "[" + ", ".join("(" + ", ".join(f"{value:.6g}" for value in row) + ")" for row in values) + "]"


def _names(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _samples(frames: Iterable[np.ndarray]) -> str:
    return "{\n" + "".join(f"            {i}: {_numbers(values)},\n" for i, values in enumerate(frames)) + "        }"


def _prim(kind: str, name: str, lines: list[str], binds: bool = False, inner: str = "") -> str:
    text = "\n".join(f"        {line}" for line in lines) + inner.replace("\n", "\n    ")
    return _PRIM.format(kind=kind, name=name, apply=_BINDS if binds else "", lines=text)


def _offsets(places: np.ndarray) -> np.ndarray:
    """Matrices (N, 4, 4) of moves (N, 3), for vectors in rows."""
    matrices = np.tile(np.eye(4), (len(places), 1, 1))
    matrices[:, 3, :3] = places
    return matrices


def write_usd(path: str | Path, motion: SmplxMotion, face: np.ndarray | None = None, names: str = "smplx") -> None:
    """Writes a motion of T frames on the free body as `.usda`, whole or not at all; a face (frames, 52) at 30 frames a
    second, in the order of `face.FACE_UNITS`, as blend shapes; with joints' `names` "smplx", "mixamo", "unreal" or
    "vrm". Raises ValueError: another suffix or names, a face of another form."""
    path, mesh, rest = with_suffix(path, ".usda"), body_mesh(), free_body().rest
    joints: list[str] = []
    for joint, name in enumerate(joint_names(names)):
        name = name.replace(":", "_").replace(" ", "_")
        joints.append(name if joint == 0 else f"{joints[SMPLX_PARENTS[joint]]}/{name}")
    steps = rest - np.where(np.arange(NUM_JOINTS)[:, None] > 0, rest[list(SMPLX_PARENTS)], 0)
    moved = np.repeat(steps[None], motion.num_frames, axis=0)
    moved[:, 0] = motion.pelvis
    turns = Rotation.from_rotvec(motion.poses.reshape(-1, 3)).as_quat().reshape(-1, NUM_JOINTS, 4)
    turns = one_sign(turns)[..., [3, 0, 1, 2]]
    animation = [
        f"uniform token[] joints = {_names(joints)}",
        f"float3[] translations.timeSamples = {_samples(moved)}",
        f"quatf[] rotations.timeSamples = {_samples(turns)}",
        f"half3[] scales = {_numbers(np.ones((NUM_JOINTS, 3)))}",
    ]
    light = (mesh.colours / 255.0) ** 2.2
    skin = [
        'uniform token subdivisionScheme = "none"',
        f"int[] faceVertexCounts = {_numbers(np.full(len(mesh.faces), 3))}",
        f"int[] faceVertexIndices = [{', '.join(map(str, mesh.faces.ravel()))}]",
        f"point3f[] points = {_numbers(mesh.rest)}",
        f'color3f[] primvars:displayColor = {_numbers(light)} (interpolation = "vertex")',
        f"int[] primvars:skel:jointIndices = {_numbers(mesh.joints.ravel())} "
        '(elementSize = 4\n            interpolation = "vertex")',
        f"float[] primvars:skel:jointWeights = {_numbers(mesh.weights.ravel() / 255)} "
        '(elementSize = 4\n            interpolation = "vertex")',
        "rel skel:skeleton = </Figure/Skeleton>",
    ]
    shapes = ""
    if face is not None:
        animation += [
            f"uniform token[] blendShapes = {_names(FACE_UNITS)}",
            f"float[] blendShapeWeights.timeSamples = {_samples(face_at(face, motion))}",
        ]
        skin += [
            f"uniform token[] skel:blendShapes = {_names(FACE_UNITS)}",
            f"rel skel:blendShapeTargets = [{', '.join(f'</Figure/Skin/{name}>' for name in FACE_UNITS)}]",
        ]
        for name in FACE_UNITS:
            rows, moves = mesh.units[name]
            told = [f"uniform vector3f[] offsets = {_numbers(moves)}",
                    f"uniform int[] pointIndices = [{', '.join(map(str, rows))}]"]  # fmt: skip
            shapes += _prim("BlendShape", name, told)
    skeleton = [
        f"uniform token[] joints = {_names(joints)}",
        f"uniform matrix4d[] bindTransforms = {_numbers(_offsets(rest))}",
        f"uniform matrix4d[] restTransforms = {_numbers(_offsets(steps))}",
        "rel skel:animationSource = </Figure/Animation>",
    ]
    head = {"metersPerUnit": 1, "timeCodesPerSecond": f"{motion.fps:g}", "framesPerSecond": f"{motion.fps:g}",
            "startTimeCode": 0, "endTimeCode": motion.num_frames - 1}  # fmt: skip
    told = "".join(f"    {key} = {value}\n" for key, value in head.items())
    text = f'#usda 1.0\n(\n    defaultPrim = "Figure"\n    upAxis = "Y"\n{told})\n\ndef SkelRoot "Figure"\n{{'
    text += _prim("Skeleton", "Skeleton", skeleton, True) + _prim("SkelAnimation", "Animation", animation)
    write_text(path, text + _prim("Mesh", "Skin", skin, True, shapes) + "}\n")
