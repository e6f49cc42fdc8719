"""A run that is resumed from any of its checkpoints ends where the uninterrupted one did, bit for bit."""

import json
import shutil

import numpy as np
import pytest
from transformers import TrainingArguments

from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.training.motion_vq.train_motion_vq import MotionVQArguments, train_motion_vq

TINY = {"width": 8, "code_dim": 8, "depth": 1, "code_num": 8, "transform_code_num": 4, "window": 16}
STEPS, WARM_STEPS, SAVE_STEPS = 10, 4, 2


def write_clips(folder, frames=(12, 40, 33, 60, 20)):
    """Clips of random joints, the last one held out."""
    folder.mkdir()
    rows, rng = [], np.random.default_rng(0)
    for i, length in enumerate(frames):
        poses = np.cumsum(rng.normal(size=(length, 55, 3)) * 0.05, axis=0)
        write_motion(folder / f"{i}.npz", SmplxMotion(np.tile([0, 0.9, 0], (length, 1)), poses))
        rows.append({"id": f"clip{i}", "motion": f"{i}.npz", "split": "test" if i == len(frames) - 1 else "train"})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`run(name, **options)` trains into a folder of that name."""
    root = tmp_path_factory.mktemp("runs")
    data = write_clips(root / "data")

    def run(name, **options):
        arguments = TrainingArguments(
            output_dir=str(root / name), max_steps=STEPS, per_device_train_batch_size=3, learning_rate=1e-2,
            logging_steps=3, eval_strategy="steps", eval_steps=5, save_steps=SAVE_STEPS, warmup_steps=2,
            lr_scheduler_type="cosine", use_cpu=True, report_to="none", disable_tqdm=True,
        )  # fmt: skip
        # a threshold that nearly every code is below: dead codes are drawn anew in every step
        options = {"dead_code_threshold": 2.0, "warmup_share": WARM_STEPS / STEPS} | options
        train_motion_vq(MotionVQArguments(data=str(data), **TINY, **options), arguments)
        return root / name

    return run


@pytest.fixture(scope="module")
def whole(runs):
    return runs("whole")


@pytest.mark.parametrize("step", range(SAVE_STEPS, STEPS + 1, SAVE_STEPS))
def test_resumed_from_any_checkpoint(runs, whole, step, assert_same_run):
    name = f"from-{step}"  # within the warm-up, at its end where the codebooks start, after it, and all done
    shutil.copytree(whole / f"checkpoint-{step}", whole.parent / name / f"checkpoint-{step}")
    assert_same_run(runs(name), whole)


def test_the_log_has_every_part_and_evaluations(whole):
    log = json.loads((whole / "history.json").read_text())["log"]
    trained = [row for row in log if "loss" in row]
    assert [row["step"] for row in trained] == [2, 3, 4, 6, 8, 9, 10]
    assert {"feature_loss", "velocity_loss", "commitment_loss", "transform_loss"} <= trained[0].keys()
    assert [row["step"] for row in trained if "body_perplexity" in row and "hand_usage" in row] == [6, 8, 9, 10]
    evaluated = {row["step"]: row for row in log if "eval_body_mpjpe" in row}
    assert list(evaluated) == [5, 10] and {"eval_accel", "eval_hand_mpjpe"} <= evaluated[5].keys()


def test_the_original_way_and_finite_steps_resume_too(runs, assert_same_run):
    ways = {
        "paper": {"kmeans_steps": 0, "warmup_share": 0.0, "random_restart": False, "dead_code_threshold": 1.0},
        "fsq": {"quantizer": "fsq", "causal": True},
    }
    for name, options in ways.items():
        first = runs(name, **options)
        shutil.copytree(first / "checkpoint-4", first.parent / f"{name}-4" / "checkpoint-4")
        assert_same_run(runs(f"{name}-4", **options), first)
