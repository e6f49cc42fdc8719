"""The speech codec: waveform to eight levels of codes and back, the architecture of SpeechTokenizer.

A SEANet encoder (https://arxiv.org/abs/2210.13438) with a bidirectional LSTM, a residual vector quantizer whose first
level is meant to carry the content of the speech, and the mirrored decoder (https://arxiv.org/abs/2308.16692). The
language model reads and writes level 0; any number of leading levels can be decoded.

    codec = SolamiSpeechCodecModel.from_pretrained(folder)
    codes = codec.encode(waveform[None, None]).audio_codes      # (1, 8, frames)
    speech = codec.decode(codes[:, :1]).audio_values            # (1, 1, 320 * frames), from level 0 alone
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..motion_vq.quantizers import EmaQuantizer, fixed_normal, quantize_residual, residual_codes
from ..remote_code import CarriesItsCode
from .codec_interface import (
    SolamiSpeechCodecDecoderOutput,
    SolamiSpeechCodecEncoderOutput,
    check_audio,
    check_codes,
    check_levels,
    mask_lengths,
)
from .configuration_speech_codec import SolamiSpeechCodecConfig

# Samples of the clips that go through the network together, on a CPU and elsewhere: so many share one reading of the
# LSTM's weights. On a GPU two minutes take about 3 GB at the original's width.
_PASS_SAMPLES = (1 << 20, 1 << 21)
# Of these, samples that go together through the layers of high rate: on a CPU what lies between them, 256 bytes a
# sample at the original's width, must stay near the caches.
_PART_SAMPLES = (1 << 15, 1 << 21)


@dataclass
class SolamiSpeechCodecOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): weighted sum of the two parts below.
        reconstruction_loss (`torch.FloatTensor`): mean absolute error of the waveform. Trainers add spectral losses.
        commitment_loss (`torch.FloatTensor`): mean squared distance from latents to their codes, over the levels.
        audio_values (`torch.FloatTensor` of shape `(batch, 1, samples)`): reconstruction, as long as the input.
        audio_codes (`torch.LongTensor` of shape `(batch, num_quantizers, frames)`): codes; None if not quantized.
        semantic_values (`torch.FloatTensor` of shape `(batch, frames, semantic_size)`): projection of level 0.
        hidden_states (`tuple(torch.FloatTensor)`): `(batch, channels, time)` around the encoder's residual blocks.
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None
    audio_values: torch.FloatTensor | None = None
    audio_codes: torch.LongTensor | None = None
    semantic_values: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class SpeechCodecWeightNorm(nn.Module):
    """The weights of a convolution as gain times direction (https://arxiv.org/abs/1602.07868). Plain parameters
    instead of `torch.nn.utils.parametrizations.weight_norm`: transformers renames keys that end in `weight_g` and
    `weight_v` on loading, and these survive saving and loading unchanged."""

    def __init__(self, shape: tuple[int, int, int], out_channels: int):
        super().__init__()
        self.direction = nn.Parameter(torch.empty(shape))
        self.gain = nn.Parameter(torch.empty(shape[0], 1, 1))
        self.bias = nn.Parameter(torch.empty(out_channels))

    @property
    def weight(self) -> torch.Tensor:
        """The effective weights, of the shape of `direction`."""
        return self.direction * (self.gain / torch.linalg.vector_norm(self.direction, dim=(1, 2), keepdim=True))


class SpeechCodecConv(SpeechCodecWeightNorm):
    """Convolution with reflected edges; every started stride gives one output frame."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1):
        super().__init__((out_channels, in_channels, kernel_size), out_channels)
        self.stride, self.dilation = stride, dilation
        padding = (kernel_size - 1) * dilation + 1 - stride
        self.left, self.right = padding - padding // 2, padding // 2

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, in_channels, time) to (batch, out_channels, ceil(time / stride)), `lengths` as in `run_layers`."""
        if lengths is None:
            hidden_states = reflect_pad(hidden_states, self.left, self.right + -hidden_states.shape[-1] % self.stride)
        elif self.left or self.stride > 1:
            hidden_states = reflect_pad_each(hidden_states, self.left, self.right, self.stride, lengths)
        return convolve(hidden_states, self.weight, self.bias, self.stride, self.dilation)


class SpeechCodecConvTranspose(SpeechCodecWeightNorm):
    """Transposed convolution whose output is exactly `stride` times as long as its input."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__((in_channels, out_channels, kernel_size), out_channels)
        self.stride = stride
        padding = kernel_size - stride
        self.left, self.right = padding - padding // 2, padding // 2

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, in_channels, time) to (batch, out_channels, stride * time), `lengths` as in `run_layers`."""
        if lengths is not None:
            places = torch.arange(hidden_states.shape[-1], device=lengths.device)
            hidden_states = hidden_states.masked_fill((places >= lengths[:, None])[:, None], 0)
        hidden_states = convolve_transposed(hidden_states, self.weight, self.bias, self.stride)
        return hidden_states[..., self.left : hidden_states.shape[-1] - self.right]


def as_image(values: torch.Tensor) -> torch.Tensor:
    """(batch, channels, time) as (batch, channels, 1, time), with strides by which torch sees channels that lie last.
    It looks at the batch's stride too, which may be anything where there is one clip only."""
    if len(values) == 1:
        values = values[0].t()[None].transpose(1, 2)
    return values[:, :, None]


