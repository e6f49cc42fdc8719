"""`solami generate` on the six tasks: files and token data in, a results folder out, bad inputs told and left out."""

import json
import os

import pytest
import soundfile

from solami_hf.generation.folder.generate import GenerateArguments, generate, main
from solami_hf.generation.inputs import read_items
from solami_hf.processing.datasets.results import read_results
from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.prepare import prepare


@pytest.fixture
def run(talker, tmp_path):
    """Runs a task and returns its rows by id."""

    def generated(task, source, output="out", **settings):
        settings = {"max_new_tokens": 40, "batching": "padded"} | settings
        args = GenerateArguments(
            checkpoint="x", task=task, input=str(source), output=str(tmp_path / output), **settings
        )
        counts = generate(args, talker)
        rows, run = read_results(tmp_path / output)
        assert run["finished"] and counts["answers"] == len(rows)
        return {row["id"]: row for row in rows}

    return generated


def words(talker, text):
    return talker.processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_text_lines(run, tmp_path):
    (tmp_path / "lines.txt").write_text("waves\n\na sneaky <eos> here\nbows deeply\n")
    moved = run("t2m", tmp_path / "lines.txt")
    assert set(moved) == {"lines.txt:1", "lines.txt:3", "lines.txt:4"}
    good, bad = moved["lines.txt:1"], moved["lines.txt:3"]
    assert good["valid"] and len(good["body"]) == len(good["hand"]) > 0 and good["user_text"] == "waves"
    assert read_motion(tmp_path / "out" / good["motion"]).num_frames == 4 * len(good["body"]) and good["audio"] is None
    assert (
        good["first_token_seconds"] <= good["first_motion_seconds"] <= good["seconds"] and good["decode_seconds"] > 0
    )
    assert not bad["valid"] and "reserved tokens" in bad["error"] and bad["num_tokens"] is None
    said = run("t2s", tmp_path / "lines.txt", "said")["lines.txt:4"]
    assert said["valid"] and soundfile.info(tmp_path / "said" / said["audio"]).frames == 320 * len(said["speech"])
    assert said["motion"] is None and said["first_audio_seconds"] > 0


def test_lists(run, tmp_path):
    listed = [{"id": "a", "text": "waves"}, "bows", {"id": "c"}, {"id": "d", "text": " "}]
    (tmp_path / "rows.json").write_text(json.dumps(listed))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, listed)) + "\n{broken")
    rows = run("t2m", tmp_path / "rows.json", media=False)
    assert {name: bool(row["error"]) for name, row in rows.items()} == {
        "a": False, "rows.json:2": False, "rows.json:3": True, "d": True
    }  # fmt: skip
    assert rows["a"]["valid"] and rows["a"]["motion"] is None and not (tmp_path / "out" / "media").exists()
    rows = run("t2s", tmp_path / "rows.jsonl", "lines", media=False)
    assert rows["a"]["valid"] and "is not JSON" in rows["rows.jsonl:5"]["error"]


def test_motion_and_sound_files(run, tmp_path, small_motion, small_sound):
    write_motion(tmp_path / "m/walk.npz", small_motion)
    (tmp_path / "m/bad.npz").write_bytes(b"x")
    (tmp_path / "s").mkdir()
    soundfile.write(tmp_path / "s/hi.wav", small_sound, 16000)
    (tmp_path / "s/bad.wav").write_bytes(b"x")
    for task, folder, given in (("m2t", "m", "walk"), ("m2m", "m", "walk"), ("s2t", "s", "hi"), ("s2s", "s", "hi")):
        rows = run(task, tmp_path / folder, task)
        assert rows[given]["valid"] and not rows["bad"]["valid"] and "bad." in rows["bad"]["error"]
        assert bool(rows[given]["text"]) == task.endswith("t") and rows[given]["reference_text"] == []
        part = "user_body" if folder == "m" else "user_speech"
        assert len(rows[given][part]) > 0 and rows["bad"][part] is None
    alone = run("m2t", tmp_path / "m/walk.npz", "alone")
    assert alone["walk"]["valid"]


