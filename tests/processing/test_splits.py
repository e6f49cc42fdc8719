"""Split hygiene: leaks that are planted into training data are found, and nothing else is taken away."""

import logging

import pytest

from solami_hf.processing.datasets.split_hygiene import held_out_rows, normalised, without_leaks
from solami_hf.processing.datasets.token_dataset import load_tokens, write_token_dataset


def clip(name: str, partner: str | None = None, text: str = "a person walks", source: str = "take 1") -> dict:
    codes = {"body": [1], "hand": [1], "trans": [1]}
    return {"id": name, "text": [text], **codes, "partner_id": partner, "num_frames": 9, "source": source}


def talk(name: str, *lines: str, source: str = "s1") -> dict:
    turns = [{"text": line, "speech": [1, 2], "speaker": "me"} for line in lines]
    return {"id": name, "turns": turns, "source": source}


def write(folder, config, **splits):
    prints = {"motion": "x"} if config == "motion" else {"speech": "x"}
    write_token_dataset(folder, config, splits, prints)
    return folder


def kept(folder, config, streaming=False):
    train = load_tokens(folder, config, "train", streaming=streaming)
    return [row["id"] for row in without_leaks(train, held_out_rows(folder, config))]


@pytest.mark.parametrize("streaming", [False, True])
def test_ids_and_partners_that_are_held_out(tmp_path, streaming, caplog):
    train = [clip("a", "b"), clip("b", "a"), clip("t1"), clip("c", "t2"), clip("d"), clip("e", "gone"), clip("v1")]
    held_out = {"test": [clip("t1"), clip("t2", "d")], "validation": [clip("v1")]}
    write(tmp_path, "motion", train=train, **held_out)
    with caplog.at_level(logging.WARNING):
        assert kept(tmp_path, "motion", streaming) == ["a", "b", "e"]
    assert "left out of training: t1, as its id is held out" in caplog.text
    assert "c, as its partner is held out" in caplog.text
    if not streaming:
        assert "4 of 7 training rows are left out" in caplog.text


@pytest.mark.parametrize("streaming", [False, True])
def test_paraphrases_of_the_same_source(tmp_path, streaming):
    train = [
        talk("same words", "Hi!", "what's up"),
        talk("same line", "Well.", "Could you wave your hand?"),
        talk("other source", "Hi!", "What's up?", source="s2"),
        talk("no source", "could you wave your hand", source=""),
        talk("short line", "hi", "something else"),
        talk("other order", "what's up", "hi"),
    ]
    test = [talk("t1", "hi", "What\u2019s up?"), talk("t2", "COULD you, wave your hand", "sure")]
    write(tmp_path, "speech", train=train, test=[*test, talk("t3", "could you wave your hand", source="")])
    assert kept(tmp_path, "speech", streaming) == ["other source", "no source", "short line", "other order"]


def test_clean_data_is_left_as_it_is(tmp_path):
    write(tmp_path, "motion", train=[clip("a", "b"), clip("b", "a")], test=[clip("t", "u"), clip("u", "t")])
    train = load_tokens(tmp_path, "motion", "train")
    assert without_leaks(train, held_out_rows(tmp_path, "motion")) is train
    write(tmp_path / "alone", "motion", train=[clip("a")])
    assert list(held_out_rows(tmp_path / "alone", "motion")) == []


def test_spellings_of_one_sentence_are_equal():
    assert (
        normalised("  Don\u2019t  SHOUT, Ren\u00e9e! ")
        == normalised("don't shout rene\u0301e")
        == "dont shout ren\u00e9e"
    )
    assert normalised("10:30, \uff21") == "10 30 a" and normalised("?!") == ""
