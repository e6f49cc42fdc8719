"""Rendering to ids and labels: labels are exactly the answers, and cutting drops whole rounds."""

import numpy as np
import pytest

from solami_hf.processing.datasets.tasks import chat_messages, phrasings
from solami_hf.processing.rendering import IGNORE, TASKS, TokenRenderer, drop_oldest_rounds

BLOCKS = {
    "text": {"type": "text", "text": "a person waves"},
    "motion": {"type": "motion", "motion": {"body": [1, 2], "hand": [3, 4]}},
    "audio": {"type": "audio", "audio": {"codes": [5, 6]}},
}
WRITTEN = {
    "text": "a person waves",
    "motion": "<sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha>",
    "audio": "<sosp><🗣️5><🗣️6><eosp>",
}


@pytest.fixture
def renderer(tiny_processor):
    return TokenRenderer(tiny_processor.tokenizer, tiny_processor)


@pytest.mark.parametrize("task", TASKS)
def test_tasks_read_as_the_paper_writes_them(renderer, task):
    source, target = TASKS[task]
    sample = renderer.task("Do it.", BLOCKS[source], BLOCKS[target])
    lead = "Do it. " if target == "text" else "Do it. This is input: "
    decode = renderer.tokenizer.decode
    whole = f"[Human]: {lead}{WRITTEN[source]}<eoh> [MMGPT]: {WRITTEN[target]}<eos>"
    assert decode(sample["input_ids"]) == whole
    trained = sample["labels"] != IGNORE
    assert decode(sample["labels"][trained]) == WRITTEN[target] + "<eos>"
    assert np.array_equal(sample["labels"][trained], sample["input_ids"][trained])
    assert renderer.tokenizer(whole, add_special_tokens=False)["input_ids"] == sample["input_ids"].tolist()


def test_chat_labels_cover_answers_only(renderer):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [BLOCKS["audio"]]},
        {"role": "assistant", "content": [BLOCKS["text"], BLOCKS["motion"], BLOCKS["audio"]]},
        {"role": "user", "content": [BLOCKS["motion"]]},
        {"role": "assistant", "content": [BLOCKS["motion"], BLOCKS["audio"]]},
    ]
    sample = renderer.chat(messages)
    trained = sample["labels"][sample["labels"] != IGNORE]
    assert renderer.tokenizer.decode(trained) == (
        f"a person waves<eot>{WRITTEN['motion']}{WRITTEN['audio']}<eos>{WRITTEN['motion']}{WRITTEN['audio']}<eos>"
    )


def test_whole_rounds_are_dropped_from_the_front():
    turns = [{"role": role, "content": str(i)} for i in range(3) for role in ("user", "assistant")]
    messages = [{"role": "system", "content": "s"}] + turns
    assert drop_oldest_rounds(messages, lambda m: len(m) <= 5) == messages[:1] + turns[2:]
    assert drop_oldest_rounds(messages, lambda m: True) == messages
    assert drop_oldest_rounds(messages, lambda m: len(m) <= 2) is None


@pytest.mark.parametrize("codes", [[-1], [16], [3, 999]])
def test_foreign_codes_are_refused(renderer, codes):
    with pytest.raises(ValueError, match="body codes must lie in 0..15"):
        renderer.codes("body", codes)


def test_every_task_has_25_phrasings():
    for task in TASKS:
        assert len(set(phrasings(task))) >= 25
    with pytest.raises(ValueError, match="unknown task"):
        phrasings("juggling")


def test_chat_rows_become_messages():
    row = {
        "turns": [
            {"role": "system", "text": "s", "body": None, "hand": None, "trans": None, "speech": None},
            {"role": "user", "text": "hi", "body": [1], "hand": [2], "trans": [3], "speech": [4]},
            {"role": "assistant", "text": "ho", "body": [5], "hand": [6], "trans": [7], "speech": [8]},
        ]
    }
    system, user, answer = chat_messages(row, "text_motion_speech")
    assert system == {"role": "system", "content": "s"}
    assert [b["type"] for b in user["content"]] == ["motion", "audio"]
    assert user["content"][0]["motion"] == {"body": [1], "hand": [2], "trans": [3]}
    assert answer["content"][0] == {"type": "text", "text": "ho"}
    assert answer["content"][1]["motion"] == {"body": [5], "hand": [6]}
    assert [b["type"] for b in chat_messages(row, "motion_speech")[2]["content"]] == ["motion", "audio"]
