"""Figures of a speech codec on held-out clips."""

import numpy as np
import pytest
import torch

from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.training.speech.speech_codec_losses import MelLoss
from solami_hf.training.speech.speech_codec_report import clips_to_measure, evaluate_speech_codec
from solami_hf.training.speech_recordings import Recordings


class Teacher:
    """Agrees with every projection."""

    def __init__(self, model):
        self.model = model

    def __call__(self, values, frames):
        states = self.model(values).semantic_values  # of level 0, though all are decoded
        assert states.shape[1] == frames
        return 3 * states


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"num_filters": 2, "hidden_size": 8, "codebook_size": 8, "num_quantizers": 2, "num_lstm_layers": 1}
    return SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**sizes))


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def test_clips_come_from_all_over_and_fit_the_windows():
    lengths = [4800, 100, 4800, 80000, 3200, 4800]
    recordings = Recordings.join([noise(length, seed) for seed, length in enumerate(lengths)], list("abcdef"))
    clips = clips_to_measure(recordings, 10, 16000)
    assert [(text, len(samples)) for text, samples in clips] == [
        ("a", 4800), ("c", 4800), ("d", 64000), ("e", 3200), ("f", 4800)
    ]  # fmt: skip
    np.testing.assert_allclose(clips[1][1], noise(4800, 2), atol=1e-4)
    assert [text for text, _ in clips_to_measure(recordings, 2, 16000)] == ["a", "d"]
    assert clips_to_measure(recordings, 0, 16000) == []


def test_figures(model):
    mel, clips = MelLoss(16000), [("one", noise(3200)), ("two", noise(5000, 1))]
    before = torch.random.get_rng_state(), [value.clone() for value in model.state_dict().values()]
    found = evaluate_speech_codec(model.train(), clips, mel, Teacher(model))
    assert model.training and torch.equal(torch.random.get_rng_state(), before[0])
    assert all(torch.equal(*pair) for pair in zip(model.state_dict().values(), before[1], strict=True))
    model.eval()
    wanted = {1: [], 2: []}
    for _, samples in clips:
        values = torch.from_numpy(samples)[None, None]
        codes = model.encode(values).audio_codes
        for levels, distances in wanted.items():
            decoded = model.decode(codes[:, :levels]).audio_values[..., : len(samples)]
            distances.append(mel(decoded, values).item())
    assert found["mel"] == pytest.approx(np.mean(wanted[2]), rel=1e-3)
    assert found["mel_level_0"] == pytest.approx(np.mean(wanted[1]), rel=1e-3)
    assert found["semantic_cosine"] == pytest.approx(1, abs=1e-4) and found["clips"] == 2
    assert 1 <= found["perplexity_level_0"] <= found["codes_used_level_0"] <= 8


def test_before_the_codebooks_are_filled(model):
    assert evaluate_speech_codec(model, [("", noise(3200))], MelLoss(16000), quantized=False).keys() == {
        "mel",
        "clips",
    }
