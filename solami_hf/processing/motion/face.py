"""The face: 52 curves named as ARKit's blend shapes, at the rate of a motion.

A face is an array (frames, 52) float32 of coefficients from 0 (at rest) to 1 (fully moved), at `FACE_FPS` frames a second, its columns in the
order of `FACE_UNITS`. "Left" and "Right" are the character's own, as in Apple's documentation of `ARFaceAnchor.BlendShapeLocation`.
"""

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
    """The face (frames, 52) as float32. Raises ValueError for another shape, for what is not finite and for values outside 0 to 1."""
    array = np.asarray(face, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != len(FACE_UNITS):
        raise ValueError(
            f"{name} has shape {array.shape}, expected (frames, {len(FACE_UNITS)}): a column for each of "
            "`solami_hf.processing.motion.face.FACE_UNITS`, in that order"
        )
    if not np.isfinite(array).all() or (array.size and (array.min() < -1e-4 or array.max() > 1 + 1e-4)):
        raise ValueError(
            f"{name} has values outside 0 to 1 or not finite: a coefficient is 0 at rest and 1 fully moved"
        )
    return array.clip(0, 1)
