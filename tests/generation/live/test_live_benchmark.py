"""The benchmark of `solami serve` on a small character: its figures, and that it sees what goes wrong."""

import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import live, live_clients
from solami_hf.generation import DialogueSession
from solami_hf.generation.live import live_connection

MODEL = Path(__file__).parents[2] / "fixtures" / "first_version" / "model"
LINES = ["hello there", "thank you"]


def test_latency_and_load(listening):
    found = asyncio.run(live.latency(listening, ["hello there", np.ones(4000, np.float32) * 0.1]))
    assert (found["spoken"], found["answers"], found["valid"], found["wrong"]) == (1, 2, 2, [])
    assert found["answer_seconds"] == 1.2 and 0 <= found["without_gap"] <= 1
    for part in ("text", "sound", "motion"):
        assert 0 < found[part]["median"] <= found[part]["p95"] <= found["end"]["p95"]
    found = asyncio.run(live.load(listening, os.getpid(), 3, 0.5, LINES))
    assert found["answers"] >= 3 and found["valid"] == found["answers"] and found["wrong"] == []
    assert found["answers_per_minute"] > 0 and found["memory_after_mb"] > 100


def test_memory(listening):
    found = asyncio.run(live.memory_over_turns(listening, os.getpid(), LINES, 3))
    assert found["answers"] == found["valid"] == 3 and found["first_mb"] <= found["peak_mb"]


def test_equal_answers(listening, live_pipeline):
    twin = DialogueSession(live_pipeline, "ada")
    found = asyncio.run(live.equal(listening, twin, {}, LINES, 2.0))
    assert (found["answers"], found["equal"], found["seconds"], found["wrong"]) == (2, 2, 2.4, [])
    assert found["drift_ms"] < 1
    other = DialogueSession(live_pipeline, "max")
    assert asyncio.run(live.equal(listening, other, {}, LINES, 1.0))["equal"] == 0


@pytest.mark.parametrize(
    ("part", "wrong"),
    [("turn", "in 1"), ("start", "does not follow"), ("words", "came back as"), ("mixed", "of another conversation")],
)
def test_a_faulty_server_is_seen(listening, monkeypatch, part, wrong):
    piece, sound_frame = live_connection.LiveConnection._piece, live_connection.sound_frame

    def faulty(connection, number, event):
        kind, frame = piece(connection, number, event)
        if isinstance(frame, dict) and part in ("words", "mixed"):
            frame = {"type": "transcript", "turn": number, "text": "kolibri"}
        return kind, frame

    def shifted(kind, turn, start, samples):
        return sound_frame(kind, turn + (part == "turn"), start + 0.01 * (part == "start"), samples)

    monkeypatch.setattr(live_connection.LiveConnection, "_piece", faulty)
    monkeypatch.setattr(live_connection, "sound_frame", shifted)

    async def talk():
        async with live.Client(listening, ("kolibri",)) as client:
            await client.start()
            await client.say("hello there")
            return await client.answer()

    assert wrong in str(asyncio.run(talk()).wrong)


def test_gaps():
    answer = live_clients.Answer(None, sound=[(1.0, 0.0, np.zeros(1600)), (1.19, 0.1, np.zeros(1600))])
    assert not answer.has_gap()
    answer.sound.append((1.31, 0.2, np.zeros(1600)))
    assert answer.has_gap()


def test_faults(listening):
    found = asyncio.run(live.faults(listening, LINES, np.zeros(4000), 4))
    assert found["cut"] == [state for state in live.STATES if state != "hearing"]
    assert found["bad_messages_closed"] >= 1 and found["flood"] == "too_long" and found["connections_left"] == 0
    beside = found["beside"]
    assert beside["valid"] == beside["answers"] > 0 and beside["wrong"] == []


@pytest.mark.slow
def test_all_of_it_with_a_server_of_its_own(capsys, caplog):
    assert live.main(["--quick", "--checkpoint", str(MODEL), "--only", "latency", "equal", "faults"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(told) == ["latency", "equal", "faults"]
    assert told["equal"]["equal"] == told["equal"]["answers"] and told["faults"]["error_after_kill_s"] < 5