def test_what_a_folder_holds_besides_is_told(run, tmp_path, small_sound, caplog):
    (tmp_path / "s").mkdir()
    (tmp_path / "far").mkdir()
    soundfile.write(tmp_path / "s/hi.aiff", small_sound, 16000)
    soundfile.write(tmp_path / "far/there.opus", small_sound, 48000, format="OGG", subtype="OPUS")
    (tmp_path / "s/far").symlink_to(tmp_path / "far")
    for name in ("memo.m4a", "hi.mp4", "notes.md", os.fsdecode(b"\xff.wav")):
        (tmp_path / "s" / name).write_bytes(b"x")
    rows = run("s2t", tmp_path / "s", media=False)
    assert {name: row["valid"] for name, row in rows.items()} == {
        "hi": True, "far/there": True, "memo": False, "\\udcff.wav": False
    }  # fmt: skip
    assert "ffmpeg -i memo.m4a memo.wav" in rows["memo"]["error"]
    assert "2 left out, no audio: hi.mp4, notes.md" in caplog.text
    _, settings = read_results(tmp_path / "out")
    assert settings["left_out"] == ["hi.mp4", "notes.md"]


@pytest.mark.parametrize("task", ["s2t", "m2t", "chat"])
def test_files_are_encoded_in_batches_of_this_size(
    run, talker, tmp_path, monkeypatch, small_motion, small_sound, task
):
    rows = []
    for i in range(5):
        write_motion(tmp_path / f"m/{i}.npz", small_motion)
        soundfile.write(tmp_path / f"m/{i}.wav", small_sound[: 9000 + i], 16000)
        turn = {"text": "hi", "audio": f"{i}.wav", "motion": f"{i}.npz"}
        turns = [{"role": role, **turn} for role in ("user", "assistant")]
        rows.append({"id": str(i), "topic": "t", "character": "ada", "turns": turns, "split": "test"})
    if task == "chat":
        (tmp_path / "m/manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    seen = []
    for codec in (talker.processor.motion_codec, talker.processor.speech_codec):

        def encode(values, *args, encode=codec.encode, **kwargs):
            seen.append(len(values))
            return encode(values, *args, **kwargs)

        monkeypatch.setattr(codec, "encode", encode)
    run(task, tmp_path / "m", batch_size=2, media=False)
    assert seen == [2, 2, 1] * (2 if task == "chat" else 1)


def test_manifests_and_token_data_bring_references(run, talker, tmp_path, small_motion, small_sound):
    source = tmp_path / "source"
    for name in ("a", "b"):
        write_motion(source / f"{name}.npz", small_motion)
        soundfile.write(source / f"{name}.wav", small_sound[: 8000 if name == "a" else 9000], 16000)
    motion = [
        {"id": "a", "motion": "a.npz", "text": ["waves", "greets"], "partner_id": "b", "split": "test"},
        {"id": "b", "motion": "b.npz", "text": ["bows"], "partner_id": "a", "split": "test"},
        {"id": "gone", "motion": "gone.npz", "text": ["runs"], "split": "test"},
        {"id": "train", "motion": "a.npz", "text": ["sits"], "split": "train"},
    ]
    (source / "manifest.jsonl").write_text("\n".join(map(json.dumps, motion)))
    told = run("m2t", source, "m2t")
    assert set(told) == {"a", "b", "gone"} and told["a"]["reference_text"] == ["waves", "greets"]
    assert told["gone"]["error"] and told["a"]["valid"] and told["a"]["user_motion"] == "a.npz"
    moved = run("t2m", source, "t2m")["a"]
    assert moved["user_text"] == "waves" and moved["reference_motion"] == "a.npz"
    assert len(moved["reference_body"]) == len(moved["reference_hand"]) == 9
    assert run("m2m", source, "m2m")["a"]["reference_motion"] == "b.npz"
    prepare("motion", source, talker.processor, tmp_path / "tokens")
    from_tokens = run("m2t", tmp_path / "tokens", "tokens_m2t")
    assert set(from_tokens) == {"a", "b"} and from_tokens["a"]["text"] == told["a"]["text"]
    assert from_tokens["a"]["user_body"] == told["a"]["user_body"]

    turns = [{"text": f"line {name}", "audio": f"{name}.wav", "speaker": "x"} for name in "ab"]
    (source / "manifest.jsonl").write_text(json.dumps({"id": "talk", "turns": turns, "split": "test"}))
    heard = run("s2t", source, "s2t")
    assert heard["talk#1"]["reference_text"] == ["line b"] and heard["talk#1"]["user_audio"] == "b.wav"
    answered = run("s2s", source, "s2s")
    assert list(answered) == ["talk#0"] and answered["talk#0"]["reference_audio"] == "b.wav"
    assert answered["talk#0"]["user_text"] == "line a" and answered["talk#0"]["reference_text"] == ["line b"]
    assert len(run("t2s", source, "t2s")["talk#0"]["reference_speech"]) == 25


def test_repetitions_have_their_seeds_and_can_be_raised(run, tmp_path):
    (tmp_path / "lines.txt").write_text("waves\nbows\nsits\n")
    settings = {"temperature": 1.0, "media": False, "batch_size": 2}
    run("t2s", tmp_path / "lines.txt", "one", **settings)
    run("t2s", tmp_path / "lines.txt", "two", repetitions=2, **settings)
    run("t2s", tmp_path / "lines.txt", "one", repetitions=2, **settings)
    ones, twos = (read_results(tmp_path / name)[0] for name in ("one", "two"))
    assert ones["seed"] == [0] * 3 + [1] * 3 and ones["batch"] == [0, 0, 1, 2, 2, 3]
    assert ones["speech"] == twos["speech"]
    by_seed = [
        dict(zip(ones["id"], ones["speech"], strict=True))
        for ones in (twos.select(range(3)), twos.select(range(3, 6)))
    ]
    assert by_seed[0] != by_seed[1]


def test_what_cannot_be_run_at_all(run, talker, tmp_path, small_motion):
    (tmp_path / "lines.txt").write_text("waves\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "memo.m4a").write_bytes(b"x")
    for task, source, error, told in (
        ("t2m", "gone", FileNotFoundError, "there is no input"),
        ("s2t", "lines.txt", ValueError, "holds no audio"),
        ("s2t", "memo.m4a", ValueError, "ffmpeg -i memo.m4a memo.wav"),
        ("m2t", "empty", ValueError, "holds no motion"),
        ("t2m", "empty", ValueError, "is no list of text"),
    ):
        with pytest.raises(error, match=told):
            read_items(task, tmp_path / source, talker.processor)
    with pytest.raises(ValueError, match="max_new_tokens=3, but the shortest answer"):
        run("t2m", tmp_path / "lines.txt", max_new_tokens=3)
    for settings, told in (
        ({"conditions": ["own_history"]}, "for --task chat"),
        ({"repetitions": 0}, "at least 1"),
        ({"temperature": -1.0}, "0 or more"),
    ):
        with pytest.raises(ValueError, match=told):
            run("t2m", tmp_path / "lines.txt", **settings)
    write_motion(tmp_path / "m/a.npz", small_motion)
    (tmp_path / "m/manifest.jsonl").write_text('{"id": "a", "motion": "a.npz", "text": ["waves"], "split": "test"}')
    prepare("motion", tmp_path / "m", talker.processor, tmp_path / "tokens")
    weight = next(talker.processor.motion_codec.parameters())
    kept = weight.data.clone()
    try:
        weight.data.add_(1.0)
        with pytest.raises(ValueError, match="was made by the motion codec"):
            run("m2t", tmp_path / "tokens")
    finally:
        weight.data.copy_(kept)


def test_an_input_longer_than_the_context_costs_no_other(run, talker, tmp_path):
    (tmp_path / "lines.txt").write_text("waves\n" + "waves and " * 400 + "\n")
    rows = run("t2m", tmp_path / "lines.txt", media=False)
    assert rows["lines.txt:1"]["valid"] and "leave room for an answer" in rows["lines.txt:2"]["error"]


def test_the_command(talker, tmp_path, capsys):
    talker.model.save_pretrained(tmp_path / "model")
    talker.processor.save_pretrained(tmp_path / "model")
    (tmp_path / "lines.txt").write_text("waves\n<eos>\n")
    options = ["--task", "t2m", "--checkpoint", str(tmp_path / "model"), "--input", str(tmp_path / "lines.txt")]
    options += ["--max_new_tokens", "30", "--output", str(tmp_path / "out")]
    assert main(options) == 1
    assert main([*options[:-1], str(tmp_path / "out"), "--media", "true"]) == 1
    (tmp_path / "lines.txt").write_text("waves\n")
    with pytest.raises(ValueError, match="inputs was"):
        main(options)
    assert main([*options, "--output", str(tmp_path / "other")]) == 0
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        main([*options, "--checkpoint", str(tmp_path / "gone")])
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("t2m", "--repetitions", "manifest.jsonl", "--conditions"))
