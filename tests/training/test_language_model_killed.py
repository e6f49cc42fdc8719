"""Runs that are killed at random points and started again log and end as runs that were let alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

STEPS = 30


def command(folder, stage, output):
    flags = {
        "model": folder / "model", "data": folder / "data", "output_dir": folder / output, "max_length": 256,
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": STEPS, "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine", "warmup_steps": 4, "use_cpu": True, "bf16": False, "logging_steps": 2,
        "save_steps": 3, "save_total_limit": 2, "report_to": "none", "disable_tqdm": True,
        # Dropout needs the state of the random numbers to be continued too
        **({"use_peft": True, "lora_dropout": 0.3} if stage == "sft" else {}),
    }  # fmt: skip
    parts = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", f"solami_hf.training.{stage}", *parts]


def start(folder, stage, output):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command(folder, stage, output), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def killed(folder, stage, output, rows, seconds):
    """Kills a run so many seconds after so many rows of its log."""
    process, seen, tail = start(folder, stage, output), 0, []
    for line in process.stdout:
        tail.append(line)
        seen += "'loss'" in line
        if seen == rows:
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL, "".join(tail[-30:])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_killed_three_times_a_run_ends_as_if_nothing_had_been(training_folder, stage):
    whole = start(training_folder, stage, "whole")
    text = whole.communicate(timeout=300)[0]
    assert whole.returncode == 0, text[-3000:]
    rng = random.Random(7)
    for _ in range(3):
        killed(training_folder, stage, "parts", rng.randint(2, 6), rng.uniform(0, 0.15))
    last = start(training_folder, stage, "parts")
    text = last.communicate(timeout=300)[0]
    assert last.returncode == 0, text[-3000:]
    wanted, found = (json.loads((training_folder / n / "history.json").read_text()) for n in ("whole", "parts"))
    assert [row["step"] for row in found] == [row["step"] for row in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
    ours, theirs = (load_file(training_folder / n / "model.safetensors") for n in ("parts", "whole"))
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
