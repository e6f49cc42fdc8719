"""Dialogue sessions: the same answers as with everything read again, and a history that no failure can change."""

import json
import threading

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from solami_hf.generation import DialogueSession, SolamiPipeline
from solami_hf.modeling.solami.backbones import extend_backbone


@pytest.fixture
def pipeline(tiny_model, tiny_processor):
    with torch.no_grad():  # so that answers differ from turn to turn, and what was read before matters
        for weight in tiny_model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.5)
    return SolamiPipeline(tiny_model, tiny_processor, max_new_tokens=40)


def turn(number):
    """A user's turn of 24 codes and a few words."""
    codes = {"body": [number % 16] * 4, "hand": [3] * 4, "trans": [number % 8]}
    return [
        {"type": "text", "text": f"turn {number}"},
        {"type": "motion", "motion": codes},
        {"type": "audio", "audio": {"codes": [(number + i) % 32 for i in range(15)]}},
    ]


def play(session, numbers, **settings):
    return [session.answer(turn(number), decode=False, **settings) for number in numbers]


def read_again(pipeline, session, **settings):
    """The last answer, generated from the same context without a cache."""
    past = session._rounds[-1]
    prompt = torch.tensor([session.context_ids[: -len(past.answer_ids)]])
    return past.answer_ids, pipeline.generate_padded(prompt, torch.ones_like(prompt), **settings)[0]


def assert_cache_is_right(session):
    """The cache holds what reading its ids at once would give."""
    ids = torch.tensor([session._cached])
    with torch.no_grad():
        fresh = session.pipeline.model(ids, use_cache=True).past_key_values
    for ours, theirs in zip(session._cache.layers, fresh.layers, strict=True):
        assert torch.allclose(ours.keys, theirs.keys, atol=1e-4)
        assert torch.allclose(ours.values, theirs.values, atol=1e-4)


def test_answers_are_those_of_a_full_prefill(pipeline):
    pipeline.model.config.max_position_embeddings = 400
    session, read = DialogueSession(pipeline, character="ada"), []
    for number in range(12):
        (reply,) = play(session, [number])
        kept, full = read_again(pipeline, session)
        assert reply.valid and kept == full
        assert_cache_is_right(session)
        read.append((session.prefilled_tokens, len(session.context_ids) - len(kept)))
        assert read[-1][1] + 40 <= 400
    anew = [part for part, whole in read if part > 60]
    assert 1 <= len(anew) <= 4 and max(anew) <= 180  # the low-water mark
    assert sum(part for part, _ in read) < sum(whole for _, whole in read) / 3
    assert session.rounds == 12 and len(session.messages) == 25


def test_context_is_what_the_processor_renders(pipeline, tiny_processor, monkeypatch):
    text = "Hello.<eot><sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha><sosp><🗣️5><🗣️6><eosp><eos>"
    answer, prompts = tiny_processor.tokenizer(text, add_special_tokens=False)["input_ids"], []
    monkeypatch.setattr(pipeline, "generate_padded", lambda ids, *rest, **settings: prompts.append(ids) or [answer])
    for character in ("ada", None):
        session = DialogueSession(pipeline, character)
        play(session, range(3))
        messages = session.messages
        rendered = tiny_processor.renderer.chat(messages)["input_ids"].tolist()
        assert session.context_ids == rendered and len(messages) == (7 if character else 6)
        prompt = tiny_processor.renderer.chat(messages[:-1], add_generation_prompt=True)["input_ids"].tolist()
        assert prompts[-1][0].tolist() == prompt


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"do_sample": True, "top_k": 5}])
def test_other_ways_of_decoding(pipeline, settings):
    session = DialogueSession(pipeline, system="You are nobody.")
    for number in range(3):
        torch.manual_seed(number)
        play(session, [number], **settings)
        torch.manual_seed(number)
        kept, full = read_again(pipeline, session, **settings)
        assert kept == full[: len(kept)]
    assert session.rounds == 3 and session.prefilled_tokens < 120


