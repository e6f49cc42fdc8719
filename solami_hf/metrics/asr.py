"""Speech back to text, to measure what a character can be heard to say; the recognisers are `processing`'s."""

from collections.abc import Callable
from functools import cache

from ..processing.audio.recognition import SAMPLING_RATE, HubTranscriber, Transcriber, check_audio, packaged_model


@cache
def english_normalizer() -> Callable[[str], str]:
    """Whisper's normalisation of English texts (appendix C of its paper): case, punctuation, contractions, numbers,
    and British spellings as American ones, since a voice does not spell.

    Raises:
        ImportError: the package with the table is not installed.
    """
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    try:  # transformers has the rules without the table of spellings
        from whisper_normalizer.english import EnglishSpellingNormalizer
    except ImportError as error:
        raise ImportError("word errors need the extra: pip install 'solami_hf[eval]'") from error
    return EnglishTextNormalizer(EnglishSpellingNormalizer().mapping)


__all__ = ["SAMPLING_RATE", "HubTranscriber", "Transcriber", "check_audio", "english_normalizer", "packaged_model"]
