"""The codec, the acoustic model and the voices that the package carries, and the script that puts them there."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from research.packaged_speech import write_package as packing
from solami_hf.processing.audio.packaged_speech import FOLDER, packaged_speech
from solami_hf.processing.audio.voices import Voices
from solami_hf.processing.processing_solami import SolamiProcessor

sys.path.append(str(Path(__file__).parents[1]))
from small_speech import soundstorm  # noqa: E402


def hum(samples: int, pitch: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(samples) / 16000)).astype(np.float32)


def test_weights_are_small():
    files = {str(path.relative_to(FOLDER)): path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    models = [f"{name}/{file}" for name in ("speech_codec", "acoustic_model") for file in packing.FILES]
    assert set(models) <= set(files) and "README.md" in files
    assert sum(size for name, size in files.items() if name.endswith(".safetensors")) <= 15_000_000


def test_speaks_in_every_voice(tiny_tokenizer):
    processor = SolamiProcessor(tiny_tokenizer, **packaged_speech())
    config = processor.speech_codec.config
    assert (config.num_quantizers, config.codebook_size, config.frame_rate, config.lm_levels) == (8, 1024, 50.0, 1)
    assert processor.speech_codec.dtype == processor.acoustic_model.dtype == torch.float32
    codes = processor.encode_speech([hum(8000, 200)])[0]
    assert codes.shape == (25,)
    assert len(processor.voices.names) >= 4
    spoken = [processor.decode_speech(codes, voice) for voice in processor.voices.names]
    for wave in spoken:
        assert wave.shape == (8000,) and np.isfinite(wave).all() and 0.001 < wave.std() < 0.5
    assert not np.array_equal(spoken[0], spoken[1])


def test_the_prompt_says_who_speaks(tiny_tokenizer):
    processor = SolamiProcessor(tiny_tokenizer, **packaged_speech())
    codes = torch.from_numpy(processor.encode_speech([hum(32000, 200)])[0])[None]
    speakers = []
    for voice in processor.voices.names:
        acoustic, prompt = processor.acoustics(voice)
        speaker = int(prompt[1].mode().values)  # level 1 is the voice
        assert (prompt[1] == speaker).float().mean() > 0.8
        assert (acoustic.generate(codes, prompt[None])[0, 1] == speaker).float().mean() > 0.95
        speakers.append(speaker)
    assert sorted(speakers) == [0, 1, 2, 3]


def test_packing_copies_models_and_makes_voices(tmp_path, tiny_codecs, monkeypatch):
    codec = tiny_codecs[1]
    acoustic = soundstorm(levels=8, codes=32)
    codec.save_pretrained(tmp_path / "codec")
    acoustic.save_pretrained(tmp_path / "acoustic")
    monkeypatch.setattr(packing, "speak", lambda voice, text: (hum(44100, 200 if voice == "heart" else 90), 22050))
    models = ["--codec", str(tmp_path / "codec"), "--acoustic_model", str(tmp_path / "acoustic")]
    packing.main([*models, "--output", str(tmp_path / "speech"), "--voices", "heart", "rms"])
    voices = Voices.load(tmp_path / "speech")
    assert voices.names == ["heart", "rms"] and "Apache-2.0" in voices.entries["heart"]["source"]
    assert voices.prompt("rms", codec).shape == (8, 100)
    assert (tmp_path / "speech" / "acoustic_model" / "model.safetensors").is_file()
    assert "auto_map" not in (tmp_path / "speech" / "speech_codec" / "config.json").read_text()
    with pytest.raises(FileNotFoundError, match="has no config.json and no model.safetensors"):
        packing.main(
            ["--codec", str(tmp_path / "codec"), "--acoustic_model", str(tmp_path), "--output", str(tmp_path)]
        )
