"""Ticks of two people: the grammar accepts what rendering writes and nothing else, and a character is generated."""

import numpy as np
import torch

from solami_hf.generation.duplex.duplex_generation import generate_character
from solami_hf.generation.duplex.duplex_grammar import DuplexGrammar
from solami_hf.processing.datasets.duplex import DuplexFormat, DuplexRenderer


def streams(renderer, ticks, seed=0):
    rng, sizes = np.random.default_rng(seed), renderer.format.sizes
    people = [
        {part: rng.integers(renderer.layout.modalities[part]["size"], size=n * ticks) for part, n in sizes.items()}
        for _ in range(2)
    ]
    return renderer.streams({"people": people})


def test_the_grammar_accepts_what_is_written_and_nothing_else(tiny_model):
    config = tiny_model.config
    pad = torch.tensor([config.markers["pad"]])
    for parts in ((None, None), (["body"], ["body", "speech"])):
        renderer = DuplexRenderer(config, DuplexFormat.of(config, *parts))
        grammar = DuplexGrammar(config, renderer.format, max_ticks=3)
        ids = torch.as_tensor(renderer.write(*streams(renderer, 3))["input_ids"])
        spans = [*renderer.format.spans(config) * 3]
        for length in range(len(ids)):
            scores = grammar(torch.cat([pad, ids[:length]])[None], torch.zeros(1, config.vocab_size))[0]
            allowed = torch.isfinite(scores).nonzero()[:, 0].tolist()
            assert int(ids[length]) in allowed, length
            if length < len(spans):
                ends = [config.markers["eos"]] if length and length % renderer.format.tokens == 0 else []
                assert sorted([*range(*spans[length]), *ends]) == allowed
            else:
                assert allowed == [config.markers["eos"]]  # three ticks are the most
        over = grammar(torch.cat([ids, ids[:4]])[None], torch.zeros(1, config.vocab_size))[0]
        assert torch.isfinite(over).nonzero()[:, 0].tolist() == [config.markers["eos"]]


def test_rows_of_a_batch_stand_in_places_of_their_own(tiny_model):
    renderer = DuplexRenderer(tiny_model.config)
    ids = torch.as_tensor(renderer.write(*streams(renderer, 2))["input_ids"])
    padded = torch.full((4, len(ids)), tiny_model.config.markers["pad"])
    for row, length in enumerate((0, 1, 30, len(ids))):
        padded[row, len(ids) - length :] = ids[:length]
    assert DuplexGrammar(tiny_model.config).places(padded).tolist() == [0, 1, 30, 55]


def test_generate_is_bound_by_it(tiny_model):
    config = tiny_model.config
    prompt = torch.tensor([[config.markers["mmgpt"]]])
    out = tiny_model.generate(
        prompt, logits_processor=[DuplexGrammar(config, max_ticks=2)], max_new_tokens=200, do_sample=True
    )
    renderer = DuplexRenderer(config)
    assert len(renderer.parse(out[0].tolist())[0]["body"]) in (3, 6) and int(out[0, -1]) == config.markers["eos"]


def test_a_character_is_generated_beside_its_partners(tiny_model):
    with torch.no_grad():
        for weight in tiny_model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.5)
    renderer = DuplexRenderer(tiny_model.config)
    pairs = [streams(renderer, 5, seed) for seed in (0, 1)]
    begun, partners = [own[:2] for own, _ in pairs], [other for _, other in pairs]
    made = generate_character(tiny_model, renderer, begun, partners, window=9, temperature=0)
    for own, (ticks, other) in zip(begun, zip(made, partners, strict=True), strict=True):
        assert ticks.shape == (5, 27) and np.array_equal(ticks[:2], own)
        renderer.parse(renderer.write(ticks, other)["input_ids"])
        # each code is the likeliest of its place given all before, without a cache
        ids = torch.as_tensor(renderer.write(ticks, other)["input_ids"])
        logits = tiny_model(input_ids=ids[None]).logits[0]
        for tick in (2, 3, 4):
            for place, (first, end) in enumerate(renderer.format.spans(tiny_model.config)[:27]):
                if place:
                    known = logits[tick * 54 + place - 1, first:end].argmax() + first
                    assert int(known) == ticks[tick, place], (tick, place)
    again = generate_character(tiny_model, renderer, begun, partners[::-1], window=9, temperature=0)
    assert not np.array_equal(again[0], made[0])  # the partner is read
    short = generate_character(tiny_model, renderer, [b[:0] for b in begun], partners, window=2)
    assert short[0].shape == (5, 27)
