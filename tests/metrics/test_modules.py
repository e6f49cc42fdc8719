"""The metric folders as a user loads them: `evaluate.load(folder_of(name))`, offline."""

import json
import re

import numpy as np
import pytest

from solami_hf.metrics import NAMES, folder_of


def test_unknown_metric():
    with pytest.raises(ValueError, match="`name` is 'fid', expected one of: motion_fid"):
        folder_of("fid")


@pytest.mark.parametrize("name", NAMES)
def test_every_folder_has_module_card_and_app(name):
    from pathlib import Path

    folder = Path(folder_of(name))
    assert {p.name for p in folder.iterdir() if p.is_file()} == {"README.md", "app.py", f"{name}.py"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\ntitle: ") and "sdk: gradio" in card
    for part in ("Inputs", "Output", "Limits"):
        assert f"\n## {part}\n" in card, part
    if name == "dialogue_judge":  # more on it in its own test
        return
    for part in ("Formula", "Published values", "Citation"):
        assert f"\n## {part}\n" in card, part
    assert re.search(r"(higher|lower|best|more) ", card) and "```bibtex" in card
    assert f'"{name}.py"' in (folder / "app.py").read_text(encoding="utf-8")


def test_fid_of_copies_is_zero_and_a_scale_is_seen(load, motions):
    fid = load("motion_fid")
    same = fid.compute(predictions=motions, references=motions)
    assert list(same)[0] == "fid" and same["fid"] == pytest.approx(0, abs=1e-3)
    assert {k: same[k] for k in ("valid", "num_predictions", "num_references", "mode")} == {
        "valid": 1.0, "num_predictions": 3, "num_references": 3, "mode": "corrected",
    }  # fmt: skip
    tiny = [motion * 0.001 for motion in motions]
    assert fid.compute(predictions=tiny, references=motions)["fid"] > 10
    assert fid.compute(predictions=tiny, references=motions, mode="upstream")["fid"] < 0.1


def test_missing_predictions_count_in_valid(load, motions):
    result = load("motion_fid").compute(predictions=[motions[0], None, motions[2]], references=motions)
    assert result["valid"] == pytest.approx(2 / 3)


def test_batches_give_the_same_as_whole_lists(load, motions):
    mpjpe = load("motion_mpjpe")
    predictions = [motions[0] + 0.01, None, motions[1][:9]]
    whole = mpjpe.compute(predictions=predictions, references=motions)
    mpjpe.add_batch(predictions=predictions[:2], references=motions[:2])
    mpjpe.add(prediction=predictions[2], reference=motions[2])
    batched = mpjpe.compute()
    assert batched.pop("mode") == whole.pop("mode") == "corrected"
    assert batched == pytest.approx(whole, rel=1e-4)


def test_diversity_stands_beside_the_references_own(load, motions):
    result = load("motion_diversity").compute(predictions=[motions[0]] * 3, references=motions)
    assert list(result)[:2] == ["diversity", "reference_diversity"]
    assert result["diversity"] == 0 and result["reference_diversity"] > 1


def test_mpjpe_of_known_errors(load):
    reference = np.zeros((4, 55, 3))
    reference[:, 1:] = np.random.default_rng(0).normal(size=(54, 3))
    moved = reference + [5.0, 0, 0]
    result = load("motion_mpjpe").compute(predictions=[moved], references=[reference])
    assert {k: round(result[k], 4) for k in ("mpjpe", "pa_mpjpe", "accel", "bone_angle", "covered")} == {
        "mpjpe": 0, "pa_mpjpe": 0, "accel": 0, "bone_angle": 0, "covered": 1.0,
    }  # fmt: skip
    lifted = reference.copy()
    lifted[:, 1] += [0, 0.055, 0]
    assert load("motion_mpjpe").compute(predictions=[lifted], references=[reference])["mpjpe"] == pytest.approx(1.0)


def test_mpjpe_divides_by_what_was_compared_and_upstream_by_the_reference(load):
    reference = np.zeros((8, 55, 3))
    prediction = reference[:4].copy()
    prediction[:, 1, 0] = 0.055
    mpjpe = load("motion_mpjpe")
    assert mpjpe.compute(predictions=[prediction], references=[reference])["mpjpe"] == pytest.approx(1.0)
    upstream = mpjpe.compute(predictions=[prediction], references=[reference], mode="upstream")
    assert upstream["mpjpe"] == pytest.approx(0.5)
    assert upstream["covered"] == 0.5 and "angle_error" in upstream and "bone_angle" not in upstream


@pytest.mark.parametrize("name", ["motion_fid", "motion_diversity", "motion_mpjpe"])
def test_bad_input_of_motion_metrics(load, motions, name):
    module = load(name)
    with pytest.raises(ValueError, match="`mode` is 'theirs'"):
        module.compute(predictions=motions, references=motions, mode="theirs")
    with pytest.raises(ValueError, match="got 2 `predictions` and 3 `references`"):
        module.compute(predictions=motions[:2], references=motions)
    with pytest.raises(ValueError, match=r"`predictions\[1\]` has shape \(20, 54, 3\)"):
        module.compute(predictions=[motions[0], motions[1][:, :54], motions[2]], references=motions)


def test_wer_upstream_is_the_originals(load, golden):
    data = json.loads((golden / "metrics/wer.json").read_text(encoding="utf-8"))
    wer = load("speech_wer")
    # The golden file's pairs are (reference, hypothesis).
    references, predictions = zip(*data["pairs"], strict=True)
    result = wer.compute(predictions=list(predictions), references=list(references), mode="upstream")
    assert result["wer"] == pytest.approx(data["mean_per_utterance"])
    single = wer.compute(predictions=["the cat sat mat"], references=["the cat sat on the mat"], mode="upstream")
    assert single["wer"] == pytest.approx(2 / 6)
    assert wer.compute(predictions=["x"], references=[""], mode="upstream")["wer"] == data["empty_reference"]


def test_wer_normalizes_and_weighs_by_words(load):
    wer = load("speech_wer")
    result = wer.compute(
        predictions=[None, "I'm Batman, twenty one!", "no"], references=["gone", "i am batman 21", "no no no"]
    )
    # 4 + 3 words, 2 of them missing; the missing transcript only counts in `valid`.
    assert result == {"wer": pytest.approx(2 / 7), "num_words": 7, "model": None, "normalizer": "whisper_english",
                      "valid": pytest.approx(2 / 3), "num_predictions": 3, "mode": "corrected"}  # fmt: skip


def test_bad_input_of_wer(load):
    wer = load("speech_wer")
    with pytest.raises(ValueError, match="a reference is empty"):
        wer.compute(predictions=["hello"], references=["..."])
    with pytest.raises(ValueError, match=r"`predictions\[0\]` is 'out/a.wav', a file's name; expected its samples"):
        wer.compute(predictions=["out/a.wav"], references=["hello"])
    with pytest.raises(ValueError, match="got 1 `predictions` and 2 `references`"):
        wer.compute(predictions=["hello"], references=["hello", "there"])
    with pytest.raises(ValueError, match="`predictions` holds neither speech nor a transcript"):
        wer.compute(predictions=[None], references=["hello"])
    with pytest.raises(ValueError, match="`mode` is 'x'"):
        wer.compute(predictions=["a"], references=["a"], mode="x")


def test_answer_validity(load):
    validity = load("answer_validity")
    result = validity.compute(predictions=[None, True, False, True])
    assert result == {"valid": 0.5, "low": pytest.approx(0.15, abs=0.005), "high": pytest.approx(0.85, abs=0.005),
                      "num_predictions": 4, "mode": "corrected"}  # fmt: skip
    assert validity.compute(predictions=[True] * 100)["low"] == pytest.approx(0.963, abs=0.001)
    with pytest.raises(ValueError, match="`mode` is 'x'"):
        validity.compute(predictions=[True], mode="x")
