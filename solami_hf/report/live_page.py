"""The page of `solami serve`, whole in one string: the report's stage and style, and `live.js`."""

import jinja2
import numpy as np

from ..processing.motion.body import joint_positions
from .figure_data import figure_data
from .page import FIGURE_SCRIPTS, asset, standing_motion


def idle_joints() -> np.ndarray:
    """Joints (55, 3) float32 in metres of who stands at ease."""
    return joint_positions(standing_motion())[0]


def live_page(camera: str | None = None) -> str:
    """The page as HTML; everything is in it but the detector of bodies, which it loads from the address `camera`."""
    scripts = (*FIGURE_SCRIPTS, "live_sound.js", "live_camera.js", "live_idle.js", "live.js")
    names = ("style.css", "live.css", *scripts)
    assets = {name: asset(name) for name in names}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(asset("live.html"))
    idle = standing_motion().to_params()[0].astype(float).round(5).tolist()
    return template.render(
        assets=assets, scripts=scripts, data={"body": figure_data(), "idle": idle, "camera": camera}
    )


__all__ = ["idle_joints", "live_page"]
