"""How the demo scores: shares with intervals, controls, answers as results folders, recognition by neighbours."""

import json
import math

import numpy as np
import pytest

from solami_hf.demo import demo_evaluation
from solami_hf.demo.action_recognizer import ActionRecognizer
from solami_hf.demo.demo_evaluation import (
    FIGURES,
    answer,
    chat_jobs,
    in_percent,
    measure_motion,
    measure_voice,
    most_frequent,
    target_met,
    word_error_rate,
)
from solami_hf.generation.inputs import Dialogue
from solami_hf.generation.pipeline import SolamiPipeline
from solami_hf.metrics.evaluation.answer_pairs import Pair
from solami_hf.metrics.evaluation.command import EvaluateArguments, run
from solami_hf.metrics.evaluation.intervals import Ratio, difference, summarize
from solami_hf.processing.motion.smplx_motion import SmplxMotion


def pair(text, valid=True, hoped="Hello!", **row):
    return Pair("d", 1, valid, None, None, text if valid else None, None, None, (hoped,), {"system": "s", **row})


def test_shares_come_in_percent_with_their_intervals():
    rows = [f"rates-{i // 2}" for i in range(80)]
    right, swapped = Ratio(rows, [i % 4 > 0 for i in range(80)]), Ratio(rows, [False] * 80)
    found = in_percent(
        {"right": summarize([right]), "points": difference([right], [swapped]), "nothing": summarize([Ratio([], [])])},
        {"wer": 12.5, "unknown": math.nan},
        {"round1": 80},
    )
    assert found["figures"] == {"right": 75, "points": 75, "wer": 12.5} and found["counts"] == {"round1": 80}
    low, high = found["intervals"]["right"]
    # 40 conversations, half of them with one of two rounds right: 75 +- 1.96 * 25 / sqrt(40).
    assert low == pytest.approx(75 - 7.7, abs=1) and high == pytest.approx(75 + 7.7, abs=1)
    assert found["intervals"]["points"] == pytest.approx((low, high), abs=1) and "nothing" not in found["intervals"]


def test_a_line_is_right_by_its_words():
    flags = demo_evaluation._right([pair("hello"), pair("hello", valid=False), pair("hello there")])
    assert list(flags.parts) == [True, False, False]


def test_the_most_frequent_answer():
    def row(split, say):
        return {"split": split, "character": "ada", "turns": [{}, {}, {"text": say}]}

    rows = {"a": row("train", "yes"), "b": row("train", "yes"), "c": row("train", "no"), "d": row("test", "yes")}
    rows["e"] = row("test", "no")
    assert most_frequent(rows, ["d", "e"]) == 0.5


@pytest.fixture
def dialogues():
    """Three dialogues of two rounds, the codes of each its own number, and their actions as in the manifest."""

    def turns(number):
        codes = {name: [number] * 2 for name in ("body", "hand", "speech")}
        user = {"role": "user", "motion_text": "", **codes, "trans": [number]}
        reply = {"role": "assistant", "motion_text": "", **codes, "trans": []}
        said = [{**turn, "text": f"{turn['role']} {number} {n}"} for n in (1, 2) for turn in (user, reply)]
        return [{"role": "system", "text": "You are Ada."}, *said]

    found = [Dialogue(f"rates-{i}", "", "ada", turns(i), [{}] * 5) for i in (1, 2, 3)]
    actions = {"rates-1": "wave", "rates-2": "wave", "rates-3": "bow"}
    return found, {name: {"turns": [{}, {"action": action}]} for name, action in actions.items()}


def test_controls_exchange_one_medium_and_leave_the_other(tiny_model, tiny_processor, dialogues):
    jobs = [
        job.columns for stage in chat_jobs(SolamiPipeline(tiny_model, tiny_processor), *dialogues, 0) for job in stage
    ]
    by_condition = {name: [c for c in jobs if c["condition"] == name] for name in {c["condition"] for c in jobs}}
    assert {name: len(rows) for name, rows in by_condition.items()} == {
        "given": 6, "own_history": 6, "no_history": 6, "other_audio": 3, "other_motion": 3,
    }  # fmt: skip
    for row in by_condition["other_audio"]:
        number = int(row["id"][-1])
        assert row["user_body"] == [number] * 2 and row["user_speech"] in [[n] * 2 for n in {1, 2, 3} - {number}]
        assert row["reference_text"] == [f"assistant {number} 1"] and row["round"] == 1
    moved = {row["id"]: (row["user_body"][0], row["user_hand"][0], row["user_trans"][0], row["user_speech"][0])
             for row in by_condition["other_motion"]}  # fmt: skip
    assert moved["rates-1"] == (3, 3, 3, 1) and moved["rates-2"] == (3, 3, 3, 2)  # the only other action
    assert moved["rates-3"][:3] in ((1, 1, 1), (2, 2, 2)) and moved["rates-3"][3] == 3
    assert dialogues[0][0].turns[1]["speech"] == [1, 1]


