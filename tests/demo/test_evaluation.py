"""How the demo scores: right lines, swapped media, parsing of task outputs, recognition by neighbours."""

import math

import numpy as np
import pytest

from solami_hf.demo.demo_evaluation import (
    ActionRecognizer,
    Shares,
    Turn,
    is_right,
    measure_voice,
    self_history,
    share,
    swap_media,
    task_motion,
    task_text,
    transcripts,
)
from solami_hf.demo.measure import FIGURES, target_met
from solami_hf.generation.pipeline import Reply, SolamiPipeline
from solami_hf.processing.answers import Answer
from solami_hf.processing.motion.smplx_motion import SmplxMotion


def turn(audio, motion, say="Hello!"):
    content = [{"type": "motion", "motion": motion}, {"type": "audio", "audio": audio}]
    return Turn(
        [{"role": "system", "content": "s"}, {"role": "user", "content": content}], say, "wave", "words", "", "", "", 1
    )


def reply(text, valid=True):
    return Reply(text, None, None, 16000, valid, Answer())


def test_share():
    assert share([True, False, True, True]) == 75
    assert math.isnan(share([]))


def test_shares_come_with_their_intervals():
    shares = Shares()
    rows = [f"rates-{i // 2}" for i in range(80)]
    shares.add("right", [i % 4 > 0 for i in range(80)], rows)
    shares.add("swapped", [False] * 80, rows)
    shares.add("nothing", [], [])
    shares.subtract("points", "right", "swapped")
    assert shares.figures["right"] == shares.figures["points"] == 75 and math.isnan(shares.figures["nothing"])
    low, high = shares.intervals["right"]
    # 40 conversations, half of them with one of two rounds right: 75 +- 1.96 * 25 / sqrt(40).
    assert low == pytest.approx(75 - 7.7, abs=1) and high == pytest.approx(75 + 7.7, abs=1)
    assert shares.intervals["points"] == pytest.approx((low, high), abs=1) and "nothing" not in shares.intervals


def test_a_line_is_right_by_its_words():
    assert is_right(reply("hello"), turn(1, 2))
    assert not is_right(reply("hello", valid=False), turn(1, 2))
    assert not is_right(reply("hello there"), turn(1, 2))


def test_controls_swap_one_medium_and_leave_the_other():
    mine, other = turn("my sound", "my motion"), turn("their sound", "their motion")
    swapped = swap_media(mine, other, "audio")
    assert [b[b["type"]] for b in swapped[-1]["content"]] == ["my motion", "their sound"]
    assert swapped[0] == mine.messages[0]
    assert mine.messages[-1]["content"][1]["audio"] == "my sound"


def test_a_transcript_is_what_the_whole_answer_begins_with(tiny_model, tiny_processor):
    pipeline = SolamiPipeline(tiny_model, tiny_processor, max_new_tokens=80)
    conversations = [
        [{"role": "system", "content": "You are Ada."},
         {"role": "user", "content": [{"type": "audio", "audio": {"codes": codes}}]}]
        for codes in ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10])
    ]  # fmt: skip
    whole = pipeline.respond(conversations, decode=False)
    assert transcripts(pipeline, conversations, "") == [r.text for r in whole] and any(r.text for r in whole)


def test_later_rounds_follow_the_models_own_valid_answers(monkeypatch):
    def one(row, number):
        messages = [{"role": "system", "content": row}] + [{"role": "user", "content": f"{row}{number}"}]
        return Turn(messages, "yes", "", "words", "", "", row, number)

    asked = []

    class Pipeline:
        def respond(self, conversations, decode):
            asked.extend([message["content"] for message in messages] for messages in conversations)
            return [reply("yes", valid=messages[-1]["content"] != "a2") for messages in conversations]

    monkeypatch.setattr(Reply, "message", lambda self: {"role": "assistant", "content": self.text})
    turns = [one("a", 1), one("a", 2), one("a", 3), one("b", 1), one("b", 2), one("c", 1)]
    first = {"a": reply("own"), "b": reply("broken", valid=False), "c": reply("own")}
    assert self_history(Pipeline(), turns, first) == [False, True, True]
    assert sorted(asked) == [["a", "a1", "own", "a2"], ["a", "a1", "own", "a3"], ["b", "b2"]]


def test_equal_answers_are_made_into_sound_once():
    class Pipeline:
        class processor:
            spoken = []
            voice_of = staticmethod(lambda messages: "heart")

            @classmethod
            def decode_speech(cls, codes, voice):
                cls.spoken.append((codes, voice))
                return codes

    replies = [
        Reply("hello", None, None, 16000, True, Answer(speech=np.array(codes))) for codes in ([1, 2], [3], [1, 2])
    ]
    heard = {1: "hello", 3: "good bye"}
    figures = measure_voice(
        Pipeline(), replies, [turn(1, 2)] * 3, ["Hello!", "Good bye!"], lambda sounds: [heard[s[0]] for s in sounds]
    )
    assert Pipeline.processor.spoken == [([1, 2], "heart"), ([3], "heart")]
    assert figures["round1_right_line_heard"] == pytest.approx(200 / 3)
    assert figures["voice_wer"] == pytest.approx(200 / 3)  # two wrong words for three


def test_generated_motion_is_parsed_strictly(tiny_model, tiny_processor):
    pipeline = SolamiPipeline(tiny_model, tiny_processor)

    def ids(text):
        return tiny_processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    good = "<sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha>"
    codes = task_motion(pipeline, ids(good + "<eos><pad>"))
    assert codes["body"].tolist() == [1, 2] and codes["hand"].tolist() == [3, 4]
    for bad in (good, good.replace("<🤚4>", "") + "<eos>", good.replace("<eobo>", "") + "<eos>", "waves<eos>"):
        assert task_motion(pipeline, ids(bad)) is None
    assert task_text(pipeline, ids("a person waves<eos><pad>")) == "a person waves"


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
