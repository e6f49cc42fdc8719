"""Motions: SMPL-X parameters, their features, files of other formats, and the body."""

from .motion_io import read_motion, resample_motion, write_motion
from .smplx_motion import SmplxMotion

__all__ = ["SmplxMotion", "read_motion", "resample_motion", "write_motion"]
