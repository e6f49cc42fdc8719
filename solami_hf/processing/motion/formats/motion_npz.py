"""SMPL-family motion in `.npz` files, and the loading of arrays from files that are not trusted.

| layout | arrays | up |
|---|---|---|
| AMASS | `poses` of 22 (body), 52 (SMPL-H) or 55 (SMPL-X) joints, (T, 3 J) or (T, J, 3), or split as below | z |
| AMASS, SMPL-X, split | `root_orient`, `pose_body`, and if present `pose_hand`, `pose_jaw`, `pose_eye` | z |
| Inter-X, `P1.npz` | `root_orient`, `pose_body`, `pose_lhand`, `pose_rhand`; without a rate: recorded at 120 fps | y |
| BEAT2 | `poses` of 55 joints, `expressions` (not read) | y |
| ours | `poses` of 55 joints, `up_axis`, `pelvis_offset` | y |

All have `trans` (T, 3), a rate (`mocap_frame_rate` or `mocap_framerate`) but for Inter-X, and may have `gender` and
`betas` (N,), (1, N) or (T, N), of which the first row is kept. BEAT2's fingers are told from the mean hand of the
SMPL-X model, which is not free, and are read as if told from the flat hand.

Nothing is unpickled. The header of an array is compared with its place in the archive before the array is unpacked.
"""

import math
import os
import struct
import zipfile
import zlib
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from ....modeling.motion_vq.kinematics import axis_angle_to_quaternion, quaternion_multiply, quaternion_to_axis_angle
from ...files.atomic_write import atomic_write
from ..smplx_motion import NUM_JOINTS, SmplxMotion, check_frames, resample_motion

MAX_ARRAY_BYTES = 1 << 30
"""Of all arrays of a file together."""

SMPLX_PELVIS = (0.003, -0.351, 0.012)
SMPL_PELVIS = (-0.002, -0.241, 0.029)
"""Rest positions in metres of the mean bodies' pelvis, which the model adds to `trans`: SMPL-X's 55 joints, and those
of SMPL and SMPL-H (22, 52). Another shape or gender has another; `pelvis_offset` tells it where it is known."""

INTER_X_FPS = 120.0

_MAX_MEMBERS, _MAX_DIRECTORY_BYTES = 1000, 1 << 20
_HEAD_BYTES = 16384  # numpy itself refuses headers of more than 10000
_BOMB_BYTES, _BOMB_RATIO = 64 << 20, 100  # motion of so many bytes does not pack that well
_DEFLATE_RATIO = 1100  # more is impossible, so the sizes in the archive lie

_FRAME_RATE_KEYS = ("mocap_frame_rate", "mocap_framerate")
# joint count of `poses` -> where its joints stand among SMPL-X's 55 (SMPL-H has no jaw and no eyes)
_JOINT_LAYOUTS = {22: [*range(22)], 52: [*range(22), *range(25, 55)], 55: [*range(55)]}
# arrays that hold some joints only -> where these stand; the first two are needed
SPLIT_LAYOUT = {
    "root_orient": [0],
    "pose_body": [*range(1, 22)],
    "pose_jaw": [22],
    "pose_eye": [23, 24],
    "pose_hand": [*range(25, 55)],
    "pose_lhand": [*range(25, 40)],
    "pose_rhand": [*range(40, 55)],
}
_NEEDED_PARTS = ("root_orient", "pose_body")
# arrays with one row a frame -> how many values a row may have
_ROW_SIZES = {
    "trans": [3],
    "poses": [3 * joints for joints in _JOINT_LAYOUTS],
    **{name: [3 * len(joints)] for name, joints in SPLIT_LAYOUT.items()},
}
_WORDS = ("gender", "up_axis")
_NUMBERS = ("betas", "pelvis_offset", *_FRAME_RATE_KEYS)

_HALF = 0.5**0.5
_Z_UP_TO_Y_UP = torch.tensor([_HALF, -_HALF, 0.0, 0.0], dtype=torch.float64)


def read_npz(
    path: str | Path, up_axis: str | None = None, pelvis_offset: np.ndarray | tuple[float, float, float] | None = None
) -> SmplxMotion:
    """The motion of an `.npz` file, of one of the layouts in the module's description, recognised from its arrays, at
    the file's rate, turned to y-up. `up_axis` is "y" or "z", where the layout's axis is not that of the file;
    `pelvis_offset` (3,) metres in the file's axes, what the body model adds to `trans`. Without it the file's own is
    taken, else that of the mean body of SMPL-X, or of SMPL-H where the file has its joints. Raises ValueError: the
    file is broken, not trusted, or of another layout."""
    arrays = load_arrays(Path(path))
    if "trans" not in arrays:
        raise ValueError("it lacks trans; expected AMASS-style trans, poses and mocap_frame_rate.")
    if up_axis is None:
        up_axis = _word(arrays, "up_axis") or ("y" if _is_inter_x(arrays) or "expressions" in arrays else "z")
    if up_axis not in ("y", "z"):
        raise ValueError(f'`up_axis` is {up_axis!r}, expected "y" or "z".')
    if pelvis_offset is None:
        smpl = "poses" in arrays and arrays["poses"][0].size < 3 * NUM_JOINTS
        pelvis_offset = arrays.get("pelvis_offset", SMPL_PELVIS if smpl else SMPLX_PELVIS)
    motion = SmplxMotion(
        transl=arrays["trans"],
        poses=join_poses(arrays),
        betas=_first_betas(arrays),
        gender=(_word(arrays, "gender") or "neutral").lower(),
        fps=_frame_rate(arrays),
        pelvis_offset=pelvis_offset,
    )
    return _z_up_to_y_up(motion) if up_axis == "z" else motion


