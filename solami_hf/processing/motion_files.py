"""Reading and writing motion files; nothing here ever unpickles.

- `.npz`, AMASS-style: `trans` (T, 3), `poses` of 22 (SMPL body), 52 (SMPL-H) or 55 (SMPL-X) joints, flattened or
  (T, J, 3), `mocap_frame_rate` or `mocap_framerate`, and if present `betas`, `gender`. A file without `up_axis` is
  z-up, as AMASS is, and is turned to y-up; the files written here say `up_axis="y"`.
- `.txt`, DeepMimic's JSON (Peng et al., SIGGRAPH 2018): y-up, 15 joints without fingers, retargeted to SMPL-X.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from .motion import NUM_JOINTS, SmplxMotion
from .rotations import (
    axis_angle_to_quaternion,
    quaternion_multiply,
    quaternion_slerp,
    quaternion_to_axis_angle,
    quaternion_to_matrix,
)
from .smplx_body import rest_joints, standing_height

MAX_ARRAY_BYTES = 1 << 30
MAX_TEXT_BYTES = 64 << 20

_FRAME_RATE_KEYS = ("mocap_frame_rate", "mocap_framerate")
# joint count of a file -> where its joints stand among SMPL-X's 55 (SMPL-H has no jaw and no eyes)
_JOINT_LAYOUTS = {22: list(range(22)), 52: [*range(22), *range(25, 55)], 55: list(range(55))}
_HALF = 0.5**0.5
_Z_UP_TO_Y_UP = torch.tensor([_HALF, -_HALF, 0.0, 0.0], dtype=torch.float64)

# DeepMimic's person faces +x with +z to the right; SMPL-X faces +z with +x to the left: a quarter turn about y
_FROM_DEEPMIMIC = torch.tensor([_HALF, 0.0, -_HALF, 0.0], dtype=torch.float64)
# arms hang down at DeepMimic's rest and reach sideways at SMPL-X's: quarter turns about z, which lower them
_LOWER_LEFT_ARM = torch.tensor([_HALF, 0.0, 0.0, -_HALF], dtype=torch.float64)
_LOWER_RIGHT_ARM = torch.tensor([_HALF, 0.0, 0.0, _HALF], dtype=torch.float64)
# the order of joints in a frame, after the root: column, number of values, SMPL-X joints that share the rotation
_DEEPMIMIC_WIDTH = 44
_DEEPMIMIC_JOINTS = (
    (8, 4, (3, 6, 9)), (12, 4, (12, 15)), (16, 4, (2,)), (20, 1, (5,)), (21, 4, (8,)), (25, 4, (17,)), (29, 1, (19,)),
    (30, 4, (1,)), (34, 1, (4,)), (35, 4, (7,)), (39, 4, (16,)), (43, 1, (18,)),
)  # fmt: skip
_LEFT_SHOULDER, _RIGHT_SHOULDER, _LEFT_ELBOW, _RIGHT_ELBOW = 16, 17, 18, 19
# its root is level with the hips, which stand this high over the soles on straight legs (metres)
_DEEPMIMIC_HIP_HEIGHT = 0.881


def read_motion(path: str | Path, fps: float | None = 30.0, up_axis: str | None = None) -> SmplxMotion:
    """Reads one motion file as y-up SMPL-X motion.

    Args:
        path: a `.npz` or DeepMimic `.txt` file, see the module's description.
        fps: frame rate to resample to (slerp on rotations), or `None` to keep the file's.
        up_axis: "y" or "z", for an `.npz` file whose axis is known to be another than the file says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unknown suffix, truncated or pickled content, missing arrays, a wrong number of joints, NaN,
            0 frames, or arrays of more than 1 GiB. The message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no motion file at {path}.")
    readers = {".npz": _read_npz, ".txt": _read_deepmimic}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} is no motion file that can be read, expected a suffix of {', '.join(readers)}.")
    if up_axis not in (None, "y", "z"):
        raise ValueError(f'`up_axis` is {up_axis!r}, expected "y", "z" or None (as the file says).')
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"`fps` is {fps}, expected a positive rate or None.")
    try:
        return readers[path.suffix.lower()](path, fps, up_axis)
    except ValueError as error:
        raise ValueError(f"{path} holds no usable motion: {error}") from error


