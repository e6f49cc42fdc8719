"""Lip sync: what is measured of shifted, missing and shuffled mouths, and what is refused."""

import numpy as np
import pytest

from solami_hf.processing.motion.visemes import PHONE_VISEMES, face_of_phones

PHONES = [phone for phone in PHONE_VISEMES if phone not in ("h#", "brth")]


def talk(seed, seconds=6.0):
    """A face that says phones at random."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.uniform(0.06, 0.2, 100))
    return face_of_phones([(str(rng.choice(PHONES)), end) for end in ends if end < seconds], seconds)


def shifted(face, frames):
    return np.concatenate([face[:1].repeat(frames, 0), face])[: len(face)]


@pytest.fixture(scope="module")
def faces():
    return [talk(seed) for seed in range(4)]


def test_shifts_count_what_they_are(load, faces):
    results = [
        load("lip_sync").compute(predictions=[shifted(face, n) for face in faces], references=faces) for n in range(5)
    ]
    found = [result["lip_sync"] for result in results]
    assert found[:3] == pytest.approx([0, 1000 / 30, 2000 / 30], abs=1.0) and list(results[0])[0] == "lip_sync"
    for name, sign in (("lip_sync", 1), ("mean_onset_error", 1), ("curve_error", 1), ("opening_correlation", -1)):
        assert (sign * np.diff([result[name] for result in results]) > 0).all(), name
    assert results[0]["missed"] == results[0]["extra"] == results[0]["curve_error"] == 0
    assert results[0]["opening_correlation"] == pytest.approx(1)


def test_controls_are_worse(load, faces):
    def compute(predictions):
        return load("lip_sync").compute(predictions=predictions, references=faces)

    shuffled, still = compute(faces[1:] + faces[:1]), compute([np.zeros_like(face) for face in faces])
    assert shuffled["lip_sync"] > 100 and abs(shuffled["opening_correlation"]) < 0.4 and shuffled["missed"] > 0.2
    assert still["lip_sync"] == 300 and still["missed"] == 1 and still["extra"] == 0
    assert still["opening_correlation"] == 0
    half = compute([faces[0], None, None, None])
    assert half["valid"] == 0.25 and half["lip_sync"] == 0 and half["num_frames"] == len(faces[0])


def test_loudness(load, faces):
    rng = np.random.default_rng(0)
    loud = [np.repeat(face[:, 17], 16000 // 30 + 1)[: 16000 * 6] for face in faces]
    sounds = [rng.normal(size=len(gain)) * gain for gain in loud]
    result = load("lip_sync").compute(predictions=faces, references=faces, audio=sounds)
    silent = load("lip_sync").compute(predictions=faces, references=faces, audio=[0 * sound for sound in sounds])
    assert result["loudness_correlation"] > 0.6 and silent["loudness_correlation"] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"predictions": [np.zeros((9, 51))]}, r"predictions\[0\]` has shape \(9, 51\)"),
        ({"predictions": [np.zeros((1, 52))]}, "two frames or more"),
        ({"predictions": [np.full((9, 52), 2.0)]}, "outside 0 to 1"),
        ({"predictions": [np.full((9, 52), np.nan)]}, "not finite"),
        ({"predictions": [[["x"]]]}, "is no array of numbers"),
        ({"references": [None]}, r"references\[0\]"),
        ({"references": [np.zeros((9, 52))]}, "no mouth of `references`"),
        ({"predictions": [None]}, "no mouth of `references`"),
        ({"mode": "upstream"}, "the original has no faces"),
        ({"fps": 0}, "above 0"),
        ({"audio": []}, "got 0 `audio`"),
        ({"audio": [np.zeros((2, 5))]}, r"audio\[0\]` has shape \(2, 5\)"),
        ({"audio": [np.ones(9)], "sampling_rate": 0}, "more than 0 Hz"),
    ],
)
def test_what_cannot_be_judged_is_refused(load, faces, wrong, message):
    with pytest.raises(ValueError, match=message):
        load("lip_sync").compute(**{"predictions": faces[:1], "references": faces[:1], **wrong})
