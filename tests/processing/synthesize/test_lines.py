"""Dialogues line by line: what a small model answers to authored lines, and what of it is used."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from solami_hf.processing.synthesize import SynthesizeArguments, synthesize
from solami_hf.processing.synthesize.asking import UnusableAnswer
from solami_hf.processing.synthesize.lines import first_sentences, spoken_line
from solami_hf.processing.synthesize.writers import Answer, LocalWriter


class Parrot:
    """A writer of many answers at once; the first one to each request is of no use."""

    name, batch_size = {"model": "parrot"}, 3

    def __init__(self):
        self.asked = []

    def complete_all(self, requests, seed):
        self.asked += requests
        answers = []
        for messages in requests:
            tries = sum(old == messages for old in self.asked)
            said = f"You say it, number {len(messages)}. " + "I wave at you while I talk. " * (tries > 1)
            answers.append(Answer(said if tries > 1 else "1) A list: of things", "stop", 5, 7))
        return answers

    def close(self):
        pass


def test_a_model_answers_authored_lines(motions, tmp_path):
    args = SynthesizeArguments(
        str(motions), str(tmp_path / "out"), num_dialogues=5, local_model="parrot", line_by_line=True, min_rounds=2,
        max_rounds=3, min_similarity=0.1, max_words=12,
    )  # fmt: skip
    writer = Parrot()
    report = synthesize(args, writer)
    rows = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    lines = sum(len(row["turns"]) - 1 for row in rows)
    assert report["train"] == 5 and report["answers"] == lines == len(writer.asked)  # half of them asked twice
    for row in rows:
        system, *turns = row["turns"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert row["topic"] in turns[0]["text"] and "{" not in turns[0]["text"]
        for number, turn in enumerate(turns[1::2]):
            assert turn["text"] == f"You say it, number {2 * number + 2}. I wave at you while I talk."
            assert turn.get("motion_id", "w/1") == "w/1"  # none where it was used twice in a row
        assert not any("motion_id" in turn for turn in turns[::2])
    first = [messages for messages in writer.asked if len(messages) == 4][0]
    assert [m["role"] for m in first] == ["system", "user", "assistant", "user"]
    again = Parrot()
    assert synthesize(args, again)["answers_from_cache"] == lines and not again.asked


def test_unusable_lines_cost_their_dialogue(motions, tmp_path):
    class Bored(Parrot):
        def complete_all(self, requests, seed):
            return [Answer("I am bored, and that is all.") for _ in requests]

    args = dict(motions=str(motions), num_dialogues=4, local_model="x", line_by_line=True, attempts=2)
    with pytest.raises(ValueError, match="'I am bored, and that is all.' was said before"):
        synthesize(SynthesizeArguments(output=str(tmp_path / "two"), min_rounds=2, max_rounds=2, **args), Bored())
    with pytest.raises(ValueError, match="needs a local_model"):
        SynthesizeArguments("m", "o", line_by_line=True, model="big")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"I like it. Do you like it, too? Let me tell you a long story."', "I like it. Do you like it, too?"),
        ("It’s  late\nnow, my friend.", "It's late now, my friend."),
    ],
)
def test_whole_sentences_are_kept(text, line):
    assert spoken_line(text, 10) == line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("This sentence never ends and", "no whole sentences"),
        ("Yes, sure.", "of 3 to 10 words"),
        ("It goes on and on for more than ten words, which is too long.", "of 3 to 10 words"),
        ("As an AI I cannot smell flowers.", "'AI' is not for speaking"),
        ("Here is a list: bread.", "':' is not for speaking"),
        ("Eu amo o pão, meu caro.", "is not for speaking"),
        ("I am so sorry, I am so sorry.", "repeats itself"),
        ("I am *very* happy today.", "cannot be read aloud"),
    ],
)
def test_other_answers_are_not(text, reason):
    with pytest.raises(UnusableAnswer, match=reason):
        spoken_line(text, 10)


def test_the_first_sentence_stays_whatever_its_length():
    assert first_sentences("One two three four. Five.", 3) == "One two three four."
    assert first_sentences("nothing whole", 3) == ""


@pytest.fixture
def local_model(tiny_tokenizer, tmp_path):
    """A folder of a small model with a chat template, in bfloat16."""
    tiny_tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tiny_tokenizer), **sizes))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    model.bfloat16().save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    return SynthesizeArguments("m", "o", local_model=str(tmp_path), temperature=0.0, max_tokens=9)


@pytest.mark.parametrize("fast", [False, True])
def test_a_local_model_computes_in_what_the_machine_is_fast_in(local_model, monkeypatch, fast):
    monkeypatch.setattr("solami_hf.modeling.solami.backbones.cpu_has_fast_bf16", lambda: fast)
    assert LocalWriter(local_model).model.dtype == (torch.bfloat16 if fast else torch.float32)


def test_a_batch_of_a_local_model_is_what_each_alone_is(local_model, monkeypatch):
    monkeypatch.setattr("solami_hf.modeling.solami.backbones.cpu_has_fast_bf16", lambda: False)
    writer = LocalWriter(local_model)
    requests = [[{"role": "user", "content": text}] for text in ("wave", "please wave your hand", "a bow")]
    together = writer.complete_all(requests, 0)
    assert together == [writer.complete(messages, 1, {}) for messages in requests]
    assert len({answer.text for answer in together}) == 3 and all(answer.completion_tokens for answer in together)
