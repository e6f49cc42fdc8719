"""A speech codec's measures on held-out clips, and the page of its run: clips to hear, curves, the last figures."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...modeling.motion_vq.quantizers import perplexity
from ...modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from ...processing.audio.waveforms import limit_loudness
from ...processing.files.atomic_write import atomic_write
from ...report.page import write_report
from ..held_out import evaluating, last_evaluation, last_step, spread
from ..run_page import add_sounds, curves_of_log, figures_of
from ..speech_recordings import Recordings
from ..trackers import TrackedMedia
from .speech_codec_losses import SemanticTeacher, distillation_loss

_CLIPS, _LONGEST_SECONDS = 4, 5.0
_CURVES = {
    "Loss": ("loss", "loss"),
    "Spectra": ("loss", "mel", "stft"),
    "Waveform": ("mean absolute error", "waveform"),
    "Distance of latents to their codes": ("loss", "commitment"),
    "Semantic distillation": ("loss", "semantic"),
    "What the discriminator tells the codec": ("loss", "adversarial", "feature_matching"),
    "The discriminator": ("loss", "discriminator"),
    "Different codes of level 0 among those of a batch": ("share", "codes_used"),
    "Held-out clips, spectra": ("log-mel distance", "eval_mel", "eval_mel_level_0"),
    "Held-out clips, agreement with the teacher": ("cosine", "eval_semantic_cosine"),
    "Held-out clips, effective number of codes": ("codes", "eval_perplexity_level_0"),
}
_NO_CURVES = {"step", "epoch", "eval_clips", "total_flos", "num_input_tokens_seen"}
_FIGURES = {
    "mel": ("Log-mel distance, all levels", 1, "Mean absolute difference at several windows; 0.1 is about 10 %."),
    "mel_level_0": ("Log-mel distance, level 0 alone", 1, "What the language model's level says by itself."),
    "semantic_cosine": ("Agreement with the teacher", 1, "Cosine of level 0's projection and the teacher; 1 is best."),
    "perplexity_level_0": ("Codes of level 0", 1, "Effective number over all held-out clips."),
    "codes_used_level_0": ("Codes of level 0 in use", 1, "How many different ones the held-out clips have."),
}


def write_speech_codec_report(
    folder: str | Path,
    model: SolamiSpeechCodecModel,
    clips: list[tuple[str, np.ndarray]],
    log: list[dict[str, float]],
    quantized: bool = True,
    media: TrackedMedia | None = None,
) -> Path:
    """Writes `folder/report.html` of a run, with its last evaluation, and returns its path. Of the held-out `clips`,
    each what is said in it (may be empty) and its samples (samples,) in [-1, 1], four from all over the list can be
    heard, up to 5 s of each; `media` gets them too. `quantized` is False while the codebooks are still empty: the
    clips are then the latents' own."""
    evaluation = last_evaluation(log, "eval_clips")
    lead = f"Speech codec after {last_step(log)} steps."
    if not quantized:
        lead += " So far the networks learn without quantization."
    path = Path(folder) / "report.html"
    with atomic_write(path) as temporary:
        title = "Speech codec: what it keeps of a voice"
        rows = figures_of(evaluation, _FIGURES, f"{evaluation.get('eval_clips', 0)} held-out clips")
        write_report(temporary, title=title, lead=lead, curves=curves_of_log(log, _charts(log)), metrics=rows)
        if clips:
            heard, longest = [], round(_LONGEST_SECONDS * model.config.sampling_rate)
            for text, samples in spread(clips, _CLIPS):
                samples = np.asarray(samples, np.float32)[:longest]
                versions = {"Original": samples} | reconstructions(model, samples, quantized)
                heard.append((text or "(no transcript)", versions))
            note = f"{len(heard)} of {len(clips)} clips that training never saw, up to {_LONGEST_SECONDS:g} s of each."
            add_sounds(temporary, "Held-out clips", note, heard, model.config.sampling_rate)
            if media:
                media.sounds(heard, model.config.sampling_rate)
    return path


