import json
from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.demo.speech_codec_quality import (
    PACKAGED_CODEC,
    held_out_speech,
    main,
    measure,
    wer_with_interval,
    word_errors,
)
from solami_hf.modeling.modeling_speech_codec import SolamiSpeechCodecModel


def test_word_errors_are_counted_after_normalization():
    said = ["Please wave, now!", "nothing", ""]
    texts = ["please wave now.", "Do it.", "I'm here"]
    assert word_errors(said, texts).tolist() == [[0, 3], [2, 2], [3, 3]]


def test_interval_holds_the_rate():
    assert wer_with_interval(np.array([[1, 4]] * 5)) == {"wer": 0.25, "low": 0.25, "high": 0.25}
    spread = wer_with_interval(np.array([[0, 5]] * 50 + [[5, 5]] * 50))
    assert spread["wer"] == 0.5 and 0.38 < spread["low"] < 0.42 and 0.58 < spread["high"] < 0.62


def test_packaged_codec():
    files = {path.name: path.stat().st_size for path in Path(PACKAGED_CODEC).iterdir()}
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert files["model.safetensors"] <= 8_000_000
    codec = SolamiSpeechCodecModel.from_pretrained(PACKAGED_CODEC).eval()
    assert codec.dtype == torch.float32 and codec.quantizer.levels[0].codebook.dtype == torch.float32
    assert (codec.config.num_quantizers, codec.config.codebook_size, codec.config.frame_rate) == (8, 1024, 50.0)
    hum = 0.2 * torch.sin(2 * torch.pi * 200 * torch.arange(16000) / 16000)[None, None]
    with torch.no_grad():
        codes = codec.encode(hum).audio_codes
        values = codec.decode(codes).audio_values
    assert codes.shape == (1, 8, 50) and values.shape == (1, 1, 16000)
    # A hum of deviation 0.14 comes back about as loud, not as silence or noise at full scale.
    assert 0.03 < values.std() < 0.4


@pytest.mark.parametrize("count", [0, 151])
def test_bad_count(count):
    with pytest.raises(ValueError, match="expected 1 to 150"):
        held_out_speech(16000, count)


def test_command_needs_a_codec(tmp_path):
    with pytest.raises(OSError):
        main(["--codec", str(tmp_path), "--count", "1"])


@pytest.mark.slow
def test_packaged_codec_is_understood():
    codec = SolamiSpeechCodecModel.from_pretrained(PACKAGED_CODEC).eval()
    figures = measure(codec, held_out_speech(16000, 20), levels=(8, 1))
    assert figures["original"]["wer"] <= 0.05, json.dumps(figures)
    assert figures["levels_8"]["wer"] <= 0.15 and figures["levels_1"]["wer"] <= 0.25, json.dumps(figures)
