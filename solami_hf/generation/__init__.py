"""From prompt to answer: the answer grammar, dialogue sessions, the pipeline from turn to turn."""

_NAMES = {
    "Answer": "solami_hf.processing.answers",
    "parse_answer": "solami_hf.processing.answers",
    "AnswerGrammar": "solami_hf.generation.grammar",
    "DialogueSession": "solami_hf.generation.session",
    **dict.fromkeys(
        ("TextPiece", "MotionPiece", "FacePiece", "AudioPiece", "AnswerEnd"), "solami_hf.generation.streaming"
    ),
    "SolamiPipeline": "solami_hf.generation.pipeline",
    "Reply": "solami_hf.generation.pipeline",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        from importlib import import_module

        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
