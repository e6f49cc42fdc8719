"""A metric gives no number for what it cannot judge: it says what came, what it expected, and the way out."""

import numpy as np
import pytest

from solami_hf.metrics import NAMES

from .conftest import KnownMotions

EMBEDDED = ("motion_retrieval", "frechet_gesture")
PAIRED = ("motion_fid", "motion_diversity", "motion_mpjpe", "rotation_error", "gesture_diversity", *EMBEDDED)
MOTION = (*PAIRED, "foot_skating", "motion_multimodality")


def compute(module, predictions, references, **options):
    """With what each module takes besides."""
    if module.name == "motion_multimodality":
        options = {"prompts": ["walk"] * len(predictions), **options}
    if module.name in EMBEDDED:
        options = {"evaluator": KnownMotions(references or []), **options}
    if module.name == "motion_retrieval":
        options = {"texts": [str(i) for i in range(len(predictions))], **options}
    return module.compute(predictions=predictions, references=references, **options)


@pytest.fixture
def standing(motions):
    """Motions with a foot on the floor."""
    return [motion - motion[:, [10], :] for motion in motions]


def with_nan(motion):
    broken = motion.copy()
    broken[3, 5, 1] = np.nan
    return broken


@pytest.mark.parametrize("name", MOTION)
def test_good_motion_passes(load, standing, name):
    result = compute(load(name), [*standing, None], [*standing, standing[0]])
    assert result["valid"] == 0.75 and result["num_predictions"] == 4 and result["mode"] == "corrected"
    assert all(np.isfinite(value) for value in result.values() if not isinstance(value, str))
    assert isinstance(next(iter(result.values())), float)


@pytest.mark.parametrize("name", MOTION)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_nan, "holds NaN or infinite values"),
        (lambda motion: motion[:0], "has 0 frames"),
        (lambda motion: motion[..., :2], r"has shape \(20, 55, 2\)"),
        (lambda motion: [[["x"]]], "is no array of numbers"),
        (lambda motion: motion.astype(str), "is no array of numbers"),
    ],
)
def test_bad_predictions(load, standing, name, spoil, message):
    with pytest.raises(ValueError, match=r"`predictions\[1\]` " + message):
        compute(load(name), [standing[0], spoil(standing[1]), standing[2]], standing)
    if name != "foot_skating":
        with pytest.raises(ValueError, match=r"`references\[1\]` " + message):
            compute(load(name), standing, [standing[0], spoil(standing[1]), standing[2]])


@pytest.mark.parametrize("name", MOTION)
def test_empty_missing_and_rates(load, standing, name):
    module = load(name)
    with pytest.raises(ValueError, match="got 0 `predictions`"):
        compute(module, [], [])
    with pytest.raises(ValueError, match="every item of `predictions` is None"):
        compute(module, [None, None], standing[:2])
    with pytest.raises(ValueError, match=r"hold the rates \[25.0, 30.0\], expected one"):
        compute(module, standing, standing, fps=[30, 25, 30])
    with pytest.raises(ValueError, match="`mode` is 'best'"):
        compute(module, standing, standing, mode="best")
    if name == "foot_skating":
        return
    with pytest.raises(ValueError, match=r"hold the rates \[20.0, 30.0\], expected one"):
        compute(module, standing, standing, reference_fps=20)
    with pytest.raises(ValueError, match="got 2 `predictions` and 3 `references`"):
        compute(module, standing[:2], standing)
    with pytest.raises(ValueError, match="`references` is missing"):
        compute(module, standing, None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", ["hello", {"a": "hello"}, {"hello"}, 5])
def test_what_is_no_list(load, name, given):
    columns = {key: given for key in load(name).input_names()}
    with pytest.raises(ValueError, match=rf"`predictions` is {type(given).__name__}, expected a list"):
        load(name).compute(**columns)
    with pytest.raises(ValueError, match=rf"`predictions` is {type(given).__name__}, expected a list"):
        load(name).add_batch(**columns)


@pytest.mark.parametrize("rate", ["fast", "30", None, True])
def test_rates_that_are_no_numbers(load, standing, rate):
    with pytest.raises(ValueError, match="expected frames a second"):
        load("motion_fid").compute(predictions=standing, references=standing, fps=rate)


@pytest.mark.parametrize("name", ["motion_fid", "motion_diversity", "motion_multimodality", "gesture_diversity"])
def test_a_single_motion_has_no_distribution(load, standing, name):
    with pytest.raises(ValueError, match="got 1 .*expected at least 2"):
        compute(load(name), standing[:1], standing[:1])


def test_prompts_without_company(load, standing):
    with pytest.raises(ValueError, match="none of the 3 `prompts` has two motions"):
        compute(load("motion_multimodality"), standing, standing, prompts=["walk", "run", "jump"])


def test_upstream_where_the_original_has_nothing(load, standing):
    for name in ("foot_skating", "motion_multimodality", "gesture_diversity", *EMBEDDED):
        with pytest.raises(ValueError, match="the original has no such metric"):
            compute(load(name), standing, standing, mode="upstream")


def test_prompts_and_answers_that_are_no_text(load, standing):
    with pytest.raises(ValueError, match=r"`prompts\[1\]` is NoneType"):
        load("motion_multimodality").compute(predictions=standing, references=standing, prompts=["a", None, "a"])
    context = [{"role": "user", "content": "hi"}]
    with pytest.raises(ValueError, match=r"`predictions\[0\]` is float, expected what the character said"):
        load("dialogue_judge").compute(predictions=[1.0], contexts=[context], model="nobody")


def test_a_body_in_the_air(load, standing):
    with pytest.raises(ValueError, match=r"no foot stays within 5 cm of the floor at height -3.0 m; .*`floor`"):
        load("foot_skating").compute(predictions=standing, floor=-3.0)
    for floor in (float("nan"), "low"):
        with pytest.raises(ValueError, match=f"`floor` is {floor!r}"):
            load("foot_skating").compute(predictions=standing, floor=floor)
    assert load("foot_skating").compute(predictions=[m + [0, 2, 0] for m in standing], floor=2.0)["contact"] > 0.4


@pytest.mark.parametrize("name", ["speech_wer", "speaker_similarity"])
@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.full(16000, np.nan), "holds NaN"),
        (np.zeros((2, 16000)), r"has shape \(2, 16000\)"),
        (np.zeros(16000, np.int16), "type int16"),
        (np.full(16000, 2000.0), "samples up to 2000, expected .* within -1..1"),
        ({"array": np.zeros(16000), "sampling_rate": 16000}, r"is a dict, expected .*read_audio\(predictions"),
        ((np.zeros(16000), 16000), "is a tuple, expected mono float samples"),
        (np.zeros(0), "(empty|0 samples)"),
    ],
)
def test_bad_speech(load, name, clip, message):
    good = np.random.default_rng(0).normal(size=16000) * 0.1
    references = ["hello", "there"] if name == "speech_wer" else [good, good]
    with pytest.raises(ValueError, match=rf"`predictions\[1\]` (.*{message})"):
        load(name).compute(predictions=[good, clip], references=references)
    with pytest.raises(ValueError, match="`sampling_rate` is 24000, expected speech at 16000 Hz"):
        load(name).compute(predictions=[good, good], references=references, sampling_rate=24000)


