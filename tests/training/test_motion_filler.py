"""Motion tokenizers of several levels and their filler, trained one after the other by their commands' functions."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.training.motion_vq.motion_vq_data import read_clips
from solami_hf.training.motion_vq.train_motion_vq import MotionVQArguments, position_loss, train_motion_vq
from solami_hf.training.soundstorm.soundstorm_data import CodeWindows, SpeechCodes, encode_motions
from solami_hf.training.soundstorm.train_soundstorm import SoundStormArguments, train_soundstorm

sys.path.append(str(Path(__file__).parent))
from test_motion_vq import TINY, data, training_arguments  # noqa: E402, F401

STORM = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8, "intermediate_size": 32,
    "conv_channels": 16, "conv_kernel_size": 3, "window_seconds": 1.0, "modality": "motion",
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"bound": True, "shared_levels": True}, {"quantizer": "fsq", "causal": True}])
def test_a_codec_of_three_levels_and_its_filler(data, tmp_path, options):  # noqa: F811
    codec = tmp_path / "codec"
    arguments = MotionVQArguments(data=str(data), num_levels=3, joint_weight=0.5, **TINY | options)
    metrics = train_motion_vq(arguments, training_arguments(codec))
    log = json.loads((codec / "history.json").read_text())["log"]
    assert metrics["eval_root_mpjpe"] > 0 and any("position_loss" in row for row in log)
    model = SolamiMotionVQModel.from_pretrained(codec).eval()
    assert all(bool(buffer) for name, buffer in model.named_buffers() if name.endswith("initialised"))
    filler = tmp_path / "filler"
    args = SoundStormArguments(data=[str(data)], motion_codec=str(codec), **STORM)
    found = train_soundstorm(args, training_arguments(filler))
    given = len(model.config.parts)
    for name in ("level0", "filled", "true"):
        assert found[f"eval_root_mpjpe_{name}"] > 0
    assert f"eval_loss_level{2 * given}_100" in found and f"eval_loss_level{2 * given + 1}_100" not in found
    storm = AutoModel.from_pretrained(filler).eval()
    assert (storm.config.modality, storm.config.num_given_levels) == ("motion", given)
    clip = read_clips(data, "test")[0].features[None]
    codes = model.encode(clip)
    filled = storm.fill_motion([codes[f"{part}_codes"] for part in model.config.parts])
    assert model.decode(*filled).motion_values.isfinite().all()
    assert "Aligned joints are" in (filler / "report.html").read_text()


def test_what_cannot_be_filled_is_told(data, tmp_path):  # noqa: F811
    for wrong in ({"modality": "motion"}, {"modality": "dance"}, {"motion_codec": "x"}):
        with pytest.raises(ValueError, match="expected speech, or motion with the codec"):
            SoundStormArguments(**wrong)
    train_motion_vq(MotionVQArguments(data=str(data), **TINY), training_arguments(tmp_path / "one"))
    args = SoundStormArguments(data=[str(data)], motion_codec=str(tmp_path / "one"), **STORM)
    with pytest.raises(ValueError, match="one level, so there is nothing to fill"):
        train_soundstorm(args, training_arguments(tmp_path / "out"))
    with pytest.raises(ValueError, match="expected one folder"):
        train_soundstorm(
            SoundStormArguments(data=["a", "b"], motion_codec=str(tmp_path / "one"), **STORM),
            training_arguments(tmp_path / "out"),
        )
    other = SolamiMotionVQModel.from_pretrained(tmp_path / "one", num_levels=2, hand_code_num=16,
                                                ignore_mismatched_sizes=True)  # fmt: skip
    with pytest.raises(ValueError, match="other numbers of codes for body and hand"):
        encode_motions(read_clips(data, "test"), other)


def test_short_motions_are_padded_and_not_repeated():
    codes = SpeechCodes.join([[torch.arange(40).view(8, 5).numpy()], [torch.ones(8, 3, dtype=int).numpy()]])
    items = [CodeWindows(codes, 4, 99, given=2, padded=True)[number] for number in range(30)]
    masks = {tuple(item["code_mask"].tolist()) for item in items}
    assert masks == {(True,) * 4, (True, True, True, False)}
    for item in items:
        assert (item["audio_codes"][:2, ~item["code_mask"]] == 0).all()
        assert (item["labels"][:, ~item["code_mask"]] == -100).all() and item["labels"].shape == (6, 4)


def test_the_position_loss_is_in_metres_and_sees_the_root(data):  # noqa: F811
    target = read_clips(data, "train")[3].features[None, :40]
    assert float(position_loss(target, target, None)) < 1e-3
    walked = target.clone()
    walked[..., 0] += 0.01  # a frame
    assert float(position_loss(walked, target, None)) == pytest.approx((0.01 + 0.08 + 0.32) / 3, rel=0.05)
    turned = target.clone().requires_grad_()
    loss = position_loss(turned + torch.eye(315)[5] * 0.5, target, torch.ones(1, 40, dtype=torch.bool))
    loss.backward()
    assert loss.item() > 0.05 and turned.grad.isfinite().all() and turned.grad[..., 3:9].abs().sum() > 0
    mask = torch.arange(40)[None] < 10
    walked[:, 10:] += 1.0
    assert float(position_loss(walked, target, mask)) == pytest.approx((0.01 + 0.08) / 3, rel=0.2)
