"""The page of an acoustic model's run: held-out clips to listen to, curves, and the last figures of each level."""

import math
from pathlib import Path

import numpy as np
import torch

from ...modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from ...report.page import MetricRow, write_report
from ..held_out import evaluating, last_evaluation, last_step, spread
from ..run_page import add_sounds, curves_of_log, decoded
from ..trackers import TrackedMedia
from .soundstorm_data import SpeechCodes

_CLIPS, _PROMPT_SECONDS, _LONGEST_SECONDS = 4, 3.0, 6.0


def write_soundstorm_report(
    folder: str | Path,
    model: SolamiSoundStormModel,
    log: list[dict[str, float]],
    held_out: SpeechCodes | None = None,
    codec=None,
    media: TrackedMedia | None = None,
) -> Path:
    """Writes `folder/report.html`, whose table shows the last evaluation of the run, and returns its path. Of
    `held_out` clips four can be heard, if there is a `codec` to decode them; `media`, the trackers, get these clips
    too."""
    evaluation = last_evaluation(log, "eval_windows")
    motion = model.config.modality == "motion"
    lead = f"{'Motion filler' if motion else 'Acoustic model'} after {last_step(log)} steps."
    if "eval_root_mpjpe_filled" in evaluation:
        errors = [evaluation[f"eval_root_mpjpe_{name}"] for name in ("level0", "filled", "true")]
        lead += " Aligned joints are {:.1f} mm off from level 0, {:.1f} filled, {:.1f} with true ones.".format(*errors)
    elif evaluation:
        lead += (
            f" Of the codes of level 1, {100 * evaluation['eval_accuracy_level1_100']:.0f} % are right at the first "
            "guess, from level 0 and a voice prompt. Several codes sound alike, so far fewer than all suffice."
        )
    levels = range(1, 1 + model.config.num_acoustic_levels)
    charts = {
        "Loss": ("nats", "loss", "eval_loss"),
        "Share of masked codes that are right": ("share", "accuracy", "eval_accuracy"),
        "Loss of each level, all its cells masked": ("nats", *(f"eval_loss_level{level}_100" for level in levels)),
        "Right codes of each level, all its cells masked": (
            "share",
            *(f"eval_accuracy_level{level}_100" for level in levels),
        ),
    }
    page = write_report(
        Path(folder) / "report.html",
        title="Motion filler" if motion else "Acoustic model: a voice for level 0",
        lead=lead,
        curves=curves_of_log(log, charts),
        metrics=_rows(evaluation),
    )
    if codec is not None and held_out is not None:
        clips = _clips(model, held_out, codec)
        note = (
            f"{len(clips)} of {len(held_out)} clips that training never saw, up to {_LONGEST_SECONDS:g} s of each. "
            "The original's codes are decoded as they are; of the last one the model had level 0 and the prompt."
        )
        add_sounds(page, "Held-out clips", note, clips, codec.config.sampling_rate)
        if media:
            media.sounds(clips, codec.config.sampling_rate)
    return page


def _rows(evaluation: dict[str, float]) -> list[MetricRow]:
    """Accuracy and loss of each level and share of masked cells."""
    group = f"{evaluation.get('eval_windows', 0)} held-out windows at step {evaluation.get('step', 0)}"
    rows = []
    for name, accuracy in evaluation.items():
        if name.startswith("eval_accuracy_level") and math.isfinite(accuracy):
            level, share = name.removeprefix("eval_accuracy_level").split("_")
            loss = evaluation[f"eval_loss_level{level}_{share}"]
            meaning = f"Loss {loss:.3f} nats; the levels below are given, and a prompt of 40 % of the window."
            title = f"Level {level}, {share} % masked, % right"
            rows.append(MetricRow(title, f"{100 * accuracy:.1f}", meaning=meaning, group=group))
    return rows


def _clips(model: SolamiSoundStormModel, held_out: SpeechCodes, codec) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Clips from all over the list: a prompt from the next clip of the source, the original, and what is generated."""
    rate, clips = codec.config.frame_rate, []
    for index in spread(range(len(held_out)), _CLIPS):
        source = held_out.source_of(index)
        others = [other for other in (index + 1, index - 1) if 0 <= other < len(held_out)]
        prompt = next((held_out[other] for other in others if held_out.source_of(other) == source), None)
        codes = _tensor(held_out[index], round(_LONGEST_SECONDS * rate), model.device)
        versions = {}
        if prompt is not None:
            prompt = _tensor(prompt, round(_PROMPT_SECONDS * rate), model.device)
            versions["Voice prompt"] = prompt
        versions["Original"] = codes
        with evaluating(model):
            versions["From level 0 and the prompt"] = model.generate(codes[:, 0], prompt)
            heard = {name: decoded(codec, part) for name, part in versions.items()}
        clips.append((f"Clip {index + 1}, source {source + 1}", heard))
    return clips


def _tensor(codes: np.ndarray, frames: int, device: torch.device) -> torch.Tensor:
    """(1, num_quantizers, at most `frames`)."""
    return torch.from_numpy(codes[None, :, :frames].astype(np.int64)).to(device)
