"""BVH, the text format of motion capture: a skeleton with channels, then one row of numbers a frame.

Reading takes any human skeleton whose joints `retarget.match_joints` knows, in any unit: the length of the legs tells
the size. Writing gives the free body's 55 joints under SMPL-X's, Mixamo's, Unreal's or VRM's names, in centimetres, as
most programs and data sets have them; where a unit is taken for a metre (Blender), import with scale 0.01.
"""

import io
import logging
import re
import warnings
from itertools import takewhile
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ...files.atomic_write import atomic_write
from ...files.text_files import text_of
from ..body import SMPLX_JOINT_NAMES, SMPLX_PARENTS, rest_joints, standing_height
from ..retarget import SkeletonMotion, retarget
from ..skeleton_names import joint_names
from ..smplx_motion import MAX_FRAMES, NUM_JOINTS, SmplxMotion

logger = logging.getLogger(__name__)

MAX_BYTES = 256 << 20  # 15 minutes of 75 joints at 120 fps
MAX_HIERARCHY = 16 << 20
MAX_BVH_JOINTS = 2000
MAX_DEPTH = 200
CENTIMETRES = 100.0

_CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "xyz")
_MOTION = re.compile(r"^[ \t]*MOTION\b", re.IGNORECASE | re.MULTILINE)
_HEADER = re.compile(r"\s*FRAMES\s*:?\s*(\S+)\s+FRAME\s*TIME\s*:?\s*(\S+)", re.IGNORECASE)
_MAX_HEADER = 1000
_WRITTEN_ORDER = "ZXY"
_END_LENGTH = 0.8  # an end bone has this share of the bone before it
_TOE_LENGTH = 0.06  # metres


def read_bvh(path: str | Path, up_axis: str | None = None) -> SmplxMotion:
    """Reads a BVH file as SMPL-X motion: y up, metres, at the file's own rate, `transl` is the pelvis. Position
    channels of a joint replace its OFFSET, as Blender and MotionBuilder have it. `up_axis` is "y" or "z"; `None` takes
    the upward axis of the skeleton's rest pose. Raises OSError: the file cannot be read; ValueError: it is no BVH
    file, or its skeleton is not a person's (see `retarget.match_joints`). The message says what came, what was
    expected and, in the hierarchy, at which line."""
    return retarget(read_skeleton_motion(path), up_axis=up_axis)


def read_skeleton_motion(path: str | Path) -> SkeletonMotion:
    """Reads a BVH file's own skeleton and its rotations; errors as `read_bvh`."""
    text = _read_text(Path(path))
    start = _MOTION.search(text)
    beginning = text[:_MAX_HEADER].lstrip()
    if not beginning.upper().startswith("HIERARCHY"):
        raise ValueError(f"it begins with {beginning[:20]!r}, expected HIERARCHY.")
    if start is None:
        raise ValueError("it has no MOTION section, expected one after the HIERARCHY; the file may be cut off.")
    if start.start() > MAX_HIERARCHY:
        raise ValueError(f"its HIERARCHY takes {start.start()} characters, expected at most {MAX_HIERARCHY}.")
    hierarchy = _Hierarchy(text[: start.start()])
    frame_time, values = _read_frames(text, start.end(), sum(map(len, hierarchy.channels)))
    if not any("position" in channel for channels in hierarchy.channels for channel in channels):
        raise ValueError("no joint has position channels, expected Xposition Yposition Zposition at the ROOT.")

    rotations, positions, first = [], {}, 0
    for joint, channels in enumerate(hierarchy.channels):
        columns = {channel: values[:, first + i] for i, channel in enumerate(channels)}
        first += len(channels)
        angles = {name[0].upper(): column for name, column in columns.items() if name.endswith("rotation")}
        rotations.append(Rotation.identity(len(values)))
        if angles:  # capitals are turns about the axes that the turns before have moved, which is what BVH means
            rotations[-1] = Rotation.from_euler("".join(angles), np.stack([*angles.values()], axis=1), degrees=True)
        if any(channel.endswith("position") for channel in channels):
            places = np.tile(np.array(hierarchy.offsets[joint]), (len(values), 1))
            for axis, channel in enumerate(_CHANNELS[:3]):
                places[:, axis] = columns.get(channel, places[:, axis])
            positions[joint] = places
    offsets = np.array(hierarchy.offsets, dtype=np.float64)
    return SkeletonMotion(hierarchy.names, hierarchy.parents, offsets, rotations, positions, _rate(frame_time))


def _rate(frame_time: float) -> float:
    """Frames per second; 0.0333333 and 0.008333 mean 30 and 120."""
    rate = 1.0 / frame_time
    return float(round(rate)) if abs(rate - round(rate)) < 2e-4 * rate else rate


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"it takes {size} bytes, expected at most {MAX_BYTES}; cut it into clips.")
    data = path.read_bytes()
    if not data.strip():
        raise ValueError("it is empty, expected a BVH file.")
    return text_of(data, "it", "backslashreplace")  # names of joints that are not known need no alphabet


