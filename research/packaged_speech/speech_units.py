"""Units of speech that voices share, for level 0 of a codec: what aligned frames of several voices have in common.

The latents of a frame are averaged over the voices; directions in which voices differ more than sentences do are left
out; k-means finds the units in the others. A unit's place in the codebook is the mean of its frames.
"""

from dataclasses import dataclass

import numpy as np
import torch

from solami_hf.training.speech.speech_codec_trainer import kmeans

WITHIN_SENTENCES = 300  # that measure how voices differ


@dataclass
class SharedUnits:
    """
    Args:
        codebook: (units, size), in the space of the latents; it varies in `directions_kept` only.
        counts: (units,), how many frames each has.
        labels: of each voice and sentence the units (frames,).
    """

    codebook: torch.Tensor
    counts: torch.Tensor
    labels: list[list[torch.Tensor]]


def directions_kept(size: int) -> int:
    """Of the directions of latents, those in which the codebook varies; the others are left to the voice."""
    return size * 3 // 8


def shared_units(
    latents: list[list[torch.Tensor]], warps: dict[tuple[int, int, int], np.ndarray], count: int, seed: int = 0
) -> SharedUnits:
    """Finds `count` units in the latents (frames, size) of the same sentences, of each voice (see `align`)."""
    voices, sentences = range(len(latents)), range(len(latents[0]))
    means, differences = {}, []
    for sentence in sentences:
        for voice in voices:
            frames = _aligned(latents, warps, voice, sentence)
            means[voice, sentence] = frames.mean(0)
            if sentence < WITHIN_SENTENCES and voice == sentence % len(latents):
                differences.append((frames - frames.mean(0)).flatten(0, 1))
    shared = torch.cat([means[sentence % len(latents), sentence] for sentence in sentences])
    project = _directions_of_speech(shared, torch.cat(differences), len(latents))
    centre = shared.mean(0)
    centres, _ = kmeans((shared - centre) @ project, count, seed)

    def nearest(mean: torch.Tensor) -> torch.Tensor:
        return torch.cdist((mean - centre) @ project, centres).argmin(1)

    labels = [[nearest(means[voice, sentence]) for sentence in sentences] for voice in voices]
    return _as_codebook(latents, labels, count)


def _aligned(latents, warps, voice: int, sentence: int) -> torch.Tensor:
    """A sentence of all voices in the time of one, (voices, frames, size)."""
    own = latents[voice][sentence].float()
    frames = []
    for other, clips in enumerate(latents):
        path = None if other == voice else torch.from_numpy(warps[other, voice, sentence])
        frames.append(own if path is None else clips[sentence].float()[path])
    return torch.stack(frames)


def _directions_of_speech(shared: torch.Tensor, differences: torch.Tensor, voices: int) -> torch.Tensor:
    """A projection (size, size) to directions weighed by how much of them is common to the voices."""
    within = differences.T @ differences / len(differences)
    size = len(within)
    values, vectors = torch.linalg.eigh(within + 1e-3 * within.diagonal().mean() * torch.eye(size))
    white = vectors @ torch.diag(values**-0.5) @ vectors.T
    whitened = (shared - shared.mean(0)) @ white
    values, vectors = torch.linalg.eigh(whitened.T @ whitened / len(whitened))
    noise = 1.2 / voices  # what a mean over so many voices keeps of their differences, and a little more
    weights = ((values - noise).clamp(min=0) / values.clamp(min=1e-6)).sqrt()
    return white @ vectors @ torch.diag(weights)


def _as_codebook(latents, labels, count: int) -> SharedUnits:
    sums, counts = torch.zeros(count, latents[0][0].shape[1]), torch.zeros(count)
    for clips, units in zip(latents, labels, strict=True):
        for frames, unit in zip(clips, units, strict=True):
            sums.index_add_(0, unit, frames.float())
            counts += torch.bincount(unit, minlength=count)
    means = sums / counts.clamp(min=1)[:, None]
    centre = sums.sum(0) / counts.sum()
    spread = (means - centre) * (counts > 0)[:, None]
    directions = torch.linalg.eigh(spread.T @ spread).eigenvectors[:, -directions_kept(len(centre)) :]
    return SharedUnits(centre + spread @ directions @ directions.T, counts, labels)
