"""Losses of a speech codec: on spectrograms of several resolutions, and the distillation of level 0.

Level 0 learns from the hidden states of a speech encoder that knows what is said. Any audio encoder of transformers
can teach, by hub id or folder: HuBERT (as in SpeechTokenizer, https://arxiv.org/abs/2308.16692), wav2vec 2.0, WavLM,
w2v-BERT, the encoder of Whisper.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchaudio.transforms import MelSpectrogram


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel magnitudes at several window lengths. `floor` is added to the magnitudes;
    smaller values make silence dominate the loss."""

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

    Each window length (in samples, moving on by a quarter of itself) adds the spectral convergence (the norm of the
    difference over the norm of the target, of each clip) and the mean absolute difference of log magnitudes. Computed
    in float32, under autocast too. `floor` is added to the magnitudes before the logarithm; they are relative to the
    window's root energy, so noise of deviation 0.01 has about 0.01 in every bin. `quietest` is the root mean square
    magnitude that a quieter clip counts as when its errors are divided by its norm. Both keep silence from weighing
    more than speech.
    """

    def __init__(self, sizes: tuple[int, ...] = (256, 512, 1024, 2048), floor: float = 1e-3, quietest: float = 1e-2):
        super().__init__()
        self.sizes, self.floor, self.quietest = sizes, floor, quietest
        for size in sizes:
            self.register_buffer(f"window_{size}", normalised_window(size), persistent=False)

    def forward(self, values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Waveforms (batch, 1, samples) to a scalar; ValueError for those up to half of the longest window."""
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


class SemanticTeacher:
    """A frozen audio encoder (hub id or folder of an audio model with its feature extractor) that gives one vector for
    each frame of the codec. `layer` says which hidden states, as transformers counts them: 0 is what the first layer
    reads, -1 the last layer's; None is the mean of all layers'. `sampling_rate` (Hz) is that of the waveforms that
    will be given. Raises ValueError: the encoder reads another rate, or has no such layer; OSError: neither a folder
    nor a model of the hub."""

    def __init__(self, name_or_path: str, layer: int | None, sampling_rate: int, device: torch.device | str = "cpu"):
        from transformers import AutoFeatureExtractor, AutoModel

        self.extractor = AutoFeatureExtractor.from_pretrained(name_or_path)
        if self.extractor.sampling_rate != sampling_rate:
            raise ValueError(
                f"{name_or_path} reads {self.extractor.sampling_rate} Hz, the codec {sampling_rate} Hz; choose a "
                "semantic teacher with the codec's rate"
            )
        model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        self.encoder: nn.Module = encoder.to(device).eval().requires_grad_(False)
        layers = getattr(model.config, "num_hidden_layers", None) or model.config.encoder_layers
        if layer is not None and not -layers - 1 <= layer <= layers:
            raise ValueError(f"semantic_layer is {layer}, but {name_or_path} has layers {-layers - 1} to {layers}")
        self.layer, self.sampling_rate, self.device = layer, sampling_rate, device
        self.size = model.config.hidden_size
        self.mean, self.deviation = torch.zeros(self.size, device=device), torch.ones(self.size, device=device)

    @torch.no_grad()
    def hidden_states(self, input_values: torch.Tensor, frames: int) -> torch.Tensor:
        """Waveforms (batch, 1, samples) to hidden states (batch, frames, size), interpolated over time."""
        clips = list(input_values.squeeze(1).float().cpu().numpy())
        inputs = self.extractor(clips, sampling_rate=self.sampling_rate, return_tensors="pt").to(self.device)
        states = self.encoder(**inputs, output_hidden_states=True).hidden_states
        states = torch.stack(states[1:]).mean(0) if self.layer is None else states[self.layer]
        padded = getattr(self.extractor, "n_samples", None)  # Whisper's: every clip is filled up to 30 s
        if padded:
            states = states[:, : max(1, round(states.shape[1] * input_values.shape[-1] / padded))]
        return F.interpolate(states.float().transpose(1, 2), size=frames, mode="linear").transpose(1, 2)

    def measure(self, batches: list[torch.Tensor], frames: int) -> None:
        """Takes mean and deviation of the hidden states from waveforms (batch, 1, samples): a few large dimensions
        would otherwise decide everything."""
        states = torch.cat([self.hidden_states(batch, frames).flatten(0, 1) for batch in batches])
        self.mean, self.deviation = states.mean(0), states.std(0).clamp(min=1e-4)

    def __call__(self, input_values: torch.Tensor, frames: int) -> torch.Tensor:
        """Waveforms (batch, 1, samples) to standardized hidden states (batch, frames, size)."""
        return (self.hidden_states(input_values, frames) - self.mean) / self.deviation


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """One minus the mean cosine of the vectors (batch, frames, size) of both: 0 if they agree, 1 by chance."""
    return 1 - F.cosine_similarity(student.float(), teacher, dim=-1).mean()
