"""Messages between a live page, or any other client, and `solami serve`: version 1, told in docs/serving.md.

Events are JSON text frames with a `type`; sound and motion are binary frames, a head of 13 bytes and a payload.
"""

import json
import math
import struct
from dataclasses import dataclass

import numpy as np

from ...processing.motion.face import FACE_UNITS

VERSION = 1
MICROPHONE_RATE = 16_000
"""Hz of the sound that clients send."""
HEAD = struct.Struct("<BId")
"""Kind, number of the turn, seconds into the answer at which the payload begins."""
SOUND_IN, SOUND_OUT, JOINTS_OUT, PARAMS_OUT, LANDMARKS_IN, POSES_IN, FILE_OUT, FACE_OUT = range(1, 9)
MOTIONS = {"joints": JOINTS_OUT, "params": PARAMS_OUT}
"""What a client may ask for in `start` -> kind of its frames."""
# Type of a client's event -> its fields and their types; those of `start` may be left out, and its version is apart.
_FIELDS = {
    "start": {"character": str, "voice": str, "motion": str, "resume": str, "body_fps": float, "face": bool},
    "text": {"text": str},
    "audio_end": {},
    "listen": {"hands_free": bool},
    "interrupt": {},
    "heard": {"turn": int, "seconds": float},
    "export": {"turn": int, "format": str},
}
# Kind of a client's binary frame -> type and shape of its values, and what is told of another length
_INCOMING = {
    SOUND_IN: ("<i2", (), "16-bit samples has an even length"),
    LANDMARKS_IN: ("<f4", (75, 4), "landmarks has 1200 bytes a frame"),
    POSES_IN: ("<f4", (159,), "poses has 636 bytes a frame"),
}
LARGEST = 100.0
"""Of metres and radians that come."""


class ProtocolError(ValueError):
    """What a client did that the protocol, or a limit, does not allow: `code` is that of the `error` event, one of
    those in docs/serving.md; with `close`, a WebSocket code, the connection ends."""

    def __init__(self, code: str, message: str, close: int | None = None):
        super().__init__(message)
        self.code, self.close = code, close


@dataclass(frozen=True)
class Limits:
    """What one connection may ask for.

    Attributes:
        message_bytes: of a frame.
        text_characters: of a typed turn.
        turn_seconds: of the sound of a turn, and of what the body does.
        history_turns: of one conversation that are remembered.
        resume_seconds: that a conversation is kept for a client whose connection was lost.
        bad_messages: that are answered by an error; then the connection ends.
        idle_seconds: without any message; then it ends too.
        wait_seconds: that a turn may wait while others are answered.
        send_seconds: that a frame may wait for a client that does not read.
    """

    message_bytes: int = 1 << 18
    text_characters: int = 2000
    turn_seconds: float = 30.0
    history_turns: int = 32
    resume_seconds: float = 120.0
    bad_messages: int = 20
    idle_seconds: float = 600.0
    wait_seconds: float = 120.0
    send_seconds: float = 20.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} is {value}, expected more than 0")


def parse_event(text: str) -> dict:
    """A client's event, checked; fields that it leaves out are None. Raises ProtocolError: no JSON object, an unknown
    type or field, a value of another type, or another version."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad_message", f"a text frame must be JSON, got {text[:40]!r} ({error})") from None
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ProtocolError(
            "bad_message", f"an event is an object whose type is one of {', '.join(_FIELDS)}, got {text[:40]!r}"
        )
    fields = dict.fromkeys(_FIELDS[kind]) | {name: value for name, value in event.items() if name != "type"}
    version = fields.pop("version", VERSION) if kind == "start" else VERSION
    if version != VERSION:
        raise ProtocolError(
            "bad_version", f"this server speaks version {VERSION}, the client {str(version)[:20]}", 1002
        )
    for name, value in fields.items():
        if name not in _FIELDS[kind]:
            raise ProtocolError("bad_message", f"{kind} has no field {name[:40]!r}, expected {list(_FIELDS[kind])}")
        wanted = _FIELDS[kind][name]
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        fits &= wanted is bool or not isinstance(value, bool)
        if wanted is float and fits and not abs(value) < 1e9:
            raise ProtocolError("bad_message", f"{name} of {kind} is {str(value)[:20]}, expected no such number")
        if not fits and (kind != "start" or value is not None):
            told = f"{name} of {kind} is a {type(value).__name__}, expected a {wanted.__name__}"
            raise ProtocolError("bad_message", told)
    return {"type": kind, **fields}


def parse_binary(data: bytes) -> tuple[int, float, np.ndarray]:
    """Kind, time and values of a client's binary frame: (n,) int16, or (frames, 75, 4) or (frames, 159) float32.
    Raises ProtocolError: another kind of frame, one that is cut short, or values that no body has."""
    if len(data) < HEAD.size or data[0] not in _INCOMING:
        found = f"kind {data[0]} and {len(data)} bytes" if data else "no bytes"
        known = ", ".join(map(str, _INCOMING))
        raise ProtocolError(
            "bad_message", f"a binary frame has a kind of {known} and {HEAD.size} bytes or more, got {found}"
        )
    (kind, _, start), (dtype, shape, told) = HEAD.unpack_from(data), _INCOMING[data[0]]
    if (len(data) - HEAD.size) % (np.dtype(dtype).itemsize * math.prod(shape)):
        raise ProtocolError("bad_message", f"a payload of {told}, got {len(data) - HEAD.size}")
    values = np.frombuffer(data, dtype=dtype, offset=HEAD.size).reshape(-1, *shape)
    if kind != SOUND_IN and not (math.isfinite(start) and (np.abs(values) <= LARGEST).all()):
        raise ProtocolError("bad_message", f"times are finite, metres and radians at most {LARGEST:g}; others came")
    return kind, start, values


def sound_frame(kind: int, turn: int, start: float, samples: np.ndarray) -> bytes:
    """A binary frame of sound (n,), float32 in -1..1 or int16."""
    if samples.dtype != np.int16:
        samples = np.rint(np.clip(samples, -1, 1) * 32767)
    return HEAD.pack(kind, turn, start) + samples.astype("<i2").tobytes()


def motion_frame(kind: int, turn: int, start: float, values: np.ndarray) -> bytes:
    """A binary frame of motion: joints (frames, 55, 3) in metres, parameters (frames, 159), or a face (frames, 52)."""
    return HEAD.pack(kind, turn, start) + np.asarray(values).astype("<f4").tobytes()


def parse_frame(data: bytes) -> tuple[int, int, float, np.ndarray]:
    """Kind, turn, seconds and values of a server's binary frame: (n,) int16, (frames, 55, 3), (frames, 159 or 52)."""
    kind, turn, start = HEAD.unpack_from(data)
    if kind == SOUND_OUT:
        return kind, turn, start, np.frombuffer(data, dtype="<i2", offset=HEAD.size)
    shape = {JOINTS_OUT: (-1, 55, 3), PARAMS_OUT: (-1, 159), FACE_OUT: (-1, len(FACE_UNITS))}[kind]
    return kind, turn, start, np.frombuffer(data, dtype="<f4", offset=HEAD.size).reshape(shape)
