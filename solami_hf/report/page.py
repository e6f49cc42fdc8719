"""One self-contained HTML page about a run: figures that move in 3D to their voices, curves and metrics.

    write_report("runs/demo/report.html", title=..., lead=..., conversations=[...], curves=[...], metrics=[...],
                 stages=[...], next_steps=[...])

Everything is inlined (script, style, motion, sound), so that the file opens from a disk without a network. Who comes
with a motion is drawn as the skinned body by three.js; of joints alone, and where the browser has no WebGL, the 3D
stage is a plain 2D canvas with a renderer of our own (`stage.js`).
"""

import base64
import math
import os
import re
import wave
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np

from ..processing.files.text_files import write_text
from ..processing.motion.body import SMPLX_JOINT_NAMES, joint_positions, standing_height
from ..processing.motion.face import checked_face
from ..processing.motion.smplx_motion import NUM_PARAMS, SmplxMotion
from .figure_data import encode_face, encode_params, figure_data

NUM_JOINTS = 55
LARGEST_COORDINATE = 32.767  # metres, what a 16 bit integer holds in millimetres
_FARTHEST_PELVIS = 30.0  # so that hands stay within
PEAKS_PER_SECOND = 25
MAX_CURVE_POINTS = 600
# Degrees about x, y and z that turn the T-pose into somebody who stands at ease; the right side mirrors them.
_AT_EASE = {"collar": (0, 0, -4), "shoulder": (0, 8, -68), "elbow": (0, -22, -6), "wrist": (-20, 0, 0)}
_AT_EASE |= {f"{finger}{joint}": (0, 0, -curl) for joint in (1, 2, 3)
             for finger, curl in (("index", 16), ("middle", 20), ("ring", 24), ("pinky", 28))}  # fmt: skip
FIGURE_SCRIPTS = ("three/three.min.js", "figure.js", "skeleton.js", "mesh_figure.js", "avatar.js", "stage.js")


@dataclass(frozen=True, eq=False)
class Performer:
    """One side's motion and words in one round.

    Args:
        name: Who it is, as shown above the figure's head.
        joints: Joint positions, float (T, 55, 3) in metres, y up, in SMPL-X joint order and in the shared world of the
            scene: the page moves nobody, so both performers have to stand where they belong.
        fps: Frames per second of `joints`.
        audio: Path of a 16 bit mono WAV file, or None for a silent performer.
        transcript: The words that are said.
        action: What the body does, in a word or two, or None.
        params: The free body's rotations at the same frames, (T, 159), see `SmplxMotion.to_params`: with them the page
            shows skin. `of_motion` gives them.
        face: (frames, 52) curves at 30 frames a second, see `processing.motion.face`, or None.

    Raises ValueError: wrong shape, no frames, NaN or infinite values, a joint more than 32 m away, `fps` not above 0,
    or a file that is no 16 bit mono WAV; FileNotFoundError: `audio` does not exist.
    """

    name: str
    joints: np.ndarray
    fps: float
    audio: str | os.PathLike | None = None
    transcript: str = ""
    action: str | None = None
    params: np.ndarray | None = None
    face: np.ndarray | None = None

    @classmethod
    def of_motion(cls, name: str, motion: SmplxMotion, *said, face: np.ndarray | None = None) -> "Performer":
        """Who moves as a motion does, set nearer if too far away; `said` are `audio`, `transcript`, `action`."""
        near = np.clip(motion.pelvis, -_FARTHEST_PELVIS, _FARTHEST_PELVIS) - motion.pelvis_offset
        motion = replace(motion, transl=near)
        return cls(name, joint_positions(motion), motion.fps, *said, params=motion.to_params(), face=face)

    def __post_init__(self):
        joints = np.asarray(self.joints, dtype=np.float64)
        if joints.ndim != 3 or joints.shape[1:] != (NUM_JOINTS, 3) or not len(joints):
            raise ValueError(
                f"`joints` of performer {self.name!r} has the shape {joints.shape}; expected (T, {NUM_JOINTS}, 3) "
                "with at least one frame. `solami_hf.processing.motion.body.joint_positions(motion)` makes them."
            )
        if not np.isfinite(joints).all():
            raise ValueError(f"`joints` of performer {self.name!r} contains NaN or infinite values; expected metres.")
        if np.abs(joints).max() > LARGEST_COORDINATE:
            raise ValueError(
                f"`joints` of performer {self.name!r} reaches {np.abs(joints).max():.1f} m from the origin; expected "
                f"at most {LARGEST_COORDINATE} m. Are they in metres?"
            )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"`fps` of performer {self.name!r} is {self.fps}; expected a number above 0.")
        if self.audio is not None:
            _read_wav(self.audio)
        if self.params is not None and np.shape(self.params) != (len(joints), NUM_PARAMS):
            raise ValueError(
                f"`params` of performer {self.name!r} has the shape {np.shape(self.params)}; expected "
                f"({len(joints)}, {NUM_PARAMS}), as many frames as `joints`."
            )
        if self.params is not None and not np.isfinite(self.params).all():
            raise ValueError(f"`params` of performer {self.name!r} contains NaN or infinite values.")
        if self.face is not None:
            checked_face(self.face, f"`face` of performer {self.name!r}")
        object.__setattr__(self, "joints", joints)


