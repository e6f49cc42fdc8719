"""The lips: a small causal network from speech codes, or from sound where a codec is unknown, to visemes.

    lips = SolamiLipsModel.from_pretrained(folder)
    visemes = lips(codes=codes).logits.softmax(-1)  # (batch, frames, visemes), as many frames as codes

A frame is told from what comes before it and `lookahead` frames more, so that a stream gives what the whole gives.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchaudio
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..remote_code import CarriesItsCode
from .configuration_lips import SolamiLipsConfig

_WINDOWS = 2  # hops that a window of the spectrogram is long


@dataclass
class SolamiLipsOutput(ModelOutput):
    """`loss`: mean cross-entropy over labelled frames, in nats, None without labels; `accuracy`: share of labelled
    frames whose most probable viseme is right; `logits` (batch, frames, visemes): float32 scores."""

    loss: torch.FloatTensor | None = None
    accuracy: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None


class LipsConvolution(nn.Module):
    """Norm, a causal convolution with a gate, and back: what is behind a frame does not reach into it."""

    def __init__(self, size: int, kernel_size: int, dilation: int):
        super().__init__()
        self.reach = (kernel_size - 1) * dilation
        self.norm = nn.LayerNorm(size)
        self.up = nn.Conv1d(size, 2 * size, kernel_size, dilation=dilation)
        self.down = nn.Conv1d(size, size, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, frames, size) to the same shape."""
        inner = F.pad(self.norm(hidden).transpose(1, 2), (self.reach, 0))
        return hidden + self.down(F.glu(self.up(inner), dim=1)).transpose(1, 2)


