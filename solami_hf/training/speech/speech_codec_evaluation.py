"""How well a speech codec brings back held-out clips."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ...modeling.motion_vq.quantizers import perplexity
from ...modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from .semantic_distillation import distillation_loss

if TYPE_CHECKING:
    from ..speech_recordings import Recordings
    from .semantic_distillation import SemanticTeacher

SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 4.0


def clips_to_measure(recordings: "Recordings", count: int, sampling_rate: int) -> list[tuple[str, np.ndarray]]:
    """At most `count` clips from all over `recordings`: what is said, and samples (samples,) of up to 4 s.

    Clips below 0.2 s are left out: the longest windows of the losses do not fit into them.
    """
    shortest, longest = (round(seconds * sampling_rate) for seconds in (SHORTEST_SECONDS, LONGEST_SECONDS))
    lengths = np.diff(recordings.ends, prepend=0)
    usable = np.flatnonzero(lengths >= shortest).tolist()
    chosen = [usable[i * len(usable) // count] for i in range(count)] if len(usable) > count else usable
    return [(recordings.texts[index], recordings[index][:longest]) for index in chosen]


@torch.no_grad()
def evaluate_speech_codec(
    model: SolamiSpeechCodecModel,
    clips: list[tuple[str, np.ndarray]],
    mel_loss: nn.Module,
    teacher: "SemanticTeacher | None" = None,
    quantized: bool = True,
) -> dict[str, float]:
    """Measures clips one by one; draws no random numbers, and the model's training mode is kept.

    Args:
        clips: what is said and samples (samples,), see `clips_to_measure`; at least one.
        quantized: False while the codebooks are still empty.

    Returns:
        `mel`: mean log-mel distance with all levels. `clips`: their number. If `quantized` also `mel_level_0`: from
        level 0 alone; `perplexity_level_0` and `codes_used_level_0`: the effective and the whole number of its codes;
        and with a teacher `semantic_cosine`: of level 0's projection and the teacher's hidden states.
    """
    was_training = model.training
    model.eval()
    sums, codes = {}, []

    def add(name: str, value: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + float(value)

    for _, samples in clips:
        values = torch.from_numpy(samples).to(model.device)[None, None]
        if not quantized:
            add("mel", mel_loss(model(values, quantize=False).audio_values, values))
            continue
        codes.append(model.encode(values).audio_codes)
        for name, part in (("mel", codes[-1]), ("mel_level_0", codes[-1][:, :1])):
            add(name, mel_loss(model.decode(part).audio_values[..., : len(samples)], values))
        if teacher is not None:
            projected = model.semantic_projection(model.quantizer.levels[0].decode(codes[-1][:, 0]))
            add("semantic_cosine", 1 - distillation_loss(projected, teacher(values, projected.shape[1])))
    model.train(was_training)
    results = {name: total / len(clips) for name, total in sums.items()}
    if quantized:
        all_codes = torch.cat([of_clip[0, 0] for of_clip in codes])
        results["perplexity_level_0"] = float(perplexity(all_codes, model.config.codebook_size))
        results["codes_used_level_0"] = len(all_codes.unique())
    return {name: round(value, 5) for name, value in results.items()} | {"clips": len(clips)}