def standing_motion(place=(0.0, 0.0, 0.0), turn: float = 0.0) -> SmplxMotion:
    """One frame of who does nothing: the free body at ease, on its soles at `place`, turned by radians about the
    vertical from where it faces +z."""
    poses = np.zeros((1, NUM_JOINTS, 3))
    poses[0, 0, 1] = turn
    for name, degrees in _AT_EASE.items():
        left, right = (SMPLX_JOINT_NAMES.index(f"{side}_{name}") for side in ("left", "right"))
        poses[0, left] = np.radians(degrees)
        poses[0, right] = poses[0, left] * [1, -1, -1]
    return SmplxMotion(np.add([[0.0, standing_height(), 0.0]], place), poses)


@dataclass(frozen=True, eq=False)
class Scene:
    """One round: the user speaks and moves, then the character answers.

    Args:
        title: For example "Round 1".
        subtitle: What to look for, may be empty.
        user: The user's part.
        character: The character's part.
        expected: The answer that was hoped for, or None where any will do.
        valid: Whether the answer was well formed (both the speech and the motion could be decoded).
        correct: Whether the answer is the expected one. None compares the character's transcript with `expected`,
            ignoring case and punctuation.
    """

    title: str
    subtitle: str
    user: Performer
    character: Performer
    expected: str | None = None
    valid: bool = True
    correct: bool | None = None

    @property
    def is_correct(self) -> bool | None:
        """`correct`, or whether the words agree with `expected`; None where nothing is expected."""
        if self.correct is not None or self.expected is None:
            return self.correct
        return _words(self.character.transcript) == _words(self.expected)


@dataclass(frozen=True, eq=False)
class Conversation:
    """Rounds that belong together. Raises ValueError without a scene. With `together` both performers move at once, to
    be compared: an original (`user`) and its copy (`character`)."""

    title: str
    description: str
    scenes: list[Scene]
    together: bool = False

    def __post_init__(self):
        if not self.scenes:
            raise ValueError(f"`scenes` of conversation {self.title!r} is empty; expected at least one scene.")


@dataclass(frozen=True, eq=False)
class Curve:
    """A line chart. `series` maps a name to its points (x, y). Raises ValueError for no points, NaN or infinity."""

    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float]]]

    def __post_init__(self):
        if not self.series:
            raise ValueError(f"`series` of curve {self.title!r} is empty; expected at least one series.")
        for name, points in self.series.items():
            values = np.asarray(points, dtype=np.float64)
            if values.ndim != 2 or values.shape[1] != 2:
                raise ValueError(
                    f"series {name!r} of curve {self.title!r} has the shape {values.shape}; expected (points, 2) with "
                    "at least one point."
                )
            if not np.isfinite(values).all():
                raise ValueError(f"series {name!r} of curve {self.title!r} contains NaN or infinite values.")


