"""Sounds to shapes of the mouth (visemes), and these to the curves of a face.

The table was written for this package from what phonetics says of lips, jaw and tongue in English (P. Ladefoged, A
Course in Phonetics). How neighbours colour each other is told by dominance, after Cohen and Massaro 1993,
"Modeling coarticulation in synthetic visual speech": what needs the lips (m, b, p; f, v; rounded vowels) keeps them in
shape, what needs the tongue alone (t, k, n) takes the shape around it.
"""

import numpy as np

from ...modeling.face.configuration_lips import VISEMES
from .face import FACE_FPS, FACE_UNITS, SIDES, UNIT_INDEX

REACH_SECONDS = 0.04
"""A shape reaches so far into its neighbours."""
_PHONES = {
    "rest": "pau h# brth",
    "bilabial": "p b m em",
    "labiodental": "f v",
    "dental": "th dh",
    "alveolar": "t d n l en el dx nx",
    "sibilant": "s z",
    "postalveolar": "sh zh ch jh",
    "velar": "k g ng hh hv",
    "rhotic": "r er axr",
    "open": "aa",
    "mid": "ae eh",
    "spread": "iy ih y",
    "central": "ah ax",
    "round_open": "ao",
    "round_close": "uw uh w wh",
}
PHONE_VISEMES: dict[str, tuple[str, ...]] = {
    **{phone: (viseme,) for viseme, phones in _PHONES.items() for phone in phones.split()},
    **{"ay": ("open", "spread"), "aw": ("open", "round_close"), "oy": ("round_open", "spread")},
    **{"ey": ("mid", "spread"), "ow": ("round_open", "round_close")},
}
"""Phones of CMU's voices (ARPAbet) -> the visemes that they pass through."""

# Viseme -> dominance, and the curves; a name without a side is for both.
_SHAPES = {
    "rest": (0.6, {}),
    "bilabial": (32.0, {"mouthPress": 0.35, "mouthRollLower": 0.25, "mouthRollUpper": 0.2}),
    "labiodental": (5.0, {"jawOpen": 0.06, "mouthRollLower": 0.45, "mouthUpperUp": 0.2, "mouthShrugLower": 0.1}),
    "dental": (1.2, {"jawOpen": 0.15, "mouthLowerDown": 0.15, "mouthUpperUp": 0.1, "tongueOut": 0.15}),
    "alveolar": (0.5, {"jawOpen": 0.13, "mouthLowerDown": 0.15, "mouthUpperUp": 0.1}),
    "sibilant": (1.2, {"jawOpen": 0.06, "mouthStretch": 0.25, "mouthLowerDown": 0.25, "mouthUpperUp": 0.1}),
    "postalveolar": (1.8, {"jawOpen": 0.1, "mouthFunnel": 0.5, "mouthPucker": 0.2, "mouthLowerDown": 0.1}),
    "velar": (0.4, {"jawOpen": 0.2, "mouthLowerDown": 0.1}),
    "rhotic": (1.0, {"jawOpen": 0.15, "mouthFunnel": 0.3, "mouthPucker": 0.3}),
    "open": (1.2, {"jawOpen": 0.6, "mouthLowerDown": 0.25, "mouthUpperUp": 0.15}),
    "mid": (1.1, {"jawOpen": 0.42, "mouthStretch": 0.2, "mouthLowerDown": 0.25, "mouthUpperUp": 0.15}),
    "spread": (1.1, {"jawOpen": 0.2, "mouthStretch": 0.35, "mouthSmile": 0.25, "mouthLowerDown": 0.2}),
    "central": (0.8, {"jawOpen": 0.32, "mouthLowerDown": 0.2, "mouthUpperUp": 0.1}),
    "round_open": (1.4, {"jawOpen": 0.45, "mouthFunnel": 0.5, "mouthPucker": 0.15}),
    "round_close": (1.8, {"jawOpen": 0.15, "mouthFunnel": 0.35, "mouthPucker": 0.65}),
}
OPENING = {"jawOpen": 1.0, "mouthClose": -1.0, "mouthFunnel": 0.25, "mouthLowerDown": 0.25, "mouthUpperUp": 0.25}
"""Weights of the curves in the opening of the mouth; a name without a side is the mean of both."""


