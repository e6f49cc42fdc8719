"""What was heard of an answer becomes the history: its words, motion and speech up to its interruption."""

import numpy as np
import pytest
import torch

from solami_hf.generation import AnswerGrammar, AudioPiece, DialogueSession, SolamiPipeline, TextPiece
from solami_hf.processing.processing_solami import SolamiProcessor


@pytest.fixture
def make(tiny_model, tiny_processor):
    """`make(answer_format, interleaved)`: a pipeline whose answers last 2 s."""
    with torch.no_grad():
        for weight in tiny_model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.5)

    def build(answer_format="text_motion_speech", interleaved=True):
        processor = SolamiProcessor(
            tiny_processor.tokenizer, tiny_processor.motion_codec, tiny_processor.speech_codec,
            characters=tiny_processor.characters, answer_format=answer_format, interleaved=interleaved,
        )  # fmt: skip
        pipeline = SolamiPipeline(tiny_model, processor, max_new_tokens=300)
        bounds = {"min_seconds": 2.0, "max_seconds": 2.0, "max_new_tokens": 400, "max_text_tokens": 20}
        grammar = AnswerGrammar(processor, answer_format, interleaved, **bounds)
        pipeline.grammar = lambda *args, **kwargs: grammar
        # Answers of a random model have one word
        words = processor.tokenizer("please wave your hand", add_special_tokens=False)["input_ids"]
        given, ends = pipeline.generate_padded, processor.markers["eot"]

        def generate_padded(*args, **kwargs):
            (ids,) = given(*args, **kwargs)
            return [words + ids[ids.index(ends) :]] if ends in ids else [ids]

        if answer_format == "text_motion_speech":
            pipeline.worded = generate_padded
        return pipeline

    return build


def turn(number):
    return [{"type": "text", "text": f"turn {number}"}, {"type": "audio", "audio": {"codes": [number, 1, 2]}}]


def of_history(session):
    """The last message as words, and how many codes of body, hand and speech there are."""
    message = session.messages[-1]
    assert message["role"] == "assistant"
    media = {block["type"]: block[block["type"]] for block in message["content"]}
    motion = media.get("motion", {})
    speech = media.get("audio", {"codes": ()})["codes"]
    return media.get("text", ""), len(motion.get("body", ())), len(motion.get("hand", ())), len(speech)


def assert_next_answer_is_that_of_the_history(session):
    """The next answer is that of a fresh session given the same history, and the cache is what reading it gives."""
    fresh = DialogueSession(session.pipeline, character="ada")
    fresh._rounds = list(session._rounds)
    assert fresh.context_ids == session.context_ids and len(session._cached) <= len(session.context_ids)
    ours, theirs = (each.answer(turn(9), decode=False) for each in (session, fresh))
    assert ours.valid and ours.answer.text_ids == theirs.answer.text_ids
    assert np.array_equal(ours.answer.body, theirs.answer.body) and session.context_ids == fresh.context_ids
    with torch.no_grad():
        read = session.pipeline.model(torch.tensor([session._cached]), use_cache=True).past_key_values
    for layer, expected in zip(session._cache.layers, read.layers, strict=True):
        assert torch.allclose(layer.keys, expected.keys, atol=1e-4)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_whole_answer_is_shortened(make, monkeypatch, interleaved):
    pipeline = make(interleaved=interleaved)
    session = DialogueSession(pipeline, character="ada")
    assert session.truncate_answer(1.0) is False  # no answer yet
    session.answer(turn(0), decode=False)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "generate_padded", pipeline.worded)
        session._forget(0)
        assert session.answer(turn(1), decode=False).valid
    session._forget(0)  # the cache has other words
    whole = session.context_ids
    assert of_history(session) == ("please wave your hand", 15, 15, 100)
    assert session.truncate_answer(1.2) and of_history(session) == ("please wave...", 9, 9, 60)
    assert session.truncate_answer(0.8) and of_history(session) == ("please...", 6, 6, 40)
    assert not session.truncate_answer(0.3) and session.rounds == 1  # half of "please"
    assert not session.truncate_answer(0.0) and session.rounds == 1
    assert session.truncate_answer(2.0) and session.context_ids == whole and session.rounds == 2
    assert session.truncate_answer(1.2) and session.rounds == 2
    answer = pipeline.processor.parse_response(session._rounds[-1].answer_ids)
    assert answer.valid  # as well formed as any other
    assert_next_answer_is_that_of_the_history(session)


@pytest.mark.parametrize(("answer_format", "interleaved"), [("motion_speech", True), ("text_motion_speech", True),
                                                           ("motion_speech", False)])  # fmt: skip
def test_a_cancelled_answer_enters_as_far_as_it_was_heard(make, answer_format, interleaved):
    session = DialogueSession(make(answer_format, interleaved), character="ada")
    session.answer(turn(0), decode=False)
    before = session.context_ids
    stream = session.stream(turn(1))
    text, heard = "", 0
    for event in stream:
        text += event.text if isinstance(event, TextPiece) else ""
        heard += isinstance(event, AudioPiece)
        if heard == 2 and isinstance(event, AudioPiece):
            with pytest.raises(RuntimeError, match="is answering"):
                session.truncate_answer(1.0)
            session.cancel()
    assert session.rounds == 1 and session.context_ids == before
    assert not session.truncate_answer(0.0) and session.context_ids == before
    assert session.truncate_answer(0.4 if answer_format == "motion_speech" else 60.0) and session.rounds == 2
    said, body, hand, speech = of_history(session)
    if answer_format == "motion_speech":
        assert (said, body, hand, speech) == ("", 3, 3, 20)
    else:
        assert said == text + "..." and 0 < body == hand and 20 < speech
    assert_next_answer_is_that_of_the_history(session)
    assert session.truncate_answer(60.0) and session.rounds == 3  # of the answer after it


def test_words_alone_are_not_heard_and_other_changes_end_it(make):
    session = DialogueSession(make(), character="ada")
    stream = session.stream(turn(0))
    assert isinstance(next(stream), TextPiece)
    session.cancel()
    list(stream)
    assert not session.truncate_answer(0.0) and session.rounds == 0
    session.answer(turn(0), decode=False)
    twin = session.fork()
    session.reset()
    assert not session.truncate_answer(1.0) and session.rounds == 0
    assert twin.truncate_answer(5.0) and twin.rounds == 1
    with pytest.raises(ValueError):
        twin.answer([])
    assert not twin.truncate_answer(0.1) and twin.rounds == 1  # that was another turn
