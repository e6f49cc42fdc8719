"""Every recipe for the language model can be read by what it is for."""

import json
import subprocess
from pathlib import Path

import pytest

import solami_hf
from solami_hf.command_line import parse_arguments
from solami_hf.training.language_model.language_model_training import LanguageModelTrainingArguments
from solami_hf.training.pretrain import PretrainArguments
from solami_hf.training.sft import SftArguments

RECIPES = Path(solami_hf.__file__).parent / "training" / "recipes"
LANGUAGE_MODEL = sorted(p.name for stage in ("pretrain", "sft") for p in RECIPES.glob(f"{stage}_*.yaml"))


def test_there_are_recipes_for_every_way():
    assert {
        "pretrain_paper.yaml",
        "pretrain_gpt2_medium.yaml",
        "pretrain_one_gpu.yaml",
        "sft_paper.yaml",
        "sft_lora_paper.yaml",
        "sft_lora.yaml",
        "sft_qlora.yaml",
        "sft_one_gpu.yaml",
    } <= set(LANGUAGE_MODEL)


@pytest.mark.parametrize("name", LANGUAGE_MODEL)
def test_recipe_is_understood(name, tmp_path):
    arguments = PretrainArguments if name.startswith("pretrain") else SftArguments
    argv = ["--config", str(RECIPES / name), "--model", "m", "--data", "d", "--output_dir", str(tmp_path)]
    args, training_args = parse_arguments([arguments, LanguageModelTrainingArguments], [*argv, "--use_cpu"])
    assert training_args.max_steps > 0 and training_args.save_strategy == "steps"
    assert args.use_peft == ("lora" in name)


def parsed(name, folder):
    """A recipe of stage 3 as arguments, on a machine without GPU."""
    argv = ["--config", str(RECIPES / name), "--model", "m", "--data", "d", "--output_dir", str(folder), "--use_cpu"]
    return parse_arguments([SftArguments, LanguageModelTrainingArguments], argv)


def test_numbers_of_the_paper(tmp_path):
    paper, run = parsed("sft_lora_paper.yaml", tmp_path)
    assert (paper.lora_r, paper.lora_alpha, paper.lora_dropout) == (8, 16, 0.05)
    assert paper.lora_target_modules == ["q_proj", "v_proj"]
    assert (run.max_steps, run.max_length, run.gradient_accumulation_steps, run.learning_rate) == (1290, 4096, 3, 1e-5)
    better, faster = parsed("sft_lora.yaml", tmp_path)
    assert better.lora_target_modules == ["all-linear"] and faster.learning_rate == pytest.approx(
        10 * run.learning_rate
    )

    quantised, same = parsed("sft_qlora.yaml", tmp_path)
    assert quantised.load_in_4bit and quantised.lora_modules_to_save == ["new_tokens"]
    assert same.learning_rate == faster.learning_rate


@pytest.mark.parametrize(("name", "stage", "offload"), [("zero2", 2, 0), ("zero3", 3, 0), ("zero3_offload", 3, 1)])
def test_deepspeed_understands_its_files(name, stage, offload):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    config = json.loads((RECIPES / f"{name}.json").read_text())
    zero = DeepSpeedZeroConfig(**config["zero_optimization"])  # unknown keys are refused
    assert int(zero.stage) == stage
    assert (zero.offload_optimizer is not None) == (zero.offload_param is not None) == bool(offload)
    assert ("optimizer" in config) == bool(offload)  # offloading needs DeepSpeed's own Adam
    for key in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"):
        assert config[key] == "auto"
    assert config["fp16"]["enabled"] == config["bf16"]["enabled"] == "auto"


@pytest.mark.parametrize(
    ("name", "nodes", "devices", "kind"),
    [("one_node", 1, 8, "MULTI_GPU"), ("several_nodes", 4, 32, "MULTI_GPU"), ("fsdp2", 1, 8, "FSDP")],
)
def test_accelerate_understands_its_files(name, nodes, devices, kind):
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(RECIPES / f"accelerate_{name}.yaml"))
    assert (config.num_machines, config.num_processes) == (nodes, devices)
    assert config.distributed_type == kind
    if kind == "FSDP":
        names = {"fsdp_version": "fsdp_version", "fsdp_offload_params": "cpu_offload"}
        settings = {names.get(name, name.removeprefix("fsdp_")): value for name, value in config.fsdp_config.items()}
        plugin = FullyShardedDataParallelPlugin(**settings)
        assert plugin.fsdp_version == 2 and plugin.state_dict_type.name == "FULL_STATE_DICT"


def test_slurm_script():
    script = RECIPES / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    named = script.read_text()
    for name in ("accelerate_several_nodes.yaml", "zero3.json", "pretrain_paper.yaml"):
        assert name in named and (RECIPES / name).is_file()


@pytest.mark.parametrize("path", [*RECIPES.glob("*.yaml"), RECIPES / "slurm.sh"], ids=lambda path: path.name)
def test_each_says_what_it_is_for(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#!")]
    assert lines[0].startswith("# ")