def _columns(name: str) -> list[int]:
    return [UNIT_INDEX[name]] if name in UNIT_INDEX else [UNIT_INDEX[name + side] for side in SIDES]


DOMINANCE = np.array([_SHAPES[viseme][0] for viseme in VISEMES], np.float32)
SHAPES = np.zeros((len(VISEMES), len(FACE_UNITS)), np.float32)
for _row, _viseme in enumerate(VISEMES):
    for _name, _value in _SHAPES[_viseme][1].items():
        SHAPES[_row, _columns(_name)] = _value


def mouth_opening(face: np.ndarray) -> np.ndarray:
    """How far lips stand apart, (frames,) from 0 (closed) up, of curves (frames, 52)."""
    parts = [weight * face[:, _columns(name)].mean(axis=1) for name, weight in OPENING.items()]
    return np.maximum(0.0, np.sum(parts, axis=0))


def reach(frame_rate: float) -> int:
    """Frames of visemes on either side that colour one."""
    return max(1, round(REACH_SECONDS * frame_rate))


def viseme_curves(visemes: np.ndarray, frame_rate: float) -> np.ndarray:
    """Curves (frames, 52) of probabilities (frames, visemes), at the same rate: means of the shapes near a frame,
    weighted by probability, dominance and nearness."""
    near = reach(frame_rate)
    kernel = (near + 1 - np.abs(np.arange(-near, near + 1))).astype(np.float32)
    weights = np.pad(visemes * DOMINANCE, ((near, near), (0, 0)))
    spread = sum(weight * weights[i : i + len(visemes)] for i, weight in enumerate(kernel))
    return spread @ SHAPES / np.maximum(spread.sum(axis=1, keepdims=True), 1e-6)


def curve_places(frames: np.ndarray, frame_rate: float) -> np.ndarray:
    """Where face frames lie among the frames of visemes, whose middles are half a frame behind their beginnings."""
    return frames * (frame_rate / FACE_FPS) - 0.5


def curves_at_fps(curves: np.ndarray, frame_rate: float, frames: np.ndarray, first: int = 0) -> np.ndarray:
    """Curves (n, 52) of face frames (n,), between those of the rate of visemes, of which `first` is the first."""
    places = np.clip(curve_places(frames, frame_rate) - first, 0, len(curves) - 1)
    below = np.floor(places).astype(int)
    share = (places - below)[:, None].astype(np.float32)
    return curves[below] * (1 - share) + curves[np.minimum(below + 1, len(curves) - 1)] * share


def frame_visemes(phones: list[tuple[str, float]], count: int, frame_rate: float) -> np.ndarray:
    """The viseme (count,) of each frame, by the time at its middle, of phones of `PHONE_VISEMES`, or visemes, each
    with the second at which it ends. Raises ValueError: an unknown phone."""
    names, ends, start = [], [], 0.0
    for phone, end in phones:
        parts = (phone,) if phone in VISEMES else PHONE_VISEMES.get(phone)
        if parts is None:
            raise ValueError(f"unknown phone {phone!r}, expected one of {', '.join(PHONE_VISEMES)}")
        for i, part in enumerate(parts, 1):
            names.append(VISEMES.index(part))
            ends.append(start + (end - start) * i / len(parts))
        start = end
    places = np.searchsorted(ends, (np.arange(count) + 0.5) / frame_rate, side="right")
    return np.array([*names, 0])[places]  # behind the last phone the mouth rests


def face_of_phones(phones: list[tuple[str, float]], seconds: float, frame_rate: float = 200.0) -> np.ndarray:
    """The mouth (frames, 52) at `FACE_FPS` of phones whose times are known; arguments as in `frame_visemes`."""
    count = max(1, round(seconds * frame_rate))
    frames = np.eye(len(VISEMES), dtype=np.float32)[frame_visemes(phones, count, frame_rate)]
    curves = viseme_curves(frames, frame_rate)
    return curves_at_fps(curves, frame_rate, np.arange(int(np.ceil(seconds * FACE_FPS - 1e-6))))
