"""Which action a motion shows, judged in feature space against real clips, without any trained model."""

from __future__ import annotations

import numpy as np
import torch

from ..processing.motion import SmplxMotion
from ..processing.motion_features import canonicalize, smplx_to_features

STEPS = 32


def signature(motion: SmplxMotion) -> np.ndarray:
    """A motion as a vector: its features, turned to face +Z at the start, resampled to 32 moments.

    Local joint rotations make up most of it, so place and facing do not matter.
    """
    params = torch.from_numpy(motion.to_params()).double()
    features = smplx_to_features(canonicalize(params))
    resampled = torch.nn.functional.interpolate(features.T[None], size=STEPS, mode="linear", align_corners=True)
    return resampled[0].numpy().astype(np.float32).reshape(-1)


class ActionRecognizer:
    """1-nearest-neighbour over signatures of real clips.

    Args:
        motions: real clips.
        actions: the action of each.
    """

    def __init__(self, motions: list[SmplxMotion], actions: list[str]):
        raw = np.stack([signature(m) for m in motions])
        self.mean = raw.mean(0)
        # A nearly constant channel must not dominate the distance once it is divided by its deviation.
        self.scale = np.maximum(raw.std(0), 0.05)
        self.known, self.actions = (raw - self.mean) / self.scale, list(actions)

    def __call__(self, motion: SmplxMotion) -> str:
        """The action of the nearest real clip."""
        distance = np.square(self.known - (signature(motion) - self.mean) / self.scale).mean(1)
        return self.actions[int(distance.argmin())]
