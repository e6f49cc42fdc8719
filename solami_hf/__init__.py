"""SOLAMI on the Hugging Face stack: a character that hears and sees you, and answers with voice and body.

Importing the package registers its classes with the Auto classes of transformers, so that
`AutoModel.from_pretrained("org/solami")` finds them.
"""

from importlib import import_module
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForAudioTokenization, AutoModelForCausalLM, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .modeling.face.configuration_lips import SolamiLipsConfig
from .modeling.face.modeling_lips import SolamiLipsModel
from .modeling.motion_evaluator.configuration_motion_evaluator import SolamiMotionEvaluatorConfig
from .modeling.motion_evaluator.modeling_motion_evaluator import SolamiMotionEvaluatorModel
from .modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from .modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from .modeling.solami.configuration_solami import SolamiConfig
from .modeling.solami.modeling_solami import SolamiForCausalLM, SolamiModel
from .modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from .modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from .modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from .modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from .modeling.talker.configuration_talker import SolamiTalkerConfig
from .modeling.talker.modeling_talker import SolamiTalkerModel
from .processing.motion.smplx_motion import SmplxMotion
from .processing.processing_solami import SolamiProcessor

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "SmplxMotion",
    "SolamiConfig",
    "SolamiForCausalLM",
    "SolamiLipsConfig",
    "SolamiLipsModel",
    "SolamiModel",
    "SolamiMotionEvaluatorConfig",
    "SolamiMotionEvaluatorModel",
    "SolamiMotionVQConfig",
    "SolamiMotionVQModel",
    "SolamiPipeline",
    "SolamiProcessor",
    "SolamiSoundStormConfig",
    "SolamiSoundStormModel",
    "SolamiSpeechCodecConfig",
    "SolamiSpeechCodecModel",
    "SolamiTalkerConfig",
    "SolamiTalkerModel",
]

for _config, _model in (
    (SolamiConfig, SolamiModel),
    (SolamiMotionEvaluatorConfig, SolamiMotionEvaluatorModel),
    (SolamiMotionVQConfig, SolamiMotionVQModel),
    (SolamiSpeechCodecConfig, SolamiSpeechCodecModel),
    (SolamiSoundStormConfig, SolamiSoundStormModel),
    (SolamiTalkerConfig, SolamiTalkerModel),
    (SolamiLipsConfig, SolamiLipsModel),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
AutoModelForCausalLM.register(SolamiConfig, SolamiForCausalLM, exist_ok=True)
AutoModelForAudioTokenization.register(SolamiSpeechCodecConfig, SolamiSpeechCodecModel, exist_ok=True)
AutoProcessor.register(SolamiConfig, SolamiProcessor, exist_ok=True)
# Trainer looks here, by name, for models whose labels it shifts when it smooths them; `register` does not add to it.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["solami"] = "SolamiForCausalLM"


def __getattr__(name: str) -> Any:
    """Loads the pipeline on first use (PEP 562)."""
    if name == "SolamiPipeline":
        return import_module(".generation.pipeline", __name__).SolamiPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
