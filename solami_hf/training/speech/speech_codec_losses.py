"""Losses of a speech codec on spectrograms of several resolutions."""

import torch
from torch import nn
from torchaudio.transforms import MelSpectrogram


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel magnitudes at several window lengths.

    Args:
        sampling_rate: in Hz.
        floor: added to the magnitudes; smaller values make silence dominate the loss.
    """

    SCALES = ((256, 24), (512, 40), (1024, 80), (2048, 80))

    def __init__(self, sampling_rate: int, floor: float = 1e-3):
        super().__init__()
        self.floor = floor
        self.spectrograms = nn.ModuleList(
            MelSpectrogram(sampling_rate, size, hop_length=size // 4, n_mels=bands, power=1, normalized="window")
            for size, bands in self.SCALES
        )

    def forward(self, values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Waveforms (batch, 1, samples) to a scalar."""
        values, target = values.float().squeeze(1), target.float().squeeze(1)
        parts = []
        for spectrogram in self.spectrograms:
            logs = [torch.log(spectrogram(signal) + self.floor) for signal in (values, target)]
            parts.append((logs[0] - logs[1]).abs().mean())
        return torch.stack(parts).mean()


class StftLoss(nn.Module):
    """Differences of linear magnitudes at several window lengths, after Parallel WaveGAN (arXiv 1910.11480).

    Each window length adds the spectral convergence (the norm of the difference over the norm of the target, of each
    clip) and the mean absolute difference of log magnitudes. Computed in float32, under autocast too.

    Args:
        sizes: window lengths in samples; each moves on by a quarter of itself.
        floor: added to the magnitudes before the logarithm. Magnitudes are relative to the window's root energy, so
            noise of deviation 0.01 has about 0.01 in every bin.
        quietest: root mean square magnitude that a quieter clip counts as when its errors are divided by its norm.
            Both keep silence from weighing more than speech.
    """

    def __init__(self, sizes: tuple[int, ...] = (256, 512, 1024, 2048), floor: float = 1e-3, quietest: float = 1e-2):
        super().__init__()
        self.sizes, self.floor, self.quietest = sizes, floor, quietest
        for size in sizes:
            self.register_buffer(f"window_{size}", normalised_window(size), persistent=False)

    def forward(self, values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Waveforms (batch, 1, samples) to a scalar.

        Raises:
            ValueError: the clips are not longer than half of the longest window.
        """
        if values.shape[-1] <= max(self.sizes) // 2:
            raise ValueError(
                f"the clips have {values.shape[-1]} samples, expected more than {max(self.sizes) // 2}, half of the "
                "longest window: train on longer ones"
            )
        with torch.autocast(values.device.type, enabled=False):
            values, target = values.float().squeeze(1), target.float().squeeze(1)
            return torch.stack([self._difference(values, target, size) for size in self.sizes]).mean()

    def _difference(self, values: torch.Tensor, target: torch.Tensor, size: int) -> torch.Tensor:
        window = getattr(self, f"window_{size}")
        found, wanted = (complex_spectrogram(signal, window).abs() for signal in (values, target))
        norm = wanted.pow(2).mean((1, 2)).sqrt().clamp(min=self.quietest)
        # vector_norm has a gradient where the difference is zero, sqrt has none
        error = torch.linalg.vector_norm(found - wanted, dim=(1, 2)) / wanted[0].numel() ** 0.5
        logs = (found + self.floor).log() - (wanted + self.floor).log()
        return (error / norm).mean() + logs.abs().mean()


def normalised_window(size: int) -> torch.Tensor:
    """Hann window (size,) with a root energy of 1."""
    window = torch.hann_window(size)
    return window / window.pow(2).sum().sqrt()


def complex_spectrogram(values: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Waveforms (batch, samples) in float32 to complex (batch, size // 2 + 1, frames), a quarter window apart."""
    size = len(window)
    return torch.stft(values, size, hop_length=size // 4, window=window, return_complex=True)
