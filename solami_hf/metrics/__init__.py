"""Metrics as `evaluate` modules: one folder each, as it goes to the Hub, with the shared maths beside them.

Each is a plain function too, which `evaluate` has no part in: `solami_hf.metrics.motion_fid(predictions, references)`.
"""

from collections.abc import Callable
from pathlib import Path

NAMES = (
    *("motion_fid", "motion_diversity", "motion_multimodality", "motion_mpjpe", "rotation_error", "foot_skating"),
    *("motion_caption", "speech_wer", "speaker_similarity", "answer_validity", "dialogue_judge", "lip_sync"),
    *("motion_retrieval", "frechet_gesture", "gesture_diversity", "beat_alignment", "response_timing"),
)


def folder_of(name: str) -> str:
    """The folder of a metric, for `evaluate.load(folder_of("motion_fid"))`. Raises ValueError: when there is no
    such metric."""
    if name not in NAMES:
        raise ValueError(f"`name` is {name!r}, expected one of: {', '.join(NAMES)}")
    return str(Path(__file__).parent / name)


def __getattr__(name: str) -> Callable[..., dict]:
    """The function of a metric, loaded on first use (PEP 562)."""
    if name in NAMES:
        from .plain_functions import metric_function

        return metric_function(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