class SolamiLipsModel(CarriesItsCode, PreTrainedModel):
    """Reads visemes off speech codes of level 0, or off a log-mel spectrogram."""

    code_file = __file__
    config_class = SolamiLipsConfig
    base_model_prefix = "lips"
    main_input_name = "codes"

    def __init__(self, config: SolamiLipsConfig):
        super().__init__(config)
        size = config.hidden_size
        self.code_embedding = nn.Embedding(config.codebook_size, size)
        self.mel_projection = nn.Linear(config.num_mels, size)
        self.layers = nn.ModuleList(
            LipsConvolution(size, config.kernel_size, 2**layer) for layer in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, len(config.visemes))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d | nn.Linear):
            width = math.prod(module.weight.shape[1:])
            init.normal_(module.weight, std=width**-0.5)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=1.0)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    @property
    def context(self) -> int:
        """Frames before the last one heard that are heard with it."""
        return sum(layer.reach for layer in self.layers)

    @property
    def hop_length(self) -> int:
        """Samples of a frame."""
        return round(self.config.sampling_rate / self.config.frame_rate)

    def log_mels(self, waveform: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
        """Log-mel spectrogram (batch, frames, mels) of sound (batch, samples), of whole frames; none looks ahead.
        `before`: the `hop_length` samples before it; silence if None."""
        hop, size = self.hop_length, _WINDOWS * self.hop_length
        before = waveform.new_zeros(len(waveform), size - hop) if before is None else before
        frames = torch.cat([before, waveform], dim=1).unfold(1, size, hop)
        power = torch.fft.rfft(frames * torch.hann_window(size, device=waveform.device)).abs().square()
        rate = self.config.sampling_rate
        bands = torchaudio.functional.melscale_fbanks(size // 2 + 1, 0.0, rate / 2, self.config.num_mels, rate)
        return (power @ bands.to(power)).clamp_min(1e-6).log() / 4 + 1

    def embed(self, codes: torch.LongTensor | None = None, mels: torch.Tensor | None = None) -> torch.Tensor:
        """Codes (batch, frames) or log-mels (batch, frames, mels) as (batch, frames, size). Raises ValueError: both
        or neither, another shape, codes outside of the codebook."""
        if (codes is None) == (mels is None):
            raise ValueError("give codes or mels, one of them")
        if mels is not None:
            if mels.ndim != 3 or mels.shape[-1] != self.config.num_mels:
                raise ValueError(f"mels are {tuple(mels.shape)}, expected (batch, frames, {self.config.num_mels})")
            return self.mel_projection(mels.to(self.dtype))
        if codes.ndim != 2 or codes.is_floating_point():
            raise ValueError(f"codes are {codes.dtype} {tuple(codes.shape)}, expected integers (batch, frames)")
        if codes.device.type == "cpu" and codes.numel():  # elsewhere the host would wait for it
            least, most = int(codes.min()), int(codes.max())
            if least < 0 or most >= self.config.codebook_size:
                raise ValueError(f"codes are {least} to {most}, expected 0 to {self.config.codebook_size - 1}")
        return self.code_embedding(codes)

    def read(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores (batch, frames, visemes) of what `embed` gave; those of a frame stand `lookahead` frames later."""
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(self.norm(hidden)).float()

    def forward(
        self,
        codes: torch.LongTensor | None = None,
        mels: torch.FloatTensor | None = None,
        padding_mask: torch.BoolTensor | None = None,
        labels: torch.LongTensor | None = None,
    ) -> SolamiLipsOutput:
        """Scores of each frame's visemes, of `codes` (batch, frames) of level 0 or `mels` (batch, frames, mels), see
        `log_mels`. `padding_mask` (batch, frames) is boolean, True = real; padding comes behind. `labels` (batch,
        frames) are visemes, -100 for frames that do not count. Raises ValueError: see `embed`; labels of another
        shape."""
        hidden = self.embed(codes, mels)
        if padding_mask is not None:
            hidden = hidden.masked_fill(~padding_mask[..., None], 0)
        ahead = self.config.lookahead
        output = SolamiLipsOutput(logits=self.read(F.pad(hidden, (0, 0, 0, ahead)))[:, ahead:])
        if labels is not None:
            if labels.shape != hidden.shape[:2]:
                raise ValueError(f"labels are {tuple(labels.shape)}, expected {tuple(hidden.shape[:2])}")
            output.loss = F.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
            right, real = output.logits.argmax(-1) == labels, labels != -100
            output.accuracy = right[real].float().mean()
        return output


class LipsStream:
    """Visemes of speech that is still coming: put end to end they are those of the whole. `model`: in evaluation
    mode."""

    def __init__(self, model: SolamiLipsModel):
        self.model = model
        self._hidden: torch.Tensor | None = None  # what the next frame hears, and what waits
        self._samples = torch.zeros(1, model.hop_length * (_WINDOWS - 1))

    @property
    def started(self) -> bool:
        """Something was pushed of which frames were heard."""
        return self._hidden is not None

    @torch.no_grad()
    def push(self, codes=None, samples=None) -> torch.Tensor:
        """Probabilities (frames, visemes) that are certain with the next codes (n,) or samples (n,)."""
        model, device = self.model, self.model.device
        if codes is not None:
            return self._read(model.embed(codes=torch.as_tensor(codes, device=device).long()[None]))
        hop = model.hop_length
        waiting = torch.cat([self._samples, torch.as_tensor(samples).float()[None]], dim=1)
        before, waiting = waiting.split([hop * (_WINDOWS - 1), waiting.shape[1] - hop * (_WINDOWS - 1)], dim=1)
        whole = waiting.shape[1] // hop * hop
        self._samples = torch.cat([before, waiting], dim=1)[:, whole:]
        if not whole:
            return torch.zeros(0, len(model.config.visemes))
        return self._read(model.embed(mels=model.log_mels(waiting[:, :whole], before).to(device)))

    @torch.no_grad()
    def finish(self) -> torch.Tensor:
        """The last ones, when no more will come."""
        size, ahead = self.model.config.hidden_size, self.model.config.lookahead
        if self._hidden is None:
            return torch.zeros(0, len(self.model.config.visemes))
        return self._read(self._hidden.new_zeros(1, ahead, size))

    def _read(self, new: torch.Tensor) -> torch.Tensor:
        known, ahead, context = self._hidden, self.model.config.lookahead, self.model.context
        first = known is None
        hidden = new if first else torch.cat([known, new], dim=1)
        self._hidden = hidden[:, -context:] if context else hidden[:, :0]
        logits = self.model.read(hidden)[0, -new.shape[1] :] if new.shape[1] else hidden.new_zeros(0, 0)
        self._heard = (0 if first else self._heard) + new.shape[1]
        skipped = max(0, min(len(logits), ahead - (self._heard - new.shape[1])))
        return logits[skipped:].softmax(-1).cpu().reshape(-1, len(self.model.config.visemes))
