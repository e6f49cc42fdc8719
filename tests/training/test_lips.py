"""`solami train-lips`: windows, alignment, a run that is resumed, and what it refuses."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from solami_hf.modeling.face.configuration_lips import VISEMES, SolamiLipsConfig
from solami_hf.modeling.face.modeling_lips import SolamiLipsModel
from solami_hf.training.face import lips_data, train_lips
from solami_hf.training.face.lips_data import LipsWindows, SpokenFrames, aligned, best_way, train_aligner

RUN = (
    "--use_cpu true --report_to none --disable_tqdm true --per_device_train_batch_size 4 --window_frames 30 "
    "--hidden_size 16 --num_layers 3 --learning_rate 0.01 --save_steps 60 --averaging_decay 0.5 "
    "--remove_unused_columns false --lr_scheduler_type constant"
).split()


def clips(count=6, seed=0):
    """Clips whose codes and spectrograms tell the viseme."""
    rng = np.random.default_rng(seed)
    visemes = [np.repeat(rng.integers(0, 15, 12), 5) for _ in range(count)]
    flat = np.concatenate(visemes)
    mels = np.eye(40)[flat] * 2 - 1
    return SpokenFrames(
        flat.astype(np.int16),
        mels.astype(np.float16),
        flat.astype(np.int16),
        np.cumsum([60] * count),
        np.array(["a"] * count),
    )


def test_the_best_way_keeps_the_order():
    scores = np.log(np.array([[0.9, 0.1, 0.1], [0.8, 0.2, 0.9], [0.1, 0.9, 0.1], [0.1, 0.9, 0.1], [0.3, 0.1, 0.9]]))
    assert best_way(scores).tolist() == [0, 0, 1, 1, 2]
    assert best_way(scores[:, :1]).tolist() == [0] * 5 and best_way(scores[:3]).tolist() == [0, 1, 2]


def test_alignment_finds_the_times():
    data, config = clips(20), SolamiLipsConfig(hidden_size=16, num_layers=3)
    rows = [data.clip(i) for i in range(20)]
    aligner = train_aligner([data.mels[r] for r in rows], [data.visemes[r] for r in rows], config, 150, 0)
    other = clips(1, seed=5)
    bounds = np.append(np.flatnonzero(np.diff(other.visemes)) + 1, 60)
    phones = [(VISEMES[other.visemes[end - 1]], (i + 1) / 10) for i, end in enumerate(bounds)]  # other times
    assert np.mean(aligned(aligner, other.mels, phones) == other.visemes) > 0.9
    with pytest.raises(ValueError, match="too short for its"):
        aligned(aligner, other.mels[:3], phones)


def test_windows_depend_on_their_number():
    windows = LipsWindows(clips(), 30, 10, 1024, 0)
    first, again, second = windows[3], LipsWindows(clips(), 30, 10, 1024, 0)[3], windows[4]
    assert len(windows) == 10 and first["codes"].shape == (30,) and first["mels"].shape == (30, 40)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mels"], second["mels"])
    assert 0.5 < (first["codes"] == first["labels"]).float().mean() < 1
    with pytest.raises(ValueError, match="expected more than 400"):
        LipsWindows(clips(), 400, 10, 1024, 0)


def run(folder, *options):
    folder.mkdir(exist_ok=True)
    for part, count in (("train", 8), ("held_out", 2)):
        np.savez(folder / f"lips_{part}.npz", **asdict(clips(count)))
    train_lips.main(["--output_dir", str(folder), *RUN, *options])
    return json.loads((folder / "history.json").read_text())


def test_training_learns_and_goes_on(tmp_path):
    whole = run(tmp_path / "whole", "--max_steps", "120")
    figures = whole["evaluation"]
    assert figures["eval_accuracy_codes"] > 0.9 and figures["eval_accuracy_sound"] > 0.6
    run(tmp_path / "parts", "--max_steps", "60")
    parts = run(tmp_path / "parts", "--max_steps", "120")
    assert parts["evaluation"].keys() == figures.keys()
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    model = SolamiLipsModel.from_pretrained(tmp_path / "whole")
    assert model.config.codec_fingerprint == "4aa21df83b4278e2"  # of the packaged codec


def test_closures_count_more(tmp_path):
    shut, place = [], VISEMES.index("bilabial")
    for weight in ("1", "30"):
        run(tmp_path / weight, "--max_steps", "20", "--closure_weight", weight)
        model = SolamiLipsModel.from_pretrained(tmp_path / weight).eval()
        codes = torch.from_numpy(clips(8).codes.astype(np.int64))[None]
        shut.append(model(codes=codes).logits.softmax(-1)[0, codes[0] != place, place].mean().item())
    assert shut[1] > 2 * shut[0]


def test_bad_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(lips_data, "check_voices", lambda voices: None)
    config = SolamiLipsConfig()
    for count, held_out in ((4000, 1), (1, 121)):
        with pytest.raises(ValueError, match="there are 7500 for all voices together and 120"):
            lips_data.lips_data(None, config, ["slt", "rms"], count, held_out, None, 1, tmp_path)


@pytest.mark.system("flite")
def test_voices_tell_their_phones():
    wave, rate, phones = lips_data.speak_phones("slt", "My boy.")
    assert [phone for phone, _ in phones] == ["pau", "m", "ay", "b", "oy", "pau"]
    assert phones[-1][1] == pytest.approx(len(wave) / rate, abs=0.05)
    slow = lips_data.speak_phones("slt", "My boy.", 0.5)
    assert len(slow[0]) > 1.6 * len(wave)
    with pytest.raises(ValueError, match="voice is 'heart', expected one that tells its phones"):
        lips_data.speak_phones("heart", "My boy.")
