"""The benchmark of a talker, with ears that hear what they are told."""

import numpy as np
import pytest
import torch

from benchmarks import talker_quality
from solami_hf import SolamiTalkerConfig, SolamiTalkerModel

TEXTS = ["I am 5.", "Wave now."]


def test_every_condition_is_heard_and_counted(monkeypatch):
    heard = []

    class Ears:
        def __init__(self, threads):
            pass

        def __call__(self, clips):
            heard.append(len(clips[0]))
            return ["I am five." if len(heard) % 2 else "wave"]

    monkeypatch.setattr(talker_quality, "Transcriber", Ears)
    monkeypatch.setattr(talker_quality, "speak", lambda voice, text: (np.zeros(12000, np.float32), 24000))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_encoder_layers": 1, "num_attention_heads": 2}
    talker = SolamiTalkerModel(SolamiTalkerConfig(**sizes, num_decoder_layers=1, conv_channels=16)).eval()
    torch.nn.init.constant_(talker.duration_head[2].bias, 1.0)
    *_, figures = talker_quality.judge(talker, TEXTS, ["rms"])
    assert list(figures["wer"]) == ["talker, rms", "own level 0, rms", "as it is"]
    for row in figures["wer"].values():
        assert (row["value"], row["words"], row["sentences"]) == (pytest.approx(1 / 5), 5, 2)
    assert heard[2:] == [8000] * 4
    frames = talker.generate(**talker.encode_text(TEXTS[0])).codes.shape[1]
    assert heard[0] == 320 * frames and figures["speed"]["speech"] > frames / 50