@dataclass(frozen=True)
class MetricRow:
    """One measured figure.

    Args:
        name: What was measured.
        value: The figure; numbers are shown with three digits, strings as they are (give "94 %" for a percentage).
        target: What was asked, for example "at least 90 %", or None.
        ok: Whether the target is met; None where there is none.
        meaning: A sentence that tells a newcomer what the figure says.
        group: The heading under which it stands.

    Raises ValueError: `value` is NaN or infinite.
    """

    name: str
    value: float | str
    target: str | None = None
    ok: bool | None = None
    meaning: str = ""
    group: str = "Metrics"

    def __post_init__(self):
        if not isinstance(self.value, str) and not math.isfinite(self.value):
            raise ValueError(
                f"`value` of metric {self.name!r} is {self.value}; expected a finite number, or a text that says why "
                "there is none."
            )

    @property
    def shown(self) -> str:
        """The value as it stands in the table."""
        if isinstance(self.value, str):
            return self.value
        whole = abs(self.value) >= 1000 or self.value == int(self.value)
        return f"{self.value:,.0f}" if whole else f"{self.value:.3g}"


@dataclass(frozen=True)
class Stage:
    """A step of the run and how many seconds it took. Raises ValueError unless `seconds` is finite and >= 0."""

    name: str
    seconds: float
    note: str = ""

    def __post_init__(self):
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"`seconds` of stage {self.name!r} is {self.seconds}; expected a number of at least 0.")


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    lead: str,
    conversations: list[Conversation] = (),
    curves: list[Curve] = (),
    metrics: list[MetricRow] = (),
    stages: list[Stage] = (),
    next_steps: list[str] = (),
) -> Path:
    """Writes the page, whole or not at all, and returns its path; missing folders are made. `title` is the headline,
    `lead` one paragraph under it: what was made, and how well it went. Without any of the `conversations`, which can
    be played, the page has no player; the other sections are left out where they are empty."""
    groups: dict[str, list[MetricRow]] = {}
    for row in metrics:
        groups.setdefault(row.group, []).append(row)
    sides = [side for talk in conversations for scene in talk.scenes for side in (scene.user, scene.character)]
    skinned = any(side.params is not None for side in sides)
    scripts = (*FIGURE_SCRIPTS[0 if skinned else 1 :], "player.js", "curves.js")
    assets = {name: asset(name) for name in ("style.css", *scripts)}
    talks = [{**vars(talk), "scenes": [_encode_scene(scene) for scene in talk.scenes]} for talk in conversations]
    data = {"conversations": talks, "curves": [_encode_curve(curve) for curve in curves]}
    if skinned:
        data["body"] = figure_data()
    # autoescape keeps a transcript from becoming markup; `tojson` does the same inside the script element
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(asset("page.html"))
    html = template.render(
        title=title,
        lead=lead,
        data=data,
        assets=assets,
        scripts=scripts,
        tiles=_summary_tiles(conversations, metrics, stages),
        comparing=all(conversation.together for conversation in conversations),
        groups=groups,
        stages=stages,
        longest=max((stage.seconds for stage in stages), default=0.0) or 1.0,
        duration=duration_in_words,
        next_steps=next_steps,
    )
    write_text(path, html)
    return Path(path)


