"""Streams of a session: the codes of a whole answer, its words, motion and sound as they come, and how they stop."""

import copy
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from solami_hf.generation import (
    AnswerEnd,
    AnswerGrammar,
    AudioPiece,
    DialogueSession,
    MotionPiece,
    SolamiPipeline,
    TextPiece,
)
from solami_hf.generation.streaming import AnswerDecoder
from solami_hf.modeling.talker.modeling_talker import SolamiTalkerModel
from solami_hf.processing.processing_solami import SolamiProcessor
from tests.small_speech import own_codec, soundstorm


def make_pipeline(model, processor, interleaved, answer_format="text_motion_speech", seconds=None):
    with torch.no_grad():  # so that answers differ from turn to turn
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.5)
    speech = copy.deepcopy(processor.speech_codec)
    with torch.no_grad():  # so quiet that nothing has to be turned down
        speech.decoder.layers[-1].gain.mul_(0.1)
    processor = SolamiProcessor(
        processor.tokenizer, processor.motion_codec, speech, characters=processor.characters,
        answer_format=answer_format, interleaved=interleaved,
    )  # fmt: skip
    pipeline = SolamiPipeline(model, processor, max_new_tokens=200)
    if seconds:
        bounds = {"min_seconds": seconds, "max_seconds": seconds, "max_new_tokens": 400, "max_text_tokens": 20}
        grammar = AnswerGrammar(processor, answer_format, interleaved, **bounds)
        pipeline.grammar = lambda *args, **kwargs: grammar
    return pipeline


@pytest.fixture
def pipeline(tiny_model, tiny_processor):
    return make_pipeline(tiny_model, tiny_processor, interleaved=True, seconds=2.0)


def turn(number):
    return [{"type": "text", "text": f"turn {number}"}, {"type": "audio", "audio": {"codes": [number, 1, 2]}}]


def is_generating():
    return any(thread.name == "answer" for thread in threading.enumerate())


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "top_k": 20}])
@pytest.mark.parametrize("answer_format", ["motion_speech", "text_motion_speech"])
@pytest.mark.parametrize("interleaved", [False, True])
def test_streamed_and_whole_answers_are_one(tiny_model, tiny_processor, interleaved, answer_format, settings):
    pipeline = make_pipeline(tiny_model, tiny_processor, interleaved, answer_format, seconds=1.2)
    session = DialogueSession(pipeline, character="ada")
    twin = session.fork()
    for number in range(2):
        torch.manual_seed(number)
        *events, last = session.stream(turn(number), lookahead=22, **settings)
        torch.manual_seed(number)
        whole = twin.answer(turn(number), **settings)
        streamed = last.reply
        assert isinstance(last, AnswerEnd) and streamed.valid and whole.valid and streamed.text == whole.text
        for name in ("text_ids", "body", "hand", "speech"):
            assert np.array_equal(getattr(streamed.answer, name), getattr(whole.answer, name))
        assert "".join(event.text for event in of_kind(events, TextPiece)) == whole.text
        assert len(whole.answer.body) == 9 and streamed.motion.num_frames == 36
        assert 1e-3 < np.abs(whole.audio).max() < 0.25
        np.testing.assert_allclose(streamed.audio, whole.audio, atol=2e-6)
        np.testing.assert_allclose(streamed.motion.to_params(), whole.motion.to_params(), atol=1e-4)
        assert session.context_ids == twin.context_ids
    assert last.start == 1.2 and session.rounds == 2
    for kind, rate in ((MotionPiece, 30), (AudioPiece, 16000)):
        place = 0
        for event in of_kind(events, kind):
            assert event.start == pytest.approx(place / rate)
            place += event.motion.num_frames if kind is MotionPiece else len(event.samples)
        assert place == {MotionPiece: 36, AudioPiece: 19200}[kind]


