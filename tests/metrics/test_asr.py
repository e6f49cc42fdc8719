"""Speech recognition with the packaged model on synthesized speech."""

import numpy as np
import pytest

from solami_hf.metrics import asr
from solami_hf.processing.audio import recognition


def test_a_changed_file_is_refused(monkeypatch):
    monkeypatch.setitem(recognition.SHA256, "config.json", "0" * 64)
    with pytest.raises(ValueError, match="config.json has sha256 14b1b421.*, expected 0000"):
        asr.packaged_model()


def test_missing_model_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder with a CTranslate2 Whisper model.bin"):
        asr.Transcriber(tmp_path / "none")


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 1600), np.float32), r"shape \(2, 1600\)"),
        (np.zeros(1600, np.int16), "type int16"),
        (np.full(1600, np.nan), "NaN"),
    ],
)
def test_bad_audio(audio, message):
    with pytest.raises(ValueError, match=message):
        asr.check_audio(audio, "audio[0]")


def test_speech_becomes_its_text():
    import hibari
    import torch
    import torchaudio

    speech = np.asarray(hibari.Hibari()("please wave your hand"), dtype=np.float32).reshape(-1)
    speech = torchaudio.functional.resample(torch.from_numpy(speech), 24_000, asr.SAMPLING_RATE).numpy()
    texts = asr.Transcriber(threads=1)([speech, np.zeros(0, np.float32)])
    assert texts[0].lower().strip(".") == "please wave your hand"
    assert texts[1] == ""
