"""The benchmark of `solami serve` on a small character: its figures, and that it sees what goes wrong."""

import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio import server

from benchmarks import live, live_clients
from solami_hf.generation import DialogueSession
from solami_hf.generation.live.live_protocol import MOTIONS, SOUND_OUT, motion_frame, sound_frame

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


RIGHT = [
    {"type": "transcript", "turn": 1, "text": "hello there"}, {"type": "text", "turn": 1, "text": "Hi."},
    sound_frame(SOUND_OUT, 1, 0.0, np.zeros(1600)), sound_frame(SOUND_OUT, 1, 0.1, np.zeros(1600)),
]  # fmt: skip
FAULTY = {
    "of turn 2 in 1": {"type": "text", "turn": 2, "text": "Hi."},
    "kind 2 and turn 2 in 1": sound_frame(SOUND_OUT, 2, 0.2, np.zeros(1600)),
    "kind 4 and turn 1 in 1": motion_frame(MOTIONS["params"], 1, 0.0, np.zeros((3, 159))),
    "at 0.1900 s does not follow": sound_frame(SOUND_OUT, 1, 0.19, np.zeros(1600)),
    "came back as 'hello'": {"type": "transcript", "turn": 1, "text": "hello"},
    "the word kolibri of another": {"type": "text", "turn": 1, "text": "Kolibri!"},
    "internal: it failed": {"type": "error", "turn": 1, "code": "internal", "message": "it failed"},
}


@pytest.mark.parametrize("wrong", [None, *FAULTY])
def test_a_faulty_server_is_seen(wrong):
    state = {"type": "state", "state": "listening", "turn": 0}
    end = {"type": "end", "turn": 1, "valid": True, "seconds": 0.2}

    async def speak(socket):
        for number, frames in enumerate(
            ([{"type": "ready", "sampling_rate": 16000, "fps": 30}, state], [*RIGHT, end])
        ):
            await socket.recv()
            extra = [FAULTY[wrong]] if number and wrong else []
            for frame in [*frames[:-1], *extra, frames[-1], *([{**state, "turn": 1}] if number else [])]:
                await socket.send(frame if isinstance(frame, bytes) else json.dumps(frame))

    async def talk():
        async with server.serve(speak, "127.0.0.1", 0) as faulty:
            port = faulty.sockets[0].getsockname()[1]
            async with live.Client(f"http://127.0.0.1:{port}", ("kolibri",)) as client:
                await client.start()
                await client.say("hello there")
                return await client.answer()

    answer = asyncio.run(talk())
    assert answer.media()[0].shape == (3200,) if not wrong else wrong in " ".join(answer.wrong)
    assert len(answer.wrong) == (wrong is not None)


def test_gaps():
    answer = live_clients.Answer(None, sound=[(1.0, 0.0, np.zeros(1600)), (1.19, 0.1, np.zeros(1600))])
    assert answer.ahead() == pytest.approx(0.09)
    answer.sound.append((1.51, 0.2, np.zeros(1600)))
    assert answer.ahead() == pytest.approx(0.31) and answer.pauses() == pytest.approx((0.01, 0))
    answer.end, short = {"valid": True}, live_clients.Answer(None, end={"valid": False}, sound=answer.sound[:2])
    found = live_clients.figures([answer, short])
    assert (found["without_gap"], found["valid"]) == (0.5, 1) and found["ahead"]["median"] == pytest.approx(0.2)
    answer.sentences.append(0.2)  # where one ends, the pause may be longer
    assert answer.pauses() == pytest.approx((0, 0.01))
    found = live_clients.figures([answer, short])
    assert (found["without_gap"], found["without_wait"], found["without_hold"]) == (1.0, 0.5, 0.5)
    assert found["breath"]["p95"] == 0.01


def test_faults(listening):
    found = asyncio.run(live.faults(listening, LINES, np.zeros(4000), 4))
    assert found["cut"] == [state for state in live.STATES if state != "hearing"]
    assert found["bad_messages_closed"] >= 1 and found["flood"] == "too_long" and found["connections_left"] == 0
    beside = found["beside"]
    assert beside["valid"] == beside["answers"] > 0 and beside["wrong"] == []


@pytest.mark.slow
def test_all_of_it_with_a_server_of_its_own(capsys, caplog):
    words = ["--quick", "--checkpoint", str(MODEL), "--serve", "max_new_tokens", "200"]
    assert live.main([*words, "--only", "latency", "equal", "faults"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(told) == ["latency", "equal", "faults"]
    assert told["equal"]["equal"] == told["equal"]["answers"] and told["faults"]["error_after_kill_s"] < 5
