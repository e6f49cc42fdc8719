"""The page of `solami serve`, whole in one string: the report's stage and style, and `live.js`."""

import jinja2
import numpy as np

from ..processing.motion.body import SMPLX_JOINT_NAMES, joint_positions, standing_height
from ..processing.motion.smplx_motion import NUM_JOINTS, SmplxMotion
from .figure_data import figure_data
from .page import FIGURE_SCRIPTS, asset

# Degrees about x, y and z that turn the T-pose into somebody who stands at ease; the right side mirrors them.
_AT_EASE = {
    "left_collar": (0, 0, -4),
    "left_shoulder": (0, 8, -68),
    "left_elbow": (0, -22, -6),
    "left_wrist": (-20, 0, 0),
}
_FINGERS = {"index": 16, "middle": 20, "ring": 24, "pinky": 28}


def idle_motion() -> SmplxMotion:
    """One frame of the free body at ease: on the floor at the origin, facing +z."""
    names, poses = list(SMPLX_JOINT_NAMES), np.zeros((1, NUM_JOINTS, 3), np.float32)
    for name, degrees in _AT_EASE.items():
        poses[0, names.index(name)] = np.radians(degrees)
    for finger, curl in _FINGERS.items():
        for joint in (1, 2, 3):
            poses[0, names.index(f"left_{finger}{joint}"), 2] = -np.radians(curl)
    for name in [name for name in names if name.startswith("left_")]:
        mirrored = poses[0, names.index(name)] * [1, -1, -1]
        poses[0, names.index(name.replace("left_", "right_"))] = mirrored
    place = np.array([[0.0, standing_height(), 0.0]], np.float32)
    return SmplxMotion(place, poses)


def idle_joints() -> np.ndarray:
    """Joints (55, 3) float32 in metres of `idle_motion`."""
    return joint_positions(idle_motion())[0]


def live_page(camera: str | None = None) -> str:
    """The page as HTML; everything is in it but the detector of bodies, which it loads from the address `camera`."""
    scripts = (*FIGURE_SCRIPTS, "live_sound.js", "live_camera.js", "live_idle.js", "live.js")
    names = ("style.css", "live.css", *scripts)
    assets = {name: asset(name) for name in names}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(asset("live.html"))
    idle = idle_motion().to_params()[0].astype(float).round(5).tolist()
    return template.render(
        assets=assets, scripts=scripts, data={"body": figure_data(), "idle": idle, "camera": camera}
    )


__all__ = ["idle_joints", "idle_motion", "live_page"]