def _charts(log: list[dict[str, float]]) -> dict[str, tuple[str, ...]]:
    """The named charts, and one for each other part of the log."""
    named = {name for _, *names in _CURVES.values() for name in names} | _NO_CURVES
    numbers = {name for row in log for name, value in row.items() if isinstance(value, (int, float))}
    others = sorted(numbers - named)
    return _CURVES | {name.replace("eval_", "held-out ").replace("_", " "): (name, name) for name in others}


def reconstructions(
    model: SolamiSpeechCodecModel, samples: np.ndarray, quantized: bool = True
) -> dict[str, np.ndarray]:
    """A clip (samples,) after the codec: from all levels and from level 0 alone, or from unquantized latents. The same
    length, loudness bounded; draws no random numbers, and the model's training mode is kept."""
    values = torch.from_numpy(samples).to(model.device)[None, None]
    with evaluating(model):
        if quantized:
            codes = model.encode(values).audio_codes
            parts = {f"All {codes.shape[1]} levels": codes, "Level 0 alone": codes[:, :1]}
            made = {name: model.decode(part).audio_values for name, part in parts.items()}
        else:
            made = {"Not quantized": model(values, quantize=False).audio_values}
    rate = model.config.sampling_rate
    return {
        name: limit_loudness(wave[0, 0, : len(samples)].float().cpu().numpy(), rate) for name, wave in made.items()
    }


SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 4.0


def clips_to_measure(recordings: Recordings, count: int, sampling_rate: int) -> list[tuple[str, np.ndarray]]:
    """At most `count` clips from all over `recordings`: what is said, and samples (samples,) of up to 4 s. Clips below
    0.2 s are left out: the longest windows of the losses do not fit into them."""
    shortest, longest = (round(seconds * sampling_rate) for seconds in (SHORTEST_SECONDS, LONGEST_SECONDS))
    usable = np.flatnonzero(np.diff(recordings.ends, prepend=0) >= shortest).tolist()
    return [(recordings.texts[index], recordings[index][:longest]) for index in spread(usable, count)]


def evaluate_speech_codec(
    model: SolamiSpeechCodecModel,
    clips: list[tuple[str, np.ndarray]],
    mel_loss: nn.Module,
    teacher: SemanticTeacher | None = None,
    quantized: bool = True,
) -> dict[str, float]:
    """Measures clips (see `clips_to_measure`) one by one; draws no random numbers, and the model's training mode is
    kept.

    Returns `mel`: mean log-mel distance with all levels. `clips`: their number. If `quantized` (False while the
    codebooks are still empty) also `mel_level_0`: from level 0 alone; `perplexity_level_0` and `codes_used_level_0`:
    the effective and the whole number of its codes; and with a teacher `semantic_cosine`: of level 0's projection and
    the teacher's hidden states. Empty without clips.
    """
    if not clips:
        return {}
    sums, codes = Counter(), []
    with evaluating(model):
        for _, samples in clips:
            values = torch.from_numpy(samples).to(model.device)[None, None]
            if not quantized:
                sums["mel"] += float(mel_loss(model(values, quantize=False).audio_values, values))
                continue
            codes.append(model.encode(values).audio_codes)
            for name, part in (("mel", codes[-1]), ("mel_level_0", codes[-1][:, :1])):
                sums[name] += float(mel_loss(model.decode(part).audio_values[..., : len(samples)], values))
            if teacher is not None:
                projected = model.semantic_projection(model.quantizer.levels[0].decode(codes[-1][:, 0]))
                agreement = 1 - distillation_loss(projected, teacher(values, projected.shape[1]))
                sums["semantic_cosine"] += float(agreement)
    results = {name: total / len(clips) for name, total in sums.items()}
    if quantized:
        all_codes = torch.cat([of_clip[0, 0] for of_clip in codes])
        results["perplexity_level_0"] = float(perplexity(all_codes, model.config.codebook_size))
        results["codes_used_level_0"] = len(all_codes.unique())
    return {name: round(value, 5) for name, value in results.items()} | {"clips": len(clips)}
