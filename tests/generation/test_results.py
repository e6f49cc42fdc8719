"""Results folders: whole batches or nothing, one run a folder, and rows that `datasets` loads."""

import json

import datasets
import pytest

from solami_hf.generation.results_writer import ResultsWriter
from solami_hf.processing.datasets.results import FEATURES, key_of, read_results, result_row

SETTINGS = {
    "task": "t2m", "checkpoint": "c", "input": "i", "split": "test", "seeds": [0], "conditions": ["given"],
    "decoding": {"temperature": 0.0}, "items": 4,
}  # fmt: skip


def row(name, **columns):
    return result_row(task="t2m", id=name, seed=0, condition="given", **columns)


def keys(*groups):
    return [[key_of(row(name)) for name in group] for group in groups]


def test_rows_have_all_columns_and_no_others():
    assert list(row("a")) == list(FEATURES) and row("a")["valid"] is False and row("a")["user_body"] is None
    with pytest.raises(TypeError, match="no column \\['body_codes'\\]"):
        result_row(body_codes=[1])


def test_a_run_is_written_read_and_continued(tmp_path):
    plan = keys("ab", "cd", "e")
    with ResultsWriter(tmp_path, SETTINGS, plan) as writer:
        writer.append([row("a", body=[1, 2], reference_text=["x"], seconds=0.5), row("b", text="ünï\u2028code")])
        with pytest.raises(RuntimeError, match="batch 1"):
            writer.append([row("e")])
    rows, run = read_results(tmp_path)
    assert rows["id"] == ["a", "b"] and rows[0]["body"] == [1, 2] and rows[1]["text"] == "ünï\u2028code"
    assert run == {**SETTINGS, "finished": False}
    with ResultsWriter(tmp_path, {**SETTINGS, "checkpoint": "moved"}, plan) as writer:
        assert writer.next_batch == 1 and set(writer.done) == set(plan[0])
        writer.append([row("c"), row("d")])
        writer.append([row("e")])
    assert read_results(tmp_path)[1]["finished"]
    loaded = datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.features == FEATURES and loaded["id"] == list("abcde")


def test_what_a_killed_process_left_of_a_batch_is_made_again(tmp_path):
    plan = keys("ab", "cd")
    with ResultsWriter(tmp_path, SETTINGS, plan) as writer:
        writer.append([row("a"), row("b")])
    whole = (tmp_path / "results.jsonl").read_bytes()
    line = (json.dumps(row("c")) + "\n").encode()
    for left in (line, line[:10], line + line[:40]):
        (tmp_path / "results.jsonl").write_bytes(whole + left)
        (tmp_path / "media" / "seed0").mkdir(parents=True, exist_ok=True)
        (tmp_path / "media" / "seed0" / ".c.wav.4711.tmp").write_bytes(b"RIFF")
        (tmp_path / "media" / "seed0" / ".kept.tmp").write_bytes(b"somebody's")
        assert len(read_results(tmp_path)[0]) == 2 + left.count(b"\n")
        with ResultsWriter(tmp_path, SETTINGS, plan) as writer:
            assert writer.next_batch == 1 and list(writer.done) == plan[0]
        assert (tmp_path / "results.jsonl").read_bytes() == whole
        assert [path.name for path in (tmp_path / "media" / "seed0").iterdir()] == [".kept.tmp"]


def test_other_runs_are_refused(tmp_path):
    with ResultsWriter(tmp_path, SETTINGS, keys("ab")) as writer:
        writer.append([row("a"), row("b")])
        with pytest.raises(ValueError, match="another process"), ResultsWriter(tmp_path, SETTINGS, keys("ab")):
            pass
    for settings, plan, told in (
        ({**SETTINGS, "decoding": {"temperature": 1.0}}, keys("ab"), "decoding was"),
        (SETTINGS, keys("ax"), "other inputs"),
        (SETTINGS, keys("a"), "has 2 answers, more than the 1"),
        ({**SETTINGS, "seeds": [1]}, keys("ab"), "seeds was"),
    ):
        with pytest.raises(ValueError, match=told), ResultsWriter(tmp_path, settings, plan):
            pass
    with ResultsWriter(tmp_path, {**SETTINGS, "seeds": [0, 1]}, keys("ab", "c")) as writer:  # more repetitions
        assert writer.next_batch == 1
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="results.jsonl:1 lacks task, id"):
        read_results(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match="no run.json"):
        read_results(tmp_path)


def test_files_of_different_answers_never_meet(tmp_path):
    writer = ResultsWriter(tmp_path, SETTINGS, [])
    names = ["a/b", "a%2Fb", "..", ".", "a b", "../x"]
    paths = {writer.media_path(row(name), ".npz").as_posix() for name in names}
    assert len(paths) == len(names) and all(path.count("/") == 2 and "/." not in path for path in paths)
    chat = result_row(id="d", round=2, seed=3, condition="no_history")
    assert writer.media_path(chat, ".wav").as_posix() == "media/seed3/no_history/d.2.wav"
