import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, TrainingArguments

from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.training.motion_vq.motion_vq_data import (
    WindowDataset,
    feature_statistics,
    read_clips,
    read_transforms,
)
from solami_hf.training.motion_vq.motion_vq_evaluation import evaluate_motion_vq
from solami_hf.training.motion_vq.train_motion_vq import MotionVQArguments, main, make_trainer, train_motion_vq
from solami_hf.training.trainer import WindowSampler

RECIPES = Path(__file__).parents[2] / "solami_hf" / "training" / "recipes"
TINY = {"width": 16, "code_dim": 8, "depth": 1, "code_num": 8, "transform_code_num": 4, "window": 16}


def waving(frames: int, speed: float) -> SmplxMotion:
    """Every joint but the root swings, each with its own phase."""
    angles = 0.5 * np.sin(speed * np.arange(frames)[:, None] + np.arange(55))
    angles[:, 0] = 0
    poses = angles[..., None] * np.array([0.0, 0.0, 1.0])
    return SmplxMotion(np.tile([0, 0.9, 0], (frames, 1)), poses)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for i, frames in enumerate((12, 20, 33, 70, 40, 25)):
        write_motion(folder / f"{i}.npz", waving(frames, 0.1 * (i + 1)))
        rows.append({"id": f"clip{i}", "motion": f"{i}.npz", "text": ["waves"], "split": "test" if i > 3 else "train"})
    rows[0]["partner_id"], rows[1]["partner_id"] = "clip1", "clip0"
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def training_arguments(folder, **overrides) -> TrainingArguments:
    defaults = {"max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 2, "learning_rate": 1e-3}
    return TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, **defaults | overrides
    )


def test_train_saves_a_model_that_loads_and_its_history(data, tmp_path):
    out = tmp_path / "out"
    metrics = train_motion_vq(MotionVQArguments(data=str(data), **TINY), training_arguments(out))
    assert metrics["eval_clips"] == 2 and metrics["eval_mpjpe"] > metrics["eval_root_mpjpe"] > 0
    model = AutoModel.from_pretrained(out)
    assert isinstance(model, SolamiMotionVQModel) and model.body.quantizer.initialised
    clips = read_clips(data, "train")
    mean, std = feature_statistics(clips, 0.02)
    torch.testing.assert_close(model.mean, mean)
    torch.testing.assert_close(model.std, std)
    again = evaluate_motion_vq(model.eval(), read_clips(data, "test"))
    assert again["mpjpe"] == pytest.approx(metrics["eval_mpjpe"], rel=1e-4)
    history = json.loads((out / "history.json").read_text())
    assert [row["step"] for row in history["log"] if "feature_loss" in row] == [2, 4, 6]
    assert history["evaluation"] == pytest.approx(metrics)
    assert not (out / ".staging").exists()


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(data, tmp_path):
    out, args = tmp_path / "out", MotionVQArguments(data=str(data), **TINY)
    train_motion_vq(args, training_arguments(out, save_steps=4))
    (out / "checkpoint-6" / "trainer_state.json").unlink()  # killed while it wrote this one
    codebook = SolamiMotionVQModel.from_pretrained(out / "checkpoint-4").body.quantizer.codebook
    train_motion_vq(args, training_arguments(out, save_steps=4, max_steps=8, learning_rate=0.0))
    history = json.loads((out / "history.json").read_text())
    assert [row["step"] for row in history["log"] if "feature_loss" in row] == [2, 4, 6, 8]
    assert (out / "checkpoint-8").is_dir() and codebook.isfinite().all()


def test_training_lowers_the_loss(data, tmp_path):
    arguments = training_arguments(tmp_path / "out", max_steps=40, logging_steps=10, learning_rate=5e-3)
    train_motion_vq(MotionVQArguments(data=str(data), warmup_share=0.5, **TINY | {"width": 32}), arguments)
    log = json.loads((tmp_path / "out" / "history.json").read_text())["log"]
    losses = [row["feature_loss"] for row in log if "feature_loss" in row]
    assert losses[-1] < 0.6 * losses[0]
    assert log[0]["commitment_loss"] == 0 < log[3]["commitment_loss"]  # warm-up first


def test_windows_pad_short_clips_and_count_long_ones_more_often(data):
    clips = read_clips(data, "train")
    windows = WindowDataset(clips, 16, torch.zeros(1, 5))
    assert [len(clip.features) for clip in clips] == [11, 19, 32, 69]
    assert windows.index == [0, 1, 2, 2, 3, 3, 3, 3]
    short = windows[0]
    assert short["motion_values"].shape == (16, 315) and short["padding_mask"].sum() == 11
    assert torch.equal(short["motion_values"][:11], clips[0].features) and not short["motion_values"][11:].any()
    assert windows[2]["padding_mask"].all()


