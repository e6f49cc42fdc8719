"""The discriminator of the speech codec's training."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from solami_hf.training.speech.speech_codec_adversary import (
    ADVERSARY_FILE,
    Adversary,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)

SIZES = {"sizes": (64, 128), "channels": 2}


def batches(seed=0):
    """Noise as recordings and a tone as what a codec made of them, (2, 1, 640) each."""
    generator = torch.Generator().manual_seed(seed)
    tone = torch.sin(torch.arange(640) * (0.3 + torch.rand(2, 1, 1, generator=generator)))
    return 0.3 * torch.randn(2, 1, 640, generator=generator), 0.3 * tone


def adversary(**options):
    return Adversary(**({"start": 0, "every": 1, "learning_rate": 1e-2} | SIZES | options))


def test_hinge_losses_and_feature_matching():
    def features(value, score):
        return [[torch.full((1, 2, 3, 4), value), torch.full((1, 1, 3, 4), score)]]

    assert discriminator_loss(features(0.0, 2.0), features(0.0, -3.0)).item() == 0
    assert discriminator_loss(features(0.0, 0.5), features(0.0, 0.25)).item() == pytest.approx(0.5 + 1.25)
    assert adversarial_loss(features(0.0, -0.5)).item() == pytest.approx(1.5)
    assert adversarial_loss(features(0.0, 1.5)).item() == 0
    assert feature_matching_loss(features(2.0, 0.0), features(3.0, 9.0)).item() == pytest.approx(0.5)


def test_learns_to_tell_and_teaches_the_codec():
    one = adversary()
    losses = [one.learn(*batches(step), step).item() for step in range(30)]
    assert losses[0] > 1.5 and losses[-1] < 0.5 * losses[0]
    recordings, made = batches(99)
    made.requires_grad_()
    adversarial, matching = one.losses(recordings, made)
    (adversarial + matching).backward()
    assert made.grad.abs().sum() > 0 and adversarial.item() > 1
    assert all(parameter.grad is None and parameter.requires_grad for parameter in one.discriminator.parameters())
    assert one.losses(recordings, recordings)[1].item() == 0
    made.grad = None
    one.learn(recordings, made, 99)
    assert made.grad is None  # its own loss is no affair of the codec


def test_scores_every_resolution_in_float32():
    discriminator = adversary().discriminator
    with torch.autocast("cpu", torch.bfloat16):
        scales = discriminator(batches()[0].bfloat16())
    # 64: 33 bins, halved three times (rounded up); 640 / 16 + 1 frames
    assert [scale[-1].shape for scale in scales] == [(2, 1, 5, 41), (2, 1, 9, 21)]
    assert all(values.dtype == torch.float32 for scale in scales for values in scale)


def test_its_turn():
    one = adversary(start=4, every=3)
    assert [step for step in range(12) if one.learn(*batches(), step) is not None] == [4, 7, 10]
    assert [step for step in range(6) if one.is_active(step)] == [4, 5]


def test_batches_of_one_step_count_as_one():
    whole, parts = adversary(), adversary()
    recordings, made = batches()
    whole.learn(recordings, made, 0)
    parts.learn(recordings[:1], made[:1], 0, share=0.5, last=False)
    parts.learn(recordings[1:], made[1:], 0, share=0.5, last=True)
    for first, second in zip(whole.discriminator.parameters(), parts.discriminator.parameters(), strict=True):
        torch.testing.assert_close(first, second, atol=1e-3, rtol=0)  # Adam: near-zero gradients have signs too


def test_goes_on_exactly_from_its_file(tmp_path):
    whole = adversary()
    for step in range(6):
        whole.learn(*batches(step), step)
        if step == 2:
            whole.save(tmp_path / "checkpoint-3")
    resumed = adversary(seed=5)
    resumed.load(tmp_path / "checkpoint-3")
    for step in range(3, 6):
        resumed.learn(*batches(step), step)
    resumed.save(tmp_path / "resumed")
    whole.save(tmp_path / "whole")
    first, second = (load_file(tmp_path / name / ADVERSARY_FILE) for name in ("whole", "resumed"))
    assert first.keys() == second.keys() and any(name.endswith("exp_avg_sq") for name in first)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert [path.name for path in (tmp_path / "whole").iterdir()] == [ADVERSARY_FILE]


def test_files_that_do_not_fit(tmp_path, caplog):
    fresh, before = adversary(), adversary().discriminator.state_dict()
    fresh.load(tmp_path)
    assert "holds no adversary" in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in fresh.discriminator.state_dict().items())
    adversary(channels=3).save(tmp_path)
    with pytest.raises(ValueError, match="does not fit this adversary"):
        fresh.load(tmp_path)
    save_file({"weights.x": torch.zeros(1)}, tmp_path / ADVERSARY_FILE)
    with pytest.raises(ValueError, match="does not fit this adversary"):
        fresh.load(tmp_path)


def test_its_start_leaves_the_global_random_numbers_alone():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    first, second = adversary(seed=1), adversary(seed=1)
    assert torch.equal(torch.rand(3), wanted)
    for one, other in zip(first.discriminator.parameters(), second.discriminator.parameters(), strict=True):
        assert torch.equal(one, other)
