"""What goes wrong with one client of `solami serve` is not felt by the others."""

import json
import struct
import time

import numpy as np
import pytest
from websockets.sync.client import connect

from solami_hf.generation import DialogueSession, streaming
from tests.generation.live.test_live_server import ADDRESS, Slowly, of


def assert_all_is_well(client, talk_to):
    """Others are answered, and nothing of who has gone is left."""
    with talk_to(client, character="max") as talk:
        talk.send(type="text", text="hello")
        assert of(talk.answer(), "end")[0]["valid"]
    deadline = time.monotonic() + 30
    while client.service.connections and time.monotonic() < deadline:
        time.sleep(0.02)
    service = client.service
    assert not service.connections and not service.waiting and service.places._value == service.max_sessions
    assert all(conversation.owner is None for conversation in service.conversations.values())


@pytest.mark.parametrize("state", ["connected", "waiting", "listening", "hearing", "thinking", "queued", "speaking"])
def test_a_connection_is_cut(serve, talk_to, live_pipeline, state):
    client = serve(max_sessions=1 if state == "waiting" else 4)
    slow = Slowly(live_pipeline.model, free=0 if state in ("thinking", "queued") else 30)
    if state in ("connected", "waiting"):
        with talk_to(client), client.websocket_connect(ADDRESS) as socket:
            if state == "waiting":
                socket.send_text('{"type": "start"}')
                assert socket.receive_json()["state"] == "waiting"
    else:
        with talk_to(client) as other, talk_to(client) as talk:
            if state == "queued":
                other.send(type="text", text="be quick")
                other.until("state", state="thinking")
                while not slow.steps:
                    time.sleep(0.01)
            if state == "hearing":
                talk.send_sound(np.zeros(8000))
            elif state != "listening":
                talk.send(type="text", text="tell me a story")
                talk.until("text" if state == "speaking" else "state")
            talk.socket.close()
            slow.go_on()
            if state == "queued":
                assert of(other.answer(), "end")[0]["valid"]
    slow.go_on()
    assert_all_is_well(client, talk_to)


@pytest.mark.parametrize("what", ["model", "motion"])
def test_an_error_in_the_midst_of_an_answer(serve, talk_to, live_pipeline, monkeypatch, caplog, what):
    """Of a batch the model's error ends all answers, one in a decoder its own; the conversations go on."""
    client, slow = serve(), Slowly(live_pipeline.model, free=1)
    with talk_to(client) as first, talk_to(client) as one, talk_to(client, character="max") as two:
        first.send(type="text", text="wait")
        while not slow.steps:
            time.sleep(0.01)
        for talk in (one, two):
            talk.send(type="text", text="tell me a story")
            talk.until("state", state="thinking")
        forward, given = live_pipeline.model.model.layers[1].forward, streaming.MotionPieces.push
        steps, pieces = [], []

        def broken_forward(*args, **kwargs):
            steps.extend([0] * (len(args[0]) > 1))  # in the batch
            if what == "model" and len(steps) == 60:
                raise ZeroDivisionError
            return forward(*args, **kwargs)

        def broken_push(self, *codes):
            pieces.extend([0] * bool(steps))
            if what == "motion" and len(pieces) == 2:
                raise ZeroDivisionError
            return given(self, *codes)

        monkeypatch.setattr(live_pipeline.model.model.layers[1], "forward", broken_forward)
        monkeypatch.setattr(streaming.MotionPieces, "push", broken_push)
        slow.free = 10**9
        slow.permits.release()
        assert of(first.answer(), "end")[0]["valid"]
        ends = []
        for talk in (one, two):
            frames = talk.answer()
            ends += of(frames, "end")
            assert [e["code"] for e in of(frames, "error")] == ["internal"] * (ends[-1]["reason"] == "failed")
            assert of(frames, "text")
        assert sorted(end["valid"] for end in ends) == ([False, False] if what == "model" else [False, True])
        monkeypatch.undo()
        one_twin, two_twin = (DialogueSession(live_pipeline, name) for name in ("ada", "max"))
        for talk, twin, end in ((one, one_twin, ends[0]), (two, two_twin, ends[1])):
            if end["valid"]:
                twin.answer([{"type": "text", "text": "tell me a story"}], decode=False)
            talk.send(type="text", text="go on")
            frames = talk.answer()
            expected = twin.answer([{"type": "text", "text": "go on"}], decode=False).text
            assert "".join(event["text"] for event in of(frames, "text")) == expected


def test_a_client_that_sends_all_at_once(listening):
    """A minute of sound, as fast as it goes, and another client that talks meanwhile."""
    address = listening.replace("http", "ws") + "/ws"

    def until(socket, kind):
        while not isinstance(frame := socket.recv(60), str) or json.loads(frame)["type"] != kind:
            pass
        return json.loads(frame)

    with connect(address, max_size=None) as hasty, connect(address, max_size=None) as calm:
        for socket in (hasty, calm):
            socket.send('{"type": "start"}')
            until(socket, "ready")
        for _ in range(120):
            hasty.send(struct.pack("<BId", 1, 0, 0.0) + bytes(16000))
        calm.send('{"type": "text", "text": "hello"}')
        assert until(calm, "end")["valid"]
        assert until(hasty, "error")["code"] == "too_long"
        hasty.send('{"type": "interrupt"}')
        hasty.send('{"type": "text", "text": "hello"}')
        assert until(hasty, "end")["valid"]
