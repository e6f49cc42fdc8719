"""A run that is resumed from any of its checkpoints ends where the uninterrupted one did, bit for bit."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from solami_hf.training.soundstorm.train_soundstorm import SoundStormArguments, SoundStormTrainer, train_soundstorm
from solami_hf.training.trainer import AveragedWeights

STEPS, SAVE_STEPS = 10, 2
TINY = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8, "intermediate_size": 32,
    "conv_channels": 16, "conv_kernel_size": 3, "codebook_size": 8, "window_seconds": 0.4, "held_out": 2,
    "dropout": 0.2, "averaging_decay": 0.8,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`run(name, **options)` trains into a folder of that name."""
    root = tmp_path_factory.mktemp("runs")
    codes = np.random.default_rng(0).integers(0, 8, (3, 300))
    np.savez(root / "codes.npz", codes=codes, ends=50 * np.arange(1, 7))

    def run(name, training=(), **options):
        defaults = {
            "max_steps": STEPS, "per_device_train_batch_size": 3, "learning_rate": 1e-2, "logging_steps": 3,
            "eval_strategy": "steps", "eval_steps": 4, "save_steps": SAVE_STEPS, "warmup_steps": 2,
            "lr_scheduler_type": "cosine",
        }  # fmt: skip
        arguments = TrainingArguments(
            output_dir=str(root / name), use_cpu=True, report_to="none", disable_tqdm=True, **defaults | dict(training)
        )
        train_soundstorm(SoundStormArguments(data=[str(root / "codes.npz")], **TINY | options), arguments)
        return root / name

    return run


@pytest.fixture(scope="module")
def whole(runs):
    return runs("whole")


@pytest.mark.parametrize("step", range(SAVE_STEPS, STEPS + 1, SAVE_STEPS))
def test_resumed_from_any_checkpoint(runs, whole, step, assert_same_run):
    name = f"from-{step}"  # an epoch has 4 steps: within one, at its end, and all done
    shutil.copytree(whole / f"checkpoint-{step}", whole.parent / name / f"checkpoint-{step}")
    torch.manual_seed(step)
    assert_same_run(runs(name), whole)


def test_killed_between_checkpoints_and_within_one(runs, whole, monkeypatch, assert_same_run):
    """What was trained since the last checkpoint is lost, and a half-written checkpoint is thrown away."""
    compute_loss, calls = SoundStormTrainer.compute_loss, []

    def killed(trainer, *args, **kwargs):
        calls.append(0)
        if len(calls) == 6:  # one step past checkpoint-4
            raise KeyboardInterrupt
        return compute_loss(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SoundStormTrainer, "compute_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            runs("killed")
    folder = whole.parent / "killed"
    assert (folder / "checkpoint-4").is_dir() and not (folder / "model.safetensors").exists()
    (folder / "checkpoint-4" / "trainer_state.json").unlink()
    assert_same_run(runs("killed"), whole)


def test_other_ways_resume_too(runs, assert_same_run):
    ways = {
        "bf16": {"training": {"bf16": True, "gradient_accumulation_steps": 2}.items(), "half": True},
        "epochs": {"training": {"max_steps": -1, "num_train_epochs": 3}.items(), "averaging_decay": 0.0},
        "late": {"training": {"eval_steps": 3, "label_smoothing_factor": 0.1, "max_steps": 8}.items()},
    }
    for name, options in ways.items():
        first = runs(name, **options)
        for step in (4, 8):
            if (first / f"checkpoint-{step}").is_dir():
                shutil.copytree(first / f"checkpoint-{step}", first.parent / f"{name}-{step}" / f"checkpoint-{step}")
                assert_same_run(runs(f"{name}-{step}", **options), first)


def test_a_checkpoint_without_averages_is_refused(runs, whole):
    shutil.copytree(whole / "checkpoint-4", whole.parent / "no-averages" / "checkpoint-4")
    (whole.parent / "no-averages" / "checkpoint-4" / "averaged.safetensors").unlink()
    with pytest.raises(ValueError, match="without averaged weights; go on with `averaging_decay` 0"):
        runs("no-averages")


def test_averages_of_three_steps():
    layer, averages = nn.Linear(1, 1, bias=False), AveragedWeights(0.15)
    for value in (10.0, 20.0, 40.0):
        layer.weight.data.fill_(value)
        averages.on_step_end(None, None, None, model=layer)
    # the first step is the weight itself, the second keeps 0.15 rather than 2 / 11, and so does the third
    assert averages.averages["weight"].item() == pytest.approx(0.15 * (0.15 * 10 + 0.85 * 20) + 0.85 * 40)
    with averages.applied(layer):
        assert layer.weight.item() == averages.averages["weight"].item()
    assert layer.weight.item() == 40


def test_averages_are_read_on_any_rank(tmp_path):
    layer, averages = nn.Linear(2, 1), AveragedWeights(0.5)
    averages.on_step_end(None, None, None, model=layer)
    averages.save(tmp_path)
    again = AveragedWeights(0.5)
    again.load(tmp_path, torch.device("cpu", 0))  # so a rank without a GPU names its device
    assert again.steps == 1
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in again.averages.items())


def test_averages_before_the_first_step_are_the_weights():
    layer = nn.Linear(1, 1)
    own = layer.weight.item()
    with AveragedWeights(0.9).applied(layer):
        assert layer.weight.item() == own