def test_answers_are_results_that_solami_evaluate_reads(tiny_model, tiny_processor, dialogues, tmp_path, monkeypatch):
    monkeypatch.setitem(demo_evaluation.LONGEST, "chat", 80)
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    pipeline, place = SolamiPipeline(tiny_model, tiny_processor), (tmp_path / "model", tmp_path / "chat", tmp_path)
    results = answer(pipeline, *place, chat_jobs(pipeline, *dialogues, 0))
    assert results.task == "chat" and results.run["finished"] and len(results.rows) == 24
    assert all(row["valid"] and row["body"] and row["speech"] for row in results.rows)
    again = answer(pipeline, *place, chat_jobs(pipeline, *dialogues, 0))
    assert again.rows == results.rows
    monkeypatch.setattr("solami_hf.metrics.evaluation.parts.Measures._sound", lambda self, sound: {"seconds": 1.0})
    monkeypatch.setattr("solami_hf.metrics.evaluation.parts.Measures._voices", lambda self, sound, reference: {})
    found = json.loads((run(EvaluateArguments("chat", [str(tmp_path / "chat")])) / "evaluation.json").read_text())
    assert set(found["evaluations"][0]["controls"]) == {"listening", "watching"}


def test_equal_answers_are_made_into_sound_once():
    class Pipeline:
        class processor:
            spoken = []
            voice_of = staticmethod(lambda messages: "heart")

            @classmethod
            def decode_speech(cls, codes, voice):
                cls.spoken.append((codes, voice))
                return codes

    pairs = [pair("hello", speech=codes) for codes in ([1, 2], [3], [1, 2])] + [pair("hello", valid=False)]
    heard = {1: "hello", 3: "good bye"}
    figures = measure_voice(Pipeline(), pairs, ["Hello!", "Good bye!"], lambda sounds: [heard[s[0]] for s in sounds])
    assert Pipeline.processor.spoken == [([1, 2], "heart"), ([3], "heart")]
    assert figures["round1_right_line_heard"] == pytest.approx(200 / 3)
    assert figures["voice_wer"] == figures["voice_wer_expected"] == pytest.approx(200 / 3)  # two wrong words for three
    assert measure_voice(Pipeline(), pairs[3:], [], None) == {}


def test_motions_are_measured_by_the_modules(tiny_model, tiny_processor, small_motion):
    real = [small_motion, SmplxMotion(small_motion.transl * 2, small_motion.poses * 2), small_motion, small_motion]
    figures = measure_motion(SolamiPipeline(tiny_model, tiny_processor), real, [real[1], None, real[0], real[1]])
    assert list(figures) == ["codec_mpjpe", "codec_pa_mpjpe", "t2m_fid", "real_fid", "t2m_diversity", "real_diversity"]
    assert all(np.isfinite(value) for value in figures.values()) and figures["codec_mpjpe"] > 0
    few = measure_motion(SolamiPipeline(tiny_model, tiny_processor), real, [None, None, None, real[0]])
    assert list(few) == ["codec_mpjpe", "codec_pa_mpjpe"] and few["codec_mpjpe"] == figures["codec_mpjpe"]


def test_word_errors_leave_case_and_punctuation():
    assert word_error_rate(["HELLO there", "no"], ["Hello, there!", "No way."]) == 25


def test_generated_motion_is_parsed_strictly(tiny_processor):
    def parsed(text):
        return tiny_processor.parse_response(
            tiny_processor.tokenizer(text, add_special_tokens=False)["input_ids"], "motion"
        )

    good = "<sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha>"
    codes = parsed(good + "<eos><pad>")
    assert codes.valid and codes.body.tolist() == [1, 2] and codes.hand.tolist() == [3, 4]
    for bad in (good, good.replace("<🤚4>", "") + "<eos>", good.replace("<eobo>", "") + "<eos>", "waves<eos>"):
        assert not parsed(bad).valid


def test_nearest_neighbour_ignores_place_and_facing():
    rng = np.random.default_rng(0)
    poses = rng.normal(size=(2, 30, 55, 3)) * 0.3
    poses[:, :, 0] = 0
    clips = [SmplxMotion(np.zeros((30, 3)), p) for p in poses]
    recognizer = ActionRecognizer(clips, ["one", "two"])
    turned = poses[1] + rng.normal(size=poses[1].shape) * 0.01
    turned[:, 0] = [0, 2.0, 0]
    assert recognizer(SmplxMotion(np.full((30, 3), 2.0), turned)) == "two"


def test_targets():
    assert target_met("motion_to_text", 90.0) and not target_met("motion_to_text", 89.9)
    assert target_met("voice_wer_expected", 25) and not target_met("voice_wer_expected", 25.1)
    assert target_met("t2m_fid", 3.0) is None


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_explained(name):
    assert {"group", "name", "unit", "meaning"} <= set(FIGURES[name]) and FIGURES[name]["meaning"].endswith(".")