def test_voices_that_cannot_be_known(load):
    good = np.random.default_rng(0).normal(size=16000) * 0.1
    metric = load("speaker_similarity")
    with pytest.raises(ValueError, match=r"`references\[0\]` is silent"):
        metric.compute(predictions=[good], references=[np.zeros(16000)])
    with pytest.raises(ValueError, match=r"`predictions\[0\]` has 5000 samples, expected at least 0.5 s"):
        metric.compute(predictions=[good[:5000]], references=[good])
    with pytest.raises(ValueError, match="every item of `predictions` is None"):
        metric.compute(predictions=[None], references=[good])


def test_texts_that_cannot_be_judged(load):
    wer, caption = load("speech_wer"), load("motion_caption")
    with pytest.raises(ValueError, match=r"`references\[0\]` is NoneType, expected the text"):
        wer.compute(predictions=["hello"], references=[None])
    with pytest.raises(ValueError, match="`normalizer` is 'mine', expected one of: whisper_english"):
        wer.compute(predictions=["hello"], references=["hello"], normalizer="mine")
    texts = ["a person walks", "a man jumps high"]
    for references, name in (([["a"], []], 1), (["...", "a"], 0), ([None, "a"], 0), ([5, "a"], 0)):
        with pytest.raises(ValueError, match=rf"`references\[{name}\]` is .*at least one word"):
            caption.compute(predictions=texts, references=references)
    with pytest.raises(ValueError, match=r"`predictions\[0\]` is float, expected a caption"):
        caption.compute(predictions=[1.0, "a"], references=texts)
    with pytest.raises(ValueError, match="every item of `predictions` is None"):
        caption.compute(predictions=[None, None], references=texts)
    with pytest.raises(ValueError, match="all references are the same.*leave 'cider' out"):
        caption.compute(predictions=texts[:1], references=texts[:1])
    assert caption.compute(predictions=texts[:1], references=texts[:1], scores=["bleu"])["bleu_1"] == 1
    with pytest.raises(ValueError, match="`scores` is .*expected some of: bleu"):
        caption.compute(predictions=texts, references=texts, scores=["meteor"])


def test_answers_that_are_no_booleans(load):
    for answer in ("False", 0.7, float("nan")):
        with pytest.raises(ValueError, match=r"`predictions\[0\]` is .*expected True, False, or None"):
            load("answer_validity").compute(predictions=[answer])
    with pytest.raises(ValueError, match="got 0 `predictions`"):
        load("answer_validity").compute(predictions=[])


def test_collected_answers_that_are_no_booleans(load):
    validity = load("answer_validity")
    with pytest.raises(ValueError, match=r"`predictions\[1\]` is 'False', expected True"):
        validity.add_batch(predictions=[True, "False"])
    with pytest.raises(ValueError, match="is 'False', expected True"):
        validity.add(prediction="False")
    validity.add_batch(predictions=[])
    with pytest.raises(ValueError, match="got 0 `predictions`"):
        validity.compute()
