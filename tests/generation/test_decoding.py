"""Static caches and compiled steps: the same tokens as with a dynamic cache, in a pipeline, a session and a stream."""

import pytest
import torch
from transformers import CompileConfig, DynamicCache, GPT2Config, GPT2LMHeadModel, MistralConfig, StaticCache

from solami_hf.generation import AnswerEnd, DialogueSession, SolamiPipeline
from solami_hf.generation.cache import copied, fitted, shortened, static_cache
from solami_hf.modeling.solami.backbones import extend_backbone

STATIC = {"cache_implementation": "static"}
COMPILED = {**STATIC, "compile_config": CompileConfig(backend="eager")}  # traced and guarded, but without a compiler


def words(number):
    return [{"type": "text", "text": f"turn {number}"}, {"type": "audio", "audio": {"codes": [number] * 15}}]


def play(session, numbers, **settings):
    replies = [session.answer(words(number), decode=False, **settings) for number in numbers]
    assert all(reply.valid for reply in replies)
    return session.context_ids


@pytest.fixture(autouse=True)
def fresh_graphs():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "top_k": 5}])
@pytest.mark.parametrize("static", [STATIC, COMPILED])
def test_a_batch_says_the_same(talker, static, settings):
    prompts = [talker.chat_prompt([{"role": "user", "content": words}]) for words in ("hi", "wave your hand " * 5)]
    torch.manual_seed(0)
    expected = talker.generate_prompts(prompts, **settings)
    torch.manual_seed(0)
    assert talker.generate_prompts(prompts, **static, **settings) == expected


@pytest.mark.parametrize("static", [STATIC, COMPILED])
def test_a_session_keeps_its_cache(talker, static):
    talker.model.config.max_position_embeddings = 300
    ours, plain, caches = DialogueSession(talker, "ada"), DialogueSession(talker, "ada"), set()
    for number in range(8):  # rounds are dropped on the way
        assert play(ours, [number], **static) == play(plain, [number])
        assert ours.prefilled_tokens == plain.prefilled_tokens and ours._cached == plain._cached
        assert isinstance(ours._cache, StaticCache)
        caches.add(ours._cache.layers[0].keys.data_ptr())
    assert len(caches) == 1 and ours._first > 0


def test_steps_are_compiled_once(talker):
    graphs = []

    def count(graph, inputs, **options):
        graphs.append(graph)
        return graph.forward

    session = DialogueSession(talker, "ada")
    for number in range(3):
        play(session, [number], **STATIC, compile_config=CompileConfig(backend=count))
        numbers = len(graphs)
    assert numbers == len(graphs) > 0
    plain = DialogueSession(talker, "ada")
    assert play(plain, range(3), disable_compile=True, **STATIC) == session.context_ids and len(graphs) == numbers


def test_kinds_of_cache_follow_one_another(talker, tmp_path):
    plain, ours = DialogueSession(talker, "ada"), DialogueSession(talker, "ada")
    for number, settings in enumerate([STATIC, {}, {**STATIC, "max_cache_len": 700}, {"num_beams": 3}, STATIC]):
        if "num_beams" in settings:
            fork = ours.fork()
            assert play(fork, [number], **STATIC, **settings) == play(plain.fork(), [number], **settings)
            fork.save(tmp_path, cache=True)
            assert DialogueSession.load(tmp_path, talker)._cached == fork._cached
            continue
        assert play(ours, [number], **settings) == play(plain, [number])
        assert ours.prefilled_tokens == plain.prefilled_tokens
    assert ours._cache.get_max_length() == 700  # it is not made anew


def test_a_stream_and_a_cancelled_one(talker):
    plain, ours = DialogueSession(talker, "ada"), DialogueSession(talker, "ada")
    play(plain, range(2))
    play(ours, [0], **STATIC)
    stream = ours.stream(words(1), **COMPILED)
    assert not isinstance(next(stream), AnswerEnd)
    stream.close()
    assert ours.rounds == 1
    *_, end = ours.stream(words(1), **COMPILED)
    assert end.reply.valid and ours.context_ids == plain.context_ids
    ours.reset()
    assert ours.context_ids == play(DialogueSession(talker, "ada"), []) and isinstance(ours._cache, StaticCache)


def test_an_interrupted_turn_leaves_the_history(talker, monkeypatch):
    ours, plain = DialogueSession(talker, "ada"), DialogueSession(talker, "ada")
    play(ours, [0], **STATIC), play(plain, [0])
    layer, calls = talker.model.model.layers[1], []

    def broken(*args, forward=layer.forward, **kwargs):
        calls.append(0)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", broken)
        with pytest.raises(KeyboardInterrupt):
            play(ours, [5], **STATIC)
    assert play(ours, [1], **STATIC) == play(plain, [1])


def test_other_decoders_and_their_heads(tiny_tokenizer, tiny_processor):
    sizes = {name: span["size"] for name, span in tiny_processor.modalities.items()}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=300))
    model = extend_backbone(gpt2, tiny_processor.tokenizer, sizes=sizes, answer_format="text_motion_speech")
    pipeline = SolamiPipeline(model, tiny_processor, max_new_tokens=40)
    assert play(DialogueSession(pipeline), range(2), **COMPILED) == play(DialogueSession(pipeline), range(2))


def test_sliding_windows_are_refused():
    with pytest.raises(ValueError, match="this model has sliding windows"):
        static_cache(MistralConfig(num_hidden_layers=2, sliding_window=4), 100)


def test_caches_of_both_kinds_hold_the_same():
    config = MistralConfig(num_hidden_layers=1, sliding_window=None)
    new = torch.randn(1, 3, 7, 4), torch.randn(1, 3, 7, 4)
    dynamic = DynamicCache()
    dynamic.update(*new, 0)
    with torch.inference_mode():
        static, length = shortened(fitted(dynamic, config, 600), 5)
        assert length == 5 and static.get_max_length() == 1024
        assert fitted(static, config, 1000) is static and fitted(dynamic, config, 0) is dynamic
        for cache in (copied(static), fitted(static, config, 0)):
            assert torch.equal(cache.layers[0].keys, new[0][..., :5, :])
            assert torch.equal(cache.layers[0].values, new[1][..., :5, :])


@pytest.mark.slow
def test_inductor_says_the_same(talker):
    compiled = {**STATIC, "compile_config": CompileConfig(mode="default")}
    assert play(DialogueSession(talker, "ada"), range(2), **compiled) == play(DialogueSession(talker, "ada"), range(2))
