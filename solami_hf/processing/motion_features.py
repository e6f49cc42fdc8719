"""Motion features under their public name; they are made in `processing/motion/features.py`."""

from .motion.features import (
    canonicalize,
    facing_rotation,
    features_to_joints,
    features_to_smplx,
    motion_to_features,
    relative_transform,
    smplx_to_features,
)

__all__ = [
    "canonicalize",
    "facing_rotation",
    "features_to_joints",
    "features_to_smplx",
    "motion_to_features",
    "relative_transform",
    "smplx_to_features",
]