def duration_in_words(seconds: float) -> str:
    """3.21 -> "3.2 s", 245 -> "4 min 05 s", 7500 -> "2 h 05 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def encode_joints(joints: np.ndarray) -> str:
    """(T, 55, 3) metres -> base64 of little-endian int16 millimetres, 440 characters a frame."""
    return base64.b64encode(np.rint(np.asarray(joints) * 1000).astype("<i2").tobytes()).decode("ascii")


def decode_joints(text: str) -> np.ndarray:
    """The inverse of `encode_joints`, float64 (T, 55, 3) metres, true to half a millimetre."""
    return np.frombuffer(base64.b64decode(text), dtype="<i2").reshape(-1, NUM_JOINTS, 3) / 1000


def _encode_scene(scene: Scene) -> dict:
    performers = {name: _encode_performer(getattr(scene, name)) for name in ("user", "character")}
    return {**vars(scene), **performers, "correct": scene.is_correct, "valid": bool(scene.valid)}


def _encode_performer(performer: Performer) -> dict:
    encoded = {
        "name": performer.name,
        "fps": float(performer.fps),
        "frames": len(performer.joints),
        "joints": encode_joints(performer.joints) if performer.params is None else None,
        "params": None if performer.params is None else encode_params(performer.params),
        "face": None if performer.face is None else encode_face(performer.face),
        "transcript": performer.transcript,
        "action": performer.action,
        "audio": None,
        "audioSeconds": 0.0,
        "peaks": [],
    }
    if performer.audio is not None:
        samples, sampling_rate = _read_wav(performer.audio)
        encoded["audio"] = base64.b64encode(Path(performer.audio).read_bytes()).decode("ascii")
        encoded["audioSeconds"] = round(len(samples) / sampling_rate, 4)
        encoded["peaks"] = _loudness(samples, sampling_rate)
    return encoded


def _encode_curve(curve: Curve) -> dict:
    series = [{"name": name, "points": _thin_out(points)} for name, points in curve.series.items()]
    return {"title": curve.title, "xLabel": curve.x_label, "yLabel": curve.y_label, "series": series}


def _thin_out(points: list[tuple[float, float]]) -> list[list[float]]:
    """At most MAX_CURVE_POINTS points, each the mean of its neighbours, so that spikes lower but do not vanish."""
    values = np.asarray(points, dtype=np.float64)
    if len(values) > MAX_CURVE_POINTS:
        values = np.stack([part.mean(axis=0) for part in np.array_split(values, MAX_CURVE_POINTS)])
    return [[float(f"{x:.6g}"), float(f"{y:.5g}")] for x, y in values]


def _loudness(samples: np.ndarray, sampling_rate: int) -> list[int]:
    """The envelope for the waveform under the scrub bar: root mean square of 40 ms pieces, 0 to 100."""
    parts = np.array_split(samples / 32768.0, max(1, round(len(samples) / sampling_rate * PEAKS_PER_SECOND)))
    levels = np.array([np.sqrt(np.mean(part**2)) if len(part) else 0.0 for part in parts])
    return np.rint(100 * levels / max(levels.max(), 1e-4)).astype(int).tolist()


def _read_wav(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Samples as int16 (N,) and the sampling rate."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"`audio` {str(path)!r} does not exist; give the path of a WAV file or None.")
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            samples = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"`audio` {str(path)!r} is no PCM WAV file ({error}); write it as 16 bit mono.") from error
    if channels != 1 or width != 2 or not samples:
        raise ValueError(
            f"`audio` {str(path)!r} has {channels} channel(s) of {8 * width} bit and {len(samples)} bytes of sound; "
            "expected 16 bit mono with at least one sample."
        )
    return np.frombuffer(samples, dtype="<i2"), rate


def _summary_tiles(conversations: list[Conversation], metrics: list[MetricRow], stages: list[Stage]) -> list[tuple]:
    """(value, label, tone) of the tiles under the headline; a count of nothing has none."""
    judged = [row.ok for row in metrics if row.ok is not None]
    scenes = [scene for conversation in conversations if not conversation.together for scene in conversation.scenes]
    tiles = [
        (f"{sum(flags)} / {len(flags)}", label, tone)
        for flags, label, tone in (
            (judged, "targets met", "good" if all(judged) else "poor"),
            ([scene.valid for scene in scenes], "valid answers on this page", ""),
            ([s.is_correct for s in scenes if s.is_correct is not None], "expected answers on this page", ""),
        )
        if flags
    ]
    if stages:
        tiles.append((duration_in_words(sum(stage.seconds for stage in stages)), f"in {len(stages)} stages", ""))
    return tiles


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def asset(name: str) -> str:
    """Text of a file that lies beside this module."""
    return (resources.files("solami_hf.report") / name).read_text(encoding="utf-8")
