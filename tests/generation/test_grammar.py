"""The answer grammar: whatever a model would say comes out valid, and nothing that is valid is forbidden."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from solami_hf.generation.decoding import decode
from solami_hf.generation.grammar import AnswerGrammar
from solami_hf.modeling.solami.vocabulary import build_layout
from solami_hf.processing.answers import FORMATS, parse_answer, parse_interleaved
from solami_hf.processing.rendering import TokenRenderer

MODALITIES, MARKERS = build_layout({"speech": 8, "body": 4, "hand": 4, "trans": 2}, 10)
SIZE = 10 + len(MARKERS) + 18
PAPER = {"speech": 50.0, "body": 7.5, "hand": 7.5}
# speech levels, rates, length of a chunk: the paper's, two levels, rates without whole codes, chunks below one code
LAYOUTS = [
    (1, PAPER, 0.4),
    (2, {"speech": 50.0, "body": 7.5, "hand": 7.5}, 0.4),
    (1, {"speech": 86.0, "body": 7.5, "hand": 7.5}, 0.5),
    (2, PAPER, 0.05),
]
ANSWERS = ("motion_speech", "text_motion_speech")


def make_config(levels=1, rates=PAPER):
    return SimpleNamespace(
        modalities=MODALITIES, markers=MARKERS, answer_format="motion_speech", interleaved=False,
        speech_levels=levels, frame_rates=rates, vocab_size=SIZE,
    )  # fmt: skip


def walk(grammar, rows, ending=2.0):
    """Answers of a model that likes anything: random scores, some rows fond of ending and some not."""
    ids = torch.full((rows, 3), MARKERS["mmgpt"])
    ids[::2, :1] = MARKERS["pad"]
    fond = torch.randn(rows, 1) * ending
    for _ in range(grammar.max_tokens):
        scores = torch.randn(rows, SIZE)
        scores[:, [MARKERS[name] for name in ("eot", "eobo", "eosp", "eos")]] += fond
        scores = grammar(ids, scores)
        assert torch.isfinite(scores).any(1).all()
        ids = torch.cat([ids, scores.argmax(1, keepdim=True)], 1)
    return ids[:, 3:].tolist()


def read(row, grammar, config, chunk_seconds):
    """Words and codes of an answer; they and nothing else make it up, in the right order."""
    end = row.index(MARKERS["eos"])
    row, parts = np.array(row[:end]), {}
    for name in ("body", "hand", "speech"):
        codes = row - MODALITIES[name]["first_id"]
        parts[name] = codes[(codes >= 0) & (codes < MODALITIES[name]["size"])]
    words = row[row < 10]
    assert rendered(words, parts, grammar, config, chunk_seconds) == [*row.tolist(), MARKERS["eos"]]
    return words, parts


def rendered(words, parts, grammar, config, chunk_seconds):
    """Ids of an answer as they are trained on."""
    renderer = TokenRenderer(None, config, grammar.interleaved, chunk_seconds)
    blocks = []
    if len(parts["body"]):
        blocks.append({"type": "motion", "motion": {"body": parts["body"], "hand": parts["hand"]}})
    if len(parts["speech"]):
        blocks.append({"type": "audio", "audio": {"codes": parts["speech"]}})
    media = renderer.chat([{"role": "assistant", "content": blocks}])["input_ids"][1:-1].tolist()
    eot = [MARKERS["eot"]] if len(words) and media else []
    return [*map(int, words), *eot, *media, MARKERS["eos"]]


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("answer_format", sorted(FORMATS))
def test_whatever_is_said_is_valid(answer_format, interleaved, layout):
    levels, rates, chunk_seconds = LAYOUTS[layout]
    config = make_config(levels, rates)
    bounds = {"min_seconds": {"motion": 0.3, "speech": 0.1}, "max_seconds": {"motion": 1.0, "speech": 0.7}}
    grammar = AnswerGrammar(
        config, answer_format, interleaved, **bounds, max_text_tokens=6, not_text=[3], chunk_seconds=chunk_seconds
    )
    lengths = set()
    for row in walk(grammar, 24):
        words, parts = read(row, grammar, config, chunk_seconds)
        assert (len(words) in range(1, 7)) == grammar.has_text and 3 not in words
        assert len(parts["body"]) == len(parts["hand"])
        if "body" in grammar.parts:
            assert 3 <= len(parts["body"]) <= 7
        if "speech" in grammar.parts:
            rate = rates["speech"]
            assert 0.1 * rate - 1e-6 <= len(parts["speech"]) <= 0.7 * rate and len(parts["speech"]) % levels == 0
        if answer_format in ANSWERS:
            parse = parse_interleaved if interleaved else parse_answer
            more = {"chunk_seconds": chunk_seconds} if interleaved else {"interleaved": False}
            assert parse(row, config, answer_format, **more).valid
        lengths.add((len(words), len(parts["body"]), len(parts["speech"])))
    assert len(lengths) > 2


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("answer_format", sorted(FORMATS))
def test_nothing_valid_is_forbidden(answer_format, interleaved, layout):
    levels, rates, chunk_seconds = LAYOUTS[layout]
    config, rng = make_config(levels, rates), np.random.default_rng(layout)
    for _ in range(6):
        has_text, names = FORMATS[answer_format]
        motion, frames = rng.integers(1, 16), rng.integers(1, 60)
        size = MODALITIES["speech"]["size"] // levels
        speech = (rng.integers(size, size=(frames, levels)) + size * np.arange(levels)).reshape(-1)
        parts = {
            "body": rng.integers(4, size=motion if "body" in names else 0),
            "hand": rng.integers(4, size=motion if "body" in names else 0),
            "speech": speech if "speech" in names else [],
        }
        words = rng.integers(10, size=rng.integers(1, 9)) if has_text else []
        tight = AnswerGrammar(config, answer_format, interleaved, 0, chunk_seconds=chunk_seconds)
        answer = rendered(words, parts, tight, config, chunk_seconds)
        grammars = [tight, AnswerGrammar(  # bounds that this answer just meets
            config, answer_format, interleaved, 0, max_new_tokens=len(answer), max_text_tokens=max(1, len(words)),
            max_seconds=None, chunk_seconds=chunk_seconds,
        )]  # fmt: skip
        for grammar in grammars:
            ids = torch.tensor([[MARKERS["mmgpt"], *answer]])
            for place, token in enumerate(answer):
                assert torch.isfinite(grammar(ids[:, : place + 1], torch.zeros(1, SIZE))[0, token]), (place, token)
            assert torch.isfinite(grammar(ids, torch.zeros(1, SIZE))[0]).nonzero()[:, 0].tolist() == [MARKERS["eos"]]
        with pytest.raises(ValueError, match="max_new_tokens=2"):
            AnswerGrammar(config, "motion_speech", max_new_tokens=2)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("answer_format", "shortest"), [("text_motion_speech", 12), ("motion", 7), ("text", 2)])
def test_answers_end_within_max_new_tokens(answer_format, shortest, interleaved):
    config = make_config()
    for budget in (shortest, shortest + 1, shortest + 30):
        grammar = AnswerGrammar(
            config, answer_format, interleaved, 0, max_seconds=None, max_new_tokens=budget, max_text_tokens=None
        )
        assert grammar.max_tokens <= budget
        for row in walk(grammar, 16, ending=4.0):
            read(row, grammar, config, 0.4)
    with pytest.raises(ValueError, match=f"has {shortest} tokens"):
        AnswerGrammar(config, answer_format, interleaved, 0, max_new_tokens=shortest - 1)


def test_probabilities_keep_their_ratios():
    grammar = AnswerGrammar(make_config(), min_seconds=0)
    ids = torch.tensor([[MARKERS["mmgpt"], MARKERS["sobo"], MODALITIES["body"]["first_id"]]])
    scores = torch.randn(1, SIZE)
    given = scores.clone()
    allowed = [MARKERS["eobo"], *range(MODALITIES["body"]["first_id"], MODALITIES["body"]["first_id"] + 4)]
    plain = given.softmax(1)[0, allowed]
    inside = grammar(ids, scores).softmax(1)[0]
    assert torch.allclose(inside[allowed], plain / plain.sum()) and inside.sum() == inside[allowed].sum()
    assert torch.equal(scores, given)


def test_what_other_processors_forbid_does_not_stop_an_answer(tiny_model):
    """A least length or no repetitions may leave nothing of what the grammar allows; then the grammar decides."""
    config = tiny_model.config
    prompts = torch.tensor([[5, 6, config.markers["mmgpt"]]] * 3)
    for others in ({"min_new_tokens": 200}, {"no_repeat_ngram_size": 1}):
        grammar = AnswerGrammar(config, "motion_speech", max_seconds=0.6)
        output = tiny_model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, max_new_tokens=201,
            logits_processor=[grammar], **others,
        )  # fmt: skip
        assert all(parse_answer(row, config, "motion_speech").valid for row in output[:, 3:].tolist())


def test_only_the_newest_answer_counts():
    grammar = AnswerGrammar(make_config(), min_seconds=0, max_seconds=1.0)
    body, hand = (MODALITIES[name]["first_id"] for name in ("body", "hand"))
    past = [MARKERS["mmgpt"], MARKERS["sobo"], body, body, body, MARKERS["eobo"], MARKERS["human"], body]
    now = [MARKERS["mmgpt"], MARKERS["sobo"], body, MARKERS["eobo"], MARKERS["soha"], hand]
    rows = torch.tensor([past + now, [MARKERS["pad"]] * 8 + now])
    scores = grammar(rows, torch.zeros(2, SIZE))
    assert torch.isfinite(scores).nonzero().tolist() == [[0, MARKERS["eoha"]], [1, MARKERS["eoha"]]]


def test_without_a_role_marker_the_answer_begins_behind_the_prompt(tiny_model):
    config = tiny_model.config
    for batch, length in ((3, 5), (2, 5), (2, 9)):
        grammar = AnswerGrammar(config, "motion_speech", max_seconds=1.0)
        for _ in range(2):  # one object for several calls
            prompts = torch.randint(0, 300, (batch, length))
            output = tiny_model.generate(
                input_ids=prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=True,
                max_new_tokens=grammar.max_tokens,
                logits_processor=[grammar],
            )
            assert all(parse_answer(row, config, "motion_speech").valid for row in output[:, length:].tolist())


def test_bounds_that_leave_no_answer():
    config = make_config()
    with pytest.raises(ValueError, match="answer_format must be one of"):
        AnswerGrammar(config, "speech_first")
    with pytest.raises(ValueError, match="motion of 2 to 1 s"):
        AnswerGrammar(config, min_seconds=2, max_seconds=1)
    with pytest.raises(ValueError, match="nothing bounds the speech"):
        AnswerGrammar(config, max_seconds={"motion": 3})
    with pytest.raises(ValueError, match="give max_text_tokens"):
        AnswerGrammar(config, "text", max_text_tokens=None)
    with pytest.raises(ValueError, match="need one rate"):
        AnswerGrammar(make_config(rates=PAPER | {"hand": 15.0}), interleaved=True)


MODES = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 1.5, "top_k": 0},
    "nucleus": {"do_sample": True, "temperature": 0.7, "top_p": 0.6, "top_k": 9},
    "static": {"do_sample": True, "cache_implementation": "static"},
    "beams": {"num_beams": 3},
    "sampled beams": {"num_beams": 2, "do_sample": True, "top_k": 0},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_answers_of_an_untrained_model(tiny_model, mode):
    """42 answers in each of 6 modes and 4 formats make 1,008, all of them valid."""
    config, mmgpt = tiny_model.config, tiny_model.config.markers["mmgpt"]
    with torch.no_grad():  # untrained heads repeat themselves; this one says something else each time
        tiny_model.get_output_embeddings().weight.normal_(0, 1)
    answers = 0
    for answer_format in ANSWERS:
        for interleaved in (False, True):
            for batch in (1, 8, 33):
                prompts = torch.randint(0, 300, (batch, 9))
                prompts[:, -1] = mmgpt
                mask = (torch.arange(9) >= torch.randint(0, 8, (batch, 1))).long()
                prompts[mask == 0] = config.pad_token_id
                seconds = {"max_seconds": 0.6, "min_seconds": 0.2}
                grammar = AnswerGrammar(config, answer_format, interleaved, **seconds, max_text_tokens=4)
                output = tiny_model.generate(
                    input_ids=prompts,
                    attention_mask=mask,
                    logits_processor=[grammar],
                    max_new_tokens=grammar.max_tokens,
                    **{"do_sample": False, **MODES[mode]},
                )
                for row in output[:, 9:].tolist():
                    answer = parse_answer(row, config, answer_format, interleaved)
                    assert answer.valid, answer.reason
                    assert 2 <= len(answer.body) <= 4 and 10 <= len(answer.speech) <= 30
                    answers += 1
    assert answers == 168


@pytest.mark.parametrize("answer_format", ANSWERS)
def test_a_sliced_head_says_the_same(tiny_model, answer_format):
    config = tiny_model.config
    prompts = torch.cat([torch.randint(0, 300, (4, 6)), torch.full((4, 1), config.markers["mmgpt"])], 1)
    grammar = AnswerGrammar(config, answer_format, min_seconds=0, max_seconds=0.6, max_text_tokens=4)
    settings = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 80, "logits_processor": [grammar]}
    widths = []

    def run(seed, **loop):
        torch.manual_seed(seed)
        return tiny_model.generate(prompts, do_sample=True, **settings, **loop).tolist()

    plain = [run(seed) for seed in range(3)]
    linear = torch.nn.functional.linear
    loop = partial(decode, pad=config.pad_token_id)
    assert [run(seed, custom_generate=loop) for seed in range(3)] == plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.functional, "linear", lambda x, w, b=None: (widths.append(w.shape[0]), linear(x, w, b))[1]
        )
        assert [run(seed, custom_generate=partial(loop, sliced_by=grammar)) for seed in range(3)] == plain
    media = sum(config.modalities[name]["size"] for name in ("speech", "body", "hand"))
    heads = [width for width in widths if width >= media]
    assert min(heads) <= media + len(MARKERS) < config.vocab_size
    assert heads.count(config.vocab_size) <= (3 * 6 + 1 if answer_format == "text_motion_speech" else 1)
