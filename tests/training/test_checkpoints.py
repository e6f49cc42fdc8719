"""Resuming finds the newest whole checkpoint and clears away what a killed run left half written."""

from solami_hf.training.checkpoints import last_checkpoint


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


def test_adapters_and_shards_count_as_weights(tmp_path):
    adapter = checkpoint(tmp_path, 1, "adapter_model.safetensors", "trainer_state.json")
    assert last_checkpoint(tmp_path) == str(adapter)
    shards = checkpoint(tmp_path, 2, "model-00001-of-00002.safetensors", "trainer_state.json")
    assert last_checkpoint(tmp_path) == str(shards)


def test_nothing_to_resume(tmp_path):
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "none") is None
