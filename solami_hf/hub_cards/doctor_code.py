"""Whether the code in a folder is ours, and loads the folder where solami_hf is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ..modeling.remote_code import remote_modules
from .push_plan import read_json
from .push_refusals import Finding

_SECONDS = 300
# In a process of its own, which behaves as if solami_hf were not there.
_LOAD = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "solami_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor
folder, is_checkpoint = sys.argv[1], sys.argv[2] == "checkpoint"
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
with torch.device("meta"):
    for auto in (AutoModel, AutoModelForCausalLM) if is_checkpoint else (AutoModel,):
        auto.from_config(config, trust_remote_code=True)
if is_checkpoint:
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    processor.motion_codec, processor.speech_codec
"""


def own_modules() -> dict[str, str]:
    """File name -> text of all code that this version writes into checkpoints and codecs."""
    names = ("processing.processing_solami", "modeling.solami.modeling_solami")
    return {k: v for name in names for k, v in remote_modules(find_spec(f"solami_hf.{name}").origin).items()}


def check_code(folder: Path, trust_remote_code: bool = False) -> list[Finding]:
    """Compares the modules in a folder with this version's, and loads the folder by them alone.

    Code that differs is not run unless it is trusted: whose it is, is for the user to judge.
    """
    ours, found, foreign = own_modules(), [], False
    for path in sorted(folder.rglob("*.py")):
        name = str(path.relative_to(folder))
        if path.read_text(encoding="utf-8") != ours.get(path.name):
            foreign = True
            told = "differs from this version's" if path.name in ours else "is no code of solami_hf"
            remedy = "read it before you trust it; saving the processor again writes this version's code"
            found.append(Finding(name, told, remedy, is_note=True))
    if not list(folder.glob("*.py")):
        return found  # told among the files
    if foreign and not trust_remote_code:
        remedy = "examine it with --trust_remote_code once you have read it"
        return [*found, Finding("*.py", "the code was not run", remedy, is_note=True)]
    return found + _loads(folder)


def _loads(folder: Path) -> list[Finding]:
    kind = "checkpoint" if (folder / "processor_config.json").is_file() else "codec"
    if kind == "codec" and not read_json(folder / "config.json").get("auto_map"):
        return []  # told among the files
    with tempfile.TemporaryDirectory() as cache:
        offline = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": cache, "CUDA_VISIBLE_DEVICES": ""}
        try:
            done = subprocess.run(
                [sys.executable, "-c", _LOAD, str(folder.resolve()), kind],
                env=os.environ | offline,
                cwd=cache,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return [Finding("*.py", f"loading took more than {_SECONDS} s", "try it again on an idle machine")]
    if done.returncode == 0:
        return []
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    remedy = "save model and processor again with this version of solami_hf, which writes its code anew"
    return [Finding("*.py", f"it does not load with trust_remote_code: {last}", remedy)]
