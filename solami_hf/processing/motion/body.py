"""SMPL-X's 55 joints: names, parents, rest skeletons and forward kinematics.

A rest skeleton stands in a T-pose: metres, y up, facing +z, left is +x, the pelvis at the origin. The package carries
a small free body (`modeling/motion_vq/free_body.py`, its card is beside it); `load_body` takes that of an SMPL-X
model file.
"""

import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ...modeling.motion_vq.free_body import REST, SOLE
from ...modeling.motion_vq.kinematics import SMPLX_PARENTS, axis_angle_to_matrix, place_on_tree
from .smplx_motion import NUM_JOINTS, NUM_PARAMS, PARAM_JOINTS, SmplxMotion

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
SMPLX_JOINT_NAMES: tuple[str, ...] = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("jaw", "left_eye_smplhf", "right_eye_smplhf"),
    *(f"{s}_{f}{i}" for s in ("left", "right") for f in _FINGERS for i in (1, 2, 3)),
)
"""The 55 joints in SMPL-X order."""

JOINTS_OF_PARAMS = {NUM_PARAMS: PARAM_JOINTS, 3 + 3 * NUM_JOINTS: tuple(range(NUM_JOINTS))}
"""Width of parameters -> joints whose rotations follow the translation: 159 without jaw and eyes, 168 with them."""

_MODEL_ARRAYS = ("v_template", "shapedirs", "J_regressor", "kintree_table")
_MAX_ARRAY_BYTES = 1 << 28  # the largest of a real file, 10475 vertices by 400 shapes, takes 100 MB
_SHAPES, _SHAPES_OF_SMALL_FILES = 300, 10


@dataclass(frozen=True, eq=False)
class Body:
    """The rest skeleton of one person: `rest` (55, 3) float64, rest positions in metres relative to the pelvis, in
    SMPL-X joint order; `pelvis` (3,) float64, where the pelvis rests in the model's own frame (SMPL-family files count
    `transl` from that frame's origin, so this is their motion's `pelvis_offset`); `sole`, height of the soles relative
    to the pelvis in metres, below zero."""

    rest: np.ndarray
    pelvis: np.ndarray
    sole: float


@lru_cache(maxsize=1)
def free_body() -> Body:
    """The free body that the package carries; its own frame has the pelvis at the origin."""
    return Body(np.array(REST, dtype=np.float64), np.zeros(3), SOLE)


def load_body(model_file: str | Path, gender: str = "neutral", betas: np.ndarray | None = None) -> Body:
    """The rest skeleton of an SMPL-X model file, by the `smplx` package.

    The package itself would unpickle whatever the file holds. Here only the four arrays that rest joints depend on are
    read, never as pickles, and only the package's functions are used. `model_file` is `SMPLX_<GENDER>.npz`, or the
    folder that holds it (or whose folder `smplx` does), of which `gender` ("neutral", "female" or "male") says the
    file; `betas` (N,) or (1, N) are shape coefficients, missing ones zero; `None` is the mean body. Raises
    FileNotFoundError: there is no such file or folder; ImportError: `smplx` is not installed; ValueError: a pickle, a
    file that is no SMPL-X model, or more coefficients than the model has.
    """
    try:  # as remote code this module must load without the package
        from smplx.lbs import blend_shapes, vertices2joints
    except ImportError as error:
        raise ImportError(f"{model_file} is read by the smplx package; pip install smplx==0.1.28") from error

    path = _model_path(Path(model_file), gender)
    try:
        template, shapes, regressor = _read_model(path)
        shapes = shapes[..., : _SHAPES if shapes.shape[-1] >= _SHAPES else _SHAPES_OF_SMALL_FILES]
        coefficients = _pad_betas(betas, shapes.shape[-1])
    except ValueError as error:
        raise ValueError(f"{path} gives no SMPL-X body: {error}") from error
    vertices = template + blend_shapes(coefficients, shapes)
    joints = vertices2joints(regressor, vertices)[0].numpy()
    sole = float(vertices[0, :, 1].min()) - joints[0, 1]
    return Body(joints - joints[0], joints[0].copy(), sole)


