"""Every metric gets worse as real motion and real speech are spoilt more."""

from dataclasses import replace

import numpy as np
import pytest

from solami_hf.processing.motion.body import joint_positions


def rises(values, strictly=True):
    """Whether each value is above the one before, or at least not below."""
    step = np.diff(values)
    return bool((step > 0).all() if strictly else (step >= 0).all())


def noisy(joints, sigma):
    rng = np.random.default_rng(1)
    return [motion + rng.normal(size=motion.shape) * sigma for motion in joints]


def sliding(joints, speed, fps=30):
    """The whole body drifts along x, metres a second."""
    return [motion + np.arange(len(motion))[:, None, None] / fps * [speed, 0, 0] for motion in joints]


CORRUPTIONS = {
    "noise": (noisy, (0.0, 0.002, 0.005, 0.02)),
    "scale": (lambda joints, factor: [motion * factor for motion in joints], (1.0, 1.2, 1.5, 2.0)),
    "shrink": (lambda joints, factor: [motion * factor for motion in joints], (1.0, 0.8, 0.5, 0.1)),
    "slide": (sliding, (0.0, 0.5, 1.0, 2.0)),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_fid(load, mocap_joints, corruption):
    spoil, grades = CORRUPTIONS[corruption]
    values = [
        load("motion_fid").compute(predictions=spoil(mocap_joints, grade), references=mocap_joints)["fid"]
        for grade in grades
    ]
    assert values[0] == pytest.approx(0, abs=1e-3) and rises(values)


@pytest.mark.parametrize("corruption", ["noise", "scale", "shrink"])
def test_diversity_moves_away_from_the_references_own(load, mocap_joints, corruption):
    spoil, grades = CORRUPTIONS[corruption]
    results = [
        load("motion_diversity").compute(predictions=spoil(mocap_joints, grade), references=mocap_joints)
        for grade in grades
    ]
    away = [abs(result["diversity"] - result["reference_diversity"]) for result in results]
    assert away[0] == pytest.approx(0, abs=1e-6) and rises(away)


def test_multimodality_rises_with_the_takes_that_differ(load, mocap_joints):
    takes, prompts = mocap_joints[:10], ["walk"] * 5 + ["run"] * 5
    values = []
    for distinct in range(1, 6):  # the first takes of each action, and copies of its first
        made = [take if i % 5 < distinct else takes[i // 5 * 5] for i, take in enumerate(takes)]
        values.append(load("motion_multimodality").compute(predictions=made, references=takes, prompts=prompts))
    assert values[0]["multimodality"] == 0 and values[0]["num_prompts"] == 2
    assert rises([value["multimodality"] for value in values])


@pytest.mark.parametrize("corruption", ["noise", "scale", "shift"])
def test_mpjpe(load, mocap_joints, corruption):
    spoil, grades = CORRUPTIONS.get(corruption, (lambda joints, shift: [m[shift:] for m in joints], (0, 1, 3, 6)))
    results = [
        load("motion_mpjpe").compute(predictions=spoil(mocap_joints, grade), references=mocap_joints)
        for grade in grades
    ]
    names = {"noise": ("mpjpe", "pa_mpjpe", "accel", "bone_angle"), "scale": ("mpjpe", "accel"),
             "shift": ("mpjpe", "pa_mpjpe", "accel", "bone_angle")}[corruption]  # fmt: skip
    for name in names:
        values = [result[name] for result in results]
        assert values[0] == pytest.approx(0, abs=1e-4) and rises(values), name
    if corruption == "scale":  # which similarity alignment and angles do not see
        assert results[-1]["pa_mpjpe"] == pytest.approx(0, abs=1e-6)
        assert results[-1]["bone_angle"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("corruption", ["noise", "scale", "shift"])
def test_rotation_error(load, mocap, corruption):
    poses = [motion.poses for motion in mocap]
    spoil, grades = {
        "noise": (noisy, (0.0, 0.02, 0.1, 0.3)),
        "scale": (lambda poses, factor: [pose * factor for pose in poses], (1.0, 0.9, 0.7, 0.3)),
        "shift": (lambda poses, shift: [pose[shift:] for pose in poses], (0, 1, 3, 6)),
    }[corruption]
    results = [
        load("rotation_error").compute(predictions=spoil(poses, grade), references=poses)["rotation_error"]
        for grade in grades
    ]
    assert results[0] == pytest.approx(0, abs=1e-4) and rises(results)


def test_a_pose_that_is_moved_has_no_rotation_error_but_the_original_sees_one(load, mocap, mocap_joints):
    moved = [replace(motion, transl=motion.transl + np.float32([1, 0, 0])) for motion in mocap[:3]]
    metric = load("rotation_error")
    result = metric.compute(predictions=[m.poses for m in moved], references=[m.poses for m in mocap[:3]])
    assert result["rotation_error"] == pytest.approx(0, abs=1e-4)
    upstream = metric.compute(
        predictions=[joint_positions(m) for m in moved], references=mocap_joints[:3], mode="upstream"
    )
    assert upstream["angle_error"] > 0.1


@pytest.mark.parametrize(
    ("figure", "spoil", "grades"),
    [
        ("foot_skating", sliding, (0.0, 0.3, 0.8, 2.0)),
        ("skating_ratio", sliding, (0.0, 0.3, 0.8, 2.0)),
        ("penetration", lambda joints, drop: [m - [0, drop, 0] for m in joints], (0.0, 0.03, 0.1, 0.3)),
        ("jitter", noisy, (0.0, 0.001, 0.005, 0.02)),
    ],
)
def test_foot_skating(load, mocap_joints, figure, spoil, grades):
    # Standing actions: who rolls over the floor slides with reason.
    standing = [motion for motion in mocap_joints if motion[:, 15, 1].min() > 1.0][:20]
    values = [load("foot_skating").compute(predictions=spoil(standing, grade))[figure] for grade in grades]
    assert rises(values)


def hissing(clips, decibels):
    """Speech in white noise, by the ratio of their power."""
    rng = np.random.default_rng(0)
    return [
        clip + np.float32(clip.std() * 10 ** (-decibels / 20)) * rng.normal(size=len(clip)).astype(np.float32)
        for clip in clips
    ]


def test_wer(load, spoken):
    clips, texts = zip(*spoken, strict=True)
    spoilt = [clips, hissing(clips, 0), [clip[: len(clip) // 6] for clip in clips]]
    values = [load("speech_wer").compute(predictions=speech, references=texts)["wer"] for speech in spoilt]
    assert values[0] < 0.1 and values[-1] > 0.6 and rises(values)


def test_similarity(load, spoken):
    clips = [clip for clip, _ in spoken]
    values = [
        load("speaker_similarity").compute(
            predictions=hissing(clips, decibels), references=clips, model_id="resemblyzer"
        )["speaker_similarity"]
        for decibels in (80, 20, 5, -10)
    ]
    assert values[0] > 0.98 and rises([-value for value in values])


def test_caption(load):
    people = ["a person walks forward and waves the left hand", "the man jumps over a small box and falls down",
              "someone kicks with the right leg twice", "a dancer turns around slowly with open arms"]  # fmt: skip

    def spoilt(words):
        return [" ".join(["x"] * min(words, len(text.split())) + text.split()[words:]) for text in people]

    results = [
        load("motion_caption").compute(predictions=spoilt(words), references=people) for words in (0, 1, 2, 3, 7)
    ]
    for name, perfect in (("bleu_1", 1), ("bleu_4", 1), ("rouge_l", 1), ("cider", 10)):
        values = [result[name] for result in results]
        assert values[0] == pytest.approx(perfect) and rises([-value for value in values]), name
    other = load("motion_caption").compute(predictions=people[1:] + people[:1], references=people)
    assert all(other[name] < 0.7 * results[0][name] for name in ("bleu_1", "bleu_4", "rouge_l", "cider"))


def test_validity(load):
    values = [
        load("answer_validity").compute(predictions=[False] * bad + [True] * (40 - bad)) for bad in (0, 3, 10, 40)
    ]
    for name in ("valid", "low", "high"):
        assert rises([-value[name] for value in values]), name
