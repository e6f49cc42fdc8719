"""Bodies under their public name; they are made in `processing/motion/body.py`."""

from .motion.body import Body, free_body, joint_positions, load_body, place_joints, rest_joints, standing_height

__all__ = ["Body", "free_body", "joint_positions", "load_body", "place_joints", "rest_joints", "standing_height"]
