"""Similarity of the voice of generated speech to the voice that it should have."""

import functools

import datasets
import numpy as np
from solami_hf.metrics.asr import SAMPLING_RATE, check_audio, check_rate
from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import check_mode, counts
from solami_hf.metrics.speaker import SpeakerEmbedder, XVectorEmbedder

SOUND = datasets.List(datasets.Value("float32"))
WAVLM = "microsoft/wavlm-base-plus-sv"
MIN_SECONDS = 0.5

CITATION = """\
@article{chen2022wavlm,
  title = {WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing},
  author = {Chen, Sanyuan and others},
  journal = {IEEE Journal of Selected Topics in Signal Processing},
  year = {2022}
}
"""

INPUTS = """\
predictions: list of speech, mono float samples (T,) at 16 kHz; None where there is none.
references: list of as many recordings of the voices, in the same form.
model_id: Hub id or folder of a model with an x-vector head; or "resemblyzer".
mode: "corrected" and "upstream" give the same.
"""


class SpeakerSimilarity(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> metric = evaluate.load(folder_of("speaker_similarity"))
    >>> metric.compute(predictions=[numpy.zeros(16000)], references=[numpy.ones(16000)])
    Traceback (most recent call last):
    ...
    ValueError: `predictions[0]` is silent, which is like no voice; pass None for a prediction that failed
    """

    description = "Cosine of speaker embeddings of generated and reference speech. Higher is better."
    citation = CITATION
    inputs = INPUTS
    columns = {"predictions": SOUND, "references": SOUND}

    def _compute(
        self,
        predictions,
        references,
        mode="corrected",
        model_id=WAVLM,
        revision=None,
        device="cpu",
        sampling_rate=SAMPLING_RATE,
    ):
        check_mode(mode)
        check_rate(sampling_rate)
        present = [i for i, said in enumerate(predictions) if said is not None]
        if not present:
            raise ValueError("every item of `predictions` is None, expected at least one clip of speech")
        said = [_check_speech(predictions[i], f"predictions[{i}]") for i in present]
        voices = [_check_speech(clip, f"references[{i}]") for i, clip in enumerate(references)]
        embed = _embedder(model_id, revision, device)
        cosines = (embed(said) * embed([voices[i] for i in present])).sum(axis=1)
        found = {"speaker_similarity": float(np.mean(cosines)), "lowest": float(cosines.min()), "model": model_id}
        return {**found, **counts(predictions, mode)}


@functools.lru_cache(maxsize=1)
def _embedder(model_id, revision, device):
    """The last one is kept for the next call."""
    return SpeakerEmbedder() if model_id == "resemblyzer" else XVectorEmbedder(model_id, revision, device)


def _check_speech(audio, name):
    """Samples float32 (T,) that hold a voice."""
    clip = check_audio(audio, name)
    if len(clip) < MIN_SECONDS * SAMPLING_RATE:
        raise ValueError(f"`{name}` has {len(clip)} samples, expected at least {MIN_SECONDS} s at {SAMPLING_RATE} Hz")
    if not clip.any():
        raise ValueError(f"`{name}` is silent, which is like no voice; pass None for a prediction that failed")
    return clip
