"""Gestures and dialogue timing: closed forms, graded corruptions of real motion and speech, chance rows, refusals."""

import sys

import numpy as np
import pytest

from .test_monotone import rises

FPS = 30


def beating(times, seconds=4.0):
    """Elbows, wrists and fingers that stand still at exactly these seconds: (T, 55, 3)."""
    frames = np.arange(int(seconds * FPS) + 1) / FPS
    knots = np.concatenate([[-1.0], times, [seconds + 1.0]])
    phase = np.interp(frames, knots, np.arange(len(knots)))
    joints = np.zeros((len(frames), 55, 3))
    joints[:, [18, 19, 20, 21, *range(25, 55)], 1] = np.cos(np.pi * phase)[:, None]
    return joints


def clicking(times, seconds=4.0):
    """Short bursts that begin at these seconds, 16 kHz."""
    sound = np.zeros(int(seconds * 16000), np.float32)
    for time in times:
        sound[int(time * 16000) :][:800] = 0.5
    return sound


TIMES = [np.array([0.6, 1.3, 1.9, 2.9]), np.array([0.9, 1.6, 2.4, 3.3]), np.array([0.5, 1.1, 2.2, 2.7])]


def test_beats_and_onsets_are_where_they_were_put(load):
    module = sys.modules[type(load("beat_alignment")).__module__]
    for times in TIMES:
        assert module.motion_beats(beating(times), FPS) == pytest.approx(times, abs=0.04)
        assert module.speech_onsets(clicking(times)) == pytest.approx(times, abs=0.021)
    assert len(module.motion_beats(np.zeros((30, 55, 3)), FPS)) == 0
    gap = module.nearness(np.array([1.0, 2.0]), np.array([1.0, 2.2]), 0.1)
    assert gap == pytest.approx([1.0, np.exp(-2)])
    assert module.repeated(np.array([0.2, 0.6]), 1.0, 2.5) == pytest.approx([0.2, 0.6, 1.2, 1.6, 2.2])


def test_beats_that_come_late_align_less_and_shuffled_speech_is_chance(load):
    metric, speech = load("beat_alignment"), [clicking(times) for times in TIMES]
    values = []
    for late in (0.0, 0.05, 0.1, 0.2):
        result = metric.compute(predictions=[beating(times + late) for times in TIMES], references=speech)
        values.append(result["beat_alignment"])
    assert rises([-value for value in values]) and values[0] > 0.9
    result = metric.compute(predictions=[beating(times) for times in TIMES], references=speech)
    assert result["shuffled_audio"] < 0.5 and result["num_beats"] == result["num_onsets"] == 12
    assert metric.compute(predictions=[beating(TIMES[0])], references=speech[:1])["shuffled_audio"] is None


def test_beats_on_real_speech_fall_with_jitter(load, spoken):
    metric = load("beat_alignment")
    module = sys.modules[type(metric).__module__]
    clips = [clip for clip, _ in spoken]
    onsets = [module.speech_onsets(clip) for clip in clips]
    assert min(map(len, onsets)) >= 5  # of nine and eight words
    rng, values = np.random.default_rng(0), []
    for sigma in (0.0, 0.08, 0.3):
        times = [np.sort(on[::2] + rng.normal(size=len(on[::2])) * sigma) for on in onsets]
        made = [beating(t[np.diff(t, prepend=-1) > 0.05], len(c) / 16000) for t, c in zip(times, clips, strict=True)]
        values.append(metric.compute(predictions=made, references=clips)["beat_alignment"])
    assert rises([-value for value in values]), values


def test_beats_that_cannot_be_judged(load):
    metric, good = load("beat_alignment"), clicking(TIMES[0])
    with pytest.raises(ValueError, match=r"`references\[0\]` has no onset"):
        metric.compute(predictions=[beating(TIMES[0])], references=[np.zeros(16000)])
    with pytest.raises(ValueError, match="no prediction has a motion beat"):
        metric.compute(predictions=[np.zeros((30, 55, 3))], references=[good])
    with pytest.raises(ValueError, match=r"`references\[0\]` has shape .*int16"):
        metric.compute(predictions=[beating(TIMES[0])], references=[good.astype(np.int16)])
    with pytest.raises(ValueError, match="`sigma` is 0"):
        metric.compute(predictions=[beating(TIMES[0])], references=[good], sigma=0)
    with pytest.raises(ValueError, match="`sampling_rate` is 24000"):
        metric.compute(predictions=[beating(TIMES[0])], references=[good], sampling_rate=24000)
    with pytest.raises(ValueError, match="the original has no such metric"):
        metric.compute(predictions=[beating(TIMES[0])], references=[good], mode="upstream")


