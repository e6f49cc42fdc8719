"""A processor whose answers are interleaved: template, ids, tasks, parsing and grammar all say the same."""

import json

import numpy as np
import pytest
from transformers import AutoProcessor

from solami_hf.generation.grammar import AnswerGrammar
from solami_hf.processing.datasets.messages_data import write_messages
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset
from solami_hf.processing.processing_solami import SolamiProcessor
from solami_hf.processing.rendering import TokenRenderer


def make(tokenizer, codecs=(None, None), **settings):
    settings = {"interleaved": True, "answer_format": "text_motion_speech", **settings}
    return SolamiProcessor(tokenizer, *codecs, **settings)


@pytest.fixture
def processor(tiny_tokenizer, tiny_codecs):
    return make(tiny_tokenizer, tiny_codecs, characters={"ada": {"name": "Ada", "system": "You are Ada."}})


def messages(body=5, speech=30, text="please wave", trans=None):
    motion = {"body": [i % 16 for i in range(body)], "hand": [(i + 7) % 16 for i in range(body)]}
    user = [{"type": "motion", "motion": {**motion, "trans": [3]}}, {"type": "audio", "audio": {"codes": [1, 2]}}]
    answer = [{"type": "text", "text": text}] if text else []
    answer += [{"type": "motion", "motion": {**motion, **({"trans": trans} if trans else {})}}] if body else []
    answer += [{"type": "audio", "audio": {"codes": [i % 32 for i in range(speech)]}}] if speech is not None else []
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def test_an_answer_as_it_is_written(processor):
    text = processor.apply_chat_template(messages(body=4, speech=21))
    start, answer = text.split("\n[MMGPT]: ")
    speech = "".join(f"<🗣️{i}>" for i in range(20))
    assert "<sobo><🕺0><🕺1><🕺2><🕺3><eobo><soha>" in start  # the user's turn is in a row
    assert answer == (
        f"please wave<eot><sobo><🕺0><🕺1><🕺2><soha><🤚7><🤚8><🤚9><sosp>{speech}"
        "<🕺3><eobo><🤚10><eoha><🗣️20><eosp><eos>"
    )


