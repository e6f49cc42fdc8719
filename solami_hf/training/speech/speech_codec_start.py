"""Where a speech codec starts from: layers of unit variance, and codebooks filled by k-means."""

from collections.abc import Iterable

import torch
from torch import nn

from ...modeling.speech_codec.modeling_speech_codec import (
    SolamiSpeechCodecModel,
    SpeechCodecCodebook,
    SpeechCodecWeightNorm,
)


@torch.no_grad()
def start_with_unit_variance(model: SolamiSpeechCodecModel, input_values: torch.Tensor) -> None:
    """Scales each convolution so that its output on `input_values` (batch, 1, samples) has standard deviation 1.

    Layer-sequential unit-variance initialization (https://arxiv.org/abs/1511.06422); the last layer gets the deviation
    of the waveform.
    """
    last = model.decoder.layers[-1]

    def rescale(module: nn.Module, _, output: torch.Tensor) -> torch.Tensor:
        wanted = input_values.std() if module is last else 1.0
        scale = wanted / output.std().clamp(min=1e-5)
        module.gain.mul_(scale)
        return output * scale

    layers = [module for module in model.modules() if isinstance(module, SpeechCodecWeightNorm)]
    hooks = [layer.register_forward_hook(rescale) for layer in layers]
    try:
        model(input_values, quantize=False)
    finally:
        for hook in hooks:
            hook.remove()


def codebooks_filled(model: SolamiSpeechCodecModel) -> bool:
    """Whether the codebooks hold codes rather than their random start."""
    return bool(model.quantizer.levels[0].initialised)


@torch.no_grad()
def fill_codebooks(model: SolamiSpeechCodecModel, batches: list[torch.Tensor], clips_per_step: int, seed: int) -> int:
    """k-means over the residuals of `batches` of waveforms (batch, 1, samples) of one length, level after level.

    Args:
        clips_per_step: how many such clips move the codebooks at once in training; their statistics start there.

    Returns:
        how many latents there were.
    """
    latents = [model.encoder(values.to(model.device)) for values in batches]
    residual = torch.cat([latent.transpose(1, 2).flatten(0, 1) for latent in latents]).float()
    fill_levels(model.quantizer.levels, residual, clips_per_step / sum(map(len, batches)), seed)
    return len(residual)


@torch.no_grad()
def fill_levels(levels: Iterable[SpeechCodecCodebook], residual: torch.Tensor, share: float, seed: int) -> None:
    """k-means over `residual` (n, size), and for each further level over what the ones before leave; `share` of these
    vectors move the codebooks in a step of training."""
    for level in levels:
        centres, counts = kmeans(residual, len(level.code_counts), seed=seed)
        level.set_codes(centres, counts * share)
        residual = residual - level.decode(level.encode(residual))


def kmeans(vectors: torch.Tensor, count: int, seed: int, iterations: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm: vectors (n, size) to centres (count, size) and how many vectors each has (count,)."""
    generator = torch.Generator(device=vectors.device).manual_seed(seed)
    order = torch.randperm(len(vectors), generator=generator, device=vectors.device)
    centres = vectors[order.repeat(count // len(vectors) + 1)[:count]].clone()
    for _ in range(iterations):
        nearest = (centres.pow(2).sum(1) - 2 * vectors @ centres.t()).argmin(1)
        counts = torch.bincount(nearest, minlength=count).to(vectors.dtype)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    return centres, counts
