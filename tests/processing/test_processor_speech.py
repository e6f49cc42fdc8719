"""The processor's speech side with codecs of other libraries' classes, with several levels, and with voices."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor

from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.speech_codec.speech_codec_adapter import SpeechCodecAdapter
from solami_hf.processing.datasets.token_dataset import load_tokens, write_token_dataset
from solami_hf.processing.processing_solami import SolamiProcessor

sys.path.append(str(Path(__file__).parents[1]))
from small_speech import dac, own_codec, soundstorm  # noqa: E402


class RecordingAcousticModel:
    """Stands for SoundStorm: says what it was asked, and answers with codes that depend on the prompt only."""

    device = torch.device("cpu")
    config = SolamiSoundStormConfig(num_quantizers=3)

    def generate(self, semantic_codes, prompt_codes=None, steps=4, generator=None):
        self.asked = (semantic_codes, prompt_codes, steps, generator)
        last = 0 if prompt_codes is None else prompt_codes[:, 1:, :1]
        return torch.cat(
            [semantic_codes[:, None], torch.zeros(1, 2, semantic_codes.shape[1], dtype=torch.long) + last], 1
        )


CHARACTERS = {"link": {"name": "Link", "system": "You are Link.", "voice": "Link"}, "ada": {"name": "", "system": "a"}}


@pytest.fixture
def spoken(tiny_tokenizer):
    """A processor with a codec of three levels, the first of them for the language model, and an acoustic model."""
    return SolamiProcessor(
        tiny_tokenizer, speech_codec=own_codec(), acoustic_model=RecordingAcousticModel(), characters=CHARACTERS
    )


def test_a_chat_with_a_codec_of_several_levels(tiny_tokenizer, tmp_path):
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=SpeechCodecAdapter(dac(), lm_levels=2))
    assert processor.modalities["speech"]["size"] == 64 and processor.speech_levels == 2
    sound = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 0.1
    (codes,) = processor.encode_speech([sound])
    expected = processor.speech_codec.encode(torch.from_numpy(sound)[None, None]).audio_codes[0, :2]
    assert codes.tolist() == [int(c) + 32 * level for frame in expected.T for level, c in enumerate(frame)]

    motion = {"body": [1, 2], "hand": [3, 4]}
    blocks = [{"type": "motion", "motion": motion}, {"type": "audio", "audio": sound}]
    messages = [{"role": "user", "content": blocks}, {"role": "assistant", "content": blocks}]
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "speech_codec/config.json").read_text())["model_type"] == "dac"
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.speech_levels == 2 and loaded._models.loaded["speech_codec"] is None
    options = dict(tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    rendered = loaded.apply_chat_template(messages, **options)
    assert rendered == processor.apply_chat_template(messages, **options)
    text = loaded.apply_chat_template(messages)
    assert rendered["input_ids"] == [loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]

    ids = np.array(rendered["input_ids"])[np.array(rendered["assistant_masks"]) == 1]
    answer = loaded.parse_response(ids)
    assert answer.valid and np.array_equal(answer.speech, codes)
    assert loaded.decode_speech(answer.speech).shape == (160 * len(codes) // 2,)
    turned = ids.copy()
    place = np.flatnonzero(ids == processor.markers["sosp"])[0]
    turned[place + 1], turned[place + 2] = ids[place + 2], ids[place + 1]
    assert "speech codes of the wrong level" in loaded.parse_response(turned).reason
    assert "no whole frames" in loaded.parse_response(np.delete(ids, place + 2)).reason


def test_a_tokenizer_with_too_few_speech_tokens_is_refused(tiny_tokenizer):
    SolamiProcessor(tiny_tokenizer, speech_codec=own_codec())
    assert SolamiProcessor(tiny_tokenizer, speech_codec=own_codec(codebook_size=8)).modalities["speech"]["size"] == 16
    with pytest.raises(ValueError, match="has 16 speech tokens, but the speech codec needs 96"):
        SolamiProcessor(tiny_tokenizer, speech_codec=dac())


def test_a_codec_is_given_by_its_folder(tiny_tokenizer, tmp_path):
    dac().save_pretrained(tmp_path)
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=str(tmp_path))
    assert isinstance(processor.speech_codec, SpeechCodecAdapter) and processor.speech_levels == 3
    with pytest.raises(ValueError, match="must be a model of transformers or ours, got dict"):
        SolamiProcessor(tiny_tokenizer, speech_codec={})


def test_the_levels_of_processor_and_codec_must_agree(tiny_tokenizer, tmp_path):
    SolamiProcessor(tiny_tokenizer, speech_codec=own_codec()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps(config | {"speech_levels": 2}))
    with pytest.raises(ValueError, match="lm_levels is 2, but the codec was made for 1"):
        SolamiProcessor.from_pretrained(tmp_path).encode_speech([np.zeros(640)])
    with pytest.raises(ValueError, match="lm_levels is 2, but the codec was made for 1"):
        SolamiProcessor(tiny_tokenizer, speech_codec=own_codec(), speech_levels=2)


def test_wide_codes_are_stored_in_32_bits(tmp_path):
    for highest, kind in ((32767, "int16"), (65535, "int32")):
        turns = [{"text": "a", "speech": np.array([0, highest]), "speaker": "me"}]
        rows = {"train": [{"id": "a", "turns": turns, "source": ""}]}
        write_token_dataset(tmp_path / kind, "speech", rows, {"speech": "x"})
        data = load_tokens(tmp_path / kind, "speech", "train")
        assert data.features["turns"].feature["speech"].feature.dtype == kind
        assert data[0]["turns"][0]["speech"] == [0, highest]


def test_the_acoustic_model_continues_the_voice(spoken):
    prompt = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    spoken.voices.add("Link", prompt, "made up", spoken.speech_codec)
    generator = torch.Generator()
    sound = spoken.decode_speech([3, 1, 2], voice="Link", steps=7, generator=generator)
    semantic, given, steps, drawn_from = spoken.acoustic_model.asked
    assert semantic.tolist() == [[3, 1, 2]] and torch.equal(given, prompt[None])
    assert steps == 7 and drawn_from is generator
    with torch.no_grad():
        expected = spoken.speech_codec.decode(torch.tensor([[[3, 1, 2], [5, 5, 5], [9, 9, 9]]])).audio_values
    np.testing.assert_allclose(sound / np.abs(sound).max(), expected[0, 0] / expected.abs().max(), atol=1e-5)
    assert not np.array_equal(spoken.decode_speech([3, 1, 2]), sound) and spoken.acoustic_model.asked[1] is None


def test_of_what_the_acoustic_model_fills_in_so_many_levels_are_spoken(spoken, monkeypatch):
    monkeypatch.setattr(spoken.acoustic_model, "config", SolamiSoundStormConfig(num_quantizers=3, spoken_levels=2))
    spoken.voices.add("Link", torch.tensor([[1, 2], [5, 6], [9, 10]]), "made up", spoken.speech_codec)
    sound = spoken.decode_speech([3, 1, 2], voice="Link")
    with torch.no_grad():
        expected = spoken.speech_codec.decode(torch.tensor([[[3, 1, 2], [5, 5, 5]]])).audio_values
    np.testing.assert_allclose(sound / np.abs(sound).max(), expected[0, 0] / expected.abs().max(), atol=1e-5)


def test_a_voice_that_cannot_be_used(spoken):
    spoken.voices.add("Link", torch.zeros(3, 4, dtype=torch.long), "made up", spoken.speech_codec)
    spoken.voices.add("Ada", torch.zeros(3, 4, dtype=torch.long), "made up", spoken.speech_codec)
    with pytest.raises(ValueError, match=r"unknown voice 'Zelda'; this checkpoint has \['Ada', 'Link'\]"):
        spoken.decode_speech([1], voice="Zelda")
    spoken.voices.entries["Ada"]["codec"] = "another"
    with pytest.raises(ValueError, match="voice 'Ada' was made by the speech codec another"):
        spoken.decode_speech([1], voice="Ada")


def test_a_voice_for_a_checkpoint_without_acoustic_model(tiny_tokenizer):
    whole = SolamiProcessor(tiny_tokenizer, speech_codec=own_codec(lm_levels=3, codebook_size=16))
    whole.voices.add("Link", torch.zeros(3, 4, dtype=torch.long), "made up", whole.speech_codec)
    with pytest.raises(ValueError, match="voice 'Link' cannot be used"):
        whole.decode_speech([0, 16, 32], voice="Link")


def test_where_the_language_model_writes_all_levels_no_acoustic_model_is_asked(tiny_tokenizer):
    acoustic = RecordingAcousticModel()
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=own_codec(lm_levels=3), acoustic_model=acoustic)
    assert processor.decode_speech([0, 16, 32, 1, 17, 33]).shape == (640,) and not hasattr(acoustic, "asked")


def test_the_real_acoustic_model_and_voices_in_one_folder(tiny_tokenizer, tmp_path):
    processor = SolamiProcessor(
        tiny_tokenizer, speech_codec=own_codec(), acoustic_model=soundstorm(), characters=CHARACTERS
    )
    processor.voices.add("Link", torch.randint(0, 16, (3, 20)), "made up", processor.speech_codec)
    processor.save_pretrained(tmp_path / "one")
    loaded = SolamiProcessor.from_pretrained(tmp_path / "one")
    link, ada = ([{"role": "system", "content": loaded.character_system(name)}] for name in ("link", "ada"))
    sound = loaded.decode_speech([1, 2, 3, 4], voice=loaded.voice_of(link))
    assert loaded.voice_of(ada) is None and loaded.voice_of([{"role": "user", "content": "hi"}]) is None
    assert isinstance(loaded.acoustic_model, SolamiSoundStormModel) and sound.shape == (1280,)
    assert np.array_equal(sound, processor.decode_speech([1, 2, 3, 4], voice="Link"))
    SolamiProcessor.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    again = SolamiProcessor.from_pretrained(tmp_path / "two")
    assert np.array_equal(sound, again.decode_speech([1, 2, 3, 4], voice="Link"))
    given = SolamiProcessor(
        tiny_tokenizer, speech_codec=loaded.speech_codec, acoustic_model=loaded.acoustic_model, voices=loaded.voices
    )
    assert np.array_equal(sound, given.decode_speech([1, 2, 3, 4], voice="Link")) and "voices" not in given.to_dict()


def test_a_checkpoint_without_acoustic_model_or_voices(tiny_tokenizer, tmp_path):
    SolamiProcessor(tiny_tokenizer, speech_codec=own_codec()).save_pretrained(tmp_path)
    loaded = SolamiProcessor.from_pretrained(tmp_path)
    assert loaded.acoustic_model is None and loaded.voices.names == []
    assert loaded.decode_speech([1, 2]).shape == (640,) and not (tmp_path / "voices").exists()
    with pytest.raises(ValueError, match="this checkpoint has no voices"):
        loaded.decode_speech([1, 2], voice="Link")


def test_recordings_of_more_than_two_minutes_are_refused(spoken, tmp_path):
    with pytest.raises(ValueError, match="lasts 130.0 s, expected at most 120 s"):
        spoken.encode_speech([np.zeros(130 * 16000, np.float32)])
    soundfile.write(tmp_path / "long.wav", np.zeros(121 * 8000, np.int16), 8000)
    with pytest.raises(ValueError, match="long.wav lasts 121.0 s"):
        spoken.encode_speech([tmp_path / "long.wav"])


def test_a_broken_codec_is_silenced_and_a_loud_one_turned_down(tiny_tokenizer, caplog):
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=own_codec())
    last = processor.speech_codec.decoder.layers[-1]
    with torch.no_grad():
        last.gain.fill_(1e4)
    sound = processor.decode_speech(list(range(16)))
    assert 0 < np.abs(sound).max() <= 1 and np.sqrt((sound**2).mean()) <= 0.2501
    with torch.no_grad():
        last.bias.fill_(float("nan"))
    assert not processor.decode_speech([1, 2]).any() and "are no numbers" in caplog.text
