"""The page of an acoustic model's run."""

import base64
import io
import json
import re

import numpy as np
import soundfile
import torch

from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.training.run_page import add_sounds
from solami_hf.training.soundstorm.soundstorm_data import SpeechCodes
from solami_hf.training.soundstorm.soundstorm_report import write_soundstorm_report

LOG = [
    {"step": 2, "loss": 3.0, "accuracy": 0.1},
    {"step": 4, "loss": float("nan"), "accuracy": 0.25},
    {"step": 4, "eval_loss": 2.5, "eval_loss_level1_100": 2.0, "eval_accuracy_level1_100": 0.345, "eval_windows": 7},
]


def tiny_model() -> SolamiSoundStormModel:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8, "conv_channels": 8}
    sizes |= {"intermediate_size": 8, "conv_kernel_size": 3, "codebook_size": 8, "num_semantic_codes": 8}
    return SolamiSoundStormModel(SolamiSoundStormConfig(num_quantizers=3, **sizes))


def tiny_codec() -> SolamiSpeechCodecModel:
    sizes = {"num_filters": 2, "hidden_size": 8, "semantic_size": 4, "num_lstm_layers": 1, "codebook_size": 8}
    return SolamiSpeechCodecModel(SolamiSpeechCodecConfig(num_quantizers=3, **sizes)).eval()


def held_out(*counts: int) -> SpeechCodes:
    rng = np.random.default_rng(0)
    return SpeechCodes.join([[rng.integers(0, 8, (3, 400)) for _ in range(count)] for count in counts])


def page_data(path):
    html = path.read_text(encoding="utf-8")
    return html, json.loads(re.search(r'id="report-data">(.*?)</script>', html, re.S)[1])


def sounds_of(html: str) -> list[tuple[str, np.ndarray]]:
    found = re.findall(
        r'<small>([^<]*)</small><br><audio controls preload="none" src="data:audio/wav;base64,(.*?)">', html
    )
    return [(name, *soundfile.read(io.BytesIO(base64.b64decode(wave)))) for name, wave in found]


def test_page_has_sounds_curves_and_figures(tmp_path):
    model = tiny_model().train()
    html, data = page_data(write_soundstorm_report(tmp_path, model, LOG, held_out(5, 1), tiny_codec()))
    assert model.training
    assert re.findall(r"<p style=[^>]*>(.*?)</p>", html) == [
        "Clip 1, source 1", "Clip 2, source 1", "Clip 4, source 1", "Clip 5, source 1",
    ]  # fmt: skip
    sounds = sounds_of(html)
    assert [name for name, *_ in sounds] == ["Voice prompt", "Original", "From level 0 and the prompt"] * 4
    assert [(len(values), rate) for _, values, rate in sounds[:3]] == [(150 * 320, 16000), *[(300 * 320, 16000)] * 2]
    curves = {curve["title"]: curve["series"] for curve in data["curves"]}
    assert curves["Loss"] == [
        {"name": "loss", "points": [[2, 3]]},  # what is no number is left out
        {"name": "held-out loss", "points": [[4, 2.5]]},
    ]
    assert curves["Right codes of each level, all its cells masked"][0]["points"] == [[4, 0.345]]
    assert "34.5</td>" in html and "7 held-out windows at step 4" in html and "34 % are right" in html


def test_a_clip_alone_in_its_source_has_no_prompt(tmp_path):
    html, _ = page_data(write_soundstorm_report(tmp_path, tiny_model(), [], held_out(1, 1), tiny_codec()))
    assert [name for name, *_ in sounds_of(html)] == ["Original", "From level 0 and the prompt"] * 2


def test_page_without_codec_or_log(tmp_path):
    html, data = page_data(write_soundstorm_report(tmp_path, tiny_model(), [], held_out(2)))
    assert data == {"conversations": [], "curves": []} and "Acoustic model after 0 steps." in html
    assert "<audio" not in html


def test_a_network_that_went_wrong_still_gets_its_page(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.head_norm.weight.fill_(float("nan"))
    html, _ = page_data(write_soundstorm_report(tmp_path, model, LOG, held_out(2), tiny_codec()))
    assert len(sounds_of(html)) == 6


def test_titles_are_escaped(tmp_path):
    (tmp_path / "page.html").write_text("<main>\n</main>")
    add_sounds(tmp_path / "page.html", "Clips", "", [("<b>", {"a & b": np.zeros(8)})], 8000)
    html = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;" in html and "a &amp; b" in html and html.endswith("</main>")
