"""Motion files of any known format, by their suffix; nothing here ever unpickles.

| suffix | read by | format |
|---|---|---|
| `.npz` | `motion_npz` | SMPL-family arrays: AMASS, Inter-X, BEAT2 and the files written here |
| `.npz` | `seamless` | Seamless Interaction's `smplh:*` arrays |
| `.npy` | `humanml3d` | HumanML3D's `new_joint_vecs` (T, 263) |
| `.npy` | `susu` | SuSuInterActs' dictionary of 63 joints' rotations |
| `.npy` | `interhuman` | InterHuman's `motions_processed` (T, 492) |
| `.npy` | `embody3d` | Embody 3D's `smplx_mesh_*/*.npy`, any of a person's arrays for all of them |
| `.txt` | `deepmimic` | DeepMimic's JSON |
| `.bvh` | `bvh` | motion capture of any skeleton whose joints have known names |

Written are `.npz`, `.bvh`, `.glb` and `.usda` (skin, face and animation), `.vrm` (an avatar), `.vrma` (an animation
for any VRM avatar), and a face's curves as `.csv` and `.json`.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..media_files import READ_SUFFIXES, kind_of, way_out
from ..rendering import check_messages, raw_medium
from .formats.deepmimic import read_deepmimic
from .formats.embody3d import FEATURE, read_embody3d
from .formats.humanml3d import read_humanml3d
from .formats.interhuman import WIDTH as INTERHUMAN_WIDTH
from .formats.interhuman import read_interhuman
from .formats.motion_npz import named_file, read_npy, read_npz, write_npz
from .formats.pickled_arrays import is_pickled
from .formats.seamless import read_seamless_npz
from .smplx_motion import SmplxMotion, check_fps, resample_motion

WRITTEN_SUFFIXES = (".npz", ".bvh", ".glb", ".usda", ".vrm", ".vrma")
FACE_ALONE = (".csv", ".json")
"""Suffixes of files that hold a face's curves and nothing else."""


def read_motion(
    path: str | Path | SmplxMotion,
    fps: float | None = 30.0,
    up_axis: str | None = None,
    pelvis_offset: np.ndarray | tuple[float, float, float] | None = None,
) -> SmplxMotion:
    """One motion as y-up SMPL-X motion at a known rate: read from a `.npz`, `.npy`, `.txt` or `.bvh` file, see the
    module's description, or given and resampled only.

    It is resampled to `fps` (slerp on rotations), `None` keeps its own rate. `up_axis` is "y" or "z", for an `.npz` or
    `.bvh` file whose axis is known to be another than it seems; `pelvis_offset` (3,) metres in the axes of the file,
    what the body model that the file was made with adds to the translation (`smplx_body.load_body(...).pelvis`);
    `None` takes what the file or its layout says. Raises FileNotFoundError: there is no such file; ValueError, whose
    message names the file: unknown suffix or layout; truncated, pickled or oversized content; missing arrays, a wrong
    number of joints, NaN, 0 frames, or more than `MAX_FRAMES`.
    """
    if isinstance(path, SmplxMotion):
        if up_axis is not None or pelvis_offset is not None:
            raise ValueError("`up_axis` and `pelvis_offset` are for files; a SmplxMotion says its own.")
        return path if fps is None else resample_motion(path, fps)
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"a motion must be a SmplxMotion or a path, got {type(path).__name__}")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no motion file at {path}.")
    if path.is_file() and path.suffix.lower() not in READ_SUFFIXES:
        told = way_out(path) if kind_of(path) == "motion" else f"expected a suffix of {', '.join(READ_SUFFIXES)}"
        raise ValueError(f"{path} is no motion file that can be read, {told}")
    if up_axis not in (None, "y", "z"):
        raise ValueError(f'`up_axis` is {up_axis!r}, expected "y", "z" or None (as the file says).')
    fps = None if fps is None else check_fps(fps)
    with named_file(path):
        motion = _read(path, fps, up_axis, pelvis_offset)
        return motion if fps is None else resample_motion(motion, fps)


