"""The speech codec at the original's size (SpeechTokenizer's): clips to codes, codes to clips, first sound.

The original's way, written anew from its facts: float32, one clip at a time, the weights of every convolution made
anew from gain and direction in every call, all eight levels searched of which level 0 is kept, waveforms only whole.
Ours: batches of clips with masks, level 0 alone, and the decoder as a stream. The clips sound a little like speech;
the weights are random, and the codebooks are latents of other such clips, so that codes lie as close together as
those of a trained codec.
"""

import copy
import functools

import torch
from timing import log_row, logger, timed
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import (
    SolamiSpeechCodecModel,
    SpeechCodecConv,
    SpeechCodecConvTranspose,
    SpeechCodecLSTM,
    SpeechCodecResidualBlock,
)
from solami_hf.modeling.speech_codec.streaming_speech_codec import SpeechCodecDecoderStream

CLIPS, SHORTEST, LONGEST = 12, 2.0, 5.0  # seconds
CODEBOOK_SECONDS = 24  # of other clips, at least 1024 frames
ANSWER_SECONDS, CHUNK_SECONDS, FIRST_SECONDS, PROMPT_SECONDS = 10, 0.5, 1, 3
SAMPLING_RATE, FRAME_RATE = 16000, 50


def make_clip(seconds: float, generator: torch.Generator) -> torch.Tensor:
    """Harmonics of a wandering pitch in syllables of four a second, and breath: (samples,) within [-1, 1]."""
    time = torch.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    knots = torch.rand(3, int(seconds * 4) + 2, generator=generator)
    pitch, loudness, colour = F.interpolate(knots[None], len(time), mode="linear", align_corners=True)[0]
    phase = torch.cumsum((90 + 160 * pitch) / SAMPLING_RATE, 0) * 2 * torch.pi
    voice = sum(torch.sin(k * phase) * torch.exp(-0.5 * (k / 4 - 3 * colour) ** 2) for k in range(1, 13))
    syllables = loudness * torch.sin(4 * torch.pi * time).abs()
    return 0.15 * syllables * voice + 0.01 * torch.randn(len(time), generator=generator)


@functools.cache
def make_clips() -> list[torch.Tensor]:
    """Waveforms (samples,) of different lengths."""
    generator = torch.Generator().manual_seed(0)
    lengths = SHORTEST + (LONGEST - SHORTEST) * torch.rand(CLIPS, generator=generator)
    return [make_clip(seconds, generator) for seconds in lengths.tolist()]


