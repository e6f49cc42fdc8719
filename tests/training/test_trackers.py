"""Held-out clips reach the trackers of `--report_to` that take media, losses all of them."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import TrainingArguments

from solami_hf.processing.motion import SmplxMotion
from solami_hf.processing.motion_files import write_motion
from solami_hf.training.motion_vq.train_motion_vq import MotionVQArguments, train_motion_vq
from solami_hf.training.trackers import TrackedMedia, draw_movement

MISSING = "is not installed: pip install 'solami_hf[track]'"
CLIPS = [("hello", {"Original": np.zeros(160, np.float32), "Level 0 alone": 2 * np.ones(160)})]


def trainer(report_to, callbacks=()):
    state, handler = SimpleNamespace(global_step=7), SimpleNamespace(callbacks=list(callbacks))
    return SimpleNamespace(state=state, args=SimpleNamespace(report_to=report_to), callback_handler=handler)


@pytest.fixture
def recorded(monkeypatch):
    """Modules in place of trackio and wandb, and what is logged to them."""
    found = {}
    for name in ("trackio", "wandb"):
        module, rows = SimpleNamespace(__name__=name), found.setdefault(name, [])
        module.Audio = lambda values, **more: ("audio", values, more)
        module.Video = lambda path, **more: ("video", open(path, "rb").read(6), more)
        module.log = lambda values, rows=rows, **more: rows.append((values, more))
        monkeypatch.setitem(sys.modules, name, module)
    return found


def test_sounds_and_movements_are_logged_at_their_step(recorded):
    media = TrackedMedia(trainer(["trackio", "wandb"]))
    media.sounds(CLIPS, 16000)
    media.motions([("waves", [np.random.default_rng(0).normal(size=(20, 55, 3))] * 2)], 30)
    for name, rows in recorded.items():
        assert len(rows) == 3
        for values, more in rows:
            assert more == ({"step": 7} if name == "trackio" else {})
            assert values.pop("train/global_step", 7) == 7
        tags = [next(iter(values)) for values, _ in rows]
        assert tags == ["held_out_audio/1_original", "held_out_audio/1_level_0_alone", "held_out_motion/1"]
        kind, samples, told = rows[1][0][tags[1]]
        assert kind == "audio" and samples.max() == 1 and told == {"caption": "hello", "sample_rate": 16000}
        assert rows[2][0][tags[2]] == ("video", b"GIF89a", {"caption": "waves", "format": "gif"})


def test_runs_without_trackers_make_nothing(recorded):
    assert not TrackedMedia(trainer([])) and not TrackedMedia(trainer(["none"])) and not recorded["wandb"]


def test_a_movement_is_drawn_ten_times_a_second():
    image = pytest.importorskip("PIL.Image", reason=f"Pillow {MISSING}")
    joints = np.cumsum(np.ones((60, 55, 3)), 0) / 60 + np.linspace(0, 1, 55)[:, None]
    picture = image.open(io.BytesIO(draw_movement([joints, joints[:30] + 0.2], 30)))
    assert (picture.n_frames, picture.size, picture.info["duration"]) == (20, (320, 320), 100)
    assert len(picture.convert("RGB").getcolors()) > 2


@pytest.fixture
def train(tmp_path):
    """`train(tracker)` trains a tiny motion tokenizer for 4 steps, with 2 held-out clips, in `tmp_path / "run"`."""
    rows = []
    for number in range(4):
        turns = np.sin(np.arange(24)[:, None, None] / 5) * np.full((24, 55, 3), 0.05 * (number + 1))
        write_motion(tmp_path / f"{number}.npz", SmplxMotion(np.zeros((24, 3)), turns))
        split = "test" if number > 1 else "train"
        rows.append({"id": f"clip{number}", "motion": f"{number}.npz", "text": ["waves"], "split": split})
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def run(tracker):
        sizes = {"width": 8, "code_dim": 8, "depth": 1, "code_num": 8, "transform_code_num": 4, "window": 8}
        arguments = MotionVQArguments(data=str(tmp_path), random_transforms=8, kmeans_steps=2, **sizes)
        training = TrainingArguments(
            str(tmp_path / "run"), report_to=tracker, max_steps=4, per_device_train_batch_size=2, logging_steps=2,
            use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        train_motion_vq(arguments, training)

    return run


def test_tensorboard_has_losses_and_movements(train, tmp_path):
    pytest.importorskip("tensorboard", reason=f"tensorboard {MISSING}")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("tensorboard")
    events = next(tmp_path.rglob("events.out.tfevents.*"))
    found = EventAccumulator(str(events.parent)).Reload()
    assert {"train/loss", "train/feature_loss"} <= set(found.Tags()["scalars"])
    assert found.Tags()["images"] == ["held_out_motion/1", "held_out_motion/2"]
    (image,) = found.Images("held_out_motion/1")
    assert image.step == 4 and image.encoded_image_string.startswith(b"GIF89a")


def test_trackio_has_losses_and_movements(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason=f"trackio {MISSING}")
    train("trackio")
    assert len(list((tmp_path / "trackio").rglob("*.gif"))) == 2