@pytest.mark.parametrize(
    "rates", [None, {"speech": 100.0, "body": 7.5, "hand": 7.5}, {"speech": 86.0, "body": 2.0, "hand": 2.0}]
)
@pytest.mark.parametrize(
    "answer", [{}, {"text": ""}, {"speech": None}, {"speech": 0}, {"body": 0}, {"body": 1, "speech": 1},
               {"body": 9, "speech": 60}, {"body": 2, "speech": 200}, {"trans": [2]}, {"body": 0, "speech": None}],
)  # fmt: skip
def test_template_and_ids_say_the_same(tiny_tokenizer, rates, answer):
    processor = make(tiny_tokenizer, frame_rates=rates)
    processor = make(tiny_tokenizer, frame_rates=rates, chat_template=processor.chat_template)  # as after loading
    rendered = processor.renderer.chat(messages(**answer))
    text = processor.tokenizer.apply_chat_template(messages(**answer), tokenize=False)
    assert processor.tokenizer(text, add_special_tokens=False)["input_ids"] == rendered["input_ids"].tolist()
    found = processor.tokenizer.apply_chat_template(
        messages(**answer), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert found["assistant_masks"] == (rendered["labels"] >= 0).astype(int).tolist()


def test_several_levels_of_speech(tiny_tokenizer):
    processor = make(tiny_tokenizer, frame_rates={"speech": 25.0, "body": 7.5, "hand": 7.5}, speech_levels=2)
    conversation = messages(body=6, speech=0)
    conversation[1]["content"][-1]["audio"]["codes"] = [c for i in range(12) for c in (i, 512 + i)]
    text = processor.apply_chat_template(conversation)
    assert "<🗣️4><🗣️516><🕺3>" in text  # five frames of two levels in a chunk
    ids = processor.renderer.chat(conversation)["input_ids"].tolist()
    assert processor.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    assert processor.parse_response(ids[ids.index(processor.markers["mmgpt"]) + 1 :]).valid


def test_what_the_grammar_wants_is_what_is_rendered_and_parsed(processor):
    rendered = processor.renderer.chat(messages(body=7, speech=51))
    ids = rendered["input_ids"][rendered["labels"] >= 0]
    answer = processor.parse_response(ids)
    assert answer.valid and answer.body.tolist() == [0, 1, 2, 3, 4, 5, 6] and len(answer.speech) == 51
    assert AnswerGrammar(processor).interleaved
    sequential = make(processor.tokenizer, interleaved=False)
    assert not sequential.parse_response(ids).valid and not AnswerGrammar(sequential).interleaved
    in_a_row = sequential.renderer.chat(messages(body=7, speech=51))
    in_a_row = in_a_row["input_ids"][in_a_row["labels"] >= 0]
    assert sequential.parse_response(in_a_row).valid and "not in chunks" in processor.parse_response(in_a_row).reason


def test_tasks_are_interleaved_too(processor):
    motion = messages(body=4)[1]["content"][1]
    rendered = processor.renderer.task("Move.", {"type": "text", "text": "wave"}, motion)
    text = processor.decode(rendered["input_ids"][rendered["labels"] >= 0])
    assert text == "<sobo><🕺0><🕺1><🕺2><soha><🤚7><🤚8><🤚9><🕺3><eobo><🤚10><eoha><eos>"


def test_saved_loaded_and_changed_in_its_file(processor, tiny_tokenizer, tmp_path):
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    assert config["interleaved"] is True and config["frame_rates"] == {"speech": 50.0, "body": 7.5, "hand": 7.5}
    loaded = AutoProcessor.from_pretrained(tmp_path)
    text = processor.apply_chat_template(messages())
    assert loaded.interleaved and loaded.apply_chat_template(messages()) == text
    assert loaded.tokenizer.apply_chat_template(messages(), tokenize=False) == text
    ids = processor.apply_chat_template(messages(), tokenize=True)
    assert loaded.apply_chat_template(messages(), tokenize=True) == ids
    for gone in ({}, {"interleaved": False}):  # of the time before it was a property, or changed by hand
        config = {k: v for k, v in config.items() if k not in ("interleaved", "frame_rates")} | gone
        (tmp_path / "processor_config.json").write_text(json.dumps(config))
        old = SolamiProcessor.from_pretrained(tmp_path)
        in_a_row = make(tiny_tokenizer, interleaved=False).apply_chat_template(messages())
        assert not old.interleaved and old.apply_chat_template(messages()) == in_a_row != text
        assert "<eobo><soha>" in in_a_row and old.frame_rates["speech"] == 50.0
    (tmp_path / "processor_config.json").write_text(json.dumps(config | {"interleaved": True}))
    assert SolamiProcessor.from_pretrained(tmp_path).apply_chat_template(messages()) == text


def test_rates_are_those_of_the_codecs(tiny_tokenizer, tiny_codecs):
    motion, speech = tiny_codecs
    faster = type(speech.config)(**{**speech.config.to_dict(), "sampling_rate": 24000, "lm_levels": 2})
    processor = make(tiny_tokenizer, (motion, type(speech)(faster)))
    assert processor.frame_rates == {"speech": 150.0, "body": 7.5, "hand": 7.5}
    assert processor.renderer.chunks.frames("speech") == 30.0  # of both levels
    assert make(tiny_tokenizer, (motion, None)).frame_rates["speech"] == 50.0
    given = make(tiny_tokenizer, (motion, None), frame_rates={"speech": 10.0, "body": 5.0, "hand": 5.0})
    assert given.frame_rates["body"] == 5.0 and given.renderer.chunks.frames("body") == 2.0
    with pytest.raises(ValueError, match="above 0"):
        make(tiny_tokenizer, frame_rates={"speech": 0, "body": 7.5, "hand": 7.5})


def test_messages_for_trl_are_interleaved(processor, tmp_path):
    codes = {"body": [1, 2, 3, 4], "hand": [5, 6, 7, 8], "trans": [5], "speech": list(range(25))}
    turns = [{"role": role, "text": "hi", "motion_text": "", **codes} for role in ("user", "assistant")]
    rows = [{"id": "a", "topic": "t", "character": "ada", "turns": turns, "source": "a"}]
    write_token_dataset(tmp_path / "tokens", "chat", {"train": rows}, fingerprints(processor, "chat"))
    assert write_messages(tmp_path / "tokens", processor, tmp_path / "out") == {"train": 1}
    from datasets import load_dataset

    row = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))[0]
    found = processor.tokenizer.apply_chat_template(
        row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    wanted = TokenRenderer(processor.tokenizer, processor).chat(row["messages"])
    assert found["input_ids"] == wanted["input_ids"].tolist()
    assert found["assistant_masks"] == (wanted["labels"] >= 0).astype(int).tolist()
    answer = np.array(found["input_ids"])[np.array(found["assistant_masks"]) == 1]
    assert processor.parse_response(answer).valid
