"""Motion and sound piece by piece: every kind of decoder, by the look-ahead that is told for it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.generation.streaming_media import MotionPieces, SpeechPieces
from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.modeling.speech_codec.speech_codec_adapter import SpeechCodecAdapter
from solami_hf.processing.processing_solami import SolamiProcessor

sys.path.append(str(Path(__file__).parents[1]))
from small_speech import dac, own_codec, soundstorm  # noqa: E402

SIZES = {f"{part}_{key}": 16 for part in ("body", "hand") for key in ("code_num", "code_dim", "width")}


def speech_codec(gain=0.1, **change):
    codec = own_codec(**change)
    with torch.no_grad():
        codec.decoder.layers[-1].gain.mul_(gain)
    return codec


class Recording:
    """An acoustic model that keeps what it was asked."""

    def __init__(self, spoken_levels=None):
        self.model, self.asked, self.device = soundstorm(), [], torch.device("cpu")
        self.config = self.model.config
        self.config.spoken_levels = spoken_levels

    def generate(self, semantic, prompt=None, **settings):
        self.asked.append((semantic, prompt, self.model.generate(semantic, prompt, **settings)))
        return self.asked[-1][2]


def spoken(processor, codes, size, voice=None):
    pieces = SpeechPieces(processor, voice)
    return [pieces.push(codes[i : i + size]) for i in range(0, len(codes), size)] + [pieces.finish()]


@pytest.mark.parametrize("causal", [False, True])
def test_a_motion_goes_on_where_it_was(tiny_tokenizer, causal):
    codec = SolamiMotionVQModel(SolamiMotionVQConfig(transform_code_num=8, causal=causal, **SIZES)).eval()
    with torch.no_grad():
        codec.mean[:2] = 0.05  # walks, and turns with the random rotations of the root
    processor = SolamiProcessor(tiny_tokenizer, codec)
    codes = np.random.default_rng(0).integers(0, 16, (2, 31))
    whole = processor.decode_motion({"body": codes[0], "hand": codes[1]})
    pieces = MotionPieces(codec, lookahead=22)
    parts = [pieces.push(*codes[:, i : i + 3]) for i in range(0, 31, 3)] + [pieces.finish()]
    parts = [part for part in parts if part is not None]
    assert [part.num_frames for part in parts] == ([12] * 10 + [4] if causal else [8, 12, 12, 4, 88])
    streamed = np.concatenate([part.to_params() for part in parts])
    assert np.abs(whole.transl[-1, [0, 2]]).max() > 0.1
    np.testing.assert_allclose(streamed[:, :3], whole.transl, atol=1e-4)
    np.testing.assert_allclose(np.abs(streamed), np.abs(whole.to_params()), atol=2e-3)  # half turns have two signs


@pytest.mark.parametrize("change", [{}, {"lm_levels": 3}])
def test_our_codec_alone(tiny_tokenizer, change):
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=speech_codec(**change))
    levels = processor.speech_levels
    codes = (np.random.default_rng(0).integers(0, 16, (40, levels)) + 16 * np.arange(levels)).reshape(-1)
    sounds = spoken(processor, codes, 10 * levels)
    assert [len(sound) for sound in sounds] == [3200 - 1203, 3200, 3200, 3200, 1203]
    np.testing.assert_allclose(np.concatenate(sounds), processor.decode_speech(codes), atol=2e-6)
    nothing = SpeechPieces(processor)
    assert len(nothing.push([])) == len(nothing.finish()) == 0 and nothing.push([]).dtype == np.float32
    with pytest.raises(ValueError, match="probably made by another codec"):
        SpeechPieces(processor).push([77] * levels)


def test_a_codec_of_transformers(tiny_tokenizer):
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=SpeechCodecAdapter(dac(), lm_levels=2))
    frames = 400  # of 10 ms: it looks back on 200 of them and waits for 25
    codes = (np.random.default_rng(0).integers(0, 32, (frames, 2)) + [0, 32]).reshape(-1)
    sounds = spoken(processor, codes, 80)
    assert [len(sound) // 160 for sound in sounds] == [15, *[40] * 9, 25]
    np.testing.assert_allclose(np.concatenate(sounds), processor.decode_speech(codes), atol=1e-5)


@pytest.mark.parametrize("levels", [None, 2])
def test_the_acoustic_model_fills_piece_by_piece_in_one_voice(tiny_tokenizer, levels):
    acoustic = Recording(levels)
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=speech_codec(), acoustic_model=acoustic)
    voice = torch.randint(0, 16, (3, 20))
    processor.voices.add("Link", voice, "made up", processor.speech_codec)
    codes = np.random.default_rng(0).integers(0, 16, 250)
    sounds = spoken(processor, codes, 10, voice="Link")
    assert [len(sound) > 0 for sound in sounds[:10]] == [False] * 4 + [True] + [False] * 3 + [True, False]
    assert sum(map(len, sounds)) == 250 * 320
    filled = torch.zeros(3, 0, dtype=torch.long)
    for number, (semantic, prompt, answer) in enumerate(acoustic.asked):
        assert semantic[0].tolist() == codes[40 * number :][:50].tolist()
        assert torch.equal(prompt[0], torch.cat([voice, filled[:, -150:]], dim=1))
        filled = torch.cat([filled, answer[0, :, : 40 if 40 * number + 50 <= 250 else None]], dim=1)
    assert len(acoustic.asked) == 7 and filled[0].tolist() == codes.tolist()  # level 0 is as it was given
    with torch.no_grad():
        expected = processor.speech_codec.decode(filled[None, :levels]).audio_values[0, 0]
    np.testing.assert_allclose(np.concatenate(sounds), expected, atol=2e-6)
    again = spoken(processor, codes, 10, voice="Link")
    assert all(np.array_equal(*pair) for pair in zip(sounds, again, strict=True))


@pytest.mark.parametrize("voice", [None, "Link"])
def test_what_is_said_in_less_than_a_second_is_filled_at_once(tiny_tokenizer, voice):
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=speech_codec(), acoustic_model=soundstorm())
    processor.voices.add("Link", torch.randint(0, 16, (3, 20)), "made up", processor.speech_codec)
    codes = np.random.default_rng(0).integers(0, 16, 39)
    sounds = spoken(processor, codes, 10, voice)
    assert not any(map(len, sounds[:-1]))
    np.testing.assert_allclose(sounds[-1], processor.decode_speech(codes, voice), atol=2e-6)


def test_voices_that_cannot_be_used(tiny_tokenizer):
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=speech_codec())
    with pytest.raises(ValueError, match="unknown voice 'Link'"):
        SpeechPieces(processor, "Link")
    processor.voices.add("Link", torch.zeros(3, 9, dtype=torch.long), "made up", processor.speech_codec)
    with pytest.raises(ValueError, match="voice 'Link' cannot be used"):
        SpeechPieces(processor, "Link")


def test_loud_and_broken_sound_is_turned_down_from_there_on(tiny_tokenizer):
    processor = SolamiProcessor(tiny_tokenizer, speech_codec=speech_codec(gain=1e3))
    codes = np.random.default_rng(0).integers(0, 16, 100)
    sounds = spoken(processor, codes, 10)
    streamed, whole = np.concatenate(sounds), processor.decode_speech(codes)
    assert 0 < np.abs(streamed).max() <= 1 and streamed.shape == whole.shape
    np.testing.assert_allclose(streamed[-3000:], whole[-3000:], atol=1e-5)  # as loud as all at once, once all is heard
    with torch.no_grad():
        processor.speech_codec.decoder.layers[-1].bias.fill_(float("nan"))
    assert not np.concatenate(spoken(processor, codes, 10)).any()
