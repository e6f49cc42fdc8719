"""Sound files and arrays as mono float32 at one rate, and back to 16-bit wav files."""

import os
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.functional


def read_audio(
    audio: str | Path | np.ndarray | torch.Tensor, sampling_rate: int = 16000, source_rate: int | None = None
) -> np.ndarray:
    """Sound as mono float32 of shape (samples,) at `sampling_rate`.

    Args:
        audio: a file that libsndfile reads (wav, flac, ogg, mp3), or an array of shape (samples,), (samples, channels)
            or (channels, samples); the shorter dimension is taken as channels, which are averaged. Integers are scaled
            by the range of their type to [-1, 1).
        sampling_rate: wanted rate in Hz.
        source_rate: rate of an array in Hz; None means it has `sampling_rate` already. Files carry their own.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is no readable sound or is cut short, there is no sample, a sample is NaN or infinite, the
            array has a wrong shape, or a rate is not positive.
    """
    if isinstance(audio, (str, Path)):
        name = str(audio)
        values, source_rate = read_file(Path(audio))
    else:
        name = "audio"
        values = as_float(audio)
        source_rate = sampling_rate if source_rate is None else source_rate
    for argument, rate in (("sampling_rate", sampling_rate), ("source_rate", source_rate)):
        if rate < 1:
            raise ValueError(f"{argument} is {rate}, expected a positive number of samples per second")
    if values.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {values.shape}, expected (samples,) or (samples, channels)")
    if values.size == 0:
        raise ValueError(f"{name} is empty (0 samples); give a recording with sound in it")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite samples; clean the recording first")
    if values.ndim == 2:
        values = values.mean(axis=int(np.argmin(values.shape)))
    values = np.ascontiguousarray(values, dtype=np.float32)
    if source_rate != sampling_rate:
        resampled = torchaudio.functional.resample(torch.from_numpy(values), int(source_rate), int(sampling_rate))
        values = resampled.numpy()
    return values


def read_file(path: Path) -> tuple[np.ndarray, int]:
    """Samples (samples,) or (samples, channels) float32 and the rate in Hz of a sound file; see `read_audio`."""
    if not path.is_file():
        raise FileNotFoundError(f"no such audio file: {path}")
    try:
        with soundfile.SoundFile(path) as file:
            expected = file.frames
            values = file.read(dtype="float32")
            rate = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"{path} is not a readable sound file ({error}); expected wav, flac, ogg or mp3") from error
    if len(values) < expected or is_cut_short(path):
        raise ValueError(f"{path} is cut short: its header promises more sound than it holds; copy it again")
    if values.ndim == 2:  # soundfile's channels come last, whatever the lengths
        values = values.mean(axis=1)
    return values, rate


def is_cut_short(path: Path) -> bool:
    """Whether the data chunk of a RIFF wav file ends behind the end of the file (libsndfile says nothing then)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return False
        file.seek(12)
        while len(header := file.read(8)) == 8:
            length = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                # 0 and the largest values mark streams of unknown length.
                return length < 0x7FFFFFFF and file.tell() + length > size
            file.seek(length + length % 2, os.SEEK_CUR)
    return False


def as_float(audio: np.ndarray | torch.Tensor) -> np.ndarray:
    """An array or tensor as float32; integers are scaled by the range of their type."""
    values = audio.detach().cpu().numpy() if isinstance(audio, torch.Tensor) else np.asarray(audio)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    if values.dtype.kind != "f":
        raise ValueError(f"audio has dtype {values.dtype}, expected floats in [-1, 1] or signed integers")
    return values.astype(np.float32)


def write_audio(path: str | Path, values: np.ndarray | torch.Tensor, sampling_rate: int = 16000) -> None:
    """Writes mono 16-bit PCM wav, whole or not at all.

    Louder sound than full scale is turned down as a whole rather than clipped. Missing folders are made.

    Args:
        values: float (samples,), or with leading dimensions of size 1.
        sampling_rate: in Hz.

    Raises:
        ValueError: no sample, several channels, NaN or infinite samples.
    """
    samples = as_float(values)
    if samples.size == 0 or samples.shape[-1] != samples.size:
        raise ValueError(f"values has shape {samples.shape}, expected (samples,) with at least one sample")
    if not np.isfinite(samples).all():
        raise ValueError("values holds NaN or infinite samples; nothing was written")
    samples = samples.reshape(-1) / max(1.0, float(np.abs(samples).max()))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".wav")
    os.close(descriptor)
    try:
        soundfile.write(temporary, np.round(samples * 32767).astype(np.int16), sampling_rate, subtype="PCM_16")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