def convolve(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int = 1, dilation: int = 1
) -> torch.Tensor:
    """`F.conv1d` of (batch, in_channels, time) without padding. On CPUs a 2-D convolution of height 1 is several times
    as fast, as it takes and gives channels that lie last in memory; its gradients are slower. (One channel lies first
    and last: torch would choose first, so that is a product with a matrix.)"""
    if values.device.type != "cpu" or torch.is_grad_enabled():
        return F.conv1d(values, weight, bias, stride, dilation=dilation)
    if weight.shape[1] == 1 and dilation == 1:
        return F.linear(values[:, 0].unfold(-1, weight.shape[-1], stride), weight[:, 0], bias).transpose(1, 2)
    return F.conv2d(as_image(values), weight[:, :, None], bias, (1, stride), dilation=(1, dilation))[:, :, 0]


def convolve_transposed(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int
) -> torch.Tensor:
    """`F.conv_transpose1d` of (batch, in_channels, time) without padding; on CPUs in 2-D, as in `convolve`."""
    if values.device.type != "cpu" or torch.is_grad_enabled():
        return F.conv_transpose1d(values, weight, bias, stride)
    return F.conv_transpose2d(as_image(values), weight[:, :, None], bias, (1, stride))[:, :, 0]


def pad(values: torch.Tensor, left: int, right: int, mode: str = "constant") -> torch.Tensor:
    """`F.pad` of the last of three dimensions; channels that lie last in memory stay there."""
    return F.pad(as_image(values), (left, right, 0, 0), mode=mode)[:, :, 0]


def reflect_pad(values: torch.Tensor, left: int, right: int) -> torch.Tensor:
    """Pads the last dimension by reflection; zeros are put behind clips that are too short to be reflected."""
    missing = max(0, max(left, right) + 1 - values.shape[-1])
    if missing:
        values = pad(values, 0, missing)
    values = pad(values, left, right, "reflect")
    return values[..., : values.shape[-1] - missing]


def reflect_pad_each(values: torch.Tensor, left: int, right: int, stride: int, lengths: torch.Tensor) -> torch.Tensor:
    """Pads each clip of a batch as `reflect_pad` pads it alone, at the clip's own end. `values` are (batch, channels,
    time); what lies behind a clip's end is not read. `left` and `right` are the padding of a clip whose length is a
    multiple of `stride`; others get up to `stride` - 1 more. `lengths` (batch,) are at least 1 and at most `time`.
    Returns (batch, channels, left + time + right + stride - 1); what lies behind a clip's padding means nothing."""
    channels, time = values.shape[1:]
    padded = pad(values, left, right + stride - 1)
    lengths = lengths[:, None]
    begin = torch.arange(left, 0, -1, device=values.device).expand(len(values), -1)
    end = lengths + torch.arange(right + stride - 1, device=values.device)
    # Where a clip is too short to be reflected, `reflect_pad` lengthens it by zeros up to here.
    turn = torch.maximum(lengths, (right + -lengths % stride).clamp(min=left) + 1)
    source = torch.cat([begin, torch.where(end < turn, end, 2 * (turn - 1) - end)], 1)
    inside = ((source >= 0) & (source < lengths))[:, None]
    source = source.clamp(0, time - 1)[:, None].expand(-1, channels, -1)
    target = torch.cat([left - begin, left + end], 1)[:, None].expand(-1, channels, -1)
    return padded.scatter_(2, target, values.gather(2, source).masked_fill(~inside, 0))


