"""`solami serve` as a program: its options, and examples/live_client.py against a real server."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import soundfile

from solami_hf import cli
from solami_hf.generation import DialogueSession
from solami_hf.generation.live import serve as command
from solami_hf.generation.live.live_server import Access, LiveServer
from solami_hf.processing.motion.body import joint_positions

EXAMPLE = Path(__file__).parents[3] / "examples" / "live_client.py"
MODEL = Path(__file__).parents[2] / "fixtures" / "first_version" / "model"


def test_another_program_talks(listening, live_pipeline, tmp_path, capsys):
    sound = np.random.default_rng(0).normal(size=(24000, 2)) * 0.05
    soundfile.write(tmp_path / "hello.wav", sound, 24000)
    main = runpy.run_path(str(EXAMPLE))["main"]
    url = listening.replace("http", "ws") + "/ws"
    turns = ["hello there", str(tmp_path / "hello.wav")]
    assert main([*turns, "--url", url, "--character", "max", "--output", str(tmp_path / "talk")]) == 0
    told = capsys.readouterr().out
    *_, last = DialogueSession(live_pipeline, "max").stream("hello there")
    assert told.startswith(f"you: hello there\nMax: {last.reply.text} {{'queued'")
    heard, rate = soundfile.read(tmp_path / "talk" / "turn1.wav", dtype="int16")
    np.testing.assert_array_equal(heard, np.rint(last.reply.audio * 32767))
    motion = np.load(tmp_path / "talk" / "turn1.npz")
    np.testing.assert_allclose(motion["joints"], joint_positions(last.reply.motion), atol=1e-5)
    assert rate == 16000 and motion["fps"] == 30 and (tmp_path / "talk" / "turn2.wav").is_file()
    assert main(["hi", "--url", url, "--character", "Link", "--output", str(tmp_path / "talk")]) == 1
    assert "unknown character 'Link'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "lets other machines in; give --token"),
        (["--host", "0.0.0.0", "--public"], "with --public and the address in --origins"),
        (["--origins", "example.org"], "expected a scheme and a host"),
        (["--max_sessions", "0"], "max_sessions is 0"),
        (["--turn_seconds", "0"], "turn_seconds is 0"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--character", "Link"], "unknown character 'Link'"),
        (["--port", "99999"], "port is 99999"),
        (["more"], "unexpected words"),
    ],
)
def test_bad_options_are_told(words, told, monkeypatch, capsys):
    monkeypatch.delenv("SOLAMI_DEBUG", raising=False)
    assert cli.main(["serve", str(MODEL), *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("token", [None, "kolibri"])
def test_a_space_is_open_to_all_or_asks_for_its_secret(monkeypatch, token):
    started = []
    monkeypatch.setattr(LiveServer, "run", lambda server: started.append(server.access))
    monkeypatch.delenv("SOLAMI_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("SOLAMI_TOKEN", token)
    site = "https://org-talk.hf.space"
    assert cli.main(["serve", str(MODEL), "--host", "0.0.0.0", "--public", "--origins", site]) == 0
    assert started == [Access(token, (site,))]
    headers = {"host": "org-talk.hf.space", "origin": site}
    assert (started[0].refusal(headers, {}) is None) == (token is None)
    assert started[0].refusal(headers, {"token": "kolibri"}) is None
    assert started[0].refusal({**headers, "origin": "https://evil.example"}, {"token": "kolibri"})[0] == 403


def test_the_extra_is_named_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else name)
    assert cli.main(["serve", str(MODEL)]) == 2
    assert "uvicorn missing; pip install 'solami_hf[serve]'" in capsys.readouterr().err
