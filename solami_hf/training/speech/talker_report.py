"""The page of a talker's run: held-out texts to listen to, curves, and the last figures."""

from pathlib import Path

import numpy as np
import torch

from ...modeling.talker.modeling_talker import SolamiTalkerModel
from ...report.page import write_report
from ..held_out import evaluating, last_evaluation, last_step, spread
from ..run_page import add_sounds, curves_of_log, decoded, figures_of
from ..trackers import TrackedMedia
from .talker_data import SpokenClips

_CLIPS = 4
_FIGURES = {
    "accuracy": ("Right codes, %", 100.0, "Of frames with the lengths of the recording; several codes sound alike."),
    "loss": ("Loss, nats", 1.0, "Of codes and durations together."),
    "duration_error": ("Length of a text, % wrong", 100.0, "Of predicted against recorded speech, in the mean."),
}


def write_talker_report(
    folder: str | Path,
    model: SolamiTalkerModel,
    log: list[dict[str, float]],
    held_out: SpokenClips | None = None,
    codec=None,
    media: TrackedMedia | None = None,
) -> Path:
    """Writes `folder/report.html` of a run, with its last evaluation, and returns its path. `held_out`: clips of
    which four can be heard if there is a `codec` to decode level 0 alone; `media` gets them too."""
    charts = {
        "Loss": ("nats", "loss", "eval_loss"),
        "Share of codes that are right": ("share", "accuracy", "eval_accuracy"),
        "Loss of durations": ("nats", "duration_loss", "eval_duration_loss"),
    }
    page = write_report(
        Path(folder) / "report.html",
        title="Talker: text to level 0",
        lead=f"Talker after {last_step(log)} steps.",
        curves=curves_of_log(log, charts),
        metrics=figures_of(last_evaluation(log, "eval_accuracy"), _FIGURES, "Held-out texts"),
    )
    if codec is not None and held_out is not None:
        clips = _clips(model, held_out, codec)
        note = (
            f"{len(clips)} of {len(held_out)} texts that training never saw, decoded from level 0 alone: words "
            "without a voice. The acoustic model adds one."
        )
        add_sounds(page, "Held-out texts", note, clips, codec.config.sampling_rate)
        if media:
            media.sounds(clips, codec.config.sampling_rate)
    return page


def _clips(model: SolamiTalkerModel, held_out: SpokenClips, codec) -> list[tuple[str, dict[str, np.ndarray]]]:
    clips = []
    for index in spread(range(len(held_out)), _CLIPS):
        ids, _, codes = held_out[index]
        with evaluating(model):
            spoken = model.generate(torch.from_numpy(ids.astype(np.int64))[None].to(model.device)).codes[0]
            versions = {"Codes of the recording": torch.from_numpy(codes.astype(np.int64)), "From text": spoken}
            heard = {name: decoded(codec, part[None, None]) for name, part in versions.items()}
        clips.append((held_out.texts[index], heard))
    return clips
