"""Sound files and arrays as mono float32 at one rate, and back to 16-bit wav files."""

import base64
import io
import logging
import numbers
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlparse

import numpy as np
import soundfile
import torch
import torchaudio.functional

from ..files.atomic_write import atomic_write
from .sound_files import FORMATS, cut_short, sound_way_out, whole_sound

logger = logging.getLogger(__name__)

RATES = (1000, 1_000_000)  # Hz
MAX_SECONDS = 3600.0
_BLOCK = 1 << 20  # frames read at once
_CONTENT = ("audio", "array", "raw", "bytes", "url")
_LARGEST_RATIO = 2000
_LOUDEST_SAMPLE = 64.0
LOUDEST, LOUDNESS_SECONDS = 0.25, 0.4
"""Root mean square of the loudest piece of so many seconds: speech is at 0.05 to 0.15, a broken codec may be at 1."""


def read_audio(
    audio,
    sampling_rate: int = 16000,
    source_rate: int | None = None,
    trim_silence: bool = False,
    max_seconds: float = MAX_SECONDS,
) -> np.ndarray:
    """Sound as mono float32 of shape (samples,) at `sampling_rate` (1000 to 1000000 Hz).

    `audio` is a recording in any form that libraries give: the path of a file (wav, flac, ogg, opus, mp3, aiff, au,
    ...), its bytes, or a file object, which is read from its beginning; an array or tensor of shape (samples,),
    (samples, channels) or (channels, samples); `(array, rate)` or `(rate, array)`; `{"array", "sampling_rate"}`,
    `{"bytes", "path"}`, `{"path"}` or `{"url"}`, as data sets and chat templates have them; a decoder or samples of
    torchcodec. The shorter dimension is taken as channels, which are averaged. Integers of up to 32 bits are scaled by
    the range of their type to [-1, 1).

    `source_rate` (Hz) is that of an array that does not tell its own; None means it has `sampling_rate` already; files
    carry their own. `trim_silence` cuts the silence before and behind the sound, see `trim`. Of a file longer than
    `max_seconds` nothing but the header is read.

    Raises FileNotFoundError: the file does not exist; ValueError: the file is no readable sound or is cut short, there
    is no sample, a sample is NaN, infinite or far outside [-1, 1], the array has a wrong shape or type, a rate is
    outside the range, the sound is too long, there is nothing but silence left to trim, or `audio` is several
    recordings or of no known form.
    """
    _check_rate(sampling_rate, "sampling_rate")
    audio, source_rate = _content(audio, source_rate)
    name = os.fspath(audio) if isinstance(audio, (str, os.PathLike)) else "audio"
    if isinstance(audio, (str, os.PathLike, bytes)):
        values, source_rate = read_file(io.BytesIO(audio) if isinstance(audio, bytes) else audio, max_seconds)
    else:
        source_rate = sampling_rate if source_rate is None else source_rate
        _check_rate(source_rate, "source_rate")
        _check_length(max(np.shape(audio), default=0) / source_rate, max_seconds, name)
        values = as_float(audio)
    if values.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {values.shape}, expected (samples,) or (samples, channels)")
    if values.size == 0:
        raise ValueError(f"{name} is empty (0 samples); give a recording with sound in it")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite samples; clean the recording first")
    highest = float(np.abs(values).max())
    if highest > _LOUDEST_SAMPLE:
        raise ValueError(f"{name} has samples up to {highest:.6g}, expected -1 to 1; divide 16-bit values by 32768")
    if values.ndim == 2:
        values = values.mean(axis=int(np.argmin(values.shape)))
    values = resample(np.ascontiguousarray(values, dtype=np.float32), round(source_rate), round(sampling_rate))
    return trim(values, round(sampling_rate)) if trim_silence else values


def is_pair(audio) -> bool:
    """True if a recording is told as `(array, rate)`, as soundfile does, or `(rate, array)`, as scipy does."""
    if not isinstance(audio, (tuple, list)) or len(audio) != 2:
        return False
    return sum(isinstance(part, numbers.Real) for part in audio) == 1


