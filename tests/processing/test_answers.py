"""Strict parsing of answers: each deviation from the format makes an answer invalid, none is repaired."""

from types import SimpleNamespace

import pytest

from solami_hf.modeling.solami.vocabulary import build_layout
from solami_hf.processing.answers import parse_answer

MODALITIES, MARKERS = build_layout({"speech": 8, "body": 4, "hand": 4, "trans": 2}, 10)
CONFIG = SimpleNamespace(modalities=MODALITIES, markers=MARKERS, answer_format="motion_speech", interleaved=False)


def ids(*parts):
    names = {**MARKERS}
    result = []
    for part in parts:
        name, _, code = part.partition(":")
        result.append(names[name] if not code else MODALITIES[name]["first_id"] + int(code))
    return result


MOTION = ("sobo", "body:1", "body:2", "eobo", "soha", "hand:3", "hand:0", "eoha")
SPEECH = ("sosp", "speech:7", "eosp")


def test_a_good_answer():
    answer = parse_answer(ids(*MOTION, *SPEECH, "eos") + [10, 10], CONFIG)
    assert answer.valid
    assert answer.body.tolist() == [1, 2] and answer.hand.tolist() == [3, 0] and answer.speech.tolist() == [7]


def test_a_transcript_first():
    answer = parse_answer([1, 2] + ids("eot", *MOTION, *SPEECH, "eos"), CONFIG, answer_format="text_motion_speech")
    assert answer.valid and answer.text_ids == [1, 2]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (ids(*MOTION, *SPEECH), "no <eos>"),
        (ids(*MOTION, "eos"), "no single speech span"),
        (ids(*SPEECH, *MOTION, "eos"), "out of place"),
        (ids("sobo", "body:1", "eobo", "soha", "hand:3", "hand:0", "eoha", *SPEECH, "eos"), "1 body codes but 2"),
        (ids("sobo", "hand:1", "body:2", "eobo", "soha", "hand:3", "hand:0", "eoha", *SPEECH, "eos"), "foreign"),
        (ids("sobo", "eobo", "soha", "eoha", *SPEECH, "eos"), "body span empty"),
        (ids(*MOTION, *SPEECH, "speech:1", "eos"), "tokens after the last span"),
        ([1] + ids(*MOTION, *SPEECH, "eos"), "out of place"),
        ([], "no <eos>"),
    ],
)
def test_broken_answers_are_invalid(broken, reason):
    answer = parse_answer(broken, CONFIG)
    assert not answer.valid
    assert reason in answer.reason


def test_a_missing_transcript_is_invalid():
    answer = parse_answer(ids(*MOTION, *SPEECH, "eos"), CONFIG, answer_format="text_motion_speech")
    assert not answer.valid and "no <eot>" in answer.reason
    answer = parse_answer(ids("eot", *MOTION, *SPEECH, "eos"), CONFIG, answer_format="text_motion_speech")
    assert not answer.valid and "transcript empty" in answer.reason


def test_interleaved_answers_are_read_as_such():
    # In 0.4 s fit three codes of motion, so of this answer only the ends of the spans could lie in another chunk.
    sequential = ids("sobo", *["body:1"] * 4, "eobo", "soha", *["hand:2"] * 4, "eoha", *SPEECH, "eos")
    interleaved = ids(
        *("sobo", *["body:1"] * 3, "soha", *["hand:2"] * 3, *SPEECH), *("body:1", "eobo", "hand:2", "eoha", "eos")
    )
    assert parse_answer(sequential, CONFIG).valid and not parse_answer(interleaved, CONFIG).valid
    assert parse_answer(interleaved, CONFIG, interleaved=True).valid
    assert not parse_answer(sequential, CONFIG, interleaved=True).valid
