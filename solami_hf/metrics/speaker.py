"""Similarity of voices: embeddings of speech whose products are cosines.

    embed = SpeakerEmbedder()
    similarity = embed([first]) @ embed([second]).T      # in a small trial .87 within a voice, .53 across

`SpeakerEmbedder` is the speaker encoder of `resemblyzer` (GE2E, arXiv 1710.10467), `XVectorEmbedder` any speaker
verification model of the Hub. The dependencies of the former cannot be satisfied as declared (`typing`, a `webrtcvad`
that has to be compiled), therefore

    pip install librosa webrtcvad-wheels && pip install --no-deps resemblyzer==0.1.4
"""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .asr import SAMPLING_RATE, check_audio

EMBEDDING_SIZE = 256
SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"  # of pretrained.pt
INSTALL = "pip install librosa webrtcvad-wheels && pip install --no-deps resemblyzer==0.1.4"
_LEAST_VOICED = SAMPLING_RATE // 2
_LOUDNESS = -30  # dB of full scale; the encoder hears loudness, and it is no part of a voice


class SpeakerEmbedder:
    """Speaker embeddings of mono clips at 16 kHz, on the CPU and deterministic. Raises ImportError: `resemblyzer`
    or what it needs is not installed; ValueError: its weights are not those that were reviewed."""

    def __init__(self):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it imports from an old corner of scipy
                import resemblyzer
        except ImportError as error:
            raise ImportError(f"speaker similarity needs resemblyzer: {INSTALL}") from error
        weights = Path(resemblyzer.__file__).parent / "pretrained.pt"
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
        if found != SHA256:  # the file is a pickle, although torch opens it as weights only
            raise ValueError(f"{weights} has sha256 {found}, expected {SHA256}; install resemblyzer==0.1.4 again")
        self._audio = resemblyzer.audio
        self._encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def __call__(self, audio: Sequence[Any]) -> np.ndarray:
        """Embeddings (clips, 256) float32 of length 1; zeros for a clip of silence, which is like no voice. Long
        pauses are left out, unless less than half a second would remain. Raises ValueError: for samples that
        `asr.check_audio` refuses."""
        rows = [self._embed(check_audio(samples, f"audio[{index}]")) for index, samples in enumerate(audio)]
        return np.array(rows, np.float32).reshape(-1, EMBEDDING_SIZE)

    def _embed(self, samples: np.ndarray) -> np.ndarray:
        if not samples.any():
            return np.zeros(EMBEDDING_SIZE, np.float32)
        samples = self._audio.normalize_volume(samples, _LOUDNESS).clip(-1, 1)
        voiced = self._audio.trim_long_silences(samples) if len(samples) > _LEAST_VOICED else samples
        with np.errstate(invalid="ignore"):
            embedding = self._encoder.embed_utterance(samples if len(voiced) < _LEAST_VOICED else voiced)
        return np.nan_to_num(embedding)


class XVectorEmbedder:
    """Speaker embeddings of mono clips at 16 kHz by any model (Hub id or folder, with its feature extractor) with
    an x-vector head (WavLM, ...). Each clip goes through by itself: padding would change its statistics. Raises
    OSError: there is no such model; ValueError: the model has no x-vector head, or hears another rate than 16 kHz."""

    def __init__(self, model_id: str, revision: str | None = None, device: str = "cpu"):
        from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

        self._extractor = AutoFeatureExtractor.from_pretrained(model_id, revision=revision)
        rate = self._extractor.sampling_rate
        if rate != SAMPLING_RATE:
            raise ValueError(f"`model_id` {model_id!r} hears {rate} Hz, expected a model of {SAMPLING_RATE} Hz")
        self._model = AutoModelForAudioXVector.from_pretrained(model_id, revision=revision).to(device).eval()

    def __call__(self, audio: Sequence[Any]) -> np.ndarray:
        """Embeddings (clips, size) float32 of length 1. Raises ValueError: for samples that `asr.check_audio`
        refuses, and where the model gives NaN (a clip too short)."""
        return np.stack([self._embed(check_audio(samples, f"audio[{i}]"), i) for i, samples in enumerate(audio)])

    def _embed(self, samples: np.ndarray, index: int) -> np.ndarray:
        import torch

        inputs = self._extractor(samples, sampling_rate=SAMPLING_RATE, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            embedding = self._model(**inputs).embeddings[0].float().cpu().numpy()
        size = np.linalg.norm(embedding)
        if not np.isfinite(size) or size == 0:
            raise ValueError(f"`audio[{index}]` gives no finite embedding; it has {len(samples)} samples")
        return embedding / size
