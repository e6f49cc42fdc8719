"""Dialogues answered N times: conditions, bad dialogues, killed and continued runs, in batches of either kind."""

import multiprocessing
import os
import signal
import time
from functools import partial

import pytest

from solami_hf.generation.folder import jobs
from solami_hf.generation.folder.generate import GenerateArguments, generate
from solami_hf.generation.inputs import read_dialogues
from solami_hf.generation.serving.continuous import generate_continuously
from solami_hf.processing.datasets.results import read_results
from solami_hf.processing.prepare import prepare

TIMES = ("first_token_seconds", "first_motion_seconds", "first_audio_seconds", "seconds", "decode_seconds")


def arguments(source, output, **settings):
    settings = {"max_new_tokens": 40, "media": False, "batching": "padded", "batch_size": 4} | settings
    return GenerateArguments(checkpoint="x", task="chat", input=str(source), output=str(output), **settings)


def rows_of(output):
    """Rows by (id, round, condition), without what depends on the clock."""
    rows, _ = read_results(output)
    return {
        (row["id"], row["round"], row["seed"], row["condition"]): {k: v for k, v in row.items() if k not in TIMES}
        for row in rows
    }


def test_a_folder_of_dialogues(talker, dialogues, tmp_path):
    counts = generate(arguments(dialogues, tmp_path / "out", media=True, repetitions=2), talker)
    assert counts == {"answers": 18, "valid": 16, "errors": 2}
    rows = rows_of(tmp_path / "out")
    one, broken = rows["d/1", 2, 1, "given"], rows["d/4", 0, 0, "given"]
    assert one["reference_text"] == ["answer 1 2"] and one["user_text"] == "line 1 2" and one["topic"] == "weather"
    assert one["system"] == "You are Ada." and one["user_audio"] == "b.wav" and one["reference_motion"] == "wave.npz"
    assert one["motion"] == "media/seed1/d%2F1.2.npz" and (tmp_path / "out" / one["audio"]).is_file()
    assert "broken.wav" in broken["error"] and not broken["valid"] and broken["batch_size"] > 0
    heard, seen = rows["d/0", 1, 0, "given"], rows["d/0", 2, 0, "given"]
    assert heard["user_body"] is None and heard["user_speech"] and heard["valid"]
    assert seen["user_speech"] is None and seen["user_body"] and seen["valid"]
    times = read_results(tmp_path / "out")[0].to_pandas()[list(TIMES)].dropna()
    assert len(times) == 16 and (times > 0).all().all()


def test_token_data_give_the_same_answers(talker, dialogues, tmp_path):
    prepare("chat", dialogues, talker.processor, tmp_path / "tokens")
    generate(arguments(dialogues, tmp_path / "raw"), talker)
    generate(arguments(tmp_path / "tokens", tmp_path / "codes"), talker)
    raw, codes = rows_of(tmp_path / "raw"), rows_of(tmp_path / "codes")
    assert set(codes) == {key for key in raw if key[0] != "d/4"}
    assert all(codes[key]["body"] == raw[key]["body"] and codes[key]["text"] == raw[key]["text"] for key in codes)


def test_conditions(talker, dialogues, tmp_path, monkeypatch):
    asked = {}

    def chat_prompt(messages, longest, ask=talker.chat_prompt):
        asked.setdefault(len(asked), messages)
        return ask(messages, longest)

    monkeypatch.setattr(talker, "chat_prompt", chat_prompt)
    generate(arguments(dialogues, tmp_path / "out", conditions=list(jobs.CONDITIONS), batch_size=100), talker)
    rows = rows_of(tmp_path / "out")
    of = {condition: {k[:2]: row for k, row in rows.items() if k[3] == condition} for condition in jobs.CONDITIONS}
    for (name, number), row in of["other_audio"].items():
        given = of["given"][name, number]
        other = of["given"][row["swapped_from"].rpartition(".")[0], int(row["swapped_from"][-1])]
        assert other["id"] != name and other["user_text"] != given["user_text"]
        assert row["user_speech"] == other["user_speech"] and row["user_body"] == given["user_body"]
        assert row["reference_text"] == given["reference_text"] and row["user_audio"] is None
    assert ("d/0", 2) not in of["other_motion"] or of["other_motion"]["d/0", 2]["user_body"]
    assert ("d/0", 1) not in of["other_motion"] and ("d/4", 0) not in of["other_audio"]
    prompts = list(asked.values())
    second = [messages for messages in prompts if len(messages) == 4]  # system, user, answer, user
    own = [m for m in second if m[2]["content"][0]["text"] == of["own_history"]["d/1", 1]["text"]]
    assert own and all(m[2]["content"][1]["motion"]["body"] == of["own_history"]["d/1", 1]["body"] for m in own)
    assert sum(len(m) == 2 for m in prompts) > 8  # no_history, and all first rounds


