"""Speech back to text, to measure what a character can be heard to say; the recognisers are `processing`'s."""

from collections.abc import Callable
from functools import cache

from ..processing.audio.recognition import SAMPLING_RATE, HubTranscriber, Transcriber, check_audio, packaged_model


@cache
def english_normalizer() -> Callable[[str], str]:
    """Whisper's normalisation of English texts (appendix C of its paper): case, punctuation, contractions, numbers,
    and British spellings as American ones, since a voice does not spell. Raises ImportError: the package with the
    table is not installed."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    try:  # transformers has the rules without the table of spellings
        from whisper_normalizer.english import EnglishSpellingNormalizer
    except ImportError as error:
        raise ImportError("word errors need the extra: pip install 'solami_hf[eval]'") from error
    return EnglishTextNormalizer(EnglishSpellingNormalizer().mapping)


def check_rate(sampling_rate: int) -> None:
    """Raises ValueError for speech at another rate than 16 kHz."""
    if sampling_rate != SAMPLING_RATE:
        raise ValueError(
            f"`sampling_rate` is {sampling_rate}, expected speech at {SAMPLING_RATE} Hz: resample it first"
        )


__all__ = [
    "SAMPLING_RATE",
    "HubTranscriber",
    "Transcriber",
    "check_audio",
    "check_rate",
    "english_normalizer",
    "packaged_model",
]
