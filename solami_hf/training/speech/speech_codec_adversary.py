"""A network that tells recordings from what a speech codec makes of them, and what the codec learns from it.

After EnCodec (arXiv 2210.13438): convolutions over complex spectrograms of several window lengths, hinge losses, and
the differences of the network's features. It is no part of the codec: it has an optimizer of its own, and both are
kept in one file of every checkpoint, so that a resumed run goes on exactly.
"""

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from torch.nn.utils.parametrizations import weight_norm

from ...processing.files.atomic_write import atomic_write
from .speech_codec_losses import complex_spectrogram, normalised_window

logger = logging.getLogger(__name__)

ADVERSARY_FILE = "adversary.safetensors"


class SpectrogramDiscriminator(nn.Module):
    """Judges the complex spectrogram of one window length, `size` samples; `channels` is the width of every layer."""

    KERNEL = (9, 3)  # bins, frames
    FRAME_DILATIONS = (1, 2, 4)

    def __init__(self, size: int, channels: int):
        super().__init__()
        self.register_buffer("window", normalised_window(size), persistent=False)
        layers = [nn.Conv2d(2, channels, self.KERNEL, padding=(4, 1))]
        for dilation in self.FRAME_DILATIONS:
            layers.append(
                nn.Conv2d(channels, channels, self.KERNEL, (2, 1), padding=(4, dilation), dilation=(1, dilation))
            )
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, 1, 3, padding=1)]
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)

    def forward(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Waveforms (batch, 1, samples) to the features (batch, channels, bins, frames) of each layer. The last are
        the scores (batch, 1, bins, frames), high where it takes the sound for a recording."""
        hidden = torch.view_as_real(complex_spectrogram(values.squeeze(1), self.window)).permute(0, 3, 1, 2)
        features = []
        for layer in self.layers:
            hidden = layer(hidden if not features else F.leaky_relu(hidden, 0.2))
            features.append(hidden)
        return features


class SpeechCodecDiscriminator(nn.Module):
    """Judges spectrograms of several window lengths, in float32 under autocast too."""

    def __init__(self, sizes: tuple[int, ...] = (256, 512, 1024), channels: int = 16):
        super().__init__()
        self.scales = nn.ModuleList(SpectrogramDiscriminator(size, channels) for size in sizes)

    def forward(self, values: torch.Tensor) -> list[list[torch.Tensor]]:
        """Waveforms (batch, 1, samples) to the features of each scale, see [`SpectrogramDiscriminator`]."""
        with torch.autocast(values.device.type, enabled=False):
            return [scale(values.float()) for scale in self.scales]


def discriminator_loss(real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> torch.Tensor:
    """Hinge loss of the network: scores of recordings above 1 and of what the codec made below -1 cost nothing."""
    parts = [F.relu(1 - r[-1]).mean() + F.relu(1 + m[-1]).mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(parts).mean()


def adversarial_loss(made: list[list[torch.Tensor]]) -> torch.Tensor:
    """Hinge loss of the codec: scores above 1 cost nothing."""
    return torch.stack([F.relu(1 - scale[-1]).mean() for scale in made]).mean()


def feature_matching_loss(real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> torch.Tensor:
    """Mean absolute difference of the features over the mean size of those of the recording, scores left out."""
    parts = []
    for of_real, of_made in zip(real, made, strict=True):
        for wanted, found in zip(of_real[:-1], of_made[:-1], strict=True):
            parts.append((found - wanted).abs().mean() / wanted.abs().mean().clamp(min=1e-5))
    return torch.stack(parts).mean()


class Adversary:
    """The discriminator, its AdamW (`betas` as in EnCodec, constant `learning_rate`), and their turn: every
    `every`-th step, lest it win, from step `start` on, when the codec should be intelligible. Its first weights are
    drawn from `seed`; the global random numbers are left as they are."""

    def __init__(
        self,
        start: int,
        every: int = 2,
        learning_rate: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.9),
        seed: int = 0,
        device: torch.device | str = "cpu",
        **sizes,
    ):
        self.start, self.every = start, every
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.discriminator = SpeechCodecDiscriminator(**sizes).to(device)
        self.optimizer = torch.optim.AdamW(self.discriminator.parameters(), lr=learning_rate, betas=betas)

    def is_active(self, step: int) -> bool:
        """True if the codec hears of it in step `step` (counted from 0)."""
        return step >= self.start

    def learn(
        self, recordings: torch.Tensor, made: torch.Tensor, step: int, share: float = 1.0, last: bool = True
    ) -> torch.Tensor | None:
        """Its own loss on recordings and what the codec made of them, both (batch, 1, samples), if it is its turn
        in this `step` (from 0). `share` is this batch's in the step, below 1 where several batches make one; after
        the `last` of them the weights move (by the mean over all ranks)."""
        if not self.is_active(step) or (step - self.start) % self.every:
            return None
        loss = discriminator_loss(self.discriminator(recordings), self.discriminator(made.detach()))
        (share * loss).backward()
        if last:
            if distributed.is_available() and distributed.is_initialized():
                for parameter in self.discriminator.parameters():
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= distributed.get_world_size()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.detach()

    def losses(self, recordings: torch.Tensor, made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Adversarial and feature matching loss of the codec, for what it made, (batch, 1, samples). Its own weights
        get no gradients. To be called behind `learn`, which would change them under the graph."""
        self.discriminator.requires_grad_(False)
        of_real, of_made = self.discriminator(recordings), self.discriminator(made)
        self.discriminator.requires_grad_(True)
        return adversarial_loss(of_made), feature_matching_loss(of_real, of_made)

    def save(self, folder: str | Path) -> None:
        """Writes weights and the optimizer's state to one safetensors file, whole or not at all."""
        tensors = {f"weights.{name}": value for name, value in self.discriminator.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        with atomic_write(Path(folder) / ADVERSARY_FILE) as temporary:
            save_file({name: value.detach().contiguous() for name, value in tensors.items()}, temporary)

    def load(self, folder: str | Path) -> None:
        """Reads what `save` wrote; a checkpoint without it changes nothing. ValueError for one of other sizes."""
        path = Path(folder) / ADVERSARY_FILE
        if not path.is_file():
            logger.warning("%s holds no adversary: it starts from scratch", folder)
            return
        tensors, state = load_file(path), {}
        for key in [key for key in tensors if key.startswith("optimizer.")]:
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensors.pop(key)
        try:
            self.discriminator.load_state_dict({key.removeprefix("weights."): t for key, t in tensors.items()})
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit this adversary; go on with the sizes it was made with") from error
        groups = self.optimizer.state_dict()["param_groups"]  # rate and betas are those of this run
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
