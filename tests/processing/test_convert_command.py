"""`solami convert`: the original's checkpoints to a model folder, motion files and folders to other formats."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoModel

from solami_hf import cli
from solami_hf.modeling.convert import convert_motion_vq
from solami_hf.processing.convert_command import convert_motion, main
from solami_hf.processing.motion.motion_io import read_motion, write_motion


@pytest.fixture
def checkpoints(golden, tmp_path):
    """Flags of the golden checkpoints and made-up statistics, and these."""
    rng = np.random.default_rng(0)
    statistics = {"mean": rng.normal(size=315), "std": rng.uniform(0.5, 2, 315), "transform_std": np.full(5, 2.0)}
    paths = {name: golden / "vqvae" / f"{name}.pth" for name in ("body", "hand", "transform")}
    for name, values in statistics.items():
        paths[name] = tmp_path / f"{name}.npy"
        np.save(paths[name], values)
    flags = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    return flags, statistics


def test_motion_vq_writes_a_folder_for_automodel(checkpoints, golden, tmp_path, caplog):
    flags, statistics = checkpoints
    out = tmp_path / "model"
    with caplog.at_level(logging.INFO, logger="solami_hf"):
        assert main(["motion-vq", *flags, "--transform_mean", "0.5", "--output", str(out)]) == 0
    assert "body: 135 features, width 32, 3 residual blocks, 64 codes of 32 values, relu, norm None" in caplog.text
    assert "hand: 180 features, width 32, 2 residual blocks" in caplog.text
    assert "transform: 5 features, hidden layers of [48, 96], 256 codes of 16 values; 4 frames a code" in caplog.text
    files = [path.name for path in out.iterdir() if path.suffix != ".py"]  # beside the code that loads it anywhere
    assert sorted(files) == ["config.json", "model.safetensors"]
    model = AutoModel.from_pretrained(out)
    expected = convert_motion_vq(
        *(golden / "vqvae" / f"{name}.pth" for name in ("body", "hand", "transform")),
        mean=statistics["mean"],
        std=statistics["std"],
        transform_mean=0.5,
        transform_std=2,
    )
    state = expected.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_motion_vq_takes_what_tensors_cannot_tell(checkpoints, tmp_path):
    flags, _ = checkpoints
    entries = ["body_activation=gelu", "hand_dilation_growth_rate=2", "fps=20"]
    assert main(["motion-vq", *flags, "--set", *entries, "--output", str(tmp_path / "model")]) == 0
    config = AutoModel.from_pretrained(tmp_path / "model").config
    assert (config.body_activation, config.hand_activation) == ("gelu", "relu")
    assert (config.hand_dilation_growth_rate, config.fps) == (2, 20)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("activation=gelu", "`set` got 'activation=gelu', expected name=value with a name of features_size,"),
        ("body_activation", "expected name=value"),
        ("body_activation=tanh", "`body_activation` is 'tanh'"),
        ("body_width=64", "The checkpoints do not fit the model"),
    ],
)
def test_motion_vq_names_what_does_not_fit(checkpoints, tmp_path, capsys, entry, message):
    flags, _ = checkpoints
    assert cli.main(["convert", "motion-vq", *flags, "--set", entry, "--output", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "model").exists()


@pytest.fixture
def folder(tmp_path, small_motion):
    """Two motions, one of them in a subfolder, a broken one, and a file of another kind."""
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    write_motion(source / "a.npz", small_motion)
    write_motion(source / "deep" / "b.NPZ", small_motion)
    (source / "broken.npz").write_bytes(b"not a zip")
    (source / "notes.md").write_text("not a motion", encoding="utf-8")
    return source


@pytest.mark.parametrize("suffix", [".npz", ".bvh", ".glb"])
def test_motion_converts_a_file(folder, tmp_path, suffix, small_motion):
    target = tmp_path / "out" / f"a{suffix}"
    assert main(["motion", str(folder / "a.npz"), str(target), "--fps", "15"]) == 0
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    if suffix == ".glb":
        assert target.read_bytes()[:4] == b"glTF"
        return
    motion = read_motion(target, fps=None)
    assert (motion.fps, motion.num_frames) == (15, 20)
    np.testing.assert_allclose(motion.pelvis, small_motion.pelvis[::2], atol=1e-4)


def test_motion_keeps_the_rate_for_0_and_turns_the_axis(folder, tmp_path, small_motion):
    small_motion.fps = 60
    write_motion(folder / "a.npz", small_motion)
    flags = ["--fps", "0", "--up_axis", "z"]
    assert main(["motion", str(folder / "a.npz"), str(tmp_path / "a.npz"), *flags]) == 0
    motion = read_motion(tmp_path / "a.npz", fps=None)
    assert motion.fps == 60
    np.testing.assert_allclose(motion.transl, small_motion.transl[:, [0, 2, 1]] * [1, 1, -1], atol=1e-6)


def test_motion_lists_the_bad_files_of_a_folder_and_converts_the_rest(folder, tmp_path, caplog):
    out = folder / "out"  # inside: a second run must not read what the first one wrote
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="solami_hf"):
            assert main(["motion", str(folder), str(out)]) == 1
        assert "left out broken.npz:" in caplog.text and f"converted 2 of 3 files to {out}" in caplog.text
        written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        assert written == ["a.npz", "deep/b.npz"]
    (folder / "broken.npz").unlink()
    assert main(["motion", str(folder), str(out)]) == 0


def test_motion_does_not_let_two_files_take_one_place(folder, tmp_path):
    (folder / "a.txt").write_text("{}", encoding="utf-8")
    bad = convert_motion(folder, tmp_path / "out")
    assert set(bad) == {folder / "broken.npz", folder / "a.txt"}
    assert bad[folder / "a.txt"].startswith(f"a.npz becomes {tmp_path / 'out' / 'a.npz'} already")


def test_a_failed_write_leaves_nothing(folder, tmp_path, monkeypatch):
    def disk_full(file, **arrays) -> None:
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    with pytest.raises(OSError, match="disk full at .*a.npz: "):  # no fault of the file: all others would fail, too
        convert_motion(folder, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to convert: motion-vq, motion, lm; got None"),
        (["speech", "a", "b"], "got 'speech'"),
        (["motion", "in/a.npz", "a.fbx"], "`output` is a.fbx, expected a file name that ends in .npz, .bvh, .glb"),
        (["motion", "none.npz", "a.npz"], "There is no motion file at none.npz"),
        (["motion", "in/broken.npz", "a.npz"], "in/broken.npz holds no usable motion"),
        (["motion", "in", "in"], "`output` is the folder that is read, in"),
        (["motion", "in", "in/a.npz"], "`output` is the file in/a.npz, expected a folder"),
        (["motion", "in", "out", "--format", "fbx"], "`format` is 'fbx', expected one of .npz, .bvh, .glb"),
        (["motion", "empty", "out"], "empty holds no motion file (.npz, .npy, .txt, .bvh)"),
    ],
)
def test_a_users_mistake_is_one_line(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert cli.main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_help_tells_both_kinds(capsys):
    for words in (["--help"], ["motion", "--help"], ["motion-vq", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert "solami convert motion IN OUT" in capsys.readouterr().out
