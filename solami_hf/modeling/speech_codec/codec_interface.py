"""What `encode` and `decode` of every speech codec take and give, and the fingerprint that tells codecs apart."""

import hashlib
from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class SolamiSpeechCodecEncoderOutput(ModelOutput):
    """`audio_codes` (batch, num_quantizers, frames) int64, 0 behind the end of a clip, and `code_mask` (batch, frames)
    boolean, True where the code stands for real sound."""

    audio_codes: torch.LongTensor | None = None
    code_mask: torch.BoolTensor | None = None


@dataclass
class SolamiSpeechCodecDecoderOutput(ModelOutput):
    """`audio_values` (batch, 1, hop_length * frames) float, the waveform, nominally in [-1, 1], and `padding_mask`
    (batch, hop_length * frames) boolean, True where the sound is real; elsewhere the waveform is 0."""

    audio_values: torch.FloatTensor | None = None
    padding_mask: torch.BoolTensor | None = None


def check_audio(values: torch.Tensor) -> None:
    """Raises ValueError unless `values` is a float waveform (batch, 1, samples) with samples that are all finite."""
    if values.dim() != 3 or values.shape[1] != 1 or not values.is_floating_point():
        raise ValueError(
            f"input_values is {values.dtype} of shape {tuple(values.shape)}, expected a float waveform of shape "
            "(batch, 1, samples); average stereo channels and add dimensions with values[None, None]"
        )
    if 0 in values.shape:
        raise ValueError(f"input_values of shape {tuple(values.shape)} is empty; give at least one sample")
    if values.device.type == "cpu" and not torch.isfinite(values).all():  # elsewhere the host would wait for it
        raise ValueError("input_values holds NaN or infinite samples; clean the recording first")


def check_levels(num_quantizers: int | None, available: int) -> int:
    """The number of levels asked for, all of them if None; ValueError for one that the codec does not have."""
    levels = available if num_quantizers is None else num_quantizers
    if not 1 <= levels <= available:
        raise ValueError(f"num_quantizers is {levels}, expected 1 to {available}")
    return levels


def check_codes(codes: torch.Tensor, available: int, codebook_size: int, first_quantizer: int = 0) -> None:
    """Raises ValueError unless `codes` are integers (batch, q, frames) of levels that the codec has."""
    check_integers(codes, "audio_codes", "(batch, levels, frames)")
    if 0 in codes.shape:
        raise ValueError(f"audio_codes of shape {tuple(codes.shape)} is empty; give at least one frame")
    if first_quantizer < 0 or first_quantizer + codes.shape[1] > available:
        raise ValueError(
            f"audio_codes has {codes.shape[1]} levels from level {first_quantizer} on, the codec has {available}"
        )
    check_range(codes, codebook_size, "audio_codes")


def check_integers(codes: torch.Tensor, name: str, shape: str) -> None:
    """Raises ValueError unless `codes` are integers with as many dimensions as `shape` names."""
    if not isinstance(codes, torch.Tensor):
        raise ValueError(f"{name} is {type(codes).__name__}, expected a torch tensor of integers of shape {shape}")
    if codes.dim() != shape.count(",") + 1 or codes.is_floating_point() or codes.dtype == torch.bool:
        raise ValueError(f"{name} is {codes.dtype} of shape {tuple(codes.shape)}, expected integers of shape {shape}")


def check_range(codes: torch.Tensor, size: int, name: str) -> None:
    """Raises ValueError where `codes` lie outside of [0, size); on a CPU, elsewhere the host would wait for them."""
    if codes.device.type == "cpu" and (int(codes.min()) < 0 or int(codes.max()) >= size):
        raise ValueError(
            f"{name} holds {int(codes.min())} to {int(codes.max())}, expected 0 to {size - 1} "
            "(codes of the codec, not token ids of the language model)"
        )


def mask_lengths(mask: torch.Tensor | None, shape: tuple[int, int], name: str, device: torch.device) -> torch.Tensor:
    """Real length of each row (batch,) of a boolean mask (batch, time); ValueError unless padding comes behind."""
    if mask is None:
        return torch.full(shape[:1], shape[1], device=device)
    if mask.shape != shape or mask.dtype != torch.bool:
        raise ValueError(f"{name} is {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of shape {shape}")
    lengths = mask.sum(1)
    if mask.device.type != "cpu":  # the host would wait for it
        return lengths.to(device)
    if (lengths == 0).any():
        raise ValueError(f"{name} row {int((lengths == 0).nonzero()[0, 0])} is all padding; drop empty clips")
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError(f"{name} has padding before real values; pad behind the clips")
    return lengths.to(device)


def codec_fingerprint(codec) -> str:
    """A short hash of a codec's weights and buffers; two codecs with the same one give the same codes. Where the
    language model reads several levels of a speech codec, their number is part of it; and what the networks of a
    motion codec see, where these are not the features as they come. A speech codec whose decoder alone was tuned keeps
    that of before (`codes_fingerprint` of its configuration)."""
    if kept := getattr(codec.config, "codes_fingerprint", None):
        return kept
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    levels = getattr(codec.config, "lm_levels", 1)
    if levels != 1:
        digest.update(f"{levels} levels".encode())
    representation = getattr(codec.config, "representation", "local_rotation")
    if representation != "local_rotation":
        digest.update(representation.encode())
    return digest.hexdigest()[:16]
