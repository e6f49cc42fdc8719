"""How the demo scores: right lines, swapped media, parsing of task outputs, recognition by neighbours."""

import math

import numpy as np
import pytest

from solami_hf.demo.evaluation import Shares, Turn, is_right, share, swap_media, task_motion, task_text
from solami_hf.demo.measure import FIGURES, target_met
from solami_hf.demo.recognition import ActionRecognizer
from solami_hf.generation.pipeline import Reply, SolamiPipeline
from solami_hf.processing.answers import Answer
from solami_hf.processing.motion import SmplxMotion


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