def test_malformed_answers_stay_out_of_the_own_history(talker, dialogues, monkeypatch):
    (dialogue,) = [d for d in read_dialogues(dialogues, talker.processor) if d.id == "d/1"]
    asked = []
    monkeypatch.setattr(talker, "chat_prompt", lambda messages, longest: asked.append(messages))
    stages = list(jobs.dialogue_jobs(talker, [dialogue], [7], ["own_history"], 40))
    assert [[job.columns["round"] for job in stage] for stage in stages] == [[1], [2]]
    answer = {"valid": True, "text": "Hi.", "body": [1], "hand": [2], "speech": [3]}
    for valid in (True, False):
        stages[1][0].prompt({("d/1", 1, 7, "own_history"): {**answer, "valid": valid}})
    assert [[m["role"] for m in messages] for messages in asked] == [
        ["system", "user", "assistant", "user"],
        ["system", "user"],
    ]


def test_unknown_characters_and_empty_turns(talker, dialogues, tmp_path):
    text = (dialogues / "manifest.jsonl").read_text().replace('"ada"', '"bob"', 1)
    lines = text.splitlines()
    lines[1] = lines[1].replace('"text": "line 1 1", "audio": "a.wav", "motion": "wave.npz"', '"text": ""')
    lines[1] = lines[1].replace('"text": "line 1 1", "audio": "b.wav", "motion": "wave.npz"', '"text": ""')
    (dialogues / "manifest.jsonl").write_text("\n".join(lines))
    assert generate(arguments(dialogues, tmp_path / "out"), talker)["errors"] == 3
    rows = rows_of(tmp_path / "out")
    assert "unknown character 'bob'" in rows["d/0", 0, 0, "given"]["error"]
    assert "turn is empty" in rows["d/1", 1, 0, "given"]["error"] and rows["d/1", 2, 0, "given"]["valid"]
    with pytest.raises(ValueError, match="unknown voice 'Link'"):
        generate(arguments(dialogues, tmp_path / "voice", voice="Link", media=True), talker)
    assert not (tmp_path / "voice").exists()


def slowly(talker, args):
    """A run that takes its time, in a process of its own."""
    generate_prompts = talker.generate_prompts
    talker.generate_prompts = lambda *a, **k: time.sleep(0.5) or generate_prompts(*a, **k)
    generate(args, talker)


def test_killed_and_continued_no_answer_is_lost_or_doubled(talker, dialogues, tmp_path):
    settings = {"repetitions": 2, "conditions": ["given", "own_history"], "temperature": 1.0, "media": True}
    args = arguments(dialogues, tmp_path / "killed", batch_size=3, **settings)
    fork, seen = multiprocessing.get_context("fork"), []
    for wait in (0.0, 0.1, 0.4):  # in the middle of a batch, or between two
        process = fork.Process(target=partial(slowly, talker, args))
        process.start()
        lines, patience = 0, time.time() + 120
        while process.is_alive() and lines <= sum(seen[-1:]) and time.time() < patience:
            time.sleep(0.01)
            path = tmp_path / "killed" / "results.jsonl"
            lines = path.read_bytes().count(b"\n") if path.is_file() else 0
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        rows, run = read_results(tmp_path / "killed")
        seen.append(len(rows))
        assert not run["finished"]
    assert 0 < seen[0] < seen[1] < seen[2] < 36
    assert generate(args, talker) == {"answers": 36, "valid": 32, "errors": 4}
    assert read_results(tmp_path / "killed")[1]["finished"] and len(read_results(tmp_path / "killed")[0]) == 36
    generate(arguments(dialogues, tmp_path / "whole", batch_size=3, **settings), talker)
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in ("killed", "whole")]
    assert files[0] == files[1] and not [p for p in files[0] if p.name.startswith(".")]


def test_continuous_batching_gives_the_same_answers(talker, dialogues, tmp_path):
    prompts = [
        talker.chat_prompt([{"role": "user", "content": "hi there " * n}]) for n in (1, 90, 4)
    ]  # read in pieces
    alone = [talker.generate_prompts([prompt])[0] for prompt in prompts]
    ids, times = generate_continuously(talker.model, prompts, talker.grammar(), 40)
    assert ids == alone and [len(t) for t in times] == [len(row) for row in ids]
    assert talker.model.config._attn_implementation == "sdpa"
    sampled = {"batching": "continuous", "batch_size": 20, "temperature": 1.0, "top_p": 0.9}
    assert generate(arguments(dialogues, tmp_path / "out", **sampled), talker) == {
        "answers": 9,
        "valid": 8,
        "errors": 1,
    }
    rows, run = read_results(tmp_path / "out")
    assert run["decoding"]["batching"] == "continuous" and all(row["seconds"] for row in rows if row["valid"])