def _content(audio, rate: int | None) -> tuple:
    """The path, bytes or array that a recording is told by, and the rate of an array in Hz, None if it is not told."""
    if hasattr(audio, "get_all_samples"):  # a decoder of torchcodec, which is what data sets give
        audio = audio.get_all_samples()
    if hasattr(audio, "sample_rate") and hasattr(audio, "data"):
        return audio.data, audio.sample_rate
    if isinstance(audio, soundfile.SoundFile):
        audio.seek(0)
        return audio.read(dtype="float32"), audio.samplerate
    if isinstance(audio, Mapping):
        return _told(audio, rate)
    if is_pair(audio):
        values, rate = audio if isinstance(audio[1], numbers.Real) else audio[::-1]
        return _content(np.asarray(values) if isinstance(values, (list, tuple)) else values, rate)
    if isinstance(audio, (list, tuple)) and any(np.ndim(part) for part in audio[:2]):
        raise ValueError(
            f"audio is a list of {len(audio)} recordings, of one length or inhomogeneous; give each by itself, and "
            "channels as an array"
        )
    if isinstance(audio, str):
        return _local(audio), rate
    if hasattr(audio, "read"):
        if audio.seekable():
            audio.seek(0)
        audio = audio.read()
        if not isinstance(audio, bytes):
            raise ValueError("audio is a file opened as text; open it with mode 'rb'")
    return bytes(audio) if isinstance(audio, (bytearray, memoryview)) else audio, rate


def _told(audio: Mapping, rate: int | None) -> tuple:
    """`_content` of a recording that is told by names, as `datasets.Audio` and the blocks of chat templates do."""
    told = {name: value for name, value in audio.items() if value is not None}
    rate, named = told.pop("sampling_rate", rate), told.pop("path", None)
    if told.keys() - set(_CONTENT) or len(told) > 1 or not (told or named):
        raise ValueError(
            f"a recording is told by one of {', '.join(_CONTENT)} or path, and the sampling_rate of an array; got "
            f"{', '.join(map(str, audio)) or 'nothing'}"
        )
    ((name, content),) = told.items() or [("path", named)]
    if name in ("array", "raw") and isinstance(content, (list, tuple)):
        content = np.asarray(content)  # of several channels, perhaps
    return _content(content, rate)


def _local(audio: str) -> str | bytes:
    """The path that a string is, or the bytes of a `data:` address; ValueError for what lies elsewhere."""
    if audio.startswith("data:"):
        return base64.b64decode(audio.partition(",")[2])
    scheme, found, _ = audio.partition("://")
    if not found or not scheme.isalnum():
        return audio
    if scheme != "file":
        raise ValueError(f"{audio} is not on this machine; download it and give the file")
    return unquote(urlparse(audio).path)


def resample(values: np.ndarray, source_rate: int, sampling_rate: int) -> np.ndarray:
    """Sound (samples,) float32 at another rate, in Hz. The filter bank has as many weights as both rates have in
    lowest terms. For odd ones that would be gigabytes, so such a ratio is taken to the nearest of smaller numbers,
    which changes pitch and length by less than 1 in 1,000."""
    ratio = Fraction(sampling_rate, source_rate)
    if max(ratio.numerator, ratio.denominator) > _LARGEST_RATIO:
        inverse = ratio > 1
        ratio = (1 / ratio if inverse else ratio).limit_denominator(_LARGEST_RATIO)
        ratio = 1 / ratio if inverse else ratio
    if ratio == 1:
        return values
    return torchaudio.functional.resample(torch.from_numpy(values), ratio.denominator, ratio.numerator).numpy()


