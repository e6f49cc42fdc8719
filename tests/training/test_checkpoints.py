"""Resuming finds the newest whole checkpoint and clears away what a killed run left half written."""

import errno

import pytest
from safetensors import SafetensorError

from solami_hf.training.checkpoints import checkpoint_or_nothing, last_checkpoint


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
    with pytest.raises(OSError, match="checkpoint-10 could not be written .*make space and run again"):
        with checkpoint_or_nothing(tmp_path, 10):
            half = checkpoint(tmp_path, 10, "model.safetensors")
            raise error
    assert not half.exists() and last_checkpoint(tmp_path) == str(before)


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="^out of memory$"), checkpoint_or_nothing(tmp_path, 10):
        raise RuntimeError("out of memory")


def test_adapters_and_shards_count_as_weights(tmp_path):
    adapter = checkpoint(tmp_path, 1, "adapter_model.safetensors", "trainer_state.json")
    assert last_checkpoint(tmp_path) == str(adapter)
    shards = checkpoint(tmp_path, 2, "model-00001-of-00002.safetensors", "trainer_state.json")
    assert last_checkpoint(tmp_path) == str(shards)


def test_nothing_to_resume(tmp_path):
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "none") is None
