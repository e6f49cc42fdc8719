"""Resuming finds the newest whole checkpoint and clears away what a killed run left half written."""

import errno
import json
import os
import stat

import pytest
import torch
from safetensors import SafetensorError
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from research.packaged_speech.voice_exchange import VoiceExchangeTrainer
from solami_hf.training.checkpoints import (
    CheckpointInWork,
    checkpoint_or_nothing,
    last_checkpoint,
    written_or_nothing,
)
from solami_hf.training.language_model.loss_by_modality import SplitLossTrainer
from solami_hf.training.motion_vq.train_motion_vq import MotionVQTrainer
from solami_hf.training.soundstorm.train_soundstorm import SoundStormTrainer
from solami_hf.training.speech.speech_codec_trainer import SpeechCodecTrainer
from solami_hf.training.speech.speech_decoder import SpeechDecoderTrainer
from solami_hf.training.trainer import ResumableTrainer, SafeTrainer, save_run


def checkpoint(folder, step, *names):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    for name in names:
        (path / name).write_bytes(b"{}")
    return path


def test_the_newest_whole_one(tmp_path):
    whole = checkpoint(tmp_path, 9, "model.safetensors", "trainer_state.json")
    no_state = checkpoint(tmp_path, 100, "model.safetensors")
    no_weights = checkpoint(tmp_path, 200, "trainer_state.json")
    assert last_checkpoint(tmp_path) == str(whole)
    assert not no_state.exists() and not no_weights.exists() and whole.exists()


def test_half_a_state_is_no_state(tmp_path):
    whole = checkpoint(tmp_path, 9, "model.safetensors", "trainer_state.json")
    torn = checkpoint(tmp_path, 10, "model.safetensors", "trainer_state.json")
    (torn / "trainer_state.json").write_text('{"log_history": [')
    assert last_checkpoint(tmp_path) == str(whole) and not torn.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:668] . PytorchStreamWriter failed writing file data/7"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_removed(tmp_path, error):
    before = checkpoint(tmp_path, 9, "model.safetensors", "trainer_state.json")
    work = CheckpointInWork()
    with pytest.raises(OSError, match="checkpoint-10 could not be written .*make space and run again"):
        with checkpoint_or_nothing(work):
            half = work.folder = checkpoint(tmp_path, 10, "model.safetensors")
            raise error
    assert not half.exists() and last_checkpoint(tmp_path) == str(before)


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    work = CheckpointInWork()
    work.folder = half = checkpoint(tmp_path, 10, "model.safetensors")
    with pytest.raises(RuntimeError, match="^out of memory$"), checkpoint_or_nothing(work):
        raise RuntimeError("out of memory")
    whole = work.folder = checkpoint(tmp_path, 11, "model.safetensors", "trainer_state.json")
    for folder in (None, whole):
        work.folder = folder
        with pytest.raises(OSError, match="^no such recording$"), checkpoint_or_nothing(work):
            raise OSError("no such recording")
    assert half.exists() and whole.exists()


def test_adapters_and_shards_count_as_weights(tmp_path):
    adapter = checkpoint(tmp_path, 1, "adapter_model.safetensors", "trainer_state.json")
    assert last_checkpoint(tmp_path) == str(adapter)
    shards = checkpoint(tmp_path, 2, "model-00001-of-00002.safetensors", "trainer_state.json")
    assert last_checkpoint(tmp_path) == str(shards)


def test_nothing_to_resume(tmp_path):
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "none") is None


TRAINERS = (SplitLossTrainer, ResumableTrainer, MotionVQTrainer, SoundStormTrainer, SpeechCodecTrainer)


@pytest.mark.parametrize("trainer", [*TRAINERS, SpeechDecoderTrainer, VoiceExchangeTrainer])
def test_all_trainers_write_checkpoints_alike(trainer):
    assert trainer.train is SafeTrainer.train and issubclass(trainer, SafeTrainer)
    assert trainer.save_model in (SafeTrainer.save_model, ResumableTrainer.save_model, SpeechCodecTrainer.save_model)


@pytest.fixture
def trainer(tmp_path):
    """A SafeTrainer of a few weights; `train(steps)` trains it."""
    sizes = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none", disable_tqdm=True, save_steps=1, max_steps=2
    )
    rows = [{"input_ids": torch.arange(4), "labels": torch.arange(4)}] * 8
    return SafeTrainer(LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)), arguments, train_dataset=rows)


def test_checkpoints_follow_the_umask_and_hold_no_pickled_arguments(trainer, tmp_path):
    before = os.umask(0o022)
    try:
        trainer.train()
        save_run(trainer.model, {}, tmp_path / "result")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
    names = {path.name for path in files}
    assert "training_args.bin" not in names and {"model.safetensors", "history.json"} <= names
    arguments = json.loads((tmp_path / "run/checkpoint-2/training_args.json").read_text())
    assert arguments["max_steps"] == 2 and arguments["learning_rate"] == 5e-5


def test_a_full_disk_leaves_the_checkpoint_before(trainer, tmp_path, stops_writing):
    stops_writing("checkpoint-2/optimizer.pt", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="checkpoint-2 could not be written .*No space left.*run again"):
        trainer.train()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_result_that_cannot_be_written_leaves_the_one_before(trainer, tmp_path, monkeypatch):
    save_run(trainer.model, {"log": 1}, tmp_path)

    def full(*args, **more):
        raise SafetensorError("os error 28")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(OSError, match="could not be written .*os error 28.*run again"):
        save_run(trainer.model, {"log": 2}, tmp_path)
    assert json.loads((tmp_path / "history.json").read_text()) == {"log": 1} and not (tmp_path / ".staging").exists()


def test_what_could_not_be_written_is_told_where_nothing_is_yet(tmp_path):
    with (
        pytest.raises(OSError, match="new/run could not be written .*MB are free"),
        written_or_nothing(tmp_path / "new/run"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
