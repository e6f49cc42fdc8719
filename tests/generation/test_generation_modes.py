"""Every way of generating that transformers knows, with a model whose vocabulary has modality tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import StaticCache

from solami_hf.modeling.solami.configuration_solami import SolamiConfig
from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM

PAD, EOS = 10, 11
NEW = 6


@pytest.fixture
def model():
    return build(0)


@pytest.fixture
def ids():
    return torch.randint(20, 60, (2, 5), generator=torch.Generator().manual_seed(3))


def build(seed: int, **overrides) -> SolamiForCausalLM:
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.5, pad_token_id=PAD, eos_token_id=EOS,
        bos_token_id=None, modalities={"speech": {"first_id": 20, "size": 40}}, markers={"pad": PAD, "eos": EOS},
    )  # fmt: skip
    return SolamiForCausalLM(SolamiConfig(**{**sizes, **overrides})).eval()


def generate(model, ids, **kwargs) -> torch.Tensor:
    return model.generate(ids, min_new_tokens=NEW, max_new_tokens=NEW, **{"do_sample": False, **kwargs})


def by_hand(model, ids) -> torch.Tensor:
    """The most probable next token again and again, without a cache."""
    for _ in range(NEW):
        scores = model(ids, use_cache=False).logits[:, -1]
        scores[:, EOS] = -torch.inf
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
    return ids


@torch.no_grad()
def test_greedy_is_the_most_probable_token_each_time(model, ids):
    assert torch.equal(generate(model, ids), by_hand(model, ids))
    assert torch.equal(generate(model, ids, use_cache=False), by_hand(model, ids))


@pytest.mark.parametrize("cache", ["static", "dynamic"])
def test_caches_change_nothing(model, ids, cache):
    assert torch.equal(generate(model, ids, cache_implementation=cache), generate(model, ids))


def test_a_static_cache_of_the_caller(model, ids):
    cache = StaticCache(config=model.config, max_cache_len=ids.shape[1] + NEW)
    assert torch.equal(generate(model, ids, past_key_values=cache), generate(model, ids))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementations_agree(model, ids, attention):
    expected = generate(model, ids)
    model.set_attn_implementation(attention)
    assert torch.equal(generate(model, ids), expected)


def test_draft_models_and_prompt_lookup_only_save_time(model, ids):
    ids = ids[:1]
    expected = generate(model, ids)
    for draft in (build(0), build(7, num_hidden_layers=1)):
        assert torch.equal(generate(model, ids, assistant_model=draft), expected)
    assert torch.equal(generate(model, ids, prompt_lookup_num_tokens=2), expected)


def test_beams_find_what_is_at_least_as_probable(model, ids):
    def log_probability(sequences):
        scores = model(sequences).logits.log_softmax(-1)[:, ids.shape[1] - 1 : -1]
        return scores.gather(2, sequences[:, ids.shape[1] :, None]).sum((1, 2))

    with torch.no_grad():
        wide = generate(model, ids, num_beams=40)
        assert (log_probability(wide) >= log_probability(generate(model, ids)) - 1e-4).all()
    several = generate(model, ids, num_beams=4, num_return_sequences=3)
    assert several.shape == (6, 5 + NEW) and len({tuple(row) for row in several[:3].tolist()}) == 3


def test_sampling_follows_its_seed(model, ids):
    def draw(seed, **kwargs):
        torch.manual_seed(seed)
        return generate(model, ids, do_sample=True, **kwargs)

    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    assert torch.equal(draw(0, top_k=1), generate(model, ids))
    assert draw(0, num_beams=3, temperature=0.7).shape == (2, 5 + NEW)
    assert draw(0, num_return_sequences=2, top_p=0.9).shape == (4, 5 + NEW)


def test_left_padding_changes_nothing(model, ids):
    short = ids[1:, 2:]
    padded = torch.cat([torch.full((1, 2), PAD), short], 1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    both = generate(model, torch.cat([ids[:1], padded]), attention_mask=mask)
    assert torch.equal(both[:1], generate(model, ids[:1]))
    assert torch.equal(both[1:, 2:], generate(model, short))


def test_from_embeddings(model, ids):
    embeddings = model.get_input_embeddings()(ids)
    assert torch.equal(
        model.generate(inputs_embeds=embeddings, min_new_tokens=NEW, max_new_tokens=NEW, do_sample=False),
        generate(model, ids)[:, 5:],
    )


def test_a_cache_is_continued(model, ids):
    first = generate(model, ids, return_dict_in_generate=True)
    longer = torch.cat([first.sequences, ids[:, :2]], 1)
    assert torch.equal(generate(model, longer, past_key_values=first.past_key_values), generate(model, longer))


def test_everything_that_can_be_returned(model, ids):
    model.set_attn_implementation("eager")
    kinds = ("scores", "logits", "hidden_states", "attentions")
    out = generate(model, ids, return_dict_in_generate=True, **{f"output_{kind}": True for kind in kinds})
    assert all(len(out[kind]) == NEW for kind in kinds)
    assert out.past_key_values.get_seq_length() == 5 + NEW - 1
    assert out.hidden_states[0][0].shape == (2, 5, 16) and out.attentions[-1][0].shape == (2, 2, 1, 10)


def test_only_the_last_scores_are_computed_for_a_prompt(model, ids):
    # Up to rounding: matrix products of other shapes may take other kernels
    torch.testing.assert_close(model(ids, logits_to_keep=1).logits, model(ids).logits[:, -1:])
    assert model.can_generate()


def test_the_end_token_ends(model, ids):
    model.get_output_embeddings().weight.data[EOS] = 0
    model.model.norm.weight.data.zero_()  # every score is 0, so the first id wins
    model.generation_config.eos_token_id = 0
    assert model.generate(ids, max_new_tokens=NEW, do_sample=False).shape == (2, 6)
