"""Two ranks against one at equal global batch: pretraining, SFT and LoRA under DeepSpeed's ZeRO-3, SFT under FSDP2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoProcessor

import solami_hf

RECIPES = Path(solami_hf.__file__).parent / "training" / "recipes"
STEPS, GLOBAL_BATCH = 6, 4
SPLIT = ("loss", "accuracy", "loss_text", "loss_speech", "loss_body", "loss_hand", "loss_end")


def train(folder, stage, recipe, model, output, ranks, fsdp=False, **flags):
    """Runs a recipe in float32 on one rank, or two under ZeRO-3 or FSDP2; returns the rows of its history."""
    flags = {
        "config": RECIPES / f"{recipe}.yaml", "model": folder / model, "data": folder / "data",
        "output_dir": folder / output, "max_steps": STEPS, "max_length": 256, "bf16": False, "use_cpu": True,
        "per_device_train_batch_size": GLOBAL_BATCH // ranks, "gradient_accumulation_steps": 1, "warmup_steps": 1,
        "chunked_loss": True, "activation_checkpointing": False, "logging_steps": 1, "save_steps": 3,
        "eval_strategy": "steps", "eval_steps": STEPS, "per_device_eval_batch_size": 2, "disable_tqdm": True,
    } | flags  # fmt: skip
    command = ["-m", f"solami_hf.training.{stage}"]
    if ranks > 1 and fsdp:
        command = [str(Path(__file__).with_name("fsdp_on_cpu.py")), stage]
    elif ranks > 1:
        flags["deepspeed"] = RECIPES / "zero3.json"
    if ranks > 1:
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", *command]
    command = [sys.executable, *command]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[:2000] + " ... " + done.stderr[-4000:]
    return json.loads((folder / output / "history.json").read_text())


def assert_same(one, two):
    """Loss, its split and accuracy at every step, and the evaluation of every data set."""
    assert [row["step"] for row in two] == [row["step"] for row in one]
    compared = 0
    for ours, theirs in zip(two, one, strict=True):
        for name in theirs:
            if name in SPLIT or (name.startswith("eval_") and name.endswith("_loss")):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-3), (name, theirs["step"])
                compared += 1
    assert compared > 4 * STEPS


def assert_complete(folder, one):
    """The folder has everything, loads, and its weights are those of one rank but for rounding."""
    names = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "processor_config.json"}
    names |= {"training_args.json", "report.html", "README.md", "history.json", "generation_config.json"}
    assert names <= {path.name for path in folder.iterdir()} and not (folder / ".staging").exists()
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert processor.speech_codec is not None and processor.motion_codec is not None
    assert all(torch.isfinite(weight).all() and weight.numel() for weight in model.parameters())
    for codec in ("motion_codec", "speech_codec"):
        ours, theirs = (load_file(path / codec / "model.safetensors") for path in (folder, one))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (folder, one))
    assert ours == theirs
    ours, theirs = (load_file(path / "model.safetensors") for path in (folder, one))
    assert ours.keys() == theirs.keys()
    # Adam makes much of the sign of a gradient that is nearly zero
    assert all((ours[name] - theirs[name]).abs().max() < 0.01 for name in theirs)


@pytest.mark.slow
def test_zero3_on_two_ranks_trains_what_one_does(training_folder):
    stages = {
        "pretrained": ("pretrain", "pretrain_tiny", "model", {}),
        "chat": ("sft", "sft_tiny", "pretrained1", {}),
        "lora": ("sft", "sft_lora", "pretrained1", {"lora_dropout": 0.0, "learning_rate": 1e-2}),
    }
    for name, (stage, recipe, model, flags) in stages.items():
        histories = [
            train(training_folder, stage, recipe, model, f"{name}{ranks}", ranks, **flags) for ranks in (1, 2)
        ]
        assert_same(*histories)
        assert_complete(training_folder / f"{name}2", training_folder / f"{name}1")
    assert (training_folder / "lora2" / "adapter" / "adapter_model.safetensors").is_file()
    # Stage 3 on what two ranks have pretrained, continued from the checkpoint in the middle
    wanted = train(training_folder, "sft", "sft_tiny", "pretrained2", "onward", 2, save_total_limit=2)
    (training_folder / "onward" / "history.json").unlink()
    (training_folder / "onward" / f"checkpoint-{STEPS}" / "trainer_state.json").unlink()
    found = train(training_folder, "sft", "sft_tiny", "pretrained2", "onward", 2, save_total_limit=2)
    assert [row["loss"] for row in found if "loss" in row] == pytest.approx(
        [row["loss"] for row in wanted if "loss" in row], abs=1e-6
    )


@pytest.mark.slow
def test_fsdp2_on_two_ranks_trains_what_one_does(training_folder):
    one = train(training_folder, "sft", "sft_tiny", "model", "one", 1)
    two = train(training_folder, "sft", "sft_tiny", "model", "two", 2, fsdp=True, save_total_limit=2)
    assert_same(one, two)
    assert_complete(training_folder / "two", training_folder / "one")
    # Each checkpoint is a whole model; from the one in the middle the run goes on to the same end
    middle = AutoModelForCausalLM.from_pretrained(training_folder / "two" / f"checkpoint-{STEPS // 2}")
    assert all(weight.numel() for weight in middle.parameters())
    (training_folder / "two" / "history.json").unlink()
    (training_folder / "two" / f"checkpoint-{STEPS}" / "trainer_state.json").unlink()
    again = train(training_folder, "sft", "sft_tiny", "model", "two", 2, fsdp=True, save_total_limit=2)
    assert [row["loss"] for row in again if "loss" in row] == pytest.approx(
        [row["loss"] for row in two if "loss" in row], abs=1e-6
    )