def test_the_number_of_a_window_decides_its_place_and_goes_on_from_epoch_to_epoch(data):
    clips = read_clips(data, "train")
    first, again = (WindowDataset(clips, 16, torch.randn(50, 5), seed=3) for _ in range(2))
    torch.manual_seed(1)
    places = {tuple(first[3 + 8 * epoch]["motion_values"][0].tolist()) for epoch in range(10)}
    torch.manual_seed(2)
    assert places == {tuple(again[3 + 8 * epoch]["motion_values"][0].tolist()) for epoch in range(10)}
    assert len(places) > 5  # another place in nearly every epoch
    sampler = WindowSampler(8, seed=3)
    orders = []
    for epoch in (0, 5, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] and sorted(orders[0]) == list(range(8)) and sorted(orders[1]) == list(range(40, 48))


def test_transforms_come_from_partners_and_random_places(data):
    clips = read_clips(data, "train")
    pairs = read_transforms(clips, 0, torch.Generator())
    torch.testing.assert_close(pairs, torch.tensor([[1.0, 0, 0, 0, 0]] * 2))
    both = read_transforms(clips, 100, torch.Generator().manual_seed(0))
    assert both.shape == (102, 5)
    torch.testing.assert_close(both[:, :2].norm(dim=1), torch.ones(102))
    with pytest.raises(ValueError, match="no transforms to train on"):
        read_transforms(clips[2:], 0, torch.Generator())


def test_statistics_raise_only_rotation_floors(data):
    mean, std = feature_statistics(read_clips(data, "train"), 0.02)
    assert std[0] == 0 and std[3:].amin().item() == pytest.approx(0.02)
    assert mean[2].item() == pytest.approx(0.9)


def test_a_row_without_motion_is_named(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"id": "a"}', encoding="utf-8")
    with pytest.raises(ValueError, match="'a' of .* lacks `motion`"):
        read_clips(tmp_path, "train")


def test_bad_data_is_named(data, tmp_path):
    arguments = training_arguments(tmp_path / "out")
    with pytest.raises(ValueError, match="`data` is empty"):
        train_motion_vq(MotionVQArguments(), arguments)
    with pytest.raises(FileNotFoundError, match="manifest.jsonl does not exist"):
        train_motion_vq(MotionVQArguments(data=str(tmp_path / "none")), arguments)
    rows = [json.loads(line) | {"split": "test"} for line in (data / "manifest.jsonl").read_text().splitlines()]
    (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(ValueError, match="no motion of the split train"):
        train_motion_vq(MotionVQArguments(data=str(data)), arguments)
    write_motion(data / "0.npz", waving(4, 1.0))
    with pytest.raises(ValueError, match="'clip0' has 4 frames at 30 fps, expected at least 5"):
        read_clips(data, "test")


@pytest.mark.parametrize(
    ("field", "message"),
    [({"width": 0}, "`width` is 0"), ({"window": 3}, "`window` is 3"), ({"warmup_share": 1.0}, "`warmup_share` is 1")],
)
def test_bad_arguments_are_named(field, message):
    with pytest.raises(ValueError, match=message):
        MotionVQArguments(**field)


@pytest.mark.parametrize("recipe", ["motion_vq_tiny.yaml", "motion_vq_levels_tiny.yaml", "motion_vq_paper.yaml"])
def test_recipes_run_from_the_command_line(data, tmp_path, recipe):
    flags = ["--config", str(RECIPES / recipe), "--data", str(data), "--output_dir", str(tmp_path / "out")]
    flags += ["--max_steps", "2", "--disable_tqdm", "true", "--use_cpu", "true", "--dataloader_num_workers", "0"]
    for name, size in TINY.items():
        flags += [f"--{name}", str(size)]
    main(flags)
    assert (tmp_path / "out" / "model.safetensors").is_file() and (tmp_path / "out" / "report.html").is_file()
    assert AutoModel.from_pretrained(tmp_path / "out").config.random_restart == ("tiny" in recipe)


def test_options_reach_the_model():
    args = MotionVQArguments(quantizer="fsq", causal=True, random_restart=False, loss_mode="upstream", code_num=64)
    config = args.to_config()
    assert (config.quantizer, config.causal, config.random_restart) == ("fsq", True, False)
    assert config.loss_mode == "upstream" and config.hand_code_num == 64
    with pytest.raises(ValueError, match="`quantizer` is 'lfq'"):
        MotionVQArguments(quantizer="lfq").to_config()


def test_without_kmeans_the_first_batch_starts_the_codebooks(data, tmp_path):
    """The original's start: encodings of the batch in their order, and dead codes are replaced by them too."""
    args = MotionVQArguments(
        data=str(data), warmup_share=0.0, kmeans_steps=0, random_restart=False, dead_code_threshold=1e9, **TINY
    )
    trainer = make_trainer(args, training_arguments(tmp_path / "out", max_steps=1, learning_rate=0.0))
    batches = []
    step = trainer.training_step
    trainer.training_step = lambda model, inputs, *rest: batches.append(inputs) or step(model, inputs, *rest)
    trainer.train()
    codec = trainer.model.eval()
    values, masks = codec.normalise(batches[0]["motion_values"], batches[0]["padding_mask"])
    latents = codec.latents(values, masks)[0]
    first = latents[masks[-1]] if masks[-1] is not None else latents.flatten(0, 1)
    torch.testing.assert_close(codec.body.quantizer.codebook, first[: TINY["code_num"]])
