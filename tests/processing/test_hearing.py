"""Users' turns with their words, in training and at answer time: messages, batches and the string form agree."""

import json

import pyarrow as pa
import pytest

from solami_hf.processing.datasets.batch_rendering import render_chat_batch
from solami_hf.processing.datasets.messages_data import write_messages
from solami_hf.processing.datasets.tasks import chat_messages
from solami_hf.processing.datasets.token_dataset import SCHEMAS
from solami_hf.processing.processing_solami import SolamiProcessor

MEDIA = {"body": [1, 2], "hand": [3, 4], "trans": [0], "speech": [5, 6]}


def turn(role, text, **media):
    return {"role": role, "text": text, "motion_text": None, **dict.fromkeys(MEDIA), **media}


def row(*turns, name="a"):
    return {"id": name, "topic": "", "character": "nobody", "turns": list(turns), "source": ""}


TALK = [turn("system", "Be kind."), turn("user", "hi", **MEDIA), turn("assistant", "ho", **MEDIA)]
WRITTEN = {
    "codes": "[Human]: <🔀0><sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha><sosp><🗣️5><🗣️6><eosp><eoh>",
    "transcript": "[Human]: hi<🔀0><sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha><eoh>",
    "both": "[Human]: hi<🔀0><sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha><sosp><🗣️5><🗣️6><eosp><eoh>",
}


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS["chat"].arrow_schema)


@pytest.fixture(params=WRITTEN)
def processor(request, tiny_processor):
    tiny_processor.hearing = request.param
    return tiny_processor


def test_batches_messages_and_the_template_agree(processor):
    seen = turn("user", "look", body=[1], hand=[2], trans=[0])
    dialogues = [
        row(*TALK),
        row(*TALK[1:], seen, TALK[2], name="b"),
        row(turn("user", "just words"), TALK[2], name="c"),
    ]
    rendered, counts = render_chat_batch(table(*dialogues), processor.renderer, "text_motion_speech")
    assert counts.rendered == 3
    for sample, dialogue in zip(rendered.to_pylist(), dialogues, strict=True):
        messages = chat_messages(dialogue, "text_motion_speech", hearing=processor.hearing)
        single = processor.renderer.chat(messages)
        assert sample["input_ids"] == single["input_ids"].tolist() and sample["labels"] == single["labels"].tolist()
        assert processor.apply_chat_template(messages) == processor.decode(single["input_ids"])
    assert WRITTEN[processor.hearing] in processor.decode(rendered["input_ids"][0].as_py())


def test_speech_without_words(processor, tmp_path):
    silent = row(turn("user", "", speech=[5, 6]), TALK[2], name="silent")
    _, counts = render_chat_batch(table(silent, row(*TALK)), processor.renderer)
    content = [{"type": "audio", "audio": {"codes": [5, 6]}}]
    if processor.hearing != "transcript":
        assert counts.rendered == 2
        assert "<sosp>" in processor.apply_chat_template([{"role": "user", "content": content}])
        return
    assert counts.rejected == 1 and "sound without its transcript" in dict(counts.reasons)["silent"]
    for refused in (
        lambda: processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True),
        lambda: chat_messages(silent, "motion_speech", hearing="transcript"),
    ):
        with pytest.raises(ValueError, match="sound without its transcript"):
            refused()
    spoken = processor.apply_chat_template(
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]
    )
    assert "<sosp>" in spoken  # of answers nothing is left out


def test_hearing_is_kept_with_the_processor(processor, tmp_path):
    processor.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "processor_config.json").read_text())["hearing"] == processor.hearing
    assert SolamiProcessor.from_pretrained(tmp_path / "saved").renderer.hearing == processor.hearing


def test_unknown_hearing_is_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="hearing must be one of .* got 'ears'"):
        SolamiProcessor(tiny_tokenizer, hearing="ears")


def test_messages_for_trl_are_written_with_words(processor, tmp_path, monkeypatch):
    from solami_hf.processing.datasets import messages_data

    rows = [row(*TALK), row(turn("user", "", speech=[5]), TALK[2], name="silent")]
    monkeypatch.setattr(messages_data, "load_tokens", lambda *_, **__: rows)
    monkeypatch.setattr(messages_data, "split_names", lambda *_: ["train"])
    monkeypatch.setattr(messages_data, "leaking_ids", lambda *_: set())
    assert write_messages("tokens", processor, tmp_path / "out") == {"train": 2 - (processor.hearing == "transcript")}
