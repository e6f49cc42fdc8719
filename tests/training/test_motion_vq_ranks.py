"""Several ranks on one machine, gloo on the CPU: codebooks count the batches of all of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import solami_hf
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion

# the command, after which every rank writes down its own copy of the model
SCRIPT = """
import os, sys
from safetensors.torch import save_file
from solami_hf.training.motion_vq import train_motion_vq as motion_vq
make, made = motion_vq.make_trainer, []
motion_vq.make_trainer = lambda *args: made.append(make(*args)) or made[0]
motion_vq.main(sys.argv[2:])
save_file(made[0].model.state_dict(), f"{sys.argv[1]}/rank{os.environ.get('RANK', 0)}.safetensors")
"""
STEPS, GLOBAL_BATCH = 12, 8
ZERO2 = Path(solami_hf.__file__).parent / "training" / "recipes" / "motion_vq_zero2.json"


@pytest.fixture
def data(tmp_path):
    """Clips whose windows are full and fill every batch, so that the mean over ranks is the mean over the batch."""
    folder, rng, rows = tmp_path / "data", np.random.default_rng(0), []
    folder.mkdir()
    for i in range(10):
        poses = np.cumsum(rng.normal(size=(40, 55, 3)) * 0.05, axis=0)
        write_motion(folder / f"{i}.npz", SmplxMotion(np.tile([0, 0.9, 0], (40, 1)), poses))
        rows.append({"id": f"clip{i}", "motion": f"{i}.npz", "split": "train" if i < 8 else "test"})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def train(data, out, ranks, **flags):
    """Trains on `ranks` ranks, which have to end with equal models, and returns its weights and buffers."""
    flags = {
        "data": data, "output_dir": out, "width": 16, "code_dim": 8, "depth": 1, "code_num": 8, "window": 16,
        "transform_code_num": 4, "warmup_share": 0.5, "dead_code_threshold": 0.0, "max_steps": STEPS,
        "per_device_train_batch_size": GLOBAL_BATCH // ranks, "learning_rate": 1e-3, "logging_steps": 2,
        "save_steps": 6, "eval_strategy": "steps", "eval_steps": 6, "use_cpu": True, "report_to": "none",
        "disable_tqdm": True,
    } | flags  # fmt: skip
    script = data / "script.py"
    script.write_text(SCRIPT)
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *command, str(script), str(out)]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    states = [load_file(out / f"rank{rank}.safetensors") for rank in range(ranks)]
    assert all(torch.equal(state[name], states[0][name]) for state in states for name in states[0])
    return states[0]


@pytest.mark.slow
def test_two_ranks_train_what_one_does_on_the_whole_batch(data, tmp_path):
    one, two = (train(data, tmp_path / str(ranks), ranks) for ranks in (1, 2))
    for name, values in one.items():
        # Adam makes much of the sign of a gradient that is nearly zero
        tolerance = 1e-4 if "quantizer" in name else 1e-3
        assert (two[name].float() - values.float()).abs().max() < tolerance, name
    histories = [json.loads((tmp_path / str(ranks) / "history.json").read_text()) for ranks in (1, 2)]
    assert [row["step"] for row in histories[1]["log"]] == [row["step"] for row in histories[0]["log"]]
    assert histories[1]["evaluation"] == pytest.approx(histories[0]["evaluation"], rel=1e-2)
    assert histories[1]["log"][-2]["feature_loss"] == pytest.approx(histories[0]["log"][-2]["feature_loss"], rel=1e-2)


@pytest.mark.slow
def test_codes_drawn_anew_are_the_same_on_both_ranks_and_a_killed_run_goes_on(data, tmp_path):
    out = tmp_path / "out"
    train(data, out, 2, dead_code_threshold=2.0)
    (out / "checkpoint-12" / "trainer_state.json").unlink()  # killed while it wrote this one
    train(data, out, 2, dead_code_threshold=2.0)
    log = json.loads((out / "history.json").read_text())["log"]
    assert [row["step"] for row in log if "loss" in row] == [2, 4, 6, 8, 10, 12]
    assert (out / "checkpoint-12" / "trainer_state.json").is_file()


@pytest.mark.slow
def test_deepspeed_zero2_ends_with_a_folder_that_loads(data, tmp_path):
    trained = train(data, tmp_path / "out", 2, deepspeed=ZERO2, bf16=True)
    model = SolamiMotionVQModel.from_pretrained(tmp_path / "out")
    assert model.body.quantizer.initialised and model.body.quantizer.codebook.dtype == torch.float32
    assert model.body.encoder["conv_in"].weight.dtype == torch.bfloat16
    assert torch.equal(model.body.quantizer.codebook, trained["body.quantizer.codebook"])
    log = json.loads((tmp_path / "out" / "history.json").read_text())["log"]
    assert [row["step"] for row in log if "eval_body_mpjpe" in row] == [6, 12]