@contextmanager
def named_file(path: Path):
    """Within the block a motion file is read: errors name it. FileNotFoundError, ValueError where it is none."""
    if not path.exists():
        raise FileNotFoundError(f"There is no motion file at {path}.")
    if not path.is_file():
        raise ValueError(f"{path} is a folder or a device, expected a motion file.")
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} holds no usable motion: {error}") from error
    except (RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path} holds no usable motion: {type(error).__name__} while reading it.") from error


def read_smplx(motion: SmplxMotion | str | os.PathLike, fps: float) -> SmplxMotion:
    """A motion, or that of an SMPL-X `.npz` file, at a rate of `fps`; errors as those of `motion_io.read_motion`."""
    if isinstance(motion, SmplxMotion):
        return resample_motion(motion, fps)
    if not isinstance(motion, (str, os.PathLike)):
        raise ValueError(f"a motion must be a SmplxMotion or a path, got {type(motion).__name__}")
    path = Path(motion)
    if path.suffix.lower() != ".npz" and path.exists():
        raise ValueError(
            f"{path} is no SMPL-X .npz file, which is what a processor reads; read it with "
            "`solami_hf.processing.motion.read_motion` and give the motion"
        )
    with named_file(path):
        return resample_motion(read_npz(path), fps)


def write_npz(path: str | Path, motion: SmplxMotion, face: np.ndarray | None = None) -> None:
    """Writes `motion` AMASS-style, with `up_axis="y"` and `pelvis_offset`, and a face's curves (frames, 52) as `face`,
    whole or not at all."""
    arrays = {
        "trans": motion.transl,
        "poses": motion.poses.reshape(motion.num_frames, -1),
        "gender": np.array(motion.gender),
        "mocap_frame_rate": np.array(motion.fps),
        "up_axis": np.array("y"),
        "pelvis_offset": motion.pelvis_offset,
    }
    if motion.betas is not None:
        arrays["betas"] = motion.betas
    if face is not None:
        arrays["face"] = face
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_npy(path: str | Path) -> np.ndarray:
    """The array of an `.npy` file, its header checked first; ValueError where it is cut off, pickled or too large."""
    path = Path(path)
    with open(path, "rb") as file:
        _read_header(file, "the array", path.stat().st_size)
        file.seek(0)
        return np.lib.format.read_array(file)


def _is_inter_x(arrays: dict[str, np.ndarray]) -> bool:
    return "pose_lhand" in arrays and "pose_rhand" in arrays


def _frame_rate(arrays: dict[str, np.ndarray]) -> float:
    key = next((key for key in _FRAME_RATE_KEYS if key in arrays), None)
    if key is not None:
        return float(_one(arrays, key, "number"))
    if _is_inter_x(arrays):
        return INTER_X_FPS
    raise ValueError("it lacks mocap_frame_rate; expected AMASS-style trans, poses and mocap_frame_rate.")


def _word(arrays: dict[str, np.ndarray], key: str) -> str | None:
    if key not in arrays:
        return None
    value = _one(arrays, key, "word")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _one(arrays: dict[str, np.ndarray], key: str, what: str):
    if arrays[key].size != 1:
        raise ValueError(f"`{key}` has shape {arrays[key].shape}, expected one {what}.")
    return arrays[key].reshape(-1)[0]