class _Hierarchy:
    """Reads the HIERARCHY section word by word; joints that are still open are kept on a stack."""

    def __init__(self, text: str) -> None:
        self.names: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[list[float] | None] = []
        self.channels: list[tuple[str, ...] | None] = []
        self._open: list[int] = []
        self._announced: int | None = None  # the joint whose brace must come next
        for self._line, line in enumerate(io.StringIO(text), start=1):
            words = line.replace("{", " { ").replace("}", " } ").split()
            while words:
                words = self._take(words)
        if self._open or self._announced is not None:
            name = self.names[self._open[-1] if self._open else self._announced]
            raise ValueError(
                f"at MOTION {len(self._open)} braces are still open, the innermost of {name or 'End Site'!r}."
            )
        if not self.names:
            raise ValueError("its HIERARCHY has no ROOT.")

    def _take(self, words: list[str]) -> list[str]:
        """Handles the first statement of `words` and gives those after it."""
        word, rest = words[0].upper(), words[1:]
        given = list(takewhile(lambda other: other not in "{}", rest))
        if self._announced is not None and word != "{":
            raise self._error(f"{words[0]!r} after the name of a joint, expected '{{'")
        if word in ("HIERARCHY", "}"):
            given = []
            if word == "}":
                self._leave()
        elif word == "{":
            if self._announced is None:
                raise self._error("a '{' that no joint announces")
            self._open.append(self._announced)
            given, self._announced = [], None
        elif word in ("ROOT", "JOINT", "END"):
            self._begin(word, "" if word == "END" else " ".join(given))
        elif word == "OFFSET" and self._open:
            self._set_offset(given)
        elif word == "CHANNELS" and self._open:
            self._set_channels(given)
        else:
            raise self._error(f"{words[0]!r}, expected ROOT, JOINT, End Site, OFFSET, CHANNELS or a brace")
        return rest[len(given) :]

    def _error(self, message: str) -> ValueError:
        return ValueError(f"line {self._line} has {message}.")

    def _begin(self, word: str, name: str) -> None:
        if word == "ROOT" and self.names:
            raise self._error(f"a second ROOT, {name!r}; expected one skeleton a file")
        if word != "ROOT" and not self._open:
            raise self._error(f"{word} {name!r} outside of the ROOT's braces")
        if word != "END" and not name:
            raise self._error(f"a {word} without a name")
        if len(self.names) >= MAX_BVH_JOINTS or len(self._open) >= MAX_DEPTH:
            raise self._error(f"one joint too many, expected at most {MAX_BVH_JOINTS} joints, {MAX_DEPTH} deep")
        self._announced = len(self.names)
        self.names.append(name)
        self.parents.append(self._open[-1] if self._open else -1)
        self.offsets.append(None)
        self.channels.append(() if word == "END" else None)

    def _leave(self) -> None:
        if not self._open:
            raise self._error("a '}' too many")
        joint = self._open.pop()
        lacks = "OFFSET" if self.offsets[joint] is None else "CHANNELS" if self.channels[joint] is None else None
        if lacks:
            raise self._error(f"the end of {self.names[joint] or 'End Site'!r}, which has no {lacks}")

    def _set_offset(self, words: list[str]) -> None:
        try:
            offset = [float(word) for word in words]
        except ValueError:
            offset = []
        if len(offset) != 3 or not np.isfinite(offset).all() or self.offsets[self._open[-1]] is not None:
            raise self._error(f"OFFSET {' '.join(words)}, expected one OFFSET of three finite numbers a joint")
        self.offsets[self._open[-1]] = offset

    def _set_channels(self, words: list[str]) -> None:
        names = tuple(word.lower() for word in words[1:])
        unknown = [word for word in words[1:] if word.lower() not in _CHANNELS]
        if unknown:
            raise self._error(f"the unknown channel {unknown[0]!r}, expected some of {', '.join(_CHANNELS)}")
        if len(set(names)) < len(names) or self.channels[self._open[-1]]:
            raise self._error(f"CHANNELS {' '.join(words)}, expected each channel at most once a joint")
        if not words or words[0] != str(len(names)):
            raise self._error(f"CHANNELS {' '.join(words)}, but names {len(names)} channels")
        self.channels[self._open[-1]] = names


