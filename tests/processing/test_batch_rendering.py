"""Batches of dialogues: nothing is left out without being counted, and bad ones cost only themselves."""

import pyarrow as pa
import pytest

from solami_hf.processing.datasets.batch_rendering import RenderingCounts, render_chat_batch, render_chats
from solami_hf.processing.datasets.tasks import chat_messages
from solami_hf.processing.datasets.token_dataset import SCHEMAS
from solami_hf.processing.rendering import TokenRenderer


@pytest.fixture
def renderer(tiny_processor):
    return TokenRenderer(tiny_processor.tokenizer, tiny_processor)


def turn(role, text="hi", body=(1, 2), hand=(3, 4), trans=(0,), speech=(5, 6)):
    media = {"body": body, "hand": hand, "trans": trans, "speech": speech}
    return {"role": role, "text": text, "motion_text": None, **{k: v and list(v) for k, v in media.items()}}


def row(name, *turns):
    return {"id": name, "topic": "", "character": "ada", "turns": list(turns), "source": ""}


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS["chat"].arrow_schema)


USER, ANSWER = turn("user"), turn("assistant")
SYSTEM = turn("system", "Be kind.", None, None, None, None)


def test_bad_dialogues_are_rejected_with_reasons_and_the_rest_kept(renderer):
    rows = [
        row("good", SYSTEM, USER, ANSWER),
        row("role", turn("narrator"), ANSWER),
        row("late system", USER, SYSTEM, ANSWER),
        row("foreign", USER, turn("assistant", body=(1, 16))),
        row("uneven", USER, turn("assistant", hand=(1,))),
        row("reserved", turn("system", "a<eos>", None, None, None, None), USER, ANSWER),
        row("also good", USER, ANSWER),
    ]
    rendered, counts = render_chat_batch(table(*rows), renderer)
    assert rendered["id"].to_pylist() == ["good", "also good"] and counts.rejected == 5
    reasons = dict(counts.reasons)
    assert "role must be" in reasons["role"] and "first turn" in reasons["late system"]
    assert "0..15" in reasons["foreign"] and "different numbers" in reasons["uneven"]
    assert "reserved" in reasons["reserved"]


def test_everything_left_out_is_counted(renderer):
    lone = turn("assistant", body=None, hand=None)
    long_answer = turn("assistant", speech=[1] * 50)
    rows = [
        row("a", SYSTEM, USER, ANSWER, USER, ANSWER, USER),
        row("b", USER),
        row("c"),
        row("d", USER, long_answer),
        row("e", USER, lone),
    ]
    _, counts = render_chat_batch(table(*rows), renderer, max_length=40)
    named = {name: value for name, value in vars(counts).items() if name not in ("tokens", "trained_tokens")}
    assert named == {
        "rendered": 2,
        "shortened": 1,
        "dropped_rounds": 1,
        "too_long": 1,
        "without_answer": 2,
        "unanswered_turns": 1,
        "incomplete_answers": 1,
        "rejected": 0,
        "reasons": [],
    }
    assert "2 rendered, 1 shortened" in str(counts)


@pytest.mark.parametrize("systems", [None, {"ada": "You are Ada."}])
def test_the_longest_allowed_sample_is_kept_whole(renderer, systems):
    dialogue = table(row("a", USER, ANSWER, USER, ANSWER))
    whole, counts = render_chat_batch(dialogue, renderer, systems=systems)
    again, _ = render_chat_batch(dialogue, renderer, max_length=counts.tokens, systems=systems)
    assert again.to_pylist() == whole.to_pylist()
    _, less = render_chat_batch(dialogue, renderer, max_length=counts.tokens - 1, systems=systems)
    assert less.rendered == 1 and less.dropped_rounds == 1
    none, nothing = render_chat_batch(dialogue, renderer, max_length=3, systems=systems)
    assert len(none) == 0 and nothing.too_long == 1


def test_slices_nulls_and_no_rows(renderer):
    rows = [row(str(i), *[SYSTEM][: i % 2], turn("user", trans=None, speech=None), ANSWER) for i in range(6)]
    whole, _ = render_chat_batch(table(*rows), renderer)
    part, _ = render_chat_batch(table(*rows).slice(2, 3), renderer)
    assert part.to_pylist() == whole.to_pylist()[2:5]
    pieces = pa.concat_tables([table(*rows[:1]), table(*rows[1:])])
    assert render_chat_batch(pieces, renderer)[0].to_pylist() == whole.to_pylist()
    none, counts = render_chat_batch(table(), renderer)
    assert len(none) == 0 and counts == RenderingCounts()


def test_prompts_of_characters_stand_in_for_missing_ones(renderer):
    own, none = row("own", SYSTEM, USER, ANSWER), row("none", USER, ANSWER, USER, ANSWER)
    rendered, _ = render_chat_batch(table(own, none), renderer, systems={"ada": "You are Ada."})
    for sample, dialogue, system in zip(rendered.to_pylist(), (own, none), (None, "You are Ada."), strict=True):
        assert sample["input_ids"] == renderer.chat(chat_messages(dialogue, "", system))["input_ids"].tolist()
    kept, counts = render_chat_batch(table(none), renderer, max_length=50, systems={"ada": "You are Ada."})
    assert counts.shortened == 1
    last = {**none, "turns": none["turns"][2:]}
    expected = renderer.chat(chat_messages(last, "", "You are Ada."))["input_ids"].tolist()
    assert kept["input_ids"].to_pylist() == [expected]


def test_a_stream_adds_up(renderer):
    counts = RenderingCounts()
    batches = [table(row("a", USER, ANSWER)), table(row("b", USER)), table(row("c", USER, ANSWER), row("d", ANSWER))]
    tables = list(render_chats(batches, renderer, counts))
    assert [t["id"].to_pylist() for t in tables] == [["a"], ["c", "d"]]
    assert counts.rendered == 3 and counts.without_answer == 1
    assert counts.tokens == sum(len(r["input_ids"]) for t in tables for r in t.to_pylist())


def test_the_memory_for_texts_has_a_bound(renderer, monkeypatch):
    monkeypatch.setattr("solami_hf.processing.rendering.MOST_CACHED_TEXTS", 3)
    expected = [renderer.text(f"wave {i}").tolist() for i in range(8)]
    assert len(renderer._text_cache) <= 3
    assert [ids.tolist() for ids in renderer.texts([(f"wave {i}", False) for i in range(8)])] == expected
