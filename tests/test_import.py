"""The package's front door: the Auto classes know ours whatever is imported first, and little else is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

import solami_hf

LOAD_ALL = """
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_TOKENIZATION_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
names = ["solami", "solami_motion_vq", "solami_speech_codec", "solami_soundstorm", "solami_talker"]
print([type(AutoConfig.for_model(name)).__name__ for name in names])
print([MODEL_MAPPING[type(AutoConfig.for_model(name))].__name__ for name in names])
config = type(AutoConfig.for_model("solami"))
print(MODEL_FOR_CAUSAL_LM_MAPPING[config].__name__, PROCESSOR_MAPPING[config].__name__)
print(MODEL_FOR_AUDIO_TOKENIZATION_MAPPING[type(AutoConfig.for_model("solami_speech_codec"))].__name__)
import sys, solami_hf
names = solami_hf.__all__[1:]
print([getattr(solami_hf, name).__name__ for name in names] == names)
"""
LOADED = """\
['SolamiConfig', 'SolamiMotionVQConfig', 'SolamiSpeechCodecConfig', 'SolamiSoundStormConfig', 'SolamiTalkerConfig']
['SolamiModel', 'SolamiMotionVQModel', 'SolamiSpeechCodecModel', 'SolamiSoundStormModel', 'SolamiTalkerModel']
SolamiForCausalLM SolamiProcessor
SolamiSpeechCodecModel
True
"""
HEAVY = [
    "bitsandbytes", "datasets", "deepspeed", "evaluate", "matplotlib", "pandas", "peft", "pyarrow",
    "sklearn", "tensorboard", "torch._inductor.compile_fx", "transformers.trainer", "trl",
]  # fmt: skip


def run(code: str, *words: str) -> str:
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout


ORDERS = [
    "import solami_hf; from transformers import AutoModel",
    "from transformers import AutoModel; import solami_hf",
    "import solami_hf; import trl; from trl import SFTTrainer",
    "from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM",
]
# Each order in a process of its own, in which only what takes longest of what transformers imports is there before.
IN_TURN = """
import os, sys, scipy.optimize, torch._dynamo, torch.distributed.tensor
assert "transformers" not in sys.modules
for code in sys.argv[1:]:
    child = os.fork()
    if not child:
        exec(code, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def test_classes_are_registered_in_any_order():
    assert run(IN_TURN, *(f"{first}\n{LOAD_ALL}" for first in ORDERS)) == LOADED * len(ORDERS)


TALK = f"""
import solami_hf
from transformers import AutoModelForCausalLM, AutoProcessor
from solami_hf.cli import main
AutoModelForCausalLM.from_pretrained(MODEL), AutoProcessor.from_pretrained(MODEL)
code = main(["chat", "--checkpoint", MODEL, "--output", OUTPUT, "--max_new_tokens", "40", "--turns", "hi"])
import sys
print(code, [name for name in {HEAVY} if name in sys.modules])
"""


def test_loading_and_talking_import_nothing_that_only_training_needs(tmp_path):
    """`trl` alone, and what it brings, takes as long to import as torch does."""
    model = str(Path(__file__).parent / "fixtures/first_version/model")
    out = run(f"MODEL, OUTPUT = {model!r}, {str(tmp_path)!r}\n" + TALK)
    assert out.splitlines()[-1] == "0 []" and "Character: " in out


def test_public_import_paths_of_the_first_version():
    from solami_hf.modeling.convert import convert_motion_vq, convert_soundstorm, convert_speech_codec
    from solami_hf.processing.audio import read_audio
    from solami_hf.processing.layouts.find import find_layout
    from solami_hf.processing.manifest import read_manifest
    from solami_hf.processing.motion import SmplxMotion
    from solami_hf.processing.motion_features import features_to_smplx, smplx_to_features
    from solami_hf.processing.motion_files import read_motion, resample_motion, write_motion
    from solami_hf.processing.smplx_body import joint_positions

    found = [
        *(convert_motion_vq, convert_soundstorm, convert_speech_codec, read_audio, find_layout, read_manifest),
        *(features_to_smplx, smplx_to_features, read_motion, resample_motion, write_motion, joint_positions),
    ]
    assert SmplxMotion is solami_hf.SmplxMotion and all(map(callable, found))


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'SolamiNothing'"):
        _ = solami_hf.SolamiNothing
