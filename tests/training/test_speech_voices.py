import shutil

import numpy as np
import pytest

from solami_hf.processing.audio import speech_voices
from solami_hf.processing.audio.speech_voices import check_voices, speak, speak_all
from solami_hf.training.speech_recordings import Recordings, speech_data


@pytest.fixture
def spoken(monkeypatch):
    """Speech without a synthesizer: a tone whose length tells the speed; collects what was asked for."""
    asked = []

    def tone(voice, text, speed=1.0, seed=0):
        asked.append((voice, text, speed))
        samples = round(8000 / speed)
        return np.sin(np.arange(samples) / 10).astype(np.float32) * 0.3, 16000

    monkeypatch.setattr(speech_voices, "speak", tone)
    monkeypatch.setattr(speech_voices, "check_voices", lambda voices: None)
    return asked


def test_an_unknown_voice_or_a_missing_program_is_told(monkeypatch):
    with pytest.raises(ValueError, match="voice is 'link', expected one of heart, slt, rms, awb, kal16"):
        check_voices(["link"])
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FileNotFoundError, match="apt-get install flite"):
        check_voices(["slt"])


@pytest.mark.system("flite")
def test_flite_speaks_slower_when_asked():
    fast, rate = speak("slt", "Please wave your hand.", speed=1.25)
    slow, _ = speak("slt", "Please wave your hand.", speed=0.8)
    assert rate == 16000 and len(slow) > 1.3 * len(fast)


def test_higher_voices_keep_the_length_asked_for(spoken):
    clips, names = speak_all(["a"] * 40, ["slt"], 16000, seed=0, vary=True, shift=True)
    shifted = [name != "slt" for name in names]
    assert shifted[:16] == [True] * 16 and shifted[16:32] == [False] * 16 and shifted[32:] == [True] * 8
    for clip, (_, _, speed), name in zip(clips, spoken, names, strict=True):
        shift = float(name.split(" x ")[1]) if " x " in name else 1.0
        assert abs(len(clip) / 16000 - 0.5 / (speed * shift)) < 0.01
    plain, names = speak_all(["a", "b"], ["slt", "rms"], 16000, seed=0)
    assert names == ["slt", "slt", "rms", "rms"] and {len(clip) for clip in plain} == {8000}


def test_every_voice_speaks_its_own_sentences_and_all_the_held_out_ones(spoken, tmp_path):
    train, test = speech_data(["tts"], tmp_path, 16000, count=3, held_out=2, voices=["slt", "rms"], seed=0)
    assert len(train) == 6 and len(set(train.texts)) == 6
    assert test.texts[:2] == test.texts[2:] and not set(test.texts) & set(train.texts)
    again, _ = speech_data(["tts"], tmp_path, 16000, count=3, held_out=2, voices=["slt", "rms"], seed=0)
    assert np.array_equal(again.samples, train.samples) and len(spoken) == 10


def test_clips_keep_their_place_when_joined_twice():
    one = Recordings.join([np.full(3, 0.1), np.full(2, 0.2)], ["a", "b"])
    both = Recordings.concatenate([one, one])
    assert len(both) == 4 and both.texts == ["a", "b", "a", "b"]
    assert np.array_equal(both[3], one[1]) and np.array_equal(both[0], one[0])
