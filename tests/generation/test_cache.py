"""The growing cache: what a dynamic cache holds, and copies that never see each other's tokens."""

import copy

import pytest
import torch
from transformers import DynamicCache, MistralConfig
from transformers.cache_utils import DynamicLayer

from solami_hf.generation.cache import GrowingLayer, growing


def states(tokens, batch=2):
    return torch.randn(batch, 3, tokens, 4), torch.randn(batch, 3, tokens, 4)


def same(ours, theirs):
    return torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


@pytest.fixture(params=[True, False])
def mode(request):
    with torch.inference_mode(request.param):
        yield


def test_it_equals_a_dynamic_cache(mode):
    ours, theirs = growing(DynamicCache()), DynamicCache()
    for tokens in (7, 1, 1, 600, 1, 1200, 1):
        new = states(tokens)
        assert all(map(torch.equal, ours.update(*new, 0), theirs.update(*new, 0)))
    for cache in (ours, theirs):
        cache.layers[0].crop(-5)
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([3, 0, 1, 1]))
    new = states(2, batch=4)
    ours.update(*new, 0), theirs.update(*new, 0)
    assert same(ours.layers[0], theirs.layers[0]) and ours.get_seq_length() == theirs.get_seq_length() == 1808


def test_a_step_copies_nothing(mode):
    cache = growing(DynamicCache())
    cache.update(*states(10), 0)
    place = cache.layers[0].keys.data_ptr()
    for _ in range(300):
        cache.update(*states(1), 0)
    assert cache.layers[0].keys.data_ptr() == place
    cache.layers[0].crop(-200)
    cache.update(*states(1), 0)
    assert cache.layers[0].keys.data_ptr() == place


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_go_their_own_ways(mode, copied):
    one, begin = GrowingLayer(), states(5)
    one.update(*begin)
    two = copied(one)
    assert two.keys.data_ptr() == one.keys.data_ptr()
    first, second = states(1), states(1)
    one.update(*first)
    two.update(*second)
    for layer, new in ((one, first), (two, second)):
        assert torch.equal(layer.keys, torch.cat([begin[0], new[0]], 2))
    three = copied(two)
    two.crop(-3)
    two.update(*first)
    assert torch.equal(three.keys, torch.cat([begin[0], second[0]], 2))


def test_inference_tensors_are_not_written_to_outside():
    layer = GrowingLayer()
    with torch.inference_mode():
        layer.update(*states(5))
    layer.update(*states(1))
    assert layer.get_seq_length() == 6


def test_sliding_windows_stay_what_they_are():
    cache = growing(DynamicCache(config=MistralConfig(num_hidden_layers=2, sliding_window=4)))
    assert not any(isinstance(layer, GrowingLayer) for layer in cache.layers) and len(cache.layers) == 2


def test_a_cache_that_holds_something_goes_on(mode):
    ours, theirs, first, second = DynamicCache(), DynamicCache(), states(3), states(1)
    for cache in (ours, theirs):
        cache.update(*first, 0)
    growing(ours)
    kept = ours.layers[0].keys
    ours.update(*second, 0), theirs.update(*second, 0)
    assert same(ours.layers[0], theirs.layers[0]) and torch.equal(kept, first[0])


def test_answers_are_the_same(talker, monkeypatch):
    prompts = [talker.chat_prompt([{"role": "user", "content": words}]) for words in ("hi", "wave your hand " * 5)]
    ours, cache = talker.generate_prompts(prompts), DynamicCache()
    monkeypatch.setattr("solami_hf.generation.pipeline.growing", lambda cache: cache)
    assert ours == talker.generate_prompts(prompts, past_key_values=cache)
    assert type(cache.layers[0]) is DynamicLayer
    assert [talker.processor.parse_response(ids).valid for ids in ours] == [True, True]