def run_layers(layers: nn.Sequential, hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Applies layers to (batch, channels, time). `lengths` (batch,) says how many of the frames of each clip are real:
    these then come out as if each clip stood alone, and what lies behind them means nothing. None: all of them."""
    for layer in layers:
        hidden_states = layer(hidden_states) if isinstance(layer, nn.ELU) else layer(hidden_states, lengths)
        if lengths is not None and isinstance(layer, SpeechCodecConv):
            lengths = -(-lengths // layer.stride)
        elif lengths is not None and isinstance(layer, SpeechCodecConvTranspose):
            lengths = lengths * layer.stride
    return hidden_states


def run_layers_in_parts(
    layers: nn.Sequential, hidden_states: torch.Tensor, lengths: torch.Tensor | None, limit: int | None
) -> torch.Tensor:
    """As `run_layers`, on at most `limit` frames at a time (one clip alone may be longer); all at once if None."""
    if limit is None or limit >= hidden_states.shape[0] * hidden_states.shape[-1]:
        return run_layers(layers, hidden_states, lengths)
    frames, output = hidden_states.transpose(1, 2), None
    for rows, longest, clips in passes(lengths, limit, frames.shape[:2]):
        part = run_layers(layers, frames[rows, :longest].transpose(1, 2), clips).transpose(1, 2)
        if output is None:
            output = part.new_zeros(len(frames), *part.shape[1:])
        output[rows, : part.shape[1]] = part
    return output.transpose(1, 2)


class SpeechCodecResidualBlock(nn.Module):
    """Two convolutions through half the channels, added to a 1x1 convolution of the input."""

    def __init__(self, config: SolamiSpeechCodecConfig, channels: int, dilation: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.ELU(),
            SpeechCodecConv(channels, channels // 2, config.residual_kernel_size, dilation=dilation),
            nn.ELU(),
            SpeechCodecConv(channels // 2, channels, 1),
        )
        self.shortcut = SpeechCodecConv(channels, channels, 1)

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, channels, time) to the same shape, `lengths` as in `run_layers`."""
        return self.shortcut(hidden_states, lengths) + run_layers(self.block, hidden_states, lengths)


class SpeechCodecLSTM(nn.Module):
    """LSTM over time with a skip connection; reading both ways doubles the channels (and the skipped input)."""

    def __init__(self, channels: int, num_layers: int, bidirectional: bool):
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, num_layers, bidirectional=bidirectional)

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, channels, time) to (batch, channels or 2 * channels, time), `lengths` as in `run_layers`."""
        hidden_states = hidden_states.permute(2, 0, 1)
        if self.lstm.bidirectional and lengths is not None:
            packed = pack_padded_sequence(hidden_states, lengths.cpu(), enforce_sorted=False)
            output, _ = pad_packed_sequence(self.lstm(packed)[0], total_length=len(hidden_states))
        else:  # reading forwards only, it meets a clip's padding when the clip is over
            output, _ = self.lstm(hidden_states)
        if self.lstm.bidirectional:
            hidden_states = hidden_states.repeat(1, 1, 2)
        # a copy, as convolutions want each clip's frames one behind the other, channels last
        return (output + hidden_states).transpose(0, 1).clone(memory_format=torch.contiguous_format).transpose(1, 2)


class SpeechCodecEncoder(nn.Module):
    """Waveform (batch, 1, samples) to latents (batch, hidden_size, ceil(samples / hop_length))."""

    def __init__(self, config: SolamiSpeechCodecConfig):
        super().__init__()
        channels = config.num_filters
        layers: list[nn.Module] = [SpeechCodecConv(1, channels, config.kernel_size)]
        for stride in reversed(config.strides):
            layers += residual_blocks(config, channels)
            layers += [nn.ELU(), SpeechCodecConv(channels, 2 * channels, 2 * stride, stride)]
            channels *= 2
        layers.append(SpeechCodecLSTM(channels, config.num_lstm_layers, config.bidirectional))
        channels *= 2 if config.bidirectional else 1
        layers += [nn.ELU(), SpeechCodecConv(channels, config.hidden_size, config.last_kernel_size)]
        self.layers = nn.Sequential(*layers)
        self.step = config.hop_length // config.strides[0]  # samples of a frame before the last downsampling

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None, limit: int | None = None
    ) -> torch.Tensor:
        """See the class, `run_layers` for `lengths` in samples, and `run_layers_in_parts` for `limit` in samples. Only
        the layers of high rate are run in parts: the others have large weights, to be read once for all clips."""
        hidden_states = run_layers_in_parts(self.layers[:-5], input_values, lengths, limit)
        return run_layers(self.layers[-5:], hidden_states, None if lengths is None else -(-lengths // self.step))


class SpeechCodecDecoder(nn.Module):
    """Latents (batch, hidden_size, frames) to waveform (batch, 1, hop_length * frames)."""

    def __init__(self, config: SolamiSpeechCodecConfig):
        super().__init__()
        channels = config.num_filters * 2 ** len(config.strides)
        layers: list[nn.Module] = [SpeechCodecConv(config.hidden_size, channels, config.kernel_size)]
        layers.append(SpeechCodecLSTM(channels, config.num_lstm_layers, bidirectional=False))
        for stride in config.strides:
            layers += [nn.ELU(), SpeechCodecConvTranspose(channels, channels // 2, 2 * stride, stride)]
            channels //= 2
            layers += residual_blocks(config, channels)
        layers += [nn.ELU(), SpeechCodecConv(channels, 1, config.last_kernel_size)]
        self.layers = nn.Sequential(*layers)
        self.step, self.hop_length = config.strides[0], config.hop_length

    def forward(
        self, latents: torch.Tensor, lengths: torch.Tensor | None = None, limit: int | None = None
    ) -> torch.Tensor:
        """See the class, `run_layers` for `lengths` in frames, and `SpeechCodecEncoder` for `limit` in samples."""
        hidden_states = run_layers(self.layers[:4], latents, lengths)
        lengths = None if lengths is None else lengths * self.step
        limit = None if limit is None else limit * self.step // self.hop_length
        return run_layers_in_parts(self.layers[4:], hidden_states, lengths, limit)


def residual_blocks(config: SolamiSpeechCodecConfig, channels: int) -> list[nn.Module]:
    """The residual blocks of one stage."""
    return [
        SpeechCodecResidualBlock(config, channels, config.dilation_base**depth)
        for depth in range(config.num_residual_layers)
    ]


class SpeechCodecCodebook(EmaQuantizer):
    """One level: a codebook whose running sums are its vectors times their counts, so they need no buffer."""

    def __init__(self, config: SolamiSpeechCodecConfig, level: int = 0):
        size, share = (config.codebook_size, config.hidden_size), config.dead_code_share
        super().__init__(*size, config.codebook_decay, 0.0, dead_code_share=share, seed=level)

    def register_averages(self) -> None:
        """Under the original's names and shapes."""
        self.register_buffer("code_counts", torch.zeros(self.code_num))
        self.register_buffer("initialised", torch.zeros(1))

    @property
    def code_count(self) -> torch.Tensor:
        """Averaged uses of each code (codebook_size,)."""
        return self.code_counts

    @property
    def code_sum(self) -> torch.Tensor:
        """Running sums (codebook_size, hidden_size), a copy."""
        return self.codebook * self.code_counts[:, None]