class Speller(torch.nn.Module):
    """A talker that says a code for each letter, twenty times."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def encode_text(self, text):
        self.texts.append(text)
        return {"input_ids": torch.tensor([[ord(letter) % 32 for letter in text]])}

    def generate(self, input_ids):
        codes = input_ids.repeat_interleave(20, 1)
        return SimpleNamespace(codes=codes, code_mask=torch.ones_like(codes, dtype=torch.bool))

    say = SolamiTalkerModel.say


def test_a_talker_says_the_words(tiny_model, tiny_processor):
    pipeline = make_pipeline(tiny_model, tiny_processor, False, "text_motion", seconds=1.2)
    with pytest.raises(ValueError, match="has none; train one with `solami train-talker`"):
        pipeline([{"role": "user", "content": "hi"}])
    pipeline.processor._models.loaded["talker"] = Speller()
    session = DialogueSession(pipeline, character="ada")
    twin = session.fork()
    *events, last = session.stream("hi")
    assert pipeline.processor.talker.texts == [last.reply.text]  # said once
    whole = twin.answer("hi")
    assert last.reply.valid and last.reply.text == whole.text and not len(whole.answer.speech)
    assert np.array_equal(last.reply.speech, whole.speech)
    assert len(whole.audio) == 320 * len(whole.speech) == 6400 * len(whole.text)
    np.testing.assert_allclose(last.reply.audio, whole.audio, atol=2e-6)
    kinds = [type(event) for event in events]
    assert kinds.index(AudioPiece) < kinds.index(MotionPiece) and kinds.count(AudioPiece) > 1
    assert [block["type"] for block in whole.message()["content"]] == ["text", "motion"]
    assert session.context_ids == twin.context_ids
    again = pipeline([{"role": "user", "content": "hi"}, whole.message(), {"role": "user", "content": "and?"}])
    assert again.valid and len(again.speech)


def test_a_talker_begins_before_the_words_end(tiny_model, tiny_processor):
    processor = make_pipeline(tiny_model, tiny_processor, False, "text_motion").processor
    processor._models.loaded["talker"] = Speller()
    decoder = AnswerDecoder(processor, answer_format="text_motion")
    words = processor.tokenizer.encode("hi there you. and you hi", add_special_tokens=False)
    heard = [[type(event) for event in decoder.push([token])] for token in words]
    first = next(number for number, kinds in enumerate(heard) if AudioPiece in kinds)
    assert first < len(words) - 1 and decoder.said is None
    assert processor.talker.texts == ["hi there you."]
    list(decoder.push([processor.markers["eot"]]))
    assert processor.talker.texts == ["hi there you.", "and you hi"]
    whole = processor.say("hi there you. and you hi")
    assert np.array_equal(decoder.said, whole)
    codes = processor.modalities["body"]["first_id"]
    for _ in range(len(whole) // 20):  # the sound has ended before the body's codes have
        list(decoder.push([codes]))
    assert len(decoder.audio) == 320 * len(whole)
    list(decoder.finish())
    assert len(decoder.audio) == 320 * len(whole)


def test_a_sentence_is_heard_to_its_end_before_the_next_is_written(tiny_processor):
    speech = own_codec(codebook_size=32)
    processor = SolamiProcessor(
        tiny_processor.tokenizer,
        tiny_processor.motion_codec,
        speech,
        acoustic_model=soundstorm(3, 32),
        answer_format="text_motion",
    )
    processor._models.loaded["talker"] = Speller()
    words = processor.tokenizer.encode(f"hi there you.{' and you hi' * 8}", add_special_tokens=False)
    rest = [processor.markers["eot"], *[processor.modalities["body"]["first_id"]] * 60]
    sounds = []
    for size in (1, 200):  # the same sound, however many tokens come at once
        decoder = AnswerDecoder(processor, answer_format="text_motion")
        assert not any(e.ends_text for e in AnswerDecoder(processor).push(words) if isinstance(e, TextPiece))
        events = [e for i in range(0, len(words), size) for e in decoder.push(words[i : i + size])]
        heard = [event for event in events if isinstance(event, AudioPiece)]
        if size == 1:
            ahead = processor.speech_codec.config.decoder_lookahead
            assert decoder.said is None and sum(len(piece.samples) for piece in heard) == 13 * 20 * 320 - ahead
            assert [piece.ends_sentence for piece in heard] == [False] * (len(heard) - 1) + [True]
            assert len(heard[0].samples) == 40 * 320 - ahead  # at once, as much as the acoustic model fills
        events += [e for token in rest for e in decoder.push([token])]
        events += decoder.finish()
        assert sum(event.ends_sentence for event in events if isinstance(event, AudioPiece)) == 2
        texts = [event.ends_text for event in events if isinstance(event, TextPiece)]
        assert texts == [False] * (len(texts) - 1) + [True]
        sounds.append(decoder.audio)
    assert len(sounds[0]) == 320 * len(decoder.said)
    np.testing.assert_allclose(*sounds, atol=2e-6)


def test_short_answers(tiny_model, tiny_processor):
    pipeline = make_pipeline(tiny_model, tiny_processor, interleaved=True)
    most = {"motion": 0.14, "speech": 0.02}
    grammar = AnswerGrammar(pipeline.processor, min_seconds=0, max_seconds=most, max_text_tokens=3)
    pipeline.grammar = lambda *args, **kwargs: grammar
    *events, last = DialogueSession(pipeline).stream("hi")
    assert len(last.reply.answer.body) == 1 and last.reply.motion.num_frames == 4 and len(last.reply.audio) == 320
    assert len(of_kind(events, MotionPiece)) == len(of_kind(events, AudioPiece)) == 1 and last.start == 4 / 30


def answer_ids(processor, seconds=2.0):
    """An answer of random codes, as the renderer writes it."""
    rng, codes = np.random.default_rng(0), round(7.5 * seconds)
    motion = {name: rng.integers(0, 16, codes) for name in ("body", "hand")}
    speech = rng.integers(0, 32, round(50 * seconds))
    blocks = [{"type": "motion", "motion": motion}, {"type": "audio", "audio": {"codes": speech}}]
    if processor.answer_format == "text_motion_speech":
        blocks.insert(0, {"type": "text", "text": "please wave"})
    rendered = processor.renderer.chat([{"role": "assistant", "content": blocks}])
    return rendered["input_ids"][rendered["labels"] >= 0].tolist(), motion, speech


@pytest.mark.parametrize("interleaved", [False, True])
def test_when_the_first_frames_and_samples_come(tiny_model, tiny_processor, interleaved):
    pipeline = make_pipeline(tiny_model, tiny_processor, interleaved, "motion_speech")
    ids, motion, speech = answer_ids(pipeline.processor)
    decoder = AnswerDecoder(pipeline.processor)
    assert list(decoder.push([])) == []
    places = [(place, event) for place, token in enumerate(ids, 1) for event in decoder.push([token])]
    assert list(decoder.finish()) == []  # each part was complete with its end token
    first = {
        kind: next(place for place, event in places if isinstance(event, kind)) for kind in (MotionPiece, AudioPiece)
    }
    # <sobo> b b b <soha> h h h <sosp> and ten of speech; or 15 + 2 of body, and the same of hand before <sosp>
    assert first == ({MotionPiece: 8, AudioPiece: 19} if interleaved else {MotionPiece: 21, AudioPiece: 45})
    sizes = [event.motion.num_frames for _, event in places if isinstance(event, MotionPiece)]
    assert sizes == [4, 12, 12, 12, 12, 8]
    sizes = [len(event.samples) for _, event in places if isinstance(event, AudioPiece)]
    assert sizes == [3200 - 1203] + [6400] * 4 + [3200, 1203]
    ends = [1 + ids.index(pipeline.processor.markers[name]) for name in ("eoha", "eosp")]
    assert ends == [max(p for p, event in places if isinstance(event, kind)) for kind in (MotionPiece, AudioPiece)]
    whole = pipeline.processor.decode_motion(motion).to_params()
    assert 1e-3 < np.abs(decoder.motion.to_params() - whole).max()  # two codes are not all that matters
    np.testing.assert_allclose(decoder.motion.to_params()[-4:, 6:], whole[-4:, 6:], atol=1e-4)  # its end is known
    np.testing.assert_allclose(decoder.audio, pipeline.processor.decode_speech(speech), atol=2e-6)


def test_parts_that_are_missing(tiny_model, tiny_processor):
    processor = make_pipeline(tiny_model, tiny_processor, interleaved=True, answer_format="motion_speech").processor
    ids, motion, speech = answer_ids(processor)
    spans = {name: range(s["first_id"], s["first_id"] + s["size"]) for name, s in processor.modalities.items()}
    for kept, moves, sounds in (("speech",), 0, 1), (("body", "hand"), 1, 0), (("body",), 0, 0), ((), 0, 0):
        decoder = AnswerDecoder(processor, answer_format="motion_speech")
        events = list(decoder.push([i for i in ids if any(i in spans[name] for name in kept)])) + list(
            decoder.finish()
        )
        assert bool(of_kind(events, MotionPiece)) == bool(moves) == (decoder.motion is not None)
        assert bool(of_kind(events, AudioPiece)) == bool(sounds) == (decoder.audio is not None)
    with pytest.raises(ValueError, match="answer_format must be one of"):
        AnswerDecoder(processor, answer_format="song")
    with pytest.raises(ValueError, match="lookahead is -1"):
        AnswerDecoder(processor, lookahead=-1)
    with pytest.raises(ValueError, match="unknown voice 'Link'"):
        AnswerDecoder(processor, voice="Link")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (" Hello there. How are you?", ["Hello there.", " How are you?"]),
        ('It is 3.5 m! "Really?" he said...  ', ["It is 3.5 m!", ' "Really?"', " he said..."]),
        ("no end", ["no end"]),
        ("\u4f60\u597d\u3002\u518d\u89c1", ["\u4f60\u597d\u3002", "\u518d\u89c1"]),
        ("Gr\u00fc\u00df dich! \U0001f600", ["Gr\u00fc\u00df dich!", " \U0001f600"]),
    ],
)
def test_sentences(tiny_processor, text, pieces):
    ids = tiny_processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    decoder = AnswerDecoder(tiny_processor)
    events = [event for token in ids for event in decoder.push([token])]
    assert all("\ufffd" not in event.text for event in events)
    ended = list(decoder.push([tiny_processor.markers["eot"], tiny_processor.markers["sobo"]]))
    assert list(decoder.push(ids[:1])) == list(decoder.finish()) == []  # no words behind the end of the text
    sentences, words = [], ""
    for event in [*events, *ended]:
        assert event.text and event.start == 0
        words += event.text
        if event.ends_sentence:
            sentences, words = [*sentences, words], ""
    assert sentences == pieces and words == "" and (len(pieces) == 1 or events)


def test_a_text_alone(tiny_processor):
    decoder = AnswerDecoder(tiny_processor, answer_format="text")
    ids = tiny_processor.tokenizer("please wave", add_special_tokens=False)["input_ids"]
    events = list(decoder.push([*ids, tiny_processor.markers["eos"]])) + list(decoder.finish())
    assert [(event.text, event.ends_sentence) for event in events] == [("please wave", True)]


def started(session):
    """A stream that has given its first sound."""
    stream = session.stream(turn(1))
    while not isinstance(next(stream), AudioPiece):
        pass
    return stream


def assert_as_before(session, before, twin):
    """Nothing of an answer is left, and the next one is that of a session that never had it."""
    assert session.context_ids == before and session.rounds == 1 and len(session._cached) <= len(before)
    assert session.answer(turn(2), decode=False).answer.text_ids == twin.answer(turn(2), decode=False).answer.text_ids
    assert session.context_ids == twin.context_ids


@pytest.fixture
def talked(pipeline):
    """A session with a round behind it, its ids, and a twin."""
    session = DialogueSession(pipeline, character="ada")
    session.answer(turn(0), decode=False)
    return session, session.context_ids, session.fork()


def test_barge_in(talked):
    session, before, twin = talked
    stream = started(session)
    session.cancel()
    (last,) = stream
    assert not last.reply.valid and last.reply.answer.reason == "cancelled" and last.reply.motion is None
    assert 0 < last.start < 2
    assert_as_before(session, before, twin)


def test_barge_in_from_another_thread_while_the_model_writes(talked, pipeline):
    session, before, twin = talked
    seen = []

    def speak_between(ids, scores):
        seen.append(ids.shape[1])
        if len(seen) == 5:
            threading.Thread(target=session.cancel).start()
        return scores

    *events, last = session.stream(turn(1), logits_processor=[speak_between, pipeline.grammar()])
    assert last.reply.answer.reason == "cancelled" and not last.reply.valid and len(seen) < 100
    assert_as_before(session, before, twin)


def test_barge_in_when_all_is_written_but_not_said(talked):
    session, before, twin = talked
    stream = session.stream(turn(1))
    first = next(stream)
    while is_generating():  # it goes on while nobody asks
        time.sleep(0.01)
    session.cancel()
    (last,) = stream
    assert isinstance(first, TextPiece) and not last.reply.valid and last.reply.answer.reason == "cancelled"
    assert len(last.reply.answer.body) == 15  # its codes can be read, but it is not history
    assert_as_before(session, before, twin)


def test_a_stream_that_is_closed(talked):
    session, before, twin = talked
    stream = started(session)
    with pytest.raises(RuntimeError, match="close its stream"):
        session.answer("hi")
    with pytest.raises(RuntimeError, match="close its stream"):
        next(session.stream("hi"))
    stream.close()
    assert not is_generating() and next(stream, None) is None
    assert_as_before(session, before, twin)


def test_a_stream_that_is_left(talked):
    session, before, twin = talked
    unused = session.stream(turn(1))
    with pytest.raises(ZeroDivisionError):
        for _ in session.stream(turn(1)):
            raise ZeroDivisionError
    with closing(session.stream(turn(1))) as stream:
        next(stream)
    for _ in session.stream(turn(1)):
        break
    del unused
    assert not is_generating()
    assert_as_before(session, before, twin)


def test_errors_of_model_and_decoders(talked, pipeline, monkeypatch):
    session, before, twin = talked
    for broken in ("model", "cancelled model", "motion", "speech"):
        with monkeypatch.context() as patch:
            if "model" in broken:
                calls, forward = [], pipeline.model.model.layers[1].forward

                def fail_later(*args, calls=calls, forward=forward, cancelled="cancel" in broken, **kwargs):
                    calls.append(0)
                    if cancelled and len(calls) == 9:
                        session.cancel()
                    return forward(*args, **kwargs) if len(calls) < 9 else 1 / 0

                patch.setattr(pipeline.model.model.layers[1], "forward", fail_later)
            else:
                codec = getattr(pipeline.processor, f"{broken}_codec")
                patch.setattr(codec if broken == "motion" else codec.quantizer, "decode", lambda *args, **kw: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                list(session.stream(turn(1)))
        assert session.context_ids == before and not is_generating()
    assert_as_before(session, before, twin)


def test_bad_turns_and_settings(talked):
    session, before, twin = talked
    for bad, message in (
        (dict(num_beams=3), "one beam"),
        (dict(streamer=0), "one beam"),
        (dict(lookahead=-1), "lookahead"),
    ):
        with pytest.raises(ValueError, match=message):
            next(session.stream("hi", **bad))
    for bad, message in (("", "turn is empty"), ([{"type": "audio", "audio": {"codes": [99]}}], "another codec")):
        with pytest.raises(ValueError, match=message):
            next(session.stream(bad))
    *events, last = session.stream(turn(1), logits_processor=[])  # any token may come
    assert not last.reply.valid and last.reply.answer.reason and last.reply.audio is None
    assert_as_before(session, before, twin)