def _model_path(path: Path, gender: str) -> Path:
    if gender not in ("neutral", "female", "male"):
        raise ValueError(f'`gender` is {gender!r}, expected "neutral", "female" or "male".')
    if path.is_dir():
        name = f"SMPLX_{gender.upper()}.npz"
        found = next((folder / name for folder in (path, path / "smplx") if (folder / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{path} holds no {name}, which the download of SMPL-X has beside the .pkl file.")
        return found
    if not path.is_file():
        raise FileNotFoundError(f"There is no SMPL-X model file at {path}.")
    if path.suffix.lower() != ".npz":
        raise ValueError(
            f"{path} is no .npz file. A pickle can run code, so it is not opened: take the .npz file that SMPL-X's "
            f"download has beside it, or, where you trust it, save its {', '.join(_MODEL_ARRAYS)} with np.savez."
        )
    return path


def _read_model(path: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Template (V, 3), shape directions (V, 3, N) and joint regressor (55, V) as float64, checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        missing = [name for name in _MODEL_ARRAYS if name not in sizes]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}.")
        large = [name for name in _MODEL_ARRAYS if sizes[name] > _MAX_ARRAY_BYTES]
        if large:
            raise ValueError(f"{', '.join(large)} takes more than {_MAX_ARRAY_BYTES} bytes.")
        with np.load(path, allow_pickle=False) as file:  # reads an array when it is asked for, so no other
            template, shapes, regressor, tree = (file[name] for name in _MODEL_ARRAYS)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, MemoryError) as error:
        raise ValueError(f"it is no complete npz archive ({error}).") from error
    vertices = template.shape[:1]
    expected = {
        "v_template": (template, (*vertices, 3)),
        "shapedirs": (shapes, (*vertices, 3, *shapes.shape[-1:])),
        "J_regressor": (regressor, (NUM_JOINTS, *vertices)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape or array.size == 0 or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"`{name}` is {array.dtype} of shape {array.shape}, expected finite floats {shape}.")
    if tree.shape != (2, NUM_JOINTS) or tuple(tree[0, 1:].astype(np.int64)) != SMPLX_PARENTS[1:]:
        raise ValueError("`kintree_table` is not the tree of SMPL-X's 55 joints.")
    return tuple(torch.from_numpy(array.astype(np.float64)) for array in (template, shapes, regressor))


def _pad_betas(betas: np.ndarray | None, count: int) -> torch.Tensor:
    """Shape coefficients (1, count) in float64."""
    values = np.zeros(0) if betas is None else np.asarray(betas, dtype=np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise ValueError("`betas` holds NaN or infinite values.")
    if values[count:].any():
        raise ValueError(f"`betas` has {len(values)} coefficients, but the model has {count}; cut them to these.")
    padded = torch.zeros(1, count, dtype=torch.float64)
    padded[0, : len(values)] = torch.from_numpy(values[:count])
    return padded


def rest_joints() -> np.ndarray:
    """(55, 3) float64 rest positions of the free body in metres. A fresh array at each call."""
    return free_body().rest.copy()


def standing_height() -> float:
    """Height of the pelvis above the floor, in metres, when the free body stands in its rest pose on its soles."""
    return -free_body().sole


def standing_joints() -> np.ndarray:
    """(55, 3) float64 joints of the free body in its rest pose with its soles on the floor, in metres."""
    return rest_joints() + [0.0, standing_height(), 0.0]


def _pelvis_and_poses(motion: "SmplxMotion | np.ndarray | torch.Tensor") -> tuple[torch.Tensor, torch.Tensor]:
    """Splits a motion or its parameters into pelvis positions (..., 3) and rotations (..., 55, 3)."""
    if isinstance(motion, SmplxMotion):
        return torch.from_numpy(motion.pelvis), torch.from_numpy(motion.poses)
    params = torch.as_tensor(motion)
    if params.ndim < 1 or params.shape[-1] not in JOINTS_OF_PARAMS:
        raise ValueError(
            f"`motion` has shape {tuple(params.shape)}, expected an SmplxMotion or parameters (..., 159): pelvis, "
            "root, 21 body, 15 left-hand and 15 right-hand rotations (see SmplxMotion.to_params), or (..., 168) with "
            "jaw and eyes before the hands."
        )
    if not params.is_floating_point():
        params = params.float()
    joints = JOINTS_OF_PARAMS[params.shape[-1]]
    poses = params.new_zeros(*params.shape[:-1], NUM_JOINTS, 3)
    poses[..., list(joints), :] = params[..., 3:].unflatten(-1, (len(joints), 3))
    return params[..., :3], poses


def joint_positions(
    motion: "SmplxMotion | np.ndarray | torch.Tensor", body: Body | None = None
) -> "np.ndarray | torch.Tensor":
    """Joint positions of a body in metres, by forward kinematics: (T, 55, 3) in SMPL-X joint order of a motion, (...,
    55, 3) of its parameters (..., 159), an array or tensor (any leading shape, so padded batches work; tensors give a
    tensor, and keep device, precision and gradient).

    The bones are those of `body`, by default the free body; equal to the `smplx` package's joints for `load_body`'s
    body and a motion whose `pelvis_offset` is `body.pelvis`. The pelvis is at `transl + pelvis_offset`, or where
    parameters say; jaw and eyes follow the head where the parameters do not hold them. Raises ValueError: parameters
    whose last dimension is neither 159 nor 168.
    """
    pelvis, poses = _pelvis_and_poses(motion)
    result = place_joints(pelvis, axis_angle_to_matrix(poses), body)
    return result if isinstance(motion, torch.Tensor) else result.numpy()


def place_joints(pelvis: torch.Tensor, local: torch.Tensor, body: Body | None = None) -> torch.Tensor:
    """Joint positions (..., 55, 3) in metres of the pelvis' (..., 3) and rotations (..., 55, 3, 3) to the parents."""
    rest = torch.as_tensor((body or free_body()).rest, dtype=local.dtype, device=local.device)
    return place_on_tree(pelvis, local, rest)
