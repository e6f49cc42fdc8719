"""Motion tokenizers of several levels and their filler, trained one after the other by their commands' functions."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.processing.motion.features import features_to_joints
from solami_hf.training.motion_vq.motion_vq_data import COUNTED_JOINTS, feature_statistics, joint_levers, read_clips
from solami_hf.training.motion_vq.train_motion_vq import (
    MotionVQArguments,
    make_trainer,
    position_loss,
    train_motion_vq,
)
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


def test_principal_components_are_kept_and_a_filler_adds_what_levels_add_up_to(data, tmp_path):  # noqa: F811
    options = TINY | {"code_dim": 100, "warmup_share": 0.0, "network": "linear", "body_features_size": 99}
    args = MotionVQArguments(data=str(data), num_levels=3, joint_units=True, candidates=2, **options)
    start = make_trainer(args, training_arguments(tmp_path / "start")).model
    metrics = train_motion_vq(args, training_arguments(tmp_path / "codec"))
    model = SolamiMotionVQModel.from_pretrained(tmp_path / "codec").eval()
    assert metrics["eval_root_mpjpe"] > 0 and model.config.input_sizes == {"body": 99, "hand": 216}
    values, masks = model.normalise(read_clips(data, "train")[3].features[None, :40], None)
    for (name, part), seen in zip(model.parts.items(), values.split([99, 216], -1), strict=True):
        first = start.parts[name]
        assert torch.equal(part.encoder["linear"].weight, first.encoder["linear"].weight)
        assert torch.equal(part.decoder["linear"].weight, first.decoder["linear"].weight)
        assert not part.decoder["conv_out"].weight.eq(0).all() and first.decoder["conv_out"].weight.eq(0).all()
        latents = part.encode(seen, masks)
        again = first.decode(latents.clone(), masks)
        assert (again - seen).square().mean() < 0.01 * seen.square().mean()  # 100 components say nearly all
        # the maps are one another's inverse there, and distances are kept up to one factor
        down, up = first.encoder["linear"].weight.transpose(1, 2).flatten(1), first.decoder["linear"].weight
        torch.testing.assert_close(down @ up, torch.eye(100), atol=1e-4, rtol=0)
    storm = SoundStormArguments(data=[str(data)], motion_codec=str(tmp_path / "codec"), sums=True, **STORM)
    found = train_soundstorm(storm, training_arguments(tmp_path / "filler"))
    assert found["eval_root_mpjpe_filled"] > 0 and "eval_loss_level1_100" not in found
    trained = AutoModel.from_pretrained(tmp_path / "filler").eval()
    assert torch.equal(trained.vectors[0], model.body.levels[1].codebook)
    assert torch.equal(trained.vectors[3], model.hand.levels[2].codebook)
    assert "Aligned joints are" in (tmp_path / "filler" / "report.html").read_text()
    with pytest.raises(ValueError, match="`sums` is of motion"):
        SoundStormArguments(sums=True)


def test_features_count_as_far_as_they_move_joints(data):  # noqa: F811
    clip = read_clips(data, "train")[0]
    rest = torch.zeros(1, 315)
    rest[:, 3:] = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(52)
    levers, still = joint_levers(), features_to_joints(rest)[0, COUNTED_JOINTS]
    for joint in (0, 12, 16, 18):  # pelvis, neck, left shoulder and elbow, turned about z
        turned = rest.clone()
        turned[0, 3 + 6 * joint : 9 + 6 * joint] = torch.tensor([1, 1e-3, 0, -1e-3, 1, 0])
        squares = (features_to_joints(turned)[0, COUNTED_JOINTS] - still).square().sum(-1).mean()
        assert float(squares.sqrt()) == pytest.approx(float(((turned - rest) * levers).norm()), rel=0.1), joint
    head, wrist = slice(3 + 6 * 15, 9 + 6 * 15), 3 + 6 * 20  # rotations of both in the features
    assert float(levers[head].max()) < 0.01 * float(levers[9]) and joint_levers(15.0)[head].min() > 0.02
    assert torch.equal(joint_levers(15.0)[wrist:], levers[wrist:])
    assert torch.equal(joint_levers(fps=60.0)[:3], levers[:3] * torch.tensor([2.0, 2.0, 1.0]))
    mean, std = feature_statistics([clip], 0.2, parts=(99, 216))
    scaled = clip.features.std(0, correction=0) / std
    assert float(scaled[9:99].square().mean()) == pytest.approx(1, rel=1e-3)
    assert float(scaled[99:].square().mean()) == pytest.approx(1, rel=1e-3)
    with pytest.raises(ValueError, match="`joint_units` are of local_rotation"):
        MotionVQArguments(joint_units=True, representation="joints")


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