def trim(values: np.ndarray, sampling_rate: int, decibels: float = 40.0, margin: float = 0.05) -> np.ndarray:
    """Cuts the silence before and behind sound (samples,): pieces of 10 ms that lie `decibels` below the loudest
    one, but for `margin` seconds on each side. Raises ValueError: there is no sound at all."""
    piece = max(1, sampling_rate // 100)
    pieces = np.pad(values.astype(np.float64), (0, -len(values) % piece)).reshape(-1, piece)
    loudness = np.sqrt((pieces**2).mean(axis=1))
    if loudness.max() == 0:
        raise ValueError("the recording is silent; give one with sound in it")
    heard = np.flatnonzero(loudness >= loudness.max() * 10 ** (-decibels / 20)) * piece
    margin = round(margin * sampling_rate)
    return values[max(0, heard[0] - margin) : heard[-1] + piece + margin]


def limit_loudness(values: np.ndarray, sampling_rate: int, peak: float = 1.0, loudest: float = LOUDEST) -> np.ndarray:
    """Sound (samples,) float32 that can be played: turned down as a whole where it is too loud, never up, to at
    most `peak`, and `loudest` as root mean square of the loudest `LOUDNESS_SECONDS`. Returns finite values in
    [-`peak`, `peak`]; NaN and infinite samples become 0, with a warning."""
    values = np.asarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        logger.warning("%d samples of the waveform are no numbers; they are silenced", (~np.isfinite(values)).sum())
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(np.abs(values).max(initial=0))
    if highest == 0:
        return values
    piece = max(1, min(len(values), round(LOUDNESS_SECONDS * sampling_rate)))
    scaled = np.pad(values / highest, (0, -len(values) % piece)).reshape(-1, piece)  # squares cannot overflow
    loudness = highest * float(np.sqrt((scaled.astype(np.float64) ** 2).mean(axis=1).max()))
    return np.clip(values * min(1.0, peak / highest, loudest / loudness), -peak, peak).astype(np.float32)


def read_file(file: str | os.PathLike | BinaryIO, max_seconds: float = MAX_SECONDS) -> tuple[np.ndarray, int]:
    """Mono samples (samples,) float32 and the rate in Hz of a sound file, or of one that is open; see `read_audio`."""
    path = Path(file) if isinstance(file, (str, os.PathLike)) else file
    name = path if isinstance(path, Path) else "audio"
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"no such audio file: {path}")
    blocks, count = [], 0
    try:
        with soundfile.SoundFile(whole_sound(path, name)) as sound:
            rate, expected = sound.samplerate, sound.frames
            if sound.format not in FORMATS:
                told = f"is a {sound.format} file, which may not be read whole"
                raise ValueError(f"{name} {told}; {sound_way_out(name)}")
            _check_rate(rate, f"the rate of {name}")
            if expected >= 1 << 60:
                raise ValueError(f"{name} does not say how long it is, as streams do; convert it with ffmpeg or sox")
            _check_length(expected / rate, max_seconds, name)
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1))
                count += len(block)
                _check_length(count / rate, max_seconds, name)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:  # TypeError: headerless .raw
        reason = re.sub("^Error opening .*?: ", "", str(error))  # which names objects
        raise ValueError(f"{name} is not a readable sound file ({reason}); {sound_way_out(name)}") from error
    if count < expected:
        raise cut_short(name)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), rate


def _check_rate(rate: float, name: str) -> None:
    if not isinstance(rate, numbers.Real) or not RATES[0] <= rate <= RATES[1]:
        told = rate if isinstance(rate, numbers.Real) else repr(rate)
        raise ValueError(f"{name} is {told}, expected {RATES[0]} to {RATES[1]} samples per second")


def _check_length(seconds: float, max_seconds: float, name) -> None:
    if seconds > max_seconds:
        raise ValueError(f"{name} lasts {seconds:.1f} s, expected at most {max_seconds:g} s; cut it into pieces")


def as_float(audio: np.ndarray | torch.Tensor) -> np.ndarray:
    """An array or tensor as float32; integers are scaled by the range of their type."""
    if isinstance(audio, torch.Tensor):
        audio = audio.detach().to("cpu", torch.float32 if audio.is_floating_point() else None).numpy()
    values = np.asarray(audio)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i" and values.dtype.itemsize <= 4:
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    if values.dtype.kind != "f":
        # 64 bits are nobody's sample format: such values are 16-bit ones in disguise, and would be scaled to silence
        raise ValueError(f"audio has dtype {values.dtype}, expected floats in [-1, 1] or integers of 8, 16 or 32 bits")
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused as such
        return values.astype(np.float32)


def write_audio(path: str | Path, values: np.ndarray | torch.Tensor, sampling_rate: int = 16000) -> None:
    """Writes float samples (samples,), or with leading dimensions of size 1, as mono 16-bit PCM wav at
    `sampling_rate` Hz, whole or not at all. Louder sound than full scale is turned down as a whole rather than
    clipped. Missing folders are made. Raises ValueError: no sample, several channels, NaN or infinite samples."""
    samples = as_float(values)
    if samples.size == 0 or samples.shape[-1] != samples.size:
        raise ValueError(f"values has shape {samples.shape}, expected (samples,) with at least one sample")
    if not np.isfinite(samples).all():
        raise ValueError("values holds NaN or infinite samples; nothing was written")
    whole = np.round(samples.reshape(-1) / max(1.0, float(np.abs(samples).max())) * 32767).astype(np.int16)
    with atomic_write(path) as temporary:
        soundfile.write(temporary, whole, sampling_rate, subtype="PCM_16", format="WAV")
