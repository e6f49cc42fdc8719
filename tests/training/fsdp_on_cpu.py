"""A stage under `accelerate_fsdp2.yaml` on CPUs: `torchrun --nproc_per_node 2 fsdp_on_cpu.py sft --config ...`

accelerate offers FSDP on GPUs alone, so the process says that it has several of them; everything else is as it is.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

import yaml
from accelerate import PartialState
from accelerate.utils import DistributedType

import solami_hf
from solami_hf.command_line import parse_arguments
from solami_hf.training.language_model.language_model_training import LanguageModelTrainingArguments

RECIPE = Path(solami_hf.__file__).parent / "training/recipes/accelerate_fsdp2.yaml"


def main(stage: str, argv: list[str]) -> None:
    # As `accelerate launch` hands its file on
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["fsdp_config"]
    os.environ |= {name.upper(): str(value) for name, value in settings.items()} | {"ACCELERATE_USE_FSDP": "true"}
    module = import_module(f"solami_hf.training.{stage}")
    kind = getattr(module, f"{stage.capitalize()}Arguments")
    args, training_args = parse_arguments([kind, LanguageModelTrainingArguments], argv, stage)
    assert training_args.world_size == 2
    PartialState().distributed_type = DistributedType.MULTI_GPU
    getattr(module, stage)(args, training_args)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
