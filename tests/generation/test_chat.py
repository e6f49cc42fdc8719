"""`solami chat`: a console of lines and commands, and what each round leaves behind."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from solami_hf.generation import DialogueSession
from solami_hf.generation.chat import Recorder, chat, console, main, user_message
from solami_hf.processing.motion.motion_io import resample_motion, write_motion


@pytest.fixture
def talk(talker, tmp_path):
    """Types lines into a console; returns what it showed, and the recorder."""

    def typed(*lines, **settings):
        session, out = DialogueSession(talker, character="ada"), io.StringIO()
        recorder = Recorder(tmp_path / "out", "Ada")
        console(session, recorder, [line + "\n" for line in lines], out, max_new_tokens=30, **settings)
        return out.getvalue(), recorder

    return typed


def test_lines_are_turns(talk, tmp_path, small_motion, small_sound):
    write_motion(tmp_path / "wave.npz", small_motion)
    soundfile.write(tmp_path / "my voice.flac", small_sound, 16000)
    shown, recorder = talk(
        "Hello, there!",
        "",
        f"'{tmp_path}/my voice.flac' {tmp_path}/wave.npz",
        f"{tmp_path}/wave.npz Look!",
        "/quit",
        "no",
    )
    assert len(recorder.rounds) == shown.count("Ada:") == 3 and all(entry["valid"] for entry in recorder.rounds), shown
    assert json.loads((tmp_path / "out/chat.json").read_text()) == recorder.rounds
    for number in (1, 2, 3):
        assert all((tmp_path / f"out/turn{number}.{suffix}").is_file() for suffix in ("wav", "npz", "html"))
    page = (tmp_path / "out/turn2.html").read_text()
    assert "Round 2" in page and soundfile.info(tmp_path / "out/turn2.user.wav").samplerate == 16000
    assert "Hello, there!" in (tmp_path / "out/turn1.html").read_text()


def test_commands(talk, tmp_path):
    shown, recorder = talk(
        "one", "two", "/fork other", "three", "/switch main", "/undo", f"/save {tmp_path}/kept", "/reset", "four",
        f"/load {tmp_path}/kept", "/switch other", "/help",
    )  # fmt: skip
    assert re.findall(r"\[(\w+): (\d) rounds\]", shown) == [
        ("other", "2"), ("main", "2"), ("main", "1"), ("main", "1"), ("main", "0"), ("main", "1"), ("other", "3")
    ]  # fmt: skip
    assert len(recorder.rounds) == 4 and "/save FOLDER" in shown


def test_mistakes_cost_nothing(talk, tmp_path):
    shown, recorder = talk(
        "gone.wav", "/undo", "/fork", "/switch x", "/dance", "'open", "word " * 900, "/load nowhere", "hi"
    )
    told = [line.removeprefix("you> ") for line in shown.splitlines() if "! " in line]
    assert len(told) == 8 and len(recorder.rounds) == 1 and recorder.rounds[0]["valid"]
    expected = ("no such file", "nothing to take", "takes one name", "no conversation", "unknown command")
    expected += ("quotation", "shorten it", "no session")
    assert all(words in line for line, words in zip(told, expected, strict=True))


def test_malformed_answers_are_shown_as_such(talk, tmp_path):
    shown, recorder = talk("hi", logits_processor=[])
    assert "Ada: (malformed) " in shown and recorder.rounds[0]["audio"] is None
    assert "was malformed" in (tmp_path / "out/turn1.html").read_text()


def test_messages(tmp_path):
    assert user_message("Good morning, Ada")["content"] == [{"type": "text", "text": "Good morning, Ada"}]
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="one sound and one motion at most"):
        user_message(f"{tmp_path}/a.wav,{tmp_path}/a.wav")


@pytest.fixture
def command(talker, tmp_path, capsys):
    """Runs `solami chat` with a checkpoint; returns what it showed."""
    talker.model.save_pretrained(tmp_path / "model")
    talker.processor.save_pretrained(tmp_path / "model")
    options = ["--checkpoint", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--max_new_tokens", "30"]

    def shown(*words):
        assert main([*options, "--character", "ada", "--pages", "false", *words]) == 0
        return capsys.readouterr().out

    return shown


def test_the_command_as_a_console(command, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/quit\n"))
    assert "Ada: " in command("--dtype", "bfloat16") and not (tmp_path / "out/turn1.html").exists()
    assert (tmp_path / "out/turn1.wav").is_file()


def test_a_page_of_media_in_any_form(talker, tmp_path, small_motion, small_sound):
    """As data sets give them: what the character hears and sees is what the page shows."""
    motion = replace(small_motion, fps=60.0)
    user = [{"type": "audio", "array": small_sound, "sampling_rate": 8000}, {"type": "motion", "motion": motion}]
    (entry,) = chat(talker, [{"role": "user", "content": user}], tmp_path, max_new_tokens=30)
    assert soundfile.info(tmp_path / "turn1.user.wav").duration == pytest.approx(1.2)
    assert "(a recording)" in Path(entry["page"]).read_text()


def test_a_motion_of_another_rate_is_heard_by_pipeline_and_session_alike(talker, small_motion):
    slow = replace(small_motion, fps=15.0)
    turn, at_30 = ([{"type": "motion", "motion": m}] for m in (slow, resample_motion(slow, 30.0)))
    one, other = (talker([{"role": "user", "content": content}], decode=False) for content in (turn, at_30))
    assert one.answer.body.tolist() == other.answer.body.tolist()
    session = DialogueSession(talker)
    assert session.answer(turn, decode=False).valid
    assert len(session.messages[0]["content"][0]["motion"]["body"]) == 78 // 4


def test_turns_show_what_was_said(command, tmp_path):
    shown = command("--turns", "Hello, there!", "And you?").splitlines()
    rounds = json.loads((tmp_path / "out/chat.json").read_text())
    seconds = [soundfile.info(entry["audio"]).duration for entry in rounds]
    assert [shown[0], shown[4]] == ["you> Hello, there!", "you> And you?"] and len(shown) == 8
    words = [" ".join(entry["text"].split()) for entry in rounds]
    assert all(words) and [shown[1], shown[5]] == [f"Ada: {said}" for said in words]
    for line, length in zip((shown[2], shown[6]), seconds, strict=True):
        assert re.fullmatch(rf"  {length:.1f} s of speech, \d\.\d s of motion, answered in \d+\.\d s", line), line
    assert shown[7] == f"  {tmp_path}/out/turn2.wav {tmp_path}/out/turn2.npz"


def test_an_answer_without_words_says_so(talker, tmp_path):
    reply = replace(talker([{"role": "user", "content": "hi"}], max_new_tokens=30), text="")
    session, out = SimpleNamespace(answer=lambda user: reply), io.StringIO()
    session.fork = lambda: session
    console(session, Recorder(tmp_path, "Ada", pages=False), ["hi"], out)
    assert "Ada: (no words: this checkpoint answers without a transcript)" in out.getvalue()