@functools.cache
def make_codec(dtype: torch.dtype = torch.float32) -> SolamiSpeechCodecModel:
    """Seeded weights; the codes of each level are what the levels before it leave over of other clips' latents."""
    if dtype != torch.float32:
        return copy.deepcopy(make_codec()).to(dtype)
    torch.manual_seed(0)
    codec = SolamiSpeechCodecModel(SolamiSpeechCodecConfig()).eval()
    generator = torch.Generator().manual_seed(1)
    clips = torch.stack([make_clip(4, generator) for _ in range(CODEBOOK_SECONDS // 4)])
    residual = torch.cat([codec.encoder(clip[None, None])[0].t() for clip in clips])
    for level in codec.quantizer.levels:
        chosen = torch.randperm(len(residual), generator=generator)[: codec.config.codebook_size]
        # not the latents themselves, or these would be left with nothing for the levels that follow
        centres = residual[chosen] + 0.3 * residual.std(0) * torch.randn(len(chosen), residual.shape[1])
        level.set_codes(centres, torch.ones(len(chosen)))
        residual = residual - level.decode(level.encode(residual))
    return codec


def codec_encode(repeats: int) -> dict[str, float]:
    """The row: theirs, all levels clip by clip; ours, level 0 of a batch, and of one clip alone."""
    codec, half, clips = make_codec(), make_codec(torch.bfloat16), make_clips()
    values = pad_sequence(clips, batch_first=True)[:, None]
    mask = torch.arange(values.shape[-1]) < torch.tensor([len(clip) for clip in clips])[:, None]

    def ours(model: SolamiSpeechCodecModel, rows: slice = slice(None)) -> torch.Tensor:
        """Level 0 of the real frames of all clips, one behind the other."""
        out = model.encode(values[rows], mask[rows], num_quantizers=1)
        return out.audio_codes[:, 0][out.code_mask]

    theirs, expected = timed(lambda: torch.cat([encode_theirs(codec, clip) for clip in clips]), repeats)
    exact, codes = timed(lambda: ours(codec), repeats)
    fast, half_codes = timed(lambda: ours(half), repeats)
    longest = max(range(len(clips)), key=lambda i: len(clips[i]))
    alone_theirs, _ = timed(lambda: encode_theirs(codec, clips[longest]), repeats)
    alone, _ = timed(lambda: ours(codec, slice(longest, longest + 1)), repeats)
    total = sum(map(len, clips)) / SAMPLING_RATE
    results = {
        "codec_encode": log_row(f"codec encode {total:.0f} s, float32", theirs, exact),
        "codec_encode_bf16": log_row(f"codec encode {total:.0f} s, bfloat16", theirs, fast),
        "codec_encode_one_clip": log_row("codec encode, longest clip, float32", alone_theirs, alone),
        "codec_codes_equal_fp32": share_equal(codes, expected),
        "codec_codes_equal_bf16": share_equal(half_codes, expected),
    }
    logger.info(
        "level 0 of %d frames (%d different codes): equal to theirs %.4f in float32, %.4f in bfloat16",
        len(expected), len(expected.unique()), results["codec_codes_equal_fp32"], results["codec_codes_equal_bf16"],
    )  # fmt: skip
    return results


def codec_decode(repeats: int) -> dict[str, float]:
    """The row: theirs clip by clip, ours in a batch, all levels both."""
    codec, half = make_codec(), make_codec(torch.bfloat16)
    lengths = torch.tensor([-(-len(clip) // codec.config.hop_length) for clip in make_clips()])
    clips = [random_codes(codec, length) for length in lengths.tolist()]
    codes = pad_sequence([clip.t() for clip in clips], batch_first=True).transpose(1, 2)
    mask = torch.arange(codes.shape[-1]) < lengths[:, None]

    def ours(model: SolamiSpeechCodecModel) -> torch.Tensor:
        out = model.decode(codes, mask)
        return out.audio_values[:, 0][out.padding_mask]

    theirs, expected = timed(lambda: torch.cat([decode_theirs(codec, clip) for clip in clips]), repeats)
    exact, values = timed(lambda: ours(codec), repeats)
    fast, half_values = timed(lambda: ours(half), repeats)
    total, peak = int(lengths.sum()) / FRAME_RATE, float(expected.abs().max())
    results = {
        "codec_decode": log_row(f"codec decode {total:.0f} s, float32", theirs, exact),
        "codec_decode_bf16": log_row(f"codec decode {total:.0f} s, bfloat16", theirs, fast),
        "codec_decode_difference_fp32": float((values - expected).abs().max()) / peak,
        "codec_decode_difference_bf16": float((half_values - expected).abs().max()) / peak,
    }
    logger.info(
        "largest difference from their waveforms, as a share of their peak: %.2g in float32, %.2g in bfloat16",
        results["codec_decode_difference_fp32"], results["codec_decode_difference_bf16"],
    )  # fmt: skip
    return results


def stream_first_audio(repeats: int) -> dict[str, float]:
    """The row: all of a 10 s answer against its first sound; then the same with the acoustic model before it."""
    codec = make_codec()
    codes = random_codes(codec, ANSWER_SECONDS * FRAME_RATE)[None]
    chunks = codes.split(int(CHUNK_SECONDS * FRAME_RATE), dim=-1)
    whole, expected = timed(lambda: codec.decode(codes).audio_values, repeats)
    first, sound = timed(lambda: SpeechCodecDecoderStream(codec).decode(chunks[0]), repeats)
    stream = SpeechCodecDecoderStream(codec)
    values = torch.cat([*map(stream.decode, chunks), stream.finish()], dim=-1)
    heard = 1000 * sound.shape[-1] / SAMPLING_RATE
    results = {
        "stream_first_audio": log_row(f"codec, {ANSWER_SECONDS} s: all, first {heard:.0f} ms", whole, first),
        "stream_difference": float((values - expected).abs().max() / expected.abs().max()),
    }
    logger.info("the stream's largest difference, as a share of the peak: %.2g", results["stream_difference"])
    return results | with_acoustic_model(codec, codes, repeats)


def with_acoustic_model(codec: SolamiSpeechCodecModel, codes: torch.Tensor, repeats: int) -> dict[str, float]:
    """From level 0 alone: SoundStorm in bfloat16 (3 s prompt) over the whole answer, or over its first second only.

    The first second is then filled without the seconds behind it, so its codes are others than those of the whole
    answer. The pipeline does not work so today: the figure says what it would gain.
    """
    torch.manual_seed(0)
    model = SolamiSoundStormModel(SolamiSoundStormConfig()).eval().to(torch.bfloat16)
    prompt = torch.randint(model.config.codebook_size, (1, model.config.num_quantizers, PROMPT_SECONDS * FRAME_RATE))
    semantic = codes[:, 0]
    start = int(FIRST_SECONDS * FRAME_RATE)

    def fill(frames: torch.Tensor) -> torch.Tensor:
        return model.generate(frames, prompt, 4, torch.Generator().manual_seed(1))

    whole, _ = timed(lambda: codec.decode(fill(semantic)), repeats)
    first, _ = timed(lambda: SpeechCodecDecoderStream(codec).decode(fill(semantic[:, :start])), repeats)
    name = f"SoundStorm, codec: all, first {FIRST_SECONDS} s"
    return {"stream_first_audio_soundstorm": log_row(name, whole, first)}


def random_codes(codec: SolamiSpeechCodecModel, frames: int) -> torch.Tensor:
    """Random codes (levels, frames)."""
    config = codec.config
    return torch.randint(
        config.codebook_size, (config.num_quantizers, frames), generator=torch.Generator().manual_seed(frames)
    )


def share_equal(codes: torch.Tensor, expected: torch.Tensor) -> float:
    """Share of equal codes."""
    return float((codes == expected).float().mean())


def weight(layer) -> torch.Tensor:
    """The weights of a convolution from gain and direction."""
    return layer.direction * (layer.gain / torch.norm_except_dim(layer.direction, 2, 0))


def original_layers(layers, hidden: torch.Tensor) -> torch.Tensor:
    """Layers one after the other on one clip (1, channels, time)."""
    for layer in layers:
        if isinstance(layer, SpeechCodecConv):
            hidden = F.pad(hidden, (layer.left, layer.right + -hidden.shape[-1] % layer.stride), mode="reflect")
            hidden = F.conv1d(hidden, weight(layer), layer.bias, layer.stride, dilation=layer.dilation)
        elif isinstance(layer, SpeechCodecConvTranspose):
            hidden = F.conv_transpose1d(hidden, weight(layer), layer.bias, layer.stride)
            hidden = hidden[..., layer.left : hidden.shape[-1] - layer.right]
        elif isinstance(layer, SpeechCodecResidualBlock):
            hidden = original_layers([layer.shortcut], hidden) + original_layers(layer.block, hidden)
        elif isinstance(layer, SpeechCodecLSTM):
            steps = hidden.permute(2, 0, 1)
            output, _ = layer.lstm(steps)
            hidden = (output + steps.repeat(1, 1, output.shape[-1] // steps.shape[-1])).permute(1, 2, 0)
        else:
            hidden = F.elu(hidden)
    return hidden


def encode_theirs(codec: SolamiSpeechCodecModel, clip: torch.Tensor) -> torch.Tensor:
    """Level 0 (frames,) of one clip (samples,), after all levels."""
    residual, codes = original_layers(codec.encoder.layers, clip[None, None])[0].t(), []
    for level in codec.quantizer.levels:
        table = level.codebook.t()
        distance = residual.pow(2).sum(1, keepdim=True) - 2 * residual @ table + table.pow(2).sum(0, keepdim=True)
        codes.append((-distance).max(dim=-1).indices)
        residual = residual - F.embedding(codes[-1], level.codebook)
    return torch.stack(codes)[0]


def decode_theirs(codec: SolamiSpeechCodecModel, codes: torch.Tensor) -> torch.Tensor:
    """Waveform (samples,) of one clip's codes (levels, frames)."""
    latents = torch.zeros(())
    for level, indices in zip(codec.quantizer.levels, codes, strict=True):
        latents = latents + F.embedding(indices, level.codebook)
    return original_layers(codec.decoder.layers, latents.t()[None])[0, 0]
