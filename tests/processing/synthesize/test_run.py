"""From topics to tokens, and what a second run does."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from solami_hf.command_line import parse_arguments
from solami_hf.processing.synthesize import SynthesizeArguments, main, synthesize
from solami_hf.processing.synthesize.writers import content_hash


def test_from_topics_to_tokens(arguments, server, tiny_processor, tmp_path, rows_of):
    from solami_hf.processing.datasets.token_dataset import load_tokens
    from solami_hf.processing.prepare import prepare

    report = synthesize(arguments(tts="stub_voice:speak", user_voices=["slt", "kal16"]))
    assert (report["train"], report["rejected"], report["answers"], report["answers_from_cache"]) == (3, 0, 3, 0)
    assert (report["prompt_tokens_this_run"], report["completion_tokens"]) == (300, 150)
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == ["synthetic-0-000000", "synthetic-0-000001", "synthetic-0-000002"]
    assert rows[0]["source"] == f"synthetic: {rows[0]['topic']}"
    system, user, answer = rows[0]["turns"][:3]
    assert system["role"] == "system" and system["text"].startswith("You are ")
    assert (user["role"], user["motion_id"], user["motion_text"]) == ("user", "w/1", "a person waves")
    assert (answer["role"], answer["motion_id"]) == ("assistant", "bow 2") and answer["voice"]
    assert (tmp_path / "out" / user["motion"]).is_file() and (tmp_path / "out" / answer["audio"]).is_file()
    assert report["lines"] == sum(len(row["turns"]) - 1 for row in rows)
    spoken = {turn["audio"] for row in rows for turn in row["turns"][1:]}
    assert report["spoken_this_run"] == len(spoken) == len(list((tmp_path / "out/wav").glob("*.wav")))
    body = server.requests[0]
    assert body["model"] == "stub" and body["temperature"] == 0.9 and body["max_tokens"] == 2048 and "seed" in body
    assert body["response_format"]["type"] == "json_schema" and body["response_format"]["json_schema"]["strict"]
    assert "- a person kicks a ball" in body["messages"][1]["content"]

    prepare("chat", tmp_path / "out", tiny_processor, tmp_path / "tokens")
    tokens = load_tokens(tmp_path / "tokens", "chat", "train", tiny_processor)
    assert len(tokens) == 3
    turns = tokens[0]["turns"]
    assert turns[0]["role"] == "system" and turns[0]["speech"] is None
    assert (
        len(turns[1]["body"]) == 9
        and len(turns[1]["speech"]) > 10
        and turns[2]["motion_text"] == answer["motion_text"]
    )


def test_nothing_is_asked_or_spoken_twice(arguments, server, tmp_path):
    first = synthesize(arguments(tts="stub_voice:speak"))
    content, asked = (tmp_path / "out/manifest.jsonl").read_bytes(), len(server.requests)
    again = synthesize(arguments(tts="stub_voice:speak"))
    assert len(server.requests) == asked and (tmp_path / "out/manifest.jsonl").read_bytes() == content
    assert again["answers_from_cache"] == 3 and again["spoken_this_run"] == 0 < first["spoken_this_run"]
    assert again["prompt_tokens_this_run"] == 0 and again["prompt_tokens"] == first["prompt_tokens"]
    more = synthesize(arguments(tts="stub_voice:speak", num_dialogues=5))
    assert len(server.requests) == asked + 2 and more["train"] == 5
    assert (tmp_path / "out/manifest.jsonl").read_bytes().startswith(content)
    synthesize(arguments(tts="stub_voice:speak", temperature=0.5))
    assert len(server.requests) == asked + 5  # another way of writing is another request
    bodies = [content_hash(body) for body in server.requests]
    assert len(set(bodies)) == len(bodies)


def test_a_killed_run_goes_on(arguments, server, motions, tmp_path):
    synthesize(arguments(output="whole", num_dialogues=8, concurrency=1))
    server.requests.clear()
    server.delay = 0.1
    code = (
        "from solami_hf.processing.synthesize import SynthesizeArguments, synthesize\n"
        f"synthesize(SynthesizeArguments({str(motions)!r}, {str(tmp_path / 'out')!r}, num_dialogues=8, "
        f"base_url={server.url!r}, model='stub', concurrency=1))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "0"})
    while len(server.requests) < 4 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "out/manifest.jsonl").exists()
    kept, server.delay = len(list((tmp_path / "out/cache/answers").glob("*.json"))), 0.0
    report = synthesize(arguments(num_dialogues=8, concurrency=1))
    assert kept >= 3 and report["answers_from_cache"] == kept
    bodies = [content_hash(body) for body in server.requests]
    assert len(bodies) - len(set(bodies)) <= 1  # only the one under way when it died
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == (tmp_path / "whole/manifest.jsonl").read_bytes()


def test_lines_without_motion_are_kept_or_rejected(arguments, server, tmp_path, rows_of):
    server.behave = lambda number, body: server.script_for(body, motion="slumbers deeply") if number == 0 else None
    report = synthesize(arguments(concurrency=1))
    (odd,) = [row for row in rows_of(tmp_path / "out") if row["turns"][1]["script_motion"] == "slumbers deeply"]
    assert not {"motion", "motion_text", "motion_id"} & set(odd["turns"][1]) and odd["turns"][2]["motion_id"]
    assert report["lines_without_near_motion"] == (len(odd["turns"]) - 1) // 2 and report["train"] == 3
    report = synthesize(arguments(concurrency=1, missing_motion="reject", max_repeats=9))
    (rejected,) = rows_of(tmp_path / "out", "rejected")
    assert report["train"] == 2 and "no motion is near 'slumbers deeply'" in rejected["reason"]
    assert rejected["answers"][0].startswith('{"title"')


def test_what_cannot_be_spoken_and_what_was_said_before_is_rejected(arguments, server, tmp_path, rows_of):
    def behave(number, body):
        return server.script_for(body, say="An unspeakable thing") if number == 0 else None

    server.behave = behave
    topics = tmp_path / "topics.txt"
    topics.write_text("tea\n")
    (tmp_path / "c.yaml").write_text("a: {name: Ann, system: You are Ann., voice: v}")
    report = synthesize(
        arguments(
            concurrency=1,
            topics=str(topics),
            characters=str(tmp_path / "c.yaml"),
            tts="stub_voice:speak",
            max_rounds=2,
        )
    )
    assert (report["train"], report["rejected"]) == (1, 2)
    reasons = [row["reason"] for row in rows_of(tmp_path / "out", "rejected")]
    assert "could not speak 'An unspeakable thing': RuntimeError: no such sound" in reasons[0]
    assert reasons[1] == "it says the same as synthetic-0-000001"


def test_test_topics_get_test_motions(arguments, motions, tmp_path, rows_of):
    report = synthesize(arguments(num_dialogues=12, test_share=0.5, min_similarity=0.1))
    assert report["train"] and report["test"] and report["train"] + report["test"] == 12
    for row in rows_of(tmp_path / "out"):
        used = {turn["motion_id"] for turn in row["turns"] if "motion_id" in turn}
        assert used <= ({"t"} if row["split"] == "test" else {"w/1", "bow 2", "k"})


def test_motions_of_a_token_dataset_are_named_by_id(arguments, motions, tiny_processor, tmp_path, rows_of):
    from solami_hf.processing.prepare import prepare

    prepare("motion", motions, tiny_processor, tmp_path / "tokens")
    args = arguments(num_dialogues=1)
    args.motions = str(tmp_path / "tokens")
    synthesize(args)
    user = rows_of(tmp_path / "out")[0]["turns"][1]
    assert user["motion_id"] == "w/1" and user["motion_text"] == "a person waves" and "motion" not in user


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"base_url": None, "model": None}, "say who writes"),
        ({"local_model": "x"}, "excludes"),
        ({"provider": "together"}, "exclude each other"),
        ({"extra_body": "[1]"}, "JSON object"),
        ({"tts": "stub_voice"}, "module:function"),
        ({"tts": "stub_voice:sing"}, "cannot be loaded"),
        ({"tts": "stub_voice:speak", "user_voices": []}, "at least one voice"),
        ({"missing_motion": "invent"}, "keep, reject"),
        ({"concurrency": 0}, "at least 1"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, server, changes, told):
    with pytest.raises(ValueError, match=told):
        synthesize(arguments(**changes))
    assert not server.requests


def test_the_command_takes_a_recipe(arguments, server, motions, tmp_path, rows_of):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"base_url: {server.url}\nmodel: stub\nnum_dialogues: 9\nuser_voices: [a, b]\ntemperature: 0.1\n"
    )
    argv = [str(motions), "--output", str(tmp_path / "cli"), "--config", str(recipe), "--num_dialogues", "2"]
    assert main([*argv, "--extra_body", '{"min_p": 0.1}']) == 0
    assert len(rows_of(tmp_path / "cli")) == 2 and json.loads((tmp_path / "cli/report.json").read_text())["train"] == 2
    assert server.requests[0]["temperature"] == 0.1 and server.requests[0]["min_p"] == 0.1


def test_the_packaged_recipe_fits_the_arguments():
    from importlib.resources import files

    recipe = str(files("solami_hf.processing.synthesize").joinpath("recipe.yaml"))
    argv = ["--config", recipe, "--motions", "m", "--output", "o", "--temperature", "0.5"]
    (args,) = parse_arguments([SynthesizeArguments], argv)
    assert (args.num_dialogues, args.test_share, args.temperature) == (6000, 0.05, 0.5)
    assert args.user_voices == ["slt", "kal16"] and args.tts == "solami_hf.processing.audio.speech_voices:speak"
