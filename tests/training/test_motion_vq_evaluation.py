"""Errors of reconstructed clips: literal distances, and sums that do not depend on batches."""

import pytest
import torch

from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.training.motion_vq.motion_vq_data import MotionClip
from solami_hf.training.motion_vq.motion_vq_evaluation import evaluate_motion_vq, joint_errors, reconstruct


def tiny_model(**options) -> SolamiMotionVQModel:
    sizes = {f"{part}_{key}": 8 for part in ("body", "hand") for key in ("code_num", "code_dim", "width")}
    return SolamiMotionVQModel(SolamiMotionVQConfig(transform_code_num=4, **sizes, **options)).eval()


def clips(*lengths) -> list[MotionClip]:
    return [
        MotionClip(f"clip{i}", 0.3 * torch.randn(length, 315), torch.zeros(159)) for i, length in enumerate(lengths)
    ]


def test_joint_errors_in_millimetres():
    target = torch.randn(1, 5, 55, 3)
    moved = target + torch.tensor([0.003, 0.0, 0.004])  # everything by 5 mm, the pelvis too
    errors = {name: values.mean().item() for name, values in joint_errors(moved, target).items()}
    assert errors == pytest.approx(
        {"mpjpe": 5, "body_mpjpe": 5, "root_mpjpe": 0, "hand_mpjpe": 0, "accel": 0}, abs=1e-3
    )
    bent = target.clone()
    bent[:, 2, 30, 1] += 0.052  # one finger joint in one of five frames
    errors = joint_errors(bent, target)
    assert errors["mpjpe"][0].tolist() == pytest.approx([0, 0, 1, 0, 0], abs=1e-3)  # 52 mm over 52 joints
    assert errors["hand_mpjpe"][0, 2].item() == pytest.approx(52 / 30, abs=1e-3)
    assert errors["body_mpjpe"].abs().max() == 0
    assert errors["accel"][0].tolist() == pytest.approx([1, 2, 1], abs=1e-3)


def test_jaw_and_eyes_are_left_out():
    target = torch.zeros(1, 3, 55, 3)
    moved = target.clone()
    moved[..., 22:25, :] = 1.0
    assert all(values.abs().max() == 0 for values in joint_errors(moved, target).values())


def test_figures_do_not_depend_on_batches():
    model, some = tiny_model(), clips(9, 16, 30, 21)
    together, alone = evaluate_motion_vq(model, some, 4), evaluate_motion_vq(model, some, 1)
    assert together == pytest.approx(alone, rel=1e-4)
    assert together["clips"] == 4 and 0 < together["body_codes_used"] <= 1
    assert 1 <= together["hand_perplexity"] <= 8 * together["hand_codes_used"] + 1e-6
    assert evaluate_motion_vq(model, []) == {}


def test_the_shortest_clip_has_no_nan():
    figures = evaluate_motion_vq(tiny_model(), clips(4))
    assert all(value == value for value in figures.values()) and figures["accel"] > 0


@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
def test_without_quantization_nothing_is_said_about_codes(quantizer):
    model, some = tiny_model(quantizer=quantizer), clips(11, 18)
    quantised = evaluate_motion_vq(model, some)
    for each in model.quantizers.values():
        each.bypass = True
    free = evaluate_motion_vq(model, some)
    assert free.keys() == {name for name in quantised if "codes" not in name and "perplexity" not in name}
    assert free["mpjpe"] != quantised["mpjpe"]
    result, mask, codes = reconstruct(model, some[0].features[None], torch.ones(1, 11, dtype=torch.bool))
    assert result.shape == (1, 8, 315) and mask.all() and codes == {}


def test_training_mode_is_kept():
    model = tiny_model().train()
    evaluate_motion_vq(model, clips(8))
    assert model.training and model.body.training
