"""Names the action of a motion by the nearest real clip in feature space, without a trained model."""

from pathlib import Path

import numpy as np
import torch

from ..processing.datasets.manifests import read_manifest
from ..processing.motion.features import motion_to_features
from ..processing.motion.motion_io import read_motion
from ..processing.motion.smplx_motion import SmplxMotion

STEPS = 32


def signature(motion: SmplxMotion) -> np.ndarray:
    """A motion as a vector: its features, turned to face +Z at the start, resampled to 32 moments. Local joint
    rotations make up most of it, so place and facing do not matter."""
    features = motion_to_features(torch.from_numpy(read_motion(motion).to_params()).double())
    resampled = torch.nn.functional.interpolate(features.T[None], size=STEPS, mode="linear", align_corners=True)
    return resampled[0].numpy().astype(np.float32).reshape(-1)


class ActionRecognizer:
    """1-nearest-neighbour over signatures of real clips, each with its action."""

    def __init__(self, motions: list[SmplxMotion], actions: list[str]):
        raw = np.stack([signature(m) for m in motions])
        self.mean = raw.mean(0)
        # A nearly constant channel must not dominate the distance once it is divided by its deviation.
        self.scale = np.maximum(raw.std(0), 0.05)
        self.known, self.actions = (raw - self.mean) / self.scale, list(actions)

    @classmethod
    def from_corpus(cls, folder: str | Path) -> "ActionRecognizer":
        """A recogniser of the training clips of a motion corpus (`corpus.write_motion_corpus`)."""
        rows = [row for row in read_manifest(folder) if row["split"] == "train"]
        return cls([read_motion(Path(folder) / row["motion"]) for row in rows], [row["action"] for row in rows])

    def __call__(self, motion: SmplxMotion) -> str:
        """The action of the nearest real clip."""
        distance = np.square(self.known - (signature(motion) - self.mean) / self.scale).mean(1)
        return self.actions[int(distance.argmin())]
