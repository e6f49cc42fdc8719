"""The package's front door: light to import, and known to the Auto classes in whatever order things are imported."""

import subprocess
import sys
from pathlib import Path

import pytest

LOAD_ALL = """
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
names = ["solami", "solami_motion_vq", "solami_speech_codec", "solami_soundstorm"]
print([type(AutoConfig.for_model(name)).__name__ for name in names])
print([MODEL_MAPPING[type(AutoConfig.for_model(name))].__name__ for name in names])
config = type(AutoConfig.for_model("solami"))
print(MODEL_FOR_CAUSAL_LM_MAPPING[config].__name__, PROCESSOR_MAPPING[config].__name__)
import sys, solami_hf
names = solami_hf.__all__[1:]
print([getattr(solami_hf, name).__name__ for name in names] == names)
print("hooks left:", [hook for hook in sys.meta_path if "solami" in type(hook).__module__])
"""
LOADED = """\
['SolamiConfig', 'SolamiMotionVQConfig', 'SolamiSpeechCodecConfig', 'SolamiSoundStormConfig']
['SolamiModel', 'SolamiMotionVQModel', 'SolamiSpeechCodecModel', 'SolamiSoundStormModel']
SolamiForCausalLM SolamiProcessor
True
hooks left: []
"""


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "could not register" not in result.stderr
    return result.stdout


def test_import_is_light():
    heavy = "{'torch', 'transformers', 'numpy', 'scipy', 'datasets', 'huggingface_hub', 'trl', 'evaluate'}"
    out = run(
        f"import sys, solami_hf; print(sorted({heavy} & set(sys.modules)), 'SolamiModel' in dir(solami_hf))"
    )
    assert out == "[] True\n"


@pytest.mark.parametrize(
    "first",
    [
        "import solami_hf; from transformers import AutoModel",
        "from transformers import AutoModel; import solami_hf",
        "import solami_hf; import trl; from trl import SFTTrainer",
        "from solami_hf.modeling.modeling_solami import SolamiForCausalLM",
    ],
)
def test_classes_are_registered_in_any_order(first):
    assert run(first + "\n" + LOAD_ALL) == LOADED


HEAVY = [
    "bitsandbytes", "datasets", "deepspeed", "evaluate", "matplotlib", "pandas", "peft", "pyarrow",
    "sklearn", "tensorboard", "torch._inductor.compile_fx", "transformers.trainer", "trl",
]  # fmt: skip
TALK = f"""
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
    out = run(f"MODEL, OUTPUT = {model!r}, {str(tmp_path)!r}\nimport solami_hf\n" + TALK)
    assert out.splitlines()[-1] == "0 []" and "Character: " in out


def test_unknown_public_name():
    import solami_hf

    with pytest.raises(AttributeError, match="no attribute 'SolamiNothing'"):
        _ = solami_hf.SolamiNothing
