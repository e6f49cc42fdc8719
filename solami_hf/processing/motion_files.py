"""Motion files under their public name; they are read in `processing/motion/motion_io.py`."""

from .motion.motion_io import read_motion, resample_motion, write_motion

__all__ = ["read_motion", "resample_motion", "write_motion"]