class SpeechCodecQuantizer(nn.Module):
    """Residual vector quantizer: each level codes what the levels before it left over."""

    def __init__(self, config: SolamiSpeechCodecConfig):
        super().__init__()
        self.levels = nn.ModuleList(SpeechCodecCodebook(config, level) for level in range(config.num_quantizers))

    def encode(self, latents: torch.Tensor, num_quantizers: int, first_quantizer: int = 0) -> torch.LongTensor:
        """(batch, hidden_size, frames) to codes (batch, num_quantizers - first_quantizer, frames)."""
        vectors = latents.transpose(1, 2).flatten(0, 1)
        codes = residual_codes(self.levels[first_quantizer:num_quantizers], vectors)
        return codes.view(-1, len(latents), latents.shape[2]).transpose(0, 1)

    def decode(self, codes: torch.Tensor, first_quantizer: int = 0) -> torch.Tensor:
        """Codes (batch, q, frames) of levels `first_quantizer`, ... to latents (batch, hidden_size, frames)."""
        levels = self.levels[first_quantizer : first_quantizer + codes.shape[1]]
        return sum(level.decode(code) for level, code in zip(levels, codes.unbind(1), strict=True)).transpose(1, 2)

    def forward(
        self, latents: torch.Tensor, kept_levels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantizes latents (batch, hidden_size, frames) for training, decoding `kept_levels` (batch,) of each clip;
        updates the codebooks in training mode. Returns quantized (batch, hidden_size, frames) with the gradient of
        `latents`, level 0 alone (same shape), codes (batch, levels, frames), and the commitment loss over the levels
        kept."""
        batch, _, frames = latents.shape
        vectors = latents.transpose(1, 2).flatten(0, 1)
        *parts, commitment, codes = quantize_residual(self.levels, vectors, kept_levels.repeat_interleave(frames))
        passed = [part.view(batch, frames, -1).transpose(1, 2).to(latents.dtype) for part in parts]
        return *passed, codes.view(-1, batch, frames).transpose(0, 1), commitment


class SolamiSpeechCodecModel(CarriesItsCode, PreTrainedModel):
    """SpeechTokenizer's architecture: 16 kHz speech to residual codes at 50 frames per second, and back.
    `solami_hf.modeling.convert.convert_speech_codec` loads the original's checkpoints into it."""

    code_file = __file__
    config_class = SolamiSpeechCodecConfig
    base_model_prefix = "speech_codec"
    main_input_name = "input_values"
    input_modalities = "audio"
    _keep_in_fp32_modules_strict = ["codebook", "code_counts", "initialised"]
    _can_record_outputs = {"hidden_states": OutputRecorder(SpeechCodecResidualBlock, layer_name="encoder")}

    def __init__(self, config: SolamiSpeechCodecConfig):
        super().__init__(config)
        self.encoder = SpeechCodecEncoder(config)
        self.quantizer = SpeechCodecQuantizer(config)
        self.semantic_projection = nn.Linear(config.hidden_size, config.semantic_size)
        self.decoder = SpeechCodecDecoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Orthogonal rows of length 1: with PyTorch's default the latent is nearly constant and training stalls.
        if isinstance(module, SpeechCodecWeightNorm):
            init.orthogonal_(module.direction)
            init.ones_(module.gain)
            init.zeros_(module.bias)
        elif isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                init.zeros_(parameter) if name.startswith("bias") else init.orthogonal_(parameter)
        elif isinstance(module, nn.Linear):
            init.orthogonal_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, SpeechCodecCodebook):
            init.copy_(module.codebook, fixed_normal(*module.codebook.shape, seed=module.seed))
            init.zeros_(module.code_counts)
            init.zeros_(module.initialised)

    def encode(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        num_quantizers: int | None = None,
        first_quantizer: int = 0,
    ) -> SolamiSpeechCodecEncoderOutput:
        """Speech to codes. A padded batch gives the codes of its clips alone: each is reflected at its own end, and
        read backwards from there.

        `input_values` (batch, 1, samples) are the float waveform at `config.sampling_rate`, nominally in [-1, 1];
        `padding_mask` (batch, samples) is boolean, True = real; padding comes behind. Levels `first_quantizer` to
        below `num_quantizers` (all if None) are computed; the first of them then codes the latent itself, as if the
        levels before it had left everything over (SpeechTokenizer's `st`).

        Returns codes (batch, num_quantizers - first_quantizer, ceil(samples / hop_length)) and their mask. Raises
        ValueError: wrong shape, an empty clip, NaN or infinite samples, a mask that is not boolean or has padding
        before real samples, or levels that the model does not have.
        """
        check_audio(input_values)
        levels = check_levels(num_quantizers, self.config.num_quantizers)
        if not 0 <= first_quantizer < levels:
            raise ValueError(f"first_quantizer is {first_quantizer}, expected 0 to {levels - 1}")
        batch, _, samples = input_values.shape
        lengths = mask_lengths(padding_mask, (batch, samples), "padding_mask", input_values.device)
        frames = -(-lengths // self.config.hop_length)
        on_host = padding_mask is not None and lengths.device.type == "cpu"
        most = int(lengths.max()) if on_host else samples
        code_mask = torch.arange(-(-most // self.config.hop_length), device=frames.device) < frames[:, None]
        codes = input_values.new_zeros((batch, levels - first_quantizer, code_mask.shape[1]), dtype=torch.long)
        padded = None if padding_mask is None else lengths
        for rows, longest, clips in passes(padded, self._pass_samples, (batch, samples)):
            latents = self.encoder(input_values[rows, :, :longest].to(self.dtype), clips, self._part_samples)
            codes[rows, :, : latents.shape[-1]] = self.quantizer.encode(latents, levels, first_quantizer)
        return SolamiSpeechCodecEncoderOutput(audio_codes=codes * code_mask[:, None], code_mask=code_mask)

    def decode(
        self, audio_codes: torch.Tensor, code_mask: torch.Tensor | None = None, first_quantizer: int = 0
    ) -> SolamiSpeechCodecDecoderOutput:
        """Codes to speech. A padded batch gives the sound of its clips alone (see `encode`);
        `SpeechCodecDecoderStream` decodes codes while they arrive. `audio_codes` (batch, q, frames) are integers, the
        levels `first_quantizer`, `first_quantizer` + 1, ...; `code_mask` (batch, frames) is boolean, True = real;
        padding comes behind. Returns waveform (batch, 1, hop_length * frames) and its mask. Raises ValueError: wrong
        shape or type, no frame, more levels than the model has, codes out of range, a bad mask."""
        check_codes(audio_codes, self.config.num_quantizers, self.config.codebook_size, first_quantizer)
        batch, _, frames = audio_codes.shape
        hop = self.config.hop_length
        lengths = mask_lengths(code_mask, (batch, frames), "code_mask", audio_codes.device)
        padding_mask = torch.arange(hop * frames, device=lengths.device) < hop * lengths[:, None]
        values = torch.zeros(batch, 1, hop * frames, dtype=self.dtype, device=audio_codes.device)
        padded = None if code_mask is None else lengths
        for rows, longest, clips in passes(padded, self._pass_samples // hop, (batch, frames)):
            latents = self.quantizer.decode(audio_codes[rows, :, :longest].long(), first_quantizer)
            sound = self.decoder(latents.to(self.dtype), clips, self._part_samples)
            values[rows, :, : hop * longest] = sound.to(values.dtype)  # of another one under autocast
        values = values.masked_fill(~padding_mask[:, None], 0)
        return SolamiSpeechCodecDecoderOutput(audio_values=values, padding_mask=padding_mask)

    @property
    def _pass_samples(self) -> int:
        return _PASS_SAMPLES[self.device.type != "cpu"]

    @property
    def _part_samples(self) -> int:
        return _PART_SAMPLES[self.device.type != "cpu"]

    @capture_outputs
    def forward(
        self,
        input_values: torch.Tensor,
        num_quantizers: int | torch.Tensor | None = None,
        quantize: bool = True,
        output_hidden_states: bool | None = None,
    ) -> SolamiSpeechCodecOutput:
        """Reconstructs speech of one length with the losses of training; moves the codebooks in training mode.

        `input_values` (batch, 1, samples) are the float waveform at `config.sampling_rate`, without padding;
        `num_quantizers` the levels to decode from, one number or (batch,) integers; all if None. `quantize` False
        decodes the latents themselves, for the first steps of training. `output_hidden_states` is by default what the
        config says; `return_dict=False` gives a tuple. Raises ValueError: wrong shape, an empty clip, NaN or infinite
        samples.
        """
        check_audio(input_values)
        latents = self.encoder(input_values)
        codes, commitment, first = None, latents.new_zeros(()), latents
        if quantize:
            levels = self.config.num_quantizers if num_quantizers is None else num_quantizers
            levels = torch.as_tensor(levels, device=latents.device).expand(len(latents))
            latents, first, codes, commitment = self.quantizer(latents, levels)
        audio_values = self.decoder(latents)[..., : input_values.shape[-1]]
        reconstruction = F.l1_loss(audio_values, input_values)
        return SolamiSpeechCodecOutput(
            loss=reconstruction + self.config.commitment_weight * commitment,
            reconstruction_loss=reconstruction,
            commitment_loss=commitment,
            audio_values=audio_values,
            audio_codes=codes,
            semantic_values=self.semantic_projection(first.transpose(1, 2)),
        )


def passes(lengths: torch.Tensor | None, limit: int, shape: tuple[int, int]):
    """Splits a batch of `shape` (batch, steps) into passes of at most `limit` steps, padding included, or of one clip.
    `lengths` (batch,) are the steps of each clip, None without padding. On a CPU clips of like length go together, the
    longest first, so that little is computed for padding; elsewhere the host would have to wait for the lengths.
    Yields rows (n,) of the batch, the length of the longest of these clips, and their lengths (n,), None if all
    alike."""
    if lengths is None or lengths.device.type != "cpu":
        size = max(1, limit // shape[1])
        for rows in (slice(start, start + size) for start in range(0, shape[0], size)):
            yield rows, shape[1], None if lengths is None else lengths[rows]
        return
    order = lengths.sort().indices.tolist()
    sizes = lengths.tolist()
    while order:
        count, longest = 1, sizes[order[-1]]
        while count < len(order) and (count + 1) * longest <= limit and 4 * sizes[order[-count - 1]] >= 3 * longest:
            count += 1
        rows, order = torch.tensor(order[-count:], device=lengths.device), order[:-count]
        clips = lengths[rows]
        yield rows, longest, None if (clips == longest).all() else clips
