"""A speech codec on two ranks of one machine, gloo on the CPU: they train what one does on the whole batch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

# the command, after which every rank writes down its own copy of codec and discriminator
SCRIPT = """
import os, sys
from safetensors.torch import save_file
from solami_hf.training.speech import train_speech_codec as speech_codec
make, made = speech_codec.make_trainer, []
speech_codec.make_trainer = lambda *args: made.append(make(*args)) or made[0]
speech_codec.main(sys.argv[2:])
states = made[0].model.state_dict() | made[0].adversary.discriminator.state_dict()
save_file({name: value.contiguous() for name, value in states.items()},
          f"{sys.argv[1]}/rank{os.environ.get('RANK', 0)}.safetensors")
"""


def train(root, ranks):
    out = root / str(ranks)
    flags = {
        "data": root / "data", "output_dir": out, "num_filters": 2, "hidden_size": 8, "codebook_size": 4,
        "num_quantizers": 2, "window_seconds": 0.2, "unquantized_steps": 2, "kmeans_windows": 16, "held_out": 1,
        "first_level_share": 1.0, "all_levels_share": 0.0,
        "averaging_decay": 0.5, "stft_weight": 0.5, "adversarial_weight": 0.1,
        "adversarial_start": 3, "adversarial_every": 1, "max_steps": 6, "per_device_train_batch_size": 4 // ranks,
        "warmup_steps": 0, "logging_steps": 2, "save_steps": 3, "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    (root / "script.py").write_text(SCRIPT)
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *command, str(root / "script.py"), str(out)]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    states = [load_file(out / f"rank{rank}.safetensors") for rank in range(ranks)]
    assert all(torch.equal(state[name], states[0][name]) for state in states for name in states[0])
    return states[0], json.loads((out / "codec" / "history.json").read_text())


@pytest.mark.slow
def test_two_ranks_train_what_one_does_on_the_whole_batch(tmp_path):
    (tmp_path / "data").mkdir()
    for index in range(4):
        values = 0.1 * np.random.default_rng(index).standard_normal(16000)
        soundfile.write(tmp_path / "data" / f"{index}.wav", values, 16000)
    (one, first), (two, second) = (train(tmp_path, ranks) for ranks in (1, 2))
    for name, values in one.items():
        # Adam makes much of the sign of a gradient that is nearly zero
        tolerance = 1e-3 if "quantizer" in name else 5e-3
        assert (two[name] - values).abs().max() < tolerance, name
    assert [row["step"] for row in first["log"]] == [row["step"] for row in second["log"]]
    assert second["evaluation"]["eval_mel"] == pytest.approx(first["evaluation"]["eval_mel"], rel=1e-2)
    for name in ("mel", "discriminator", "feature_matching"):
        rows = [[row[name] for row in history["log"] if name in row][-1] for history in (first, second)]
        assert rows[0] == pytest.approx(rows[1], rel=2e-2), name
