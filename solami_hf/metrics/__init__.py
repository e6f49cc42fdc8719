"""Metrics as `evaluate` modules: one folder each, as it goes to the Hub, with the shared maths beside them."""

from pathlib import Path

NAMES = ("motion_fid", "motion_diversity", "motion_mpjpe", "speech_wer", "answer_validity")


def folder_of(name: str) -> str:
    """The folder of a metric, for `evaluate.load(folder_of("motion_fid"))`.

    Raises:
        ValueError: when there is no such metric.
    """
    if name not in NAMES:
        raise ValueError(f"`name` is {name!r}, expected one of: {', '.join(NAMES)}")
    return str(Path(__file__).parent / name)
