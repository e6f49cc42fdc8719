"""The face: 52 curves named as ARKit's blend shapes, at the rate of a motion.

A face is an array (frames, 52) float32 of coefficients from 0 (at rest) to 1 (fully moved), at `FACE_FPS` frames a
second, its columns in the order of `FACE_UNITS`. "Left" and "Right" are the character's own, as in Apple's
documentation of `ARFaceAnchor.BlendShapeLocation`. In files it is the array `face` of a motion's `.npz`.
"""

from pathlib import Path

import numpy as np

FACE_FPS = 30.0
SIDES = ("Left", "Right")


def _sided(*names: str) -> list[str]:
    return [name + side for name in names for side in SIDES]


EYE_UNITS = ("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide")
FACE_UNITS: tuple[str, ...] = (
    *[name + side for side in SIDES for name in EYE_UNITS],
    *(
        "jawForward",
        "jawLeft",
        "jawRight",
        "jawOpen",
        "mouthClose",
        "mouthFunnel",
        "mouthPucker",
        "mouthLeft",
        "mouthRight",
    ),
    *_sided("mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *_sided("mouthPress", "mouthLowerDown", "mouthUpperUp", "browDown"),
    *("browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff"),
    *_sided("cheekSquint", "noseSneer"),
    "tongueOut",
)
UNIT_INDEX = {name: index for index, name in enumerate(FACE_UNITS)}


def checked_face(face, name: str = "face") -> np.ndarray:
    """The face (frames, 52) as float32; ValueError for another shape, and for values outside 0 to 1 or not finite."""
    try:
        if np.iscomplexobj(face):
            raise TypeError("complex numbers")
        array = np.asarray(face, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of numbers ({error}), expected (frames, {len(FACE_UNITS)})") from None
    if array.ndim != 2 or array.shape[1] != len(FACE_UNITS):
        raise ValueError(
            f"{name} has shape {array.shape}, expected (frames, {len(FACE_UNITS)}): a column for each of "
            "`solami_hf.processing.motion.face.FACE_UNITS`, in that order"
        )
    if not np.isfinite(array).all() or (array.size and (array.min() < -1e-4 or array.max() > 1 + 1e-4)):
        raise ValueError(f"{name} has values outside 0 to 1 or not finite; 0 is at rest, 1 fully moved")
    return array.clip(0, 1)


def read_face(path: str | Path) -> np.ndarray | None:
    """The face (frames, 52) of a motion's `.npz`, None where it has none; pickles are never run. Raises OSError: it
    cannot be read; ValueError: it is no npz file, or its `face` is none, see `checked_face`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            face = np.asarray(file["face"]) if "face" in file.files else None
    except OSError:
        raise
    except Exception as error:  # zipfile and numpy fail in many ways
        raise ValueError(f"{path} is no readable .npz file ({error!r})") from None
    return None if face is None else checked_face(face, f"`face` of {path}")
