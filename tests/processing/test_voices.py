"""Adding voices to a checkpoint: the command, the files it leaves, and what it refuses."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from solami_hf.modeling.speech_codec.codec_interface import codec_fingerprint
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.add_voice import add_voice, main
from solami_hf.processing.audio.waveforms import read_audio
from solami_hf.processing.processing_solami import SolamiProcessor
from solami_hf.processing.voices import Voices


@pytest.fixture
def checkpoint(tiny_tokenizer, tmp_path):
    sizes = dict(num_filters=2, hidden_size=8, semantic_size=4, codebook_size=16, num_quantizers=3, num_lstm_layers=1)
    codec = SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**sizes)).eval()
    characters = {"link": {"name": "Link", "system": "You are Link."}}
    SolamiProcessor(tiny_tokenizer, speech_codec=codec, characters=characters).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def recording(folder, seconds, silence=0.0, name="link.wav", rate=24000):
    sound = np.random.default_rng(0).normal(size=round(seconds * rate)) * 0.1
    soundfile.write(folder / name, np.pad(sound, round(silence * rate)), rate)
    return str(folder / name)


def test_the_command(checkpoint, tmp_path):
    options = ["--checkpoint", str(checkpoint), "--name", "Link", "--character", "link"]
    assert main([*options, "--audio", recording(tmp_path, 4, silence=2), "--source", "me, CC0"]) == 0
    assert sorted(path.name for path in (checkpoint / "voices").iterdir()) == ["Link.safetensors", "voices.json"]
    processor = SolamiProcessor.from_pretrained(checkpoint)
    codec, entry = processor.speech_codec, json.loads((checkpoint / "voices/voices.json").read_text())["Link"]
    assert 4.0 <= entry.pop("seconds") <= 4.2  # the silence is gone but for a margin
    assert entry == {"source": "me, CC0", "codec": codec_fingerprint(codec)}
    assert processor.characters["link"]["voice"] == "Link" and processor.voices.names == ["Link"]
    codes = load_file(checkpoint / "voices/Link.safetensors")["audio_codes"]
    assert codes.dtype == torch.int16
    values = read_audio(tmp_path / "link.wav", 16000, trim_silence=True)
    expected = codec.encode(torch.from_numpy(values)[None, None]).audio_codes[0]
    assert torch.equal(codes.long(), expected) and torch.equal(processor.voices.prompt("Link", codec), expected)


def test_what_is_refused_leaves_the_checkpoint_alone(checkpoint, tmp_path):
    good = recording(tmp_path, 3.5)
    add_voice(checkpoint, "Link", good)
    before = {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()}
    for arguments, message in (
        (("Zelda", recording(tmp_path, 2.5, silence=2, name="short.wav")), r"short.wav has 2.6 s of sound between"),
        (("Zelda", recording(tmp_path, 11, name="long.wav")), "long.wav has 11.0 s .* expected 3 to 10 s"),
        (("Zelda", np.zeros(64000)), "the recording is silent"),
        (("../Zelda", good), "cannot be named '../Zelda'"),
        (("", good), "cannot be named ''"),
        (("Link", good), "there is a voice 'Link' already"),
        (("LINK", good), "there is a voice 'Link' already"),
        (("Zelda", good, None, "zelda"), r"unknown character 'zelda'; this checkpoint plays \['link'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            add_voice(checkpoint, *arguments)
    with pytest.raises(FileNotFoundError, match="none.wav"):
        add_voice(checkpoint, "Zelda", tmp_path / "none.wav")
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        add_voice(tmp_path, "Zelda", good)
    assert {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()} == before


def test_overwriting(checkpoint, tmp_path):
    add_voice(checkpoint, "Link", recording(tmp_path, 3.5))
    with pytest.raises(ValueError, match="there is a voice 'Link' already"):
        add_voice(checkpoint, "link", recording(tmp_path, 5), overwrite=True)
    add_voice(checkpoint, "Link", recording(tmp_path, 5), overwrite=True)
    assert Voices.load(checkpoint).codes("Link").shape == (3, 250)


def test_a_checkpoint_that_needs_no_voices(tiny_tokenizer, tmp_path):
    sizes = dict(num_filters=2, hidden_size=8, semantic_size=4, codebook_size=16, num_quantizers=1, num_lstm_layers=1)
    codec = SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**sizes)).eval()
    SolamiProcessor(tiny_tokenizer, speech_codec=codec).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="needs no voices"):
        add_voice(tmp_path, "Link", recording(tmp_path, 4))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not readable"),
        ("[]", "not readable"),
        ('{"Link": 3}', "not readable"),
        ('{"Link": {"source": "me"}}', "without a codec or with bad names"),
        ('{"../../Link": {"codec": "x"}}', "without a codec or with bad names"),
    ],
)
def test_damaged_indexes(tmp_path, index, message):
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices/voices.json").write_text(index)
    with pytest.raises(ValueError, match=message):
        Voices.load(tmp_path)


def test_damaged_codes(checkpoint, tmp_path):
    add_voice(checkpoint, "Link", recording(tmp_path, 3.5))
    path = checkpoint / "voices/Link.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="Link.safetensors holds no audio_codes"):
        Voices.load(checkpoint).codes("Link")
    path.unlink()
    with pytest.raises(ValueError, match="the codes of voice 'Link' are missing"):
        Voices.load(checkpoint).codes("Link")