def read_motions(messages: list[dict], processor) -> list[dict]:
    """Messages as in `SolamiProcessor.apply_chat_template` whose motion files, of any known format, are read at the
    rate of the processor's motion codec: a processor takes motions and SMPL-X `.npz` alone. Raises FileNotFoundError,
    ValueError: as `read_motion`, or what is no message."""
    check_messages(messages)

    def read(block):
        medium = raw_medium(block) if block["type"] == "motion" else None
        if not isinstance(medium, (str, os.PathLike)):
            return block
        return {"type": "motion", "motion": read_motion(medium, processor.motion_codec.config.fps)}

    return [m if isinstance(m["content"], str) else {**m, "content": list(map(read, m["content"]))} for m in messages]


def _read(path: Path, fps: float | None, up_axis: str | None, pelvis_offset: np.ndarray | None) -> SmplxMotion:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_seamless_npz(path) or read_npz(path, up_axis, pelvis_offset)
    if suffix == ".bvh":
        from .formats.bvh import read_bvh

        motion = read_bvh(path, up_axis)
    elif up_axis == "z":
        raise ValueError("`up_axis` is 'z', but files of this format are always y-up; leave it out.")
    else:
        motion = _read_npy(path) if suffix == ".npy" else read_deepmimic(path, fps)
    return motion if pelvis_offset is None else replace(motion, pelvis_offset=pelvis_offset)


def _read_npy(path: Path) -> SmplxMotion:
    from .formats.susu import read_susu

    if path.parent.name.startswith(FEATURE):
        return read_embody3d(path)
    if is_pickled(path):
        return read_susu(path)
    vectors = read_npy(path)
    if vectors.ndim == 2 and vectors.shape[1] == INTERHUMAN_WIDTH and vectors.dtype.kind in "fiu":
        return read_interhuman(vectors)
    return read_humanml3d(path)


def write_motion(
    path: str | Path,
    motion: SmplxMotion,
    face: np.ndarray | None = None,
    names: str = "smplx",
    avatar: str | Path | None = None,
) -> None:
    """Writes a motion of T frames in the format of the suffix, whole or not at all.

    `path` ends in `.npz` (AMASS-style, y-up), `.bvh`, `.glb`, `.usda`, `.vrm` or `.vrma`; with a face also `.csv` (as
    Live Link Face writes it) or `.json`, which hold the face alone: (frames, 52) at 30 frames a second, in the order
    of `face.FACE_UNITS`; `.bvh` leaves it out. `names` of the joints in `.bvh`, `.glb` and `.usda` are "smplx",
    "mixamo", "unreal" or "vrm". `avatar` is a `.vrm` or `.glb` file of a person: a `.glb` or `.vrm` is then this
    avatar with the motion, see `avatar.write_on_avatar`; the face of a `.vrma` is told by expressions that it has.
    Raises FileNotFoundError: there is no such avatar; ValueError: another suffix; a face, names or an avatar that are
    of another form, or that the format has no place for.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITTEN_SUFFIXES and (face is None or suffix not in FACE_ALONE):
        raise ValueError(f"`path` is {path}, expected a name that ends in {', '.join(WRITTEN_SUFFIXES)}.")
    if avatar is not None and suffix not in (".glb", ".vrm", ".vrma"):
        raise ValueError(f"`path` is {path}, expected .glb, .vrm or .vrma where an avatar is given.")
    if names != "smplx" and (suffix not in (".bvh", ".glb", ".usda") or avatar is not None):
        raise ValueError(f"`names` is {names!r}, for .bvh, .glb and .usda files without an avatar; got {path}.")
    if suffix == ".npz":
        return write_npz(path, motion, face)
    from .avatar import has_units, read_avatar, write_on_avatar
    from .formats.bvh import write_bvh
    from .formats.face_curves import write_curves
    from .formats.gltf import write_gltf
    from .formats.usd import write_usd
    from .formats.vrm import write_vrm, write_vrma

    if suffix == ".bvh":
        write_bvh(path, motion, names)
    elif suffix == ".usda":
        write_usd(path, motion, face, names)
    elif suffix in FACE_ALONE:
        write_curves(path, face, motion)
    elif suffix == ".vrma":
        write_vrma(path, motion, face, presets=avatar is not None and not has_units(read_avatar(avatar)))
    elif avatar is not None:
        write_on_avatar(path, avatar, motion, face)
    elif suffix == ".vrm":
        write_vrm(path, motion, face)
    else:
        write_gltf(path, motion, face, names)
