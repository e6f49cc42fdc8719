"""Spectral losses of the speech codec."""

import numpy as np
import pytest
import torch

from solami_hf.training.speech.speech_codec_losses import MelLoss, StftLoss


def noise(samples=4800, deviation=0.1, seed=0):
    values = np.random.default_rng(seed).standard_normal((2, 1, samples)) * deviation
    return torch.from_numpy(values.astype(np.float32))


def test_mel_loss():
    loss = MelLoss(16000)
    assert loss(noise(), noise()).item() == 0
    # Ten times louder is ln 10 in every band that is well above the floor.
    assert loss(noise() * 10, noise()).item() == pytest.approx(2.302585, abs=0.05)


def test_stft_loss_of_equal_clips_is_zero_and_has_a_gradient():
    values = noise().requires_grad_()
    loss = StftLoss()(values, noise())
    assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(values.grad).all()


def test_stft_loss_of_a_louder_copy():
    # ten times louder: the convergence is 9, the logarithms differ by ln 10 in all bins well above the floor
    assert StftLoss()(10 * noise(), noise()).item() == pytest.approx(9 + 2.302585, abs=0.1)


def test_stft_loss_sees_every_resolution():
    # a click lies in one frame of a short window and is spread over a long one: no one length tells all
    values = noise()
    values[:, :, 2400] += 1
    losses = [StftLoss(sizes=(size,))(values, noise()).item() for size in (256, 2048)]
    both = StftLoss(sizes=(256, 2048))(values, noise()).item()
    assert abs(losses[0] - losses[1]) > 0.1 * both
    assert both == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_silence_does_not_dominate():
    loss = StftLoss()
    wrong = noise(deviation=0.001, seed=1)
    assert loss(noise() + wrong, noise()).item() > 0
    # the same small error on silence: below what loud speech costs that is wrong altogether
    silent = loss(wrong, torch.zeros_like(wrong)).item()
    assert 0 < silent < loss(noise(seed=2), noise()).item()
    values = torch.zeros(1, 1, 4800, requires_grad=True)
    loss(values, torch.zeros(1, 1, 4800)).backward()
    assert torch.isfinite(values.grad).all()


def test_stft_loss_is_float32_under_autocast():
    loss = StftLoss()
    wanted = loss(noise().bfloat16(), noise(seed=1))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(noise().bfloat16(), noise(seed=1))
    assert found.dtype == torch.float32 and found.item() == wanted.item()


def test_clips_shorter_than_the_window():
    with pytest.raises(ValueError, match="have 1024 samples, expected more than 1024"):
        StftLoss()(noise(1024), noise(1024))
    assert torch.isfinite(StftLoss()(noise(1025), noise(1025, seed=1)))
