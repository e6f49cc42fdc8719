"""Dialogues as `messages`: the chat template gives them the ids and labels that our own rendering gives."""

import pytest
from datasets import load_dataset

from solami_hf import cli
from solami_hf.processing.datasets.messages_data import write_messages
from solami_hf.processing.datasets.tasks import chat_messages
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset
from solami_hf.processing.rendering import TokenRenderer


@pytest.fixture
def tokens(tmp_path, tiny_processor):
    """A chat token dataset: one dialogue as it should be, and what must be left out."""
    user = {
        "role": "user",
        "text": "hi",
        "motion_text": "",
        "body": [1, 2],
        "hand": [3, 4],
        "trans": [5],
        "speech": [6],
    }
    silent = {**user, "body": [], "hand": [], "trans": [], "speech": []}
    answer = {**user, "role": "assistant", "text": "please wave", "speech": [7, 8]}
    dialogues = {
        "good": [user, answer, silent, answer],
        "mute": [user],
        "tricky": [{**silent, "text": "say <eos>"}, answer],
        "held": [user, answer],
    }
    rows = [{"id": i, "topic": "t", "character": "ada", "turns": turns, "source": i} for i, turns in dialogues.items()]
    splits = {"train": rows, "test": [rows[3]]}
    write_token_dataset(tmp_path / "tokens", "chat", splits, fingerprints(tiny_processor, "chat"))
    return tmp_path / "tokens"


@pytest.mark.parametrize("answer_format", ["motion_speech", "text_motion_speech", "text_motion"])
def test_the_template_gives_the_ids_and_labels_of_our_rendering(
    tokens, tiny_processor, tmp_path, answer_format, caplog
):
    assert write_messages(tokens, tiny_processor, tmp_path / "out", answer_format) == {"train": 1, "test": 1}
    assert "3 dialogues are left out" in caplog.text and "never speaks" in caplog.text and "leak" in caplog.text
    row = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))[0]
    assert row["id"] == "good"
    found = tiny_processor.tokenizer.apply_chat_template(
        row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    source = load_dataset(str(tokens), "chat", split="train", cache_dir=str(tmp_path / "cache"))[0]
    wanted = TokenRenderer(tiny_processor.tokenizer, tiny_processor).chat(
        chat_messages(source, answer_format, "You are Ada.")
    )
    assert found["input_ids"] == wanted["input_ids"].tolist()
    assert found["assistant_masks"] == (wanted["labels"] >= 0).astype(int).tolist()
    assert 0 < sum(found["assistant_masks"]) < len(found["assistant_masks"])


def test_command_and_its_errors(tokens, tiny_processor, tmp_path, capsys):
    tiny_processor.save_pretrained(tmp_path / "model")
    command = ["prepare", "messages", str(tokens), "--processor", str(tmp_path / "model"), "--output"]
    assert cli.main([*command, str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "README.md").is_file()
    assert cli.main([*command, str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
    command[2] = str(tmp_path)
    assert cli.main([*command, str(tmp_path / "other")]) == 2
    assert "has no chat tokens; run `solami prepare chat`" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
