"""The face's curves as `.csv` in the layout of the app Live Link Face, and as `.json`.

A CSV row is a timecode (hours:minutes:seconds:frame.milliframe), the number of columns that follow (61), the 52 units
and nine angles in radians: yaw, pitch and roll of the head and of both eyes. JSON is
`{"fps": 30, "names": [52 names], "frames": [[52 numbers], ...]}`.
"""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ...files.atomic_write import atomic_write
from ...files.text_files import text_of
from ..body import SMPLX_JOINT_NAMES
from ..face import FACE_FPS, FACE_UNITS, UNIT_INDEX, checked_face
from ..smplx_motion import MAX_FRAMES, SmplxMotion, check_fps, resample_motion
from .gltf import with_suffix

_SUFFIXES = (".csv", ".json")
MAX_BYTES = 256 << 20

# the app has right before left for these, and otherwise Apple's order
_SWAPPED = {"jawLeft": "jawRight", "jawRight": "jawLeft", "mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}
_ANGLES = tuple(f"{part}{angle}" for part in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll"))
_ORDER = tuple(_SWAPPED.get(name, name) for name in FACE_UNITS)
_TIMECODE = re.compile(r"(\d+):(\d+):(\d+):(\d+(?:\.\d+)?)")
_FAST = 60.0  # the app's other rate


def write_curves(path: str | Path, face, motion: SmplxMotion | None = None) -> None:
    """Writes a face (frames, 52) at 30 frames a second, in the order of `face.FACE_UNITS`, as `.csv` or `.json`, whole
    or not at all. `motion` tells a CSV the turns of the head, relative to the body's root, and of the eyes; without it
    they are 0. Raises ValueError: another suffix, or a face of another form."""
    path, face = with_suffix(path, *_SUFFIXES), checked_face(face)
    with atomic_write(path) as temporary, open(temporary, "w", encoding="ascii", newline="") as file:
        if path.suffix.lower() == ".json":
            frames = [[round(float(value), 6) for value in row] for row in face]
            json.dump({"fps": FACE_FPS, "names": list(FACE_UNITS), "frames": frames}, file)
            return
        angles = np.zeros((len(face), len(_ANGLES))) if motion is None else _angles(motion, len(face))
        writer = csv.writer(file, lineterminator="\n")
        units = [name[0].upper() + name[1:] for name in _ORDER]
        writer.writerow(["Timecode", "BlendShapeCount", *units, *_ANGLES])
        columns = [UNIT_INDEX[name] for name in _ORDER]
        for index, row in enumerate(np.concatenate([face[:, columns], angles], axis=1)):
            second, frame = divmod(index, int(FACE_FPS))
            time = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}:{frame:02}.000"
            writer.writerow([time, len(row), *(f"{value:.8f}" for value in row)])


def _angles(motion: SmplxMotion, frames: int) -> np.ndarray:
    """(frames, 9): yaw, pitch and roll of the head to the root, and of the eyes to the head."""
    poses = resample_motion(motion, FACE_FPS).poses
    poses = poses[np.minimum(np.arange(frames), len(poses) - 1)].astype(np.float64)
    joint = SMPLX_JOINT_NAMES.index
    head = Rotation.identity(frames)
    for name in ("spine1", "spine2", "spine3", "neck", "head"):
        head = head * Rotation.from_rotvec(poses[:, joint(name)])
    eyes = [Rotation.from_rotvec(poses[:, joint(f"{side}_eye_smplhf")]) for side in ("left", "right")]
    return np.concatenate([turn.as_euler("YXZ") for turn in (head, *eyes)], axis=1)


def read_curves(path: str | Path) -> np.ndarray:
    """The face (frames, 52) float32 at 30 frames a second of a `.csv` or `.json` file. Raises FileNotFoundError: there
    is no such file; ValueError, which names the file: another suffix, a file that is neither, a unit that is missing,
    or a value outside 0 to 1."""
    path = with_suffix(path, *_SUFFIXES)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of a face at {path}.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it takes {path.stat().st_size} bytes, expected at most {MAX_BYTES}.")
        text = text_of(path.read_bytes(), "it")
        times, values = (_read_json if path.suffix.lower() == ".json" else _read_csv)(text)
        if not 1 <= len(values) <= MAX_FRAMES:
            raise ValueError(f"it has {len(values)} frames, expected 1 to {MAX_FRAMES}.")
        face = checked_face(values, "it")
        if (np.diff(times) <= 0).any() or times[-1] - times[0] > MAX_FRAMES / FACE_FPS:
            raise ValueError("its times do not grow steadily.")
        wanted = np.arange(int((times[-1] - times[0]) * FACE_FPS + 1e-4) + 1) / FACE_FPS + times[0]
        return np.stack([np.interp(wanted, times, curve) for curve in face.T], axis=1).astype(np.float32)
    except (ValueError, TypeError, OverflowError, csv.Error, RecursionError) as error:
        raise ValueError(f"{path} holds no usable face: {error}") from error


def _columns(names: list[str]) -> list[int]:
    """Where each unit stands among names in any case; ValueError where one is missing or there twice."""
    place = {name.strip().lower(): at for at, name in enumerate(names)}
    missing = [unit for unit in FACE_UNITS if unit.lower() not in place]
    if missing or len(place) < len(names):
        raise ValueError(f"it lacks {', '.join(missing) or 'different names'}; expected the 52 units of ARKit.")
    return [place[unit.lower()] for unit in FACE_UNITS]


def _read_json(text: str) -> tuple[np.ndarray, np.ndarray]:
    document = json.loads(text)
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in ("names", "frames")):
        raise ValueError('expected {"fps": 30, "names": [...], "frames": [[...], ...]}.')
    if not all(isinstance(name, str) for name in document["names"]):
        raise ValueError("its names are not words.")
    values = np.array(document["frames"], dtype=np.float64) if document["frames"] else np.zeros((0, 0))
    if values.ndim != 2 or values.shape[1] != len(document["names"]):
        raise ValueError(f"its frames have shape {values.shape}, but there are {len(document['names'])} names.")
    return np.arange(len(values)) / check_fps(document.get("fps")), values[:, _columns(document["names"])]


def _read_csv(text: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if not rows or rows[0][0].strip().lower() != "timecode":
        raise ValueError("its first row does not begin with Timecode, expected the layout of Live Link Face.")
    columns, frames, values = _columns(rows[0]), [], []
    for number, row in enumerate(rows[1:], start=2):
        time = _TIMECODE.fullmatch(row[0].strip())
        if time is None or len(row) != len(rows[0]):
            raise ValueError(
                f"row {number} has {len(row)} values at {row[0]!r}, expected {len(rows[0])} and a timecode."
            )
        hours, minutes, seconds, frame = map(float, time.groups())
        frames.append((3600 * hours + 60 * minutes + seconds, frame))
        try:
            values.append([float(row[column]) for column in columns])
        except ValueError:
            raise ValueError(f"row {number} holds something that is no number.") from None
    whole, part = np.array(frames).reshape(-1, 2).T
    fps = _FAST if part.size and part.max() >= FACE_FPS else FACE_FPS
    return whole + part / fps, np.array(values).reshape(len(values), len(columns))