def _first_betas(arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    betas = arrays.get("betas")
    if betas is None or betas.size == 0:
        return None
    return np.atleast_2d(betas)[0]


def join_poses(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(T, 55, 3) of whichever arrays tell rotations; joints that no array has stay at rest."""
    if "poses" in arrays:
        poses = arrays["poses"]
        parts = {"poses": _JOINT_LAYOUTS[poses[0].size // 3]}
    else:
        missing = [name for name in _NEEDED_PARTS if name not in arrays]
        if missing:
            raise ValueError(f"it lacks poses, or else {' and '.join(missing)}; expected AMASS-style arrays.")
        parts = {name: joints for name, joints in SPLIT_LAYOUT.items() if name in arrays}
    frames = len(arrays["trans"])
    full = np.zeros((frames, NUM_JOINTS, 3), dtype=np.float32)
    for name, joints in parts.items():
        if len(arrays[name]) != frames:
            raise ValueError(f"`{name}` has {len(arrays[name])} frames, but `trans` has {frames}.")
        with np.errstate(over="ignore"):
            full[:, joints] = arrays[name].reshape(frames, -1, 3)
    return full


def _z_up_to_y_up(motion: SmplxMotion) -> SmplxMotion:
    poses = motion.poses.copy()
    root = axis_angle_to_quaternion(torch.from_numpy(poses[:, 0]).double())
    poses[:, 0] = quaternion_to_axis_angle(quaternion_multiply(_Z_UP_TO_Y_UP, root)).numpy()
    transl, offset = (v[..., (0, 2, 1)] * np.float32([1, 1, -1]) for v in (motion.transl, motion.pelvis_offset))
    return SmplxMotion(transl, poses, motion.betas, motion.gender, motion.fps, offset)


class _Header(NamedTuple):
    """Contents of an `.npy` header."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def load_arrays(path: Path, names: dict[str, str] | None = None) -> dict[str, np.ndarray]:
    """An `.npz`'s arrays of a motion (of `names`, member -> ours); `expressions` is only said to be there (empty)."""
    wanted = names or {f"{name}.npy": name for name in (*_ROW_SIZES, *_WORDS, *_NUMBERS)}
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            entries = {wanted[e.filename]: e for e in archive.infolist() if e.filename in wanted}
            headers = {name: _member_header(archive, entry, name) for name, entry in entries.items()}
            total = sum(header.data_bytes for header in headers.values())
            if total > MAX_ARRAY_BYTES:
                raise ValueError(f"its arrays take {total} bytes, expected at most {MAX_ARRAY_BYTES}.")
            arrays = {}
            for name, entry in entries.items():
                with archive.open(entry) as member:
                    arrays[name] = np.lib.format.read_array(member)
                    member.read(1)  # at the end zipfile compares the checksum
            if names is None and "expressions.npy" in archive.namelist():
                arrays["expressions"] = np.empty(0)
            return arrays
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError) as error:
        # RuntimeError: encrypted, or packed in an unknown way
        raise ValueError(f"it is no complete npz archive ({error}).") from error


def _check_directory(path: Path) -> None:
    """Refuses archives whose list of members alone would take long to read."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 16) - 42))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile("its end is missing" if size else "it is empty")
    members = int.from_bytes(tail[end + 10 : end + 12], "little")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):  # zip64, for what does not fit into these numbers
        raise ValueError("it is an archive of more than 4 GiB or 65535 members, expected the arrays of one motion.")
    if members > _MAX_MEMBERS or length > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"it has {members} members, expected at most {_MAX_MEMBERS} and the arrays of one motion.")


def _member_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> _Header:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"`{name}` is packed by method {entry.compress_type}, expected what numpy.savez writes.")
    ratio = entry.file_size / max(entry.compress_size, 1)
    if ratio > _DEFLATE_RATIO or (ratio > _BOMB_RATIO and entry.file_size > _BOMB_BYTES):
        raise ValueError(
            f"`{name}` is said to unpack from {entry.compress_size} to {entry.file_size} bytes, which no motion does."
        )
    with archive.open(entry) as member:
        header = _read_header(member, name, entry.file_size)
    _check_layout(name, header)
    return header


def _read_header(stream: BinaryIO, name: str, size: int) -> _Header:
    """The checked header of an `.npy` stream of `size` bytes; reads 16 KiB at most."""
    head = BytesIO(stream.read(_HEAD_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} is for names of fields")
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, _, dtype = read(head)
    except Exception as error:  # numpy evaluates a literal here, which fails in many ways: SyntaxError, TokenError
        raise ValueError(f"`{name}` has no readable npy header ({error}).") from error
    if dtype.hasobject:
        raise ValueError(f"`{name}` holds pickled objects, which could run code; save it as plain numbers.")
    if dtype.kind not in "bfiuSU" or dtype.shape:
        raise ValueError(f"`{name}` is of type {dtype}, expected numbers.")
    header = _Header(tuple(shape), dtype)
    if any(side < 0 for side in header.shape) or header.data_bytes > MAX_ARRAY_BYTES:
        raise ValueError(
            f"`{name}` has shape {header.shape} of {dtype}: {header.data_bytes} bytes, at most {MAX_ARRAY_BYTES}."
        )
    if header.data_bytes != size - head.tell():
        raise ValueError(
            f"`{name}` has shape {header.shape} of {dtype}, which takes {header.data_bytes} bytes, but "
            f"{size - head.tell()} are there: the file is truncated or forged."
        )
    return header


def _check_layout(name: str, header: _Header) -> None:
    """Refuses types, widths and lengths that no layout has."""
    shape, word = header.shape, name in _WORDS
    if word != (header.dtype.kind in "SU"):
        raise ValueError(f"`{name}` is of type {header.dtype}, expected {'one word' if word else 'numbers'}.")
    if name not in _ROW_SIZES:
        if len(shape) > 2:
            raise ValueError(f"`{name}` has shape {shape}, expected at most two dimensions.")
        return
    sizes = _ROW_SIZES[name]
    flat = len(shape) == 2 and shape[1] in sizes
    if not flat and not (len(shape) == 3 and shape[2] == 3 and 3 * shape[1] in sizes):
        widths = " or ".join(map(str, sizes))
        raise ValueError(f"`{name}` has shape {shape}, expected (T, {widths}), flat or as (T, joints, 3).")
    check_frames(shape[0])