def write_motion(path: str | Path, motion: SmplxMotion) -> None:
    """Writes `motion` as AMASS-style `.npz` with `up_axis="y"`, whole or not at all.

    Raises:
        ValueError: the suffix is not `.npz`.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"`path` is {path}, expected a name that ends in .npz.")
    arrays = {
        "trans": motion.transl,
        "poses": motion.poses.reshape(motion.num_frames, -1),
        "gender": np.array(motion.gender),
        "mocap_frame_rate": np.array(motion.fps),
        "up_axis": np.array("y"),
    }
    if motion.betas is not None:
        arrays["betas"] = motion.betas
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def resample_motion(motion: SmplxMotion, fps: float) -> SmplxMotion:
    """The same motion at another frame rate, never longer: positions linearly, rotations by slerp."""
    if motion.fps == fps:
        return motion
    times = np.arange(motion.num_frames) / motion.fps
    transl, poses = _interpolate(times, motion.transl, axis_angle_to_quaternion(_tensor(motion.poses)), fps)
    return SmplxMotion(transl, poses, betas=motion.betas, gender=motion.gender, fps=fps)


def _tensor(values) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def _interpolate(times: np.ndarray, transl, quaternions: torch.Tensor, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples positions (T, 3) and quaternions (T, J, 4), known at `times` in seconds, at a constant rate."""
    # a hair of slack, so that 1.9999999 s at 30 fps is 60 steps and not 59
    wanted = np.arange(int(np.floor(times[-1] * fps + 1e-4)) + 1) / fps
    right = np.clip(np.searchsorted(times, wanted, side="right"), 1, max(len(times) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    gap = np.where(right > left, times[right] - times[left], 1.0)
    fraction = np.clip((wanted - times[left]) / gap, 0.0, 1.0)[:, None]
    transl = np.asarray(transl, dtype=np.float64)
    transl = (1 - fraction) * transl[left] + fraction * transl[right]
    mixed = quaternion_slerp(quaternions[left], quaternions[right], torch.from_numpy(fraction)[:, None])
    return transl, quaternion_to_axis_angle(mixed).numpy()


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` that a motion needs, checked for size before they are unpacked."""
    wanted = {"trans", "poses", "betas", "gender", "up_axis", *_FRAME_RATE_KEYS}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.removesuffix(".npy") in wanted and member.file_size > MAX_ARRAY_BYTES:
                    raise ValueError(
                        f"`{member.filename}` takes {member.file_size} bytes, expected at most {MAX_ARRAY_BYTES}."
                    )
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if key in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"it is no complete npz archive ({error}).") from error
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise ValueError("an array holds pickled objects, which could run code; save it as plain numbers.") from error


def _scalar(array: np.ndarray):
    value = array.reshape(-1)[0] if array.size == 1 else None
    return value.decode() if isinstance(value, bytes) else value


def _read_npz(path: Path, fps: float | None, up_axis: str | None) -> SmplxMotion:
    arrays = _load_arrays(path)
    rate_key = next((key for key in _FRAME_RATE_KEYS if key in arrays), "mocap_frame_rate")
    missing = [key for key in ("trans", "poses", rate_key) if key not in arrays]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}; expected AMASS-style trans, poses and mocap_frame_rate.")
    rate = _scalar(arrays[rate_key])
    if rate is None or not np.issubdtype(np.asarray(rate).dtype, np.number):
        raise ValueError(f"`{rate_key}` is {arrays[rate_key]!r}, expected one number.")
    poses = _to_smplx_joints(arrays["poses"])
    motion = SmplxMotion(
        transl=arrays["trans"],
        poses=poses,
        betas=arrays.get("betas"),
        gender=str(_scalar(arrays["gender"])).lower() if "gender" in arrays else "neutral",
        fps=float(rate),
    )
    up_axis = up_axis or (str(_scalar(arrays["up_axis"])) if "up_axis" in arrays else "z")
    if up_axis not in ("y", "z"):
        raise ValueError(f'`up_axis` is {up_axis!r}, expected "y" or "z".')
    if up_axis == "z":
        motion = _z_up_to_y_up(motion)
    return motion if fps is None else resample_motion(motion, fps)


def _to_smplx_joints(poses: np.ndarray) -> np.ndarray:
    if poses.ndim == 2 and poses.shape[1] % 3 == 0:
        poses = poses.reshape(poses.shape[0], poses.shape[1] // 3, 3)
    if poses.ndim != 3 or poses.shape[2] != 3 or poses.shape[1] not in _JOINT_LAYOUTS:
        counts = ", ".join(f"{3 * count} ({count} joints)" for count in _JOINT_LAYOUTS)
        raise ValueError(f"`poses` has shape {poses.shape}, expected widths of {counts}, flat or (T, joints, 3).")
    if not np.issubdtype(poses.dtype, np.number):
        raise ValueError(f"`poses` is of type {poses.dtype}, expected numbers.")
    full = np.zeros((poses.shape[0], NUM_JOINTS, 3), dtype=np.float32)
    full[:, _JOINT_LAYOUTS[poses.shape[1]]] = poses
    return full


def _z_up_to_y_up(motion: SmplxMotion) -> SmplxMotion:
    poses = motion.poses.copy()
    root = quaternion_multiply(_Z_UP_TO_Y_UP, axis_angle_to_quaternion(_tensor(poses[:, 0])))
    poses[:, 0] = quaternion_to_axis_angle(root).numpy()
    transl = motion.transl[:, (0, 2, 1)] * np.array([1, 1, -1], dtype=np.float32)
    return SmplxMotion(transl, poses, betas=motion.betas, gender=motion.gender, fps=motion.fps)


def _read_deepmimic(path: Path, fps: float | None, up_axis: str | None) -> SmplxMotion:
    if up_axis == "z":
        raise ValueError("`up_axis` is 'z', but DeepMimic files are always y-up.")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"it takes {path.stat().st_size} bytes, expected at most {MAX_TEXT_BYTES}.")
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["Frames"]
        frames = np.array(frames, dtype=np.float64)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'it is no JSON object with rows of numbers under "Frames" ({error!r}).') from error
    if frames.size == 0:
        raise ValueError("it has 0 frames, expected at least 1.")
    if frames.ndim != 2 or frames.shape[1] != _DEEPMIMIC_WIDTH:
        raise ValueError(f"its frames have shape {frames.shape}, expected (T, {_DEEPMIMIC_WIDTH}): 15 joints.")
    if not np.isfinite(frames).all():
        raise ValueError("its frames hold NaN or infinite values.")
    durations = frames[:, 0]
    if (durations[:-1] <= 0).any():
        raise ValueError("a frame's duration is not positive.")
    times = np.concatenate([[0.0], np.cumsum(durations[:-1])])
    if fps is None:
        fps = 1 / float(np.median(durations[:-1])) if len(durations) > 1 else 30.0
    transl, poses = _interpolate(times, *_retarget_deepmimic(frames), fps)
    return SmplxMotion(transl, poses, fps=fps)


def _retarget_deepmimic(frames: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """Positions (T, 3) and SMPL-X quaternions (T, 55, 4) of DeepMimic frames (T, 44)."""
    values = _tensor(frames)
    back = _FROM_DEEPMIMIC * torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    quaternions = torch.zeros(len(values), NUM_JOINTS, 4, dtype=torch.float64)
    quaternions[..., 0] = 1
    for column, size, joints in ((4, 4, (0,)), *_DEEPMIMIC_JOINTS):
        rotation = values[:, column : column + size]
        if size == 1:  # knees and elbows turn about the body's sideways axis, z
            zero = torch.zeros_like(rotation)
            rotation = axis_angle_to_quaternion(torch.cat([zero, zero, rotation], dim=-1))
        norm = rotation.norm(dim=-1, keepdim=True)
        if (norm < 0.5).any():
            raise ValueError(f"the quaternion at column {column} is not normalised.")
        rotation = quaternion_multiply(quaternion_multiply(_FROM_DEEPMIMIC, rotation / norm), back)
        share = quaternion_to_axis_angle(rotation) / len(joints)
        for joint in joints:
            quaternions[:, joint] = axis_angle_to_quaternion(share)
    for shoulder, elbow, lower in (
        (_LEFT_SHOULDER, _LEFT_ELBOW, _LOWER_LEFT_ARM),
        (_RIGHT_SHOULDER, _RIGHT_ELBOW, _LOWER_RIGHT_ARM),
    ):
        raised = lower * torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
        quaternions[:, shoulder] = quaternion_multiply(quaternions[:, shoulder], lower)
        quaternions[:, elbow] = quaternion_multiply(quaternion_multiply(raised, quaternions[:, elbow]), lower)
    position = (quaternion_to_matrix(_FROM_DEEPMIMIC) @ values[:, 1:4, None])[..., 0]
    # hips to hips: our pelvis lies above them, along the back; then up until the soles stand on the floor again
    hips_to_pelvis = -float(rest_joints()[1, 1])
    above = quaternion_to_matrix(quaternions[:, 0])[..., 1] * hips_to_pelvis
    lift = torch.tensor([0.0, standing_height() - hips_to_pelvis - _DEEPMIMIC_HIP_HEIGHT, 0.0], dtype=torch.float64)
    return (position + above + lift).numpy(), quaternions
