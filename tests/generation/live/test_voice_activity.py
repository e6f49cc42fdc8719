"""Turns cut out of a stream of sound, by rules and by the real network on a packaged voice."""

import numpy as np
import torch

from solami_hf.generation.live.voice_activity import WINDOW, SpeechDetector, speech_detector
from solami_hf.processing.audio.packaged_speech import packaged_speech


def cut(detector, samples, piece):
    """What a detector tells of pieces of so many samples: names, and the sound of each turn."""
    names, turns = [], []
    for start in range(0, len(samples), piece):
        for name, sound in detector.push(samples[start : start + piece]):
            names += [name] if name != "speech" else []
            turns = [*turns, []] if name == "begin" else turns
            turns[-1].append(sound)
    return names, [np.concatenate(turn) for turn in turns]


def test_a_turn_begins_before_its_first_sound_and_ends_behind_a_pause():
    loud, quiet = np.full(20 * WINDOW, 9000, np.int16), np.zeros(30 * WINDOW, np.int16)
    pause = quiet[: 21 * WINDOW]  # too short to end a turn
    sound = np.concatenate([quiet, loud, pause, loud, quiet, loud[: 2 * WINDOW], quiet])
    for piece in (100, 512, 8000):
        names, turns = cut(SpeechDetector(lambda window: float(window.max() > 0.1)), sound, piece)
        assert names == ["begin", "end"]
        assert len(turns[0]) == (9 + 20 + 21 + 20 + 22) * WINDOW  # 12 of which 3 were loud; 22 of silence
        np.testing.assert_array_equal(turns[0], sound[21 * WINDOW : 21 * WINDOW + len(turns[0])])


def test_a_voice_is_heard_and_noise_is_not():
    threads, detector = torch.get_num_threads(), speech_detector()
    assert torch.get_num_threads() == threads
    speech = packaged_speech()
    codec = speech["speech_codec"]
    with torch.no_grad():
        voice = codec.decode(speech["voices"].prompt("heart", codec)[None]).audio_values[0, 0].numpy()
    noise = np.random.default_rng(0).normal(size=32000) * 0.003
    sound = np.concatenate([noise, voice * 0.5, noise])
    names, turns = cut(detector, np.rint(sound * 32767).clip(-32768, 32767).astype(np.int16), 800)
    assert names[0] == "begin" and names[-1] == "end" and len(voice) > 16000
    assert 0.6 * len(voice) < sum(map(len, turns)) < len(voice) + 2 * 16000