def _read_frames(text: str, start: int, width: int) -> tuple[float, np.ndarray]:
    """Seconds a frame, and the values (frames, width) of the MOTION section, which may be broken into lines anyhow."""
    header = _HEADER.match(text[start : start + _MAX_HEADER])
    if header is None:
        came = text[start : start + 40].strip()
        raise ValueError(f"{came!r} follows MOTION, expected 'Frames: N' and 'Frame Time: s'.")
    try:
        frames, frame_time = int(header[1]), float(header[2])
    except ValueError:
        raise ValueError(f"it has {header[1]!r} frames of {header[2]!r} seconds, expected numbers.") from None
    if not 1 <= frames <= MAX_FRAMES:
        raise ValueError(f"it has Frames: {frames}, expected 1 to {MAX_FRAMES}.")
    if not 0.001 <= frame_time <= 1:
        raise ValueError(f"it has Frame Time: {frame_time:g}, expected 0.001 to 1 second.")
    values = _read_numbers(text, start + header.end())
    # some exporters count steps instead of frames
    if width and values.size == (frames + 1) * width:
        logger.warning("The file says %d frames and holds one more, which is read too.", frames)
        frames += 1
    if values.size != frames * width:
        raise ValueError(
            f"it holds {values.size} values after the frame time, expected {frames * width}: {frames} frames of "
            f"{width} channels."
        )
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"channel {at % width + 1} of frame {at // width + 1} is {values[at]}, expected a finite number."
        )
    return frame_time, values.reshape(frames, width)


def _read_numbers(text: str, start: int) -> np.ndarray:
    """All numbers after `start`, parsed in one go; only to find what is no number, line by line."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # older numpy only warns where a word is no number
        try:
            return np.fromstring(text[start:], dtype=np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            pass
        for number, line in enumerate(io.StringIO(text[start:]), start=text.count("\n", 0, start) + 1):
            for word in line.split():
                try:
                    np.fromstring(word, sep=" ")
                except (DeprecationWarning, ValueError):
                    raise ValueError(f"line {number} has {word[:40]!r} among the frames, expected numbers.") from None
    raise ValueError("its frames hold something that is no number.")


def end_offsets() -> dict[int, np.ndarray]:
    """Joints of SMPL-X without children -> where their bone ends, (3,) metres from the joint in the rest pose. Toes
    end on the sole, the others go on as the bone before them does."""
    rest = rest_joints()
    ends = {}
    for joint in sorted(set(range(NUM_JOINTS)) - set(SMPLX_PARENTS)):
        if SMPLX_JOINT_NAMES[joint].endswith("_foot"):
            ends[joint] = np.array([0.0, -standing_height() - rest[joint, 1], _TOE_LENGTH])
        else:
            ends[joint] = _END_LENGTH * (rest[joint] - rest[SMPLX_PARENTS[joint]])
    return ends


def write_bvh(path: str | Path, motion: SmplxMotion, names: str = "smplx") -> None:
    """Writes `motion` on the free body, in centimetres, whole or not at all. The root's channels are its position and
    rotation, the other 54 joints have rotations, all in the order z, x, y and in degrees with 6 decimals. `names` is a
    kind of `skeleton_names.JOINT_NAMES`, another raises ValueError. BVH has no place for betas and gender: they are
    lost."""
    order, header = _hierarchy_text(joint_names(names))
    poses = Rotation.from_rotvec(motion.poses[:, order].reshape(-1, 3).astype(np.float64))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gimbal lock", UserWarning)  # one angle is free, 0 is as good as any
        angles = poses.as_euler(_WRITTEN_ORDER).reshape(motion.num_frames, -1)
    # without steps of a whole turn, which programs that interpolate would play as a spin
    angles = np.degrees(np.unwrap(angles, axis=0))
    pelvis = motion.to_params()[:, :3] * CENTIMETRES
    with atomic_write(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        file.write(f"{header}MOTION\nFrames: {motion.num_frames}\nFrame Time: {1 / motion.fps:.9f}\n")
        np.savetxt(file, np.concatenate([pelvis, angles], axis=1), fmt="%.6f")


def _hierarchy_text(names: tuple[str, ...]) -> tuple[list[int], str]:
    """SMPL-X's joints in the order of the channels, and the HIERARCHY section."""
    rest, ends = rest_joints(), end_offsets()
    rotations = " ".join(f"{axis}rotation" for axis in _WRITTEN_ORDER)
    order: list[int] = []

    def lines_of(joint: int) -> list[str]:
        order.append(joint)
        offset = rest[joint] - rest[SMPLX_PARENTS[joint]] if joint else np.zeros(3)
        channels = f"3 {rotations}" if joint else f"6 Xposition Yposition Zposition {rotations}"
        inside = [f"OFFSET {_numbers(offset)}", f"CHANNELS {channels}"]
        if joint in ends:
            inside += ["End Site", "{", f"  OFFSET {_numbers(ends[joint])}", "}"]
        for child in (child for child, parent in enumerate(SMPLX_PARENTS) if parent == joint):
            inside += lines_of(child)
        head = f"{'JOINT' if joint else 'ROOT'} {names[joint]}"
        return [head, "{", *(f"  {line}" for line in inside), "}"]

    return order, "\n".join(["HIERARCHY", *lines_of(0)]) + "\n"


def _numbers(offset: np.ndarray) -> str:
    return " ".join(f"{value * CENTIMETRES:.6f}" for value in offset)
