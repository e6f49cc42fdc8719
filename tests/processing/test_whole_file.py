import os
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from solami_hf.processing.audio.waveforms import write_audio
from solami_hf.processing.files.atomic_write import atomic_model, atomic_write, follow_umask
from solami_hf.processing.files.output_folder import atomic_folder


def test_moves_what_was_written(tmp_path):
    with atomic_write(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
        assert temporary.parent == tmp_path / "new" and not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("ha")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def save_weights(path):
    save_file({"x": torch.zeros(1)}, path)


@pytest.mark.parametrize("umask, expected", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_what_is_written_follows_the_umask(tmp_path, umask, expected):
    """safetensors makes its files for their owner alone."""
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.safetensors") as temporary:
            save_weights(temporary)
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "codec").mkdir()
            save_weights(temporary / "codec" / "b.safetensors")
        with atomic_model(tmp_path / "model") as temporary:
            save_weights(temporary / "model.safetensors")
            (temporary / "config.json").write_text("{}")
        write_audio(tmp_path / "a.wav", np.zeros(9, np.float32), 16000)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = ["a.safetensors", "a.wav", "b.safetensors", "config.json", "model.safetensors"]
    assert sorted(path.name for path in files) == names
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {expected}


def test_other_private_files_stay_private(tmp_path):
    for name in ("secret.txt", "linked.bin"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    with atomic_write(tmp_path / "copy.bin") as temporary:
        os.link(tmp_path / "linked.bin", temporary)
    follow_umask(tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("secret.txt", "linked.bin", "copy.bin"), 0o600)


def test_a_model_that_could_not_be_written_changes_nothing(tmp_path):
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(OSError), atomic_model(tmp_path) as temporary:
        (temporary / "config.json").write_text("new")
        raise OSError(28, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"
