"""The page of a motion tokenizer's run."""

import json
import re

import numpy as np
import torch

from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.report.figure_data import decode_params
from solami_hf.training.motion_vq.motion_vq_data import MotionClip
from solami_hf.training.motion_vq.motion_vq_report import write_motion_vq_report

LOG = [
    {"step": 2, "loss": 3.0, "feature_loss": 1.0, "commitment_loss": 0.0, "body_perplexity": 4.0},
    {"step": 4, "loss": float("nan"), "feature_loss": 0.5, "commitment_loss": 0.1, "body_perplexity": 5.0},
    {"step": 4, "eval_body_mpjpe": 71.4, "eval_hand_mpjpe": 9.6, "eval_accel": 2.345, "eval_clips": 8},
]


def tiny_model() -> SolamiMotionVQModel:
    sizes = {f"{part}_{key}": 8 for part in ("body", "hand") for key in ("code_num", "code_dim", "width")}
    return SolamiMotionVQModel(SolamiMotionVQConfig(transform_code_num=4, **sizes))


def clips(count: int, length: int = 19) -> list[MotionClip]:
    return [MotionClip(f"wave-{i}", 0.1 * torch.randn(length, 315), torch.zeros(159)) for i in range(count)]


def joints_of(performer) -> np.ndarray:
    return joint_positions(SmplxMotion.from_params(decode_params(performer["params"])))


def page_data(path):
    html = path.read_text(encoding="utf-8")
    return html, json.loads(re.search(r'id="report-data">(.*?)</script>', html, re.S)[1])


def test_page_has_scenes_curves_and_figures(tmp_path):
    model = tiny_model().train()
    html, data = page_data(write_motion_vq_report(tmp_path, model, clips(8), LOG))
    assert model.training
    (conversation,) = data["conversations"]
    assert conversation["together"] and len(conversation["scenes"]) == 6
    assert [scene["title"] for scene in conversation["scenes"]] == [f"wave-{i}" for i in (0, 1, 2, 4, 5, 6)]
    first = conversation["scenes"][0]
    original, copy = (joints_of(first[role]) for role in ("user", "character"))
    assert original.shape == copy.shape == (16, 55, 3)
    np.testing.assert_allclose(copy[0, 0, 0] - original[0, 0, 0], 1.0, atol=0.002)  # a metre aside, on the right
    assert "mm off" in first["character"]["transcript"]
    curves = {curve["title"]: curve for curve in data["curves"]}
    assert [series["name"] for series in curves["Loss"]["series"]] == ["loss", "feature loss"]
    assert curves["Loss"]["series"][0]["points"] == [[2.0, 3.0]]  # what is no number is left out
    assert curves["Joints of held-out clips"]["series"][0] == {"name": "body mpjpe", "points": [[4.0, 71.4]]}
    assert "71.4</td>" in html and "2.35</td>" in html and "Both move at once." in html
    assert "The user speaks" not in html and "valid answers" not in html


def test_page_without_clips_or_log(tmp_path):
    html, data = page_data(write_motion_vq_report(tmp_path, tiny_model(), [], []))
    assert data == {"conversations": [], "curves": []} and "Motion tokenizers after 0 steps." in html


def test_a_network_that_went_wrong_still_gets_its_page(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.body.decoder["conv_out"].bias.fill_(float("nan"))
        model.mean[:3] = 1e3  # a kilometre a frame
    for quantizer in model.quantizers.values():
        quantizer.bypass = True
    html, data = page_data(write_motion_vq_report(tmp_path, model, clips(1), LOG))
    assert len(data["conversations"][0]["scenes"]) == 1 and "without quantization" in html
