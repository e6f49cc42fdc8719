"""SOLAMI on the Hugging Face stack: a character that hears and sees you, and answers with voice and body.

Importing this package is light: the names below are loaded when they are first used, and the classes are registered
with the Auto classes of transformers as soon as those are imported (see `registration.py`).
"""

from importlib import import_module
from typing import Any

from . import registration

__version__ = "0.1.0"

_PUBLIC_NAMES = {
    "SolamiConfig": "modeling.configuration_solami",
    "SolamiModel": "modeling.modeling_solami",
    "SolamiForCausalLM": "modeling.modeling_solami",
    "SolamiMotionVQConfig": "modeling.configuration_motion_vq",
    "SolamiMotionVQModel": "modeling.modeling_motion_vq",
    "SolamiSpeechCodecConfig": "modeling.configuration_speech_codec",
    "SolamiSpeechCodecModel": "modeling.modeling_speech_codec",
    "SolamiSoundStormConfig": "modeling.configuration_soundstorm",
    "SolamiSoundStormModel": "modeling.modeling_soundstorm",
    "SmplxMotion": "processing.motion",
    "SolamiProcessor": "processing.processing_solami",
    "SolamiPipeline": "generation.pipeline",
}
__all__ = ["__version__", *_PUBLIC_NAMES]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PUBLIC_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC_NAMES})


registration.install()
