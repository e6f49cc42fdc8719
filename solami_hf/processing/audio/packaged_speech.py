"""The small speech codec, acoustic model, voices and lips that the package carries; `speech/README.md` is their card.

processor = SolamiProcessor(tokenizer, motion_codec, **packaged_speech())
processor.decode_speech(codes, voice="rms")
"""

from pathlib import Path

import torch

from ...modeling.face.modeling_lips import SolamiLipsModel
from ...modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from ...modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from ..voices import Voices

FOLDER, LIPS = (Path(__file__).with_name(name) for name in ("speech", "lips"))


def packaged_speech() -> dict:
    """Keyword arguments of `SolamiProcessor`: `speech_codec`, `acoustic_model`, `voices` and `lips`, in float32."""
    return {
        "speech_codec": SolamiSpeechCodecModel.from_pretrained(FOLDER / "speech_codec", dtype=torch.float32).eval(),
        "acoustic_model": SolamiSoundStormModel.from_pretrained(FOLDER / "acoustic_model", dtype=torch.float32).eval(),
        "voices": Voices.load(FOLDER),
        "lips": packaged_lips(),
    }


def packaged_lips() -> SolamiLipsModel:
    """The lips that read the packaged codec's codes, and any sound."""
    return SolamiLipsModel.from_pretrained(LIPS, dtype=torch.float32).eval()
