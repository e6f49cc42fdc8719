"""Any codec of transformers (Mimi, EnCodec, DAC, X-Codec 2, X-Codec, ...) in the place of SOLAMI's own speech codec.

    codec = load_speech_codec("kyutai/mimi", lm_levels=8)          # hub id or folder; ours comes back as it is
    codes = codec.encode(waveform[None, None]).audio_codes          # (1, levels, frames)
    speech = codec.decode(codes[:, :8]).audio_values                # (1, 1, hop_length * frames)

`encode` and `decode` keep the contract of [`SolamiSpeechCodecModel`], and `config` has the names of its configuration.
A folder saved by the adapter is a checkpoint of the codec itself, with `lm_levels` in its configuration.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel

from .codec_interface import (
    SolamiSpeechCodecDecoderOutput,
    SolamiSpeechCodecEncoderOutput,
    check_audio,
    check_codes,
    check_levels,
    mask_lengths,
)

OURS = "solami_speech_codec"
"""`model_type` of `SolamiSpeechCodecModel`, whose code a saved processor does not carry beside this module."""
_PAD_THEMSELVES = ("mimi", "encodec")  # the others need whole frames


@dataclass(frozen=True)
class SpeechCodecAdapterConfig:
    """Sizes and rates of a codec."""

    model_type: str  # of the codec's own configuration
    sampling_rate: int  # Hz of the waveform
    hop_length: int  # samples that one frame of codes stands for
    num_quantizers: int  # levels of the codec
    codebook_size: int  # codes of each level
    lm_levels: int  # levels, from level 0 on, that the language model reads and writes

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.sampling_rate / self.hop_length


def adapter_config(config, lm_levels: int | None = None) -> SpeechCodecAdapterConfig:
    """The sizes of a transformers codec, from its configuration. `lm_levels` is by default what the configuration was
    saved with; else the 8 levels that Moshi reads of Mimi, the levels of EnCodec's lowest bandwidth, and all levels of
    any other codec. Raises ValueError: the configuration is no codec's, has several channels or chunks of its own, or
    fewer levels."""
    kind = config.model_type
    chunked = getattr(config, "normalize", False) or getattr(config, "chunk_length_s", None)
    if chunked or getattr(config, "audio_channels", 1) != 1:
        raise ValueError(f"this {kind} codec takes stereo, or scales and cuts the sound; use one for whole mono clips")
    if kind == "xcodec2":
        levels, size = 1, math.prod(config.quantization_levels)
    else:
        levels = _first_of(config, "num_quantizers", "n_codebooks")
        size = _first_of(config, "codebook_size")
    default = levels
    if kind == "mimi":
        default = min(8, levels)
    elif kind == "encodec":
        bits = config.frame_rate * config.codebook_nbits
        default = max(1, int(1000 * config.target_bandwidths[0] // bits))
    for given in (getattr(config, "lm_levels", None), lm_levels):
        default = default if given is None else given
    if not 1 <= default <= levels:
        raise ValueError(f"lm_levels is {default}, expected 1 to {levels}, the levels of this {kind} codec")
    hop = config.frame_size if kind == "mimi" else _first_of(config, "hop_length")
    rate = _first_of(config, "sampling_rate", "sample_rate")
    return SpeechCodecAdapterConfig(kind, int(rate), int(hop), int(levels), int(size), int(default))


def _first_of(config, *names: str):
    for name in names:
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    raise ValueError(
        f"a {config.model_type} model cannot be the speech codec: its configuration has no {' or '.join(names)}; use "
        "one with discrete codes at one rate, such as Mimi, EnCodec, DAC or X-Codec 2"
    )


class SpeechCodecAdapter(nn.Module):
    """A codec of transformers behind the contract of `SolamiSpeechCodecModel`: a loaded `MimiModel`, `EncodecModel`,
    `DacModel`, `Xcodec2Model`, or another one whose `encode` gives `audio_codes` (batch, levels, frames) and whose
    `decode` takes them. The language model reads and writes `lm_levels` of its levels, see `adapter_config`."""

    def __init__(self, codec: PreTrainedModel, lm_levels: int | None = None):
        super().__init__()
        self.config = adapter_config(codec.config, lm_levels)
        self.codec = codec.eval()
        codec.config.lm_levels = self.config.lm_levels
        self._features = None
        if self.config.model_type == "xcodec2":
            from transformers import Xcodec2FeatureExtractor

            rate, hop = self.config.sampling_rate, self.config.hop_length
            self._features = Xcodec2FeatureExtractor(sampling_rate=rate, hop_length=hop)

    @property
    def device(self) -> torch.device:
        """Device of the codec's weights."""
        return self.codec.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the codec's weights."""
        return self.codec.dtype

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """Writes a checkpoint of the codec itself, which `load_speech_codec` and `AutoModel` load again."""
        self.codec.save_pretrained(save_directory, **kwargs)

    @torch.no_grad()
    def encode(
        self, input_values: torch.Tensor, padding_mask: torch.Tensor | None = None, num_quantizers: int | None = None
    ) -> SolamiSpeechCodecEncoderOutput:
        """Speech to codes; arguments, output and errors are those of `SolamiSpeechCodecModel.encode`. Most codecs have
        no masks, so clips of equal length are encoded together, each length on its own."""
        check_audio(input_values)
        levels = check_levels(num_quantizers, self.config.num_quantizers)
        batch, _, samples = input_values.shape
        lengths = mask_lengths(padding_mask, (batch, samples), "padding_mask", input_values.device)
        frames = -(-lengths // self.config.hop_length)
        codes = torch.zeros(batch, levels, int(frames.max()), dtype=torch.long, device=input_values.device)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            count = -(-length // self.config.hop_length)
            codes[rows, :, :count] = self._encode(input_values[rows, :, :length].to(self.dtype), levels)[..., :count]
        code_mask = torch.arange(codes.shape[-1], device=codes.device) < frames[:, None]
        return SolamiSpeechCodecEncoderOutput(audio_codes=codes, code_mask=code_mask)

    @torch.no_grad()
    def decode(
        self, audio_codes: torch.Tensor, code_mask: torch.Tensor | None = None
    ) -> SolamiSpeechCodecDecoderOutput:
        """Codes of the first q levels to speech, as `SolamiSpeechCodecModel.decode`."""
        check_codes(audio_codes, self.config.num_quantizers, self.config.codebook_size)
        batch, _, frames = audio_codes.shape
        hop = self.config.hop_length
        lengths = mask_lengths(code_mask, (batch, frames), "code_mask", audio_codes.device)
        values = torch.zeros(batch, 1, hop * frames, dtype=self.dtype, device=audio_codes.device)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            sound = self._decode(audio_codes[rows, :, :length].long()).reshape(len(rows), -1)[:, : hop * length]
            values[rows, 0, : sound.shape[-1]] = sound.to(values.dtype)
        padding_mask = torch.arange(hop * frames, device=values.device) < hop * lengths[:, None]
        return SolamiSpeechCodecDecoderOutput(audio_values=values, padding_mask=padding_mask)

    def _encode(self, values: torch.Tensor, levels: int) -> torch.Tensor:
        """(batch, 1, samples) to (batch, levels, frames), frames at least ceil(samples / hop_length)."""
        kind, codec = self.config.model_type, self.codec
        if kind not in _PAD_THEMSELVES and kind != "xcodec2":
            values = F.pad(values, (0, -values.shape[-1] % self.config.hop_length))
        if kind == "mimi":
            # It always computes its semantic levels, so fewer are cut off afterwards.
            codes = codec.encode(values, num_quantizers=max(levels, codec.config.num_semantic_quantizers)).audio_codes
        elif kind == "encodec":
            count = codec.quantizer.get_num_quantizers_for_bandwidth
            bandwidth = min(b for b in codec.config.target_bandwidths if count(b) >= levels)
            codes = codec.encode(values, bandwidth=bandwidth).audio_codes[0]
        elif kind == "dac":
            codes = codec.encode(values, n_quantizers=levels).audio_codes
        elif kind == "xcodec2":
            rows = list(values[:, 0].float().cpu().numpy())
            inputs = self._features(rows, sampling_rate=self.config.sampling_rate, return_tensors="pt")
            codes = codec.encode(inputs["input_values"].to(values), inputs["input_features"].to(values)).audio_codes
        else:
            codes = codec.encode(values).audio_codes
        return codes[:, :levels].long()

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        """(batch, q, frames) to (batch, samples) or (batch, 1, samples), about hop_length * frames of them."""
        if self.config.model_type == "encodec":
            return self.codec.decode(codes[None], [None]).audio_values
        return self.codec.decode(audio_codes=codes).audio_values


def as_speech_codec(model, lm_levels: int | None = None) -> PreTrainedModel | SpeechCodecAdapter:
    """A codec as the processor uses it: ours and adapted ones as they are, another one of transformers adapted.
    ValueError where `model` is no codec, or has other levels."""
    ours = isinstance(model, PreTrainedModel) and model.config.model_type == OURS
    if ours or isinstance(model, SpeechCodecAdapter):
        if lm_levels not in (None, model.config.lm_levels):
            raise ValueError(f"lm_levels is {lm_levels}, but the codec was made for {model.config.lm_levels}")
        return model
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"a speech codec must be a model of transformers or ours, got {type(model).__name__}")
    return SpeechCodecAdapter(model, lm_levels)


def load_speech_codec(name_or_path, lm_levels: int | None = None, **kwargs) -> PreTrainedModel | SpeechCodecAdapter:
    """Loads any speech codec, a `SolamiSpeechCodecModel` or one that transformers has, by hub id or folder, in
    evaluation mode and float32 unless `dtype` says otherwise. `lm_levels` are read and written by the language model,
    see `adapter_config`; `kwargs` are for `AutoModel.from_pretrained` (`subfolder`, `revision`, `token`, ...). Raises
    OSError: nothing to load there; ValueError: it is no codec, or has fewer levels."""
    model = AutoModel.from_pretrained(name_or_path, **{"dtype": torch.float32, **kwargs})
    return as_speech_codec(model.eval(), lm_levels)
