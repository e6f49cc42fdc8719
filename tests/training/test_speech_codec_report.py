"""The page of a speech codec's run."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
import torch

from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.training.speech.speech_codec_report import write_speech_codec_report

LOG = [
    {"step": 2, "epoch": 0.1, "loss": 3.0, "mel": 1.0, "commitment": 0.0, "learning_rate": 1e-3, "pitch": 4.0},
    {"step": 4, "epoch": 0.2, "loss": float("nan"), "mel": 0.5, "stft": 2.0, "discriminator": 1.9, "pitch": 3.0},
    {"step": 4, "epoch": 0.2, "eval_mel": 0.51, "eval_mel_level_0": 0.722, "eval_clips": 9, "eval_runtime": 1.0},
]


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"num_filters": 2, "hidden_size": 8, "codebook_size": 8, "num_quantizers": 2, "num_lstm_layers": 1}
    return SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**sizes))


def clips(count, seconds=0.1):
    rng = np.random.default_rng(0)
    return [(f"clip <{i}>", 0.1 * rng.standard_normal(int(16000 * seconds)).astype(np.float32)) for i in range(count)]


def page(path):
    html = path.read_text(encoding="utf-8")
    return html, json.loads(re.search(r'id="report-data">(.*?)</script>', html, re.S)[1])


def heard(html):
    found = re.findall(r"<small>(.*?)</small>.*?base64,([^\"]*)\"", html)
    return [(name, *soundfile.read(io.BytesIO(base64.b64decode(sound)))) for name, sound in found]


def test_page_has_sounds_curves_and_figures(tmp_path, model):
    material = clips(9, 0.11)
    before = torch.random.get_rng_state()
    html, data = page(write_speech_codec_report(tmp_path, model.train(), material, LOG))
    assert model.training and torch.equal(torch.random.get_rng_state(), before)
    sounds = heard(html)
    assert [name for name, *_ in sounds] == ["Original", "All 2 levels", "Level 0 alone"] * 4
    assert all(len(values) == 1760 and rate == 16000 for _, values, rate in sounds)
    np.testing.assert_allclose(sounds[3][1], material[2][1], atol=1e-4)
    with torch.no_grad():
        codes = model.eval().encode(torch.from_numpy(material[2][1])[None, None]).audio_codes
        wanted = [model.decode(codes[:, :levels]).audio_values[0, 0, :1760].numpy() for levels in (2, 1)]
    for (_, values, _), exact in zip(sounds[4:6], wanted, strict=True):
        assert np.corrcoef(values, exact)[0, 1] > 0.9999
    assert "clip &lt;2&gt;" in html and "clip <" not in html and "4 of 9 clips" in html
    curves = {curve["title"]: curve["series"] for curve in data["curves"]}
    assert curves["Loss"] == [{"name": "loss", "points": [[2.0, 3.0]]}]  # what is no number is left out
    assert [series["name"] for series in curves["Spectra"]] == ["mel", "stft"]
    assert [series["name"] for series in curves["Held-out clips, spectra"]] == ["held-out mel", "held-out mel level 0"]
    assert {
        "pitch",
        "learning rate",
        "held-out runtime",
        "The discriminator",
    } <= curves.keys()  # also what nobody told it about
    assert not {"epoch", "step", "held-out clips"} & curves.keys()
    assert "0.722</td>" in html and "9 held-out clips at step 4" in html and "after 4 steps" in html
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_page_without_clips_or_log(tmp_path, model):
    html, data = page(write_speech_codec_report(tmp_path, model, [], []))
    assert data["curves"] == [] and "<audio" not in html and "after 0 steps" in html


def test_before_the_codebooks_and_with_a_broken_network(tmp_path, model):
    html, _ = page(write_speech_codec_report(tmp_path, model, clips(1), LOG, quantized=False))
    assert [name for name, *_ in heard(html)] == ["Original", "Not quantized"]
    assert "without quantization" in html
    with torch.no_grad():
        model.decoder.layers[-1].bias.fill_(float("nan"))
    html, _ = page(write_speech_codec_report(tmp_path, model, clips(1), LOG))
    assert not heard(html)[1][1].any()  # silenced


def test_long_clips_are_cut(tmp_path, model):
    html, _ = page(write_speech_codec_report(tmp_path, model, clips(1, 7.0), []))
    assert {len(values) for _, values, _ in heard(html)} == {80000}