def test_stock_decoders(tiny_tokenizer, tiny_processor):
    config = GPT2Config(vocab_size=len(tiny_tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=300)
    sizes = {name: span["size"] for name, span in tiny_processor.modalities.items()}
    torch.manual_seed(0)
    model = extend_backbone(
        GPT2LMHeadModel(config), tiny_processor.tokenizer, sizes=sizes, answer_format="text_motion_speech"
    )
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5)
    pipeline = SolamiPipeline(model, tiny_processor, max_new_tokens=40)
    session = DialogueSession(pipeline)
    for number in range(6):
        play(session, [number])
        kept, full = read_again(pipeline, session)
        assert kept == full
    assert session._first > 0


def test_failures_leave_the_history(pipeline, tiny_processor, monkeypatch):
    pipeline.model.config.max_position_embeddings = 400
    session, twin = DialogueSession(pipeline, character="ada"), DialogueSession(pipeline, character="ada")
    for number in range(9):  # beyond the first dropping of rounds
        before = session.context_ids
        with monkeypatch.context() as patch:
            layer, calls = pipeline.model.model.layers[1], []

            def broken(*args, calls=calls, forward=layer.forward, at=number, **kwargs):
                calls.append(0)
                if len(calls) > at:
                    raise KeyboardInterrupt
                return forward(*args, **kwargs)

            patch.setattr(layer, "forward", broken)  # the layer before it has read more then
            with pytest.raises(KeyboardInterrupt):
                play(session, [100])
        malformed = play(session, [number + 50], logits_processor=[])[0]
        assert not malformed.valid and malformed.answer.reason
        monkeypatch.setattr(tiny_processor, "decode_motion", lambda codes: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.answer(turn(number))
        monkeypatch.undo()
        assert session.context_ids == before and session.rounds == number
        assert len(session._cached) <= len(before)
        assert play(session, [number])[0].answer.text_ids == play(twin, [number])[0].answer.text_ids
        assert session.context_ids == twin.context_ids


def test_cancelling(pipeline):
    session = DialogueSession(pipeline, character="ada")
    play(session, [0])
    before, seen = session.context_ids, []

    def cancel_later(ids, scores):
        seen.append(ids.shape[1])
        if len(seen) == 3:
            session.cancel()
            with pytest.raises(RuntimeError, match="is answering"):
                session.fork()
        return scores

    thread = threading.Thread(
        target=lambda: seen.append(play(session, [1], logits_processor=[cancel_later, pipeline.grammar()])[0])
    )
    thread.start()
    thread.join()
    reply = seen.pop()
    assert not reply.valid and reply.answer.reason == "cancelled" and len(seen) == 3
    assert session.context_ids == session._cached == before
    session.cancel()  # nothing to cancel
    assert play(session, [1])[0].valid


def test_forks_and_resets(pipeline):
    session = DialogueSession(pipeline, character="ada")
    play(session, range(2))
    other = session.fork()
    play(other, [7])
    play(session, [2])
    play(other, [8])  # after the session, which must not have touched what the fork has read
    assert session.prefilled_tokens < 60 and other.prefilled_tokens < 60
    assert other.rounds == 4 and session.rounds == 3
    assert session.context_ids[:50] == other.context_ids[:50]
    for each in (session, other):
        kept, full = read_again(pipeline, each)
        assert kept == full
        play(each, [5])
        assert_cache_is_right(each)
    session.reset()
    assert session.rounds == 0 and session.context_ids == session._system_ids == session._cached
    assert play(session, [0])[0].answer.text_ids == play(DialogueSession(pipeline, "ada"), [0])[0].answer.text_ids


@pytest.mark.parametrize("cache", [False, True])
def test_saved_and_restored(pipeline, tmp_path, cache):
    session = DialogueSession(pipeline, character="ada", low_water=0.7)
    play(session, range(2))
    session.save(tmp_path, cache=not cache)
    session.save(tmp_path, cache=cache)
    assert (tmp_path / "cache.safetensors").exists() == cache
    restored = DialogueSession.load(tmp_path, pipeline)
    assert restored.context_ids == session.context_ids and restored.low_water == 0.7
    assert restored.messages == session.messages
    for number in (2, 3):
        assert play(restored, [number])[0].answer.text_ids == play(session, [number])[0].answer.text_ids
        assert restored.context_ids == session.context_ids
    with pytest.raises(FileNotFoundError, match="session.json"):
        DialogueSession.load(tmp_path / "gone", pipeline)


def test_sessions_of_other_models_and_codecs(pipeline, tmp_path, caplog):
    session = DialogueSession(pipeline, character="ada")
    play(session, range(2))
    session.save(tmp_path, cache=True)
    with torch.no_grad():
        pipeline.model.get_output_embeddings().weight.mul_(-1)
    restored = DialogueSession.load(tmp_path, pipeline)
    assert "another model" in caplog.text and restored._cached == []
    play(restored, [2])
    kept, full = read_again(pipeline, restored)
    assert kept == full
    state = json.loads((tmp_path / "session.json").read_text())
    for name, broken in (
        ("markers", {**state["markers"], "eos": 1}),
        ("interleaved", True),
        ("codecs", {"motion_codec": "0"}),
    ):
        (tmp_path / "session.json").write_text(json.dumps({**state, name: broken}))
        with pytest.raises(ValueError, match="another motion_codec" if name == "codecs" else "another vocabulary"):
            DialogueSession.load(tmp_path, pipeline)


def test_damaged_sessions(pipeline, tmp_path, caplog):
    session = DialogueSession(pipeline, character="ada")
    play(session, range(2))
    session.save(tmp_path, cache=True)
    (tmp_path / "cache.safetensors").write_bytes((tmp_path / "cache.safetensors").read_bytes()[:-9])
    restored = DialogueSession.load(tmp_path, pipeline)
    assert "is damaged" in caplog.text and restored._cached == []
    assert play(restored, [2])[0].answer.text_ids == play(session, [2])[0].answer.text_ids
    for broken in ('{"markers": ', "[1]", "null", "{}"):
        (tmp_path / "session.json").write_text(broken)
        with pytest.raises(ValueError, match="is damaged|another vocabulary"):
            DialogueSession.load(tmp_path, pipeline)


def test_bad_turns(pipeline):
    session = DialogueSession(pipeline, character="ada")
    play(session, [0])
    before = session.context_ids
    silent = [{"type": "text", "text": ""}, {"type": "audio", "audio": {"codes": []}}]
    for empty in ("", "  ", [], silent, {"role": "user", "content": ""}):
        with pytest.raises(ValueError, match="turn is empty"):
            session.answer(empty)
    for other in (None, 5, ["hi"], [{"type": "audio", "file": "a.wav"}]):
        with pytest.raises(ValueError, match="a string or a list of blocks|a content block is like"):
            session.answer(other)
    with pytest.raises(ValueError, match="of role 'assistant'"):
        session.answer({"role": "assistant", "content": "hi"})
    with pytest.raises(ValueError, match="probably made by another codec"):
        session.answer([{"type": "audio", "audio": {"codes": [32]}}])
    with pytest.raises(ValueError, match="leave room for an answer; shorten it"):
        session.answer([{"type": "audio", "audio": {"codes": [1] * 1000}}])
    with pytest.raises(ValueError, match="one answer a turn"):
        session.answer("hi", num_return_sequences=2)
    with pytest.raises(ValueError, match="max_new_tokens=5"):
        session.answer("hi", max_new_tokens=5)
    assert session.context_ids == before and session._cached == before[:-1]
    with pytest.raises(ValueError, match="unknown character 'bob'"):
        DialogueSession(pipeline, "bob")
    with pytest.raises(ValueError, match="unknown voice 'Link'"):
        DialogueSession(pipeline, "ada", voice="Link")
    with pytest.raises(ValueError, match="not both"):
        DialogueSession(pipeline, "ada", system="You are nobody.")
    with pytest.raises(ValueError, match="low_water"):
        DialogueSession(pipeline, "ada", low_water=0)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_turn_of_one_kind_alone(pipeline, kept):
    session = DialogueSession(pipeline, character="ada")
    assert session.answer([turn(0)[kept]], decode=False).valid