def test_gestures_that_are_damped_or_all_alike_are_less_diverse(load, mocap_joints):
    metric, clips = load("gesture_diversity"), mocap_joints[:20]

    def damped(motion, share):
        return motion.mean(axis=0) + share * (motion - motion.mean(axis=0))

    results = [
        metric.compute(predictions=[damped(clip, share) for clip in clips], references=clips)
        for share in (1.0, 0.7, 0.3, 0.0)
    ]
    assert results[0]["gesture_diversity"] == pytest.approx(results[0]["reference_diversity"])
    assert rises([-result["within_clips"] for result in results])
    alike = [
        metric.compute(predictions=clips[:kinds] * (20 // kinds), references=clips)["gesture_diversity"]
        for kinds in (20, 10, 1)
    ]
    assert rises([-value for value in alike])


def test_place_and_facing_are_no_gesture(load, mocap_joints):
    clips = mocap_joints[:4]
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    moved = [clip @ turn.T + [1.0, 0.2, -3] if i % 2 else clip for i, clip in enumerate(clips)]
    result = load("gesture_diversity").compute(predictions=moved, references=clips)
    assert result["gesture_diversity"] == pytest.approx(result["reference_diversity"])


USER = [(0.0, 4.0), (8.0, 10.0), (14.0, 15.0)]
REAL = [(2.0, 2.4), (4.2, 7.0), (10.3, 12.0), (15.1, 16.0)]


def test_timing_of_a_dialogue_by_hand(load):
    made = [(1.0, 1.5), (3.5, 7.0), (10.5, 12.0)]  # an "mhm" a second early, one interruption, one answer missing
    result = load("response_timing").compute(predictions=[made], references=[REAL], partners=[USER])
    assert {name: round(result[name], 4) for name in result if name not in ("mode", "shuffled_backchannel_f1")} == {
        "delay": 0.0, "reference_delay": 0.2, "delay_error": 0.45, "answered": round(2 / 3, 4),
        "overlap": round(0.5 / 7, 4), "reference_overlap": 0.0, "backchannel_f1": 0.0, "backchannel_precision": 0.0,
        "backchannel_recall": 0.0, "num_backchannels": 1, "valid": 1.0, "num_predictions": 1,
    }  # fmt: skip
    assert result["shuffled_backchannel_f1"] is None
    again = load("response_timing").compute(predictions=[made], references=[REAL], partners=[USER], tolerance=1.0)
    assert again["backchannel_f1"] == 1.0


def test_later_answers_and_moved_backchannels_are_worse(load):
    rng = np.random.default_rng(0)
    users, real = [], []
    for _ in range(6):  # each dialogue: turns of six seconds, three "mhm"s in each, an answer after it
        starts = np.arange(3) * 12 + rng.uniform(0, 1)
        users.append([(s, s + 6) for s in starts])
        places = [(s + at + rng.uniform(0, 0.8)) for s in starts for at in (0.8, 2.6, 4.4)]
        nods = [(at, at + 0.3) for at in places]
        real.append(sorted([*nods, *((s + 6.3, s + 9) for s in starts)]))
    metric, f1, error = load("response_timing"), [], []
    for late in (0.0, 0.2, 0.4):  # the latest still ends within the turn
        moved = [[(a + late, b + late) for a, b in dialogue] for dialogue in real]
        result = metric.compute(predictions=moved, references=real, partners=users, tolerance=0.3)
        f1.append(result["backchannel_f1"])
        error.append(result["delay_error"])
    assert f1[0] == f1[1] == 1.0 and f1[2] < 0.5 and error == pytest.approx([0.0, 0.2, 0.4])
    whole = metric.compute(predictions=real, references=real, partners=users)
    assert whole["shuffled_backchannel_f1"] < 0.9 < whole["backchannel_f1"]
    dropped = [
        metric.compute(predictions=[d[::step] for d in real], references=real, partners=users)["backchannel_recall"]
        for step in (1, 2, 4)
    ]
    assert rises([-value for value in dropped])


@pytest.mark.parametrize(
    ("spoken", "message"),
    [
        ([(2.0, 1.0)], "no .start, end. in seconds"),
        ([(0.0, float("nan"))], "no .start, end. in seconds"),
        ([(0.0, 2.0), (1.0, 3.0)], "overlap each other"),
        ([(0.0, 1.0, 2.0)], "expected utterances"),
        (["hello"], "expected utterances"),
    ],
)
def test_utterances_that_are_none(load, spoken, message):
    metric = load("response_timing")
    with pytest.raises(ValueError, match=rf"`predictions\[0\]` .*{message}"):
        metric.compute(predictions=[spoken], references=[REAL], partners=[USER])
    with pytest.raises(ValueError, match=rf"`partners\[0\]` .*{message}"):
        metric.compute(predictions=[REAL], references=[REAL], partners=[spoken])
    for wrong, told in (({"partners": [[]]}, "empty"), ({"predictions": [None]}, "None"), ({"tolerance": -1}, "-1"),
                        ({"references": [[]]}, "nobody answers"), ({"mode": "upstream"}, "no such")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            metric.compute(**{"predictions": [REAL], "references": [REAL], "partners": [USER], **wrong})
