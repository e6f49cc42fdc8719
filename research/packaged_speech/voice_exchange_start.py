"""Where a codec starts from whose level 0 shall not know who speaks: units that voices share, and an encoder that
finds them."""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import trange

from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel, SpeechCodecWeightNorm
from solami_hf.training.speech.speech_codec_trainer import fill_levels

from .parallel_speech import HEAD_LAYERS, ParallelSpeech, run_head

logger = logging.getLogger(__name__)

FRAMES, WARM_UP, BATCH = 75, 5, 32  # of the clips that the head is taught with


def sharpness(codebook: torch.Tensor) -> torch.Tensor:
    """Where to begin telling codes (n, size) apart: log of what squared distances are multiplied with."""
    return torch.log(10 / (codebook - codebook.mean(0)).square().sum(1).mean())


def unit_logits(latents: torch.Tensor, codebook: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """How near latents (..., size) are to each code, (..., codes); `log_scale` as of `sharpness`."""
    distances = latents.square().sum(-1, keepdim=True) - 2 * latents @ codebook.t() + codebook.square().sum(1)
    return -distances * log_scale.exp()


def teach_units(
    codec: SolamiSpeechCodecModel, speech: ParallelSpeech, latents: list[list[torch.Tensor]], steps: int, seed: int,
    bf16: bool = False,
) -> None:  # fmt: skip
    """Teaches the encoder's head the units of the speech, the codes of level 0, while its old `latents` can be told
    from the new by a matrix.

    The decoder then reads the new latents through that matrix: what it makes of them is what it made of the old.
    """
    size, codebook = codec.config.hidden_size, codec.quantizer.levels[0].codebook
    back = nn.Linear(size, size)
    nn.init.eye_(back.weight)
    nn.init.zeros_(back.bias)
    log_scale = nn.Parameter(sharpness(codebook))
    head = codec.encoder.layers[-HEAD_LAYERS:]
    weights = [*head.parameters(), *back.parameters(), log_scale]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.98), weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
    )
    generator = np.random.default_rng(seed)
    long = [(v, i) for v, voice in enumerate(speech.features) for i, clip in enumerate(voice) if len(clip) >= FRAMES]
    right = torch.zeros(())
    for step in (bar := trange(steps, desc="teaching units", unit="step")):
        chosen = [long[i] for i in generator.integers(len(long), size=BATCH)]
        starts = [int(generator.integers(len(speech.features[v][i]) - FRAMES + 1)) for v, i in chosen]

        def windows(source, chosen=chosen, starts=starts):
            return torch.stack([source[v][i][at : at + FRAMES] for (v, i), at in zip(chosen, starts, strict=True)])

        features, wanted = windows(speech.features).float(), windows(speech.units)[:, WARM_UP:]
        old = windows(latents).float()[:, WARM_UP:]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            new = run_head(codec, features)
        new = new.float()[:, WARM_UP:]
        logits = unit_logits(new, codebook, log_scale).flatten(0, 1)
        loss = F.cross_entropy(logits, wanted.flatten()) + F.mse_loss(back(new), old) / old.var()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        right = (logits.argmax(-1) == wanted.flatten()).float().mean().lerp(right, 0.98 if step else 0.0)
        bar.set_postfix(right=f"{100 * float(right):.0f} %", refresh=False)
    logger.info("the encoder finds %.0f %% of the units", 100 * float(right))
    read_through(codec, back.weight, back.bias)


@torch.no_grad()
def read_through(codec: SolamiSpeechCodecModel, matrix: torch.Tensor, bias: torch.Tensor) -> None:
    """Puts a linear map of latents, matrix (size, size) and bias (size,), before the decoder's first convolution."""
    first = codec.decoder.layers[0]
    weight = first.weight
    first.bias.add_(torch.einsum("oik,i->o", weight, bias))
    set_weight(first, torch.einsum("oik,ij->ojk", weight, matrix))


@torch.no_grad()
def set_weight(layer: SpeechCodecWeightNorm, weight: torch.Tensor) -> None:
    """Gives a convolution this weight (output, input, kernel)."""
    layer.direction.copy_(weight)
    layer.gain.copy_(weight.flatten(1).norm(dim=1)[:, None, None])


@torch.no_grad()
def fill_behind_level_0(
    codec: SolamiSpeechCodecModel, speech: ParallelSpeech, vectors_per_step: int, seed: int
) -> torch.Tensor:
    """k-means for all codebooks but the first, of what level 0 of the voice itself and of others leaves to say.

    Returns:
        The mean of what the others leave, of each voice (voices, size).
    """
    own, exchanged, of_voice = left_by_level_0(codec, speech, seed)
    means = torch.stack([
        exchanged[of_voice == voice].mean(0) if (of_voice == voice).any() else exchanged.mean(0)
        for voice in range(len(speech.names))
    ])  # fmt: skip
    residual = torch.cat([own, exchanged])
    fill_levels(codec.quantizer.levels[1:], residual, vectors_per_step / len(residual), seed)
    return means


@torch.no_grad()
def left_by_level_0(
    codec: SolamiSpeechCodecModel, speech: ParallelSpeech, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What level 0 leaves to say of some sentences, if it is the voice's own, and if it is that of another voice, (n,
    size) both; and whose voice it is, (n,)."""
    generator, first = np.random.default_rng((seed, 2)), codec.quantizer.levels[0]
    own, exchanged, of_voice = [], [], []
    for _ in range(320):
        index = int(generator.integers(len(speech.features[0])))
        target, source = map(int, generator.choice(len(speech.names), 2, replace=False))
        latents, theirs = (
            run_head(codec, speech.features[voice][index].float()[None])[0] for voice in (target, source)
        )
        path = torch.from_numpy(speech.warps[source, target, index])
        own.append(latents - first.decode(first.encode(latents)))
        exchanged.append(latents - first.decode(first.encode(theirs)[path]))
        of_voice.append(torch.full((len(latents),), target))
    return torch.cat(own), torch.cat(exchanged), torch.cat(of_voice)
