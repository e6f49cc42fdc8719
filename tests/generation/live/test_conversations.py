"""Conversations of `solami serve`: what was heard, old rounds, lost connections, batches, downloads, and the end."""

import json
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from io import BytesIO

import numpy as np
import pytest
import soundfile
from fastapi import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from solami_hf.generation import DialogueSession
from solami_hf.generation.live import live_answers, live_conversation, user_turn
from solami_hf.generation.live.live_protocol import LANDMARKS_IN, POSES_IN, Limits, ProtocolError
from solami_hf.generation.live.user_turn import UserTurn
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from tests.generation.live.test_live_server import ADDRESS, Slowly, closes, of


def session_of(client):
    """The only conversation of a server."""
    (conversation,) = client.service.conversations.values()
    return conversation.session


def text_of(frames):
    return "".join(event["text"] for event in of(frames, "text"))


# ---- what was heard


def test_the_history_holds_what_was_heard(serve, talk_to, live_pipeline):
    client, twin = serve(), DialogueSession(live_pipeline, "ada")
    twin.answer([{"type": "text", "text": "hello"}])
    whole = twin.context_ids
    with talk_to(client) as talk:
        talk.send(type="text", text="hello")
        assert of(talk.answer(), "end")[0]["valid"]
        session = session_of(client)
        assert session.context_ids == whole
        talk.send(type="heard", turn=1, seconds=1.1)
        talk.send(type="heard", turn=1, seconds=0)  # the last one counts
        talk.send(type="text", text="and now?")
        frames = talk.answer()
    twin.truncate_answer(0)
    *_, last = twin.stream([{"type": "text", "text": "and now?"}])
    assert text_of(frames) == last.reply.text and session.context_ids == twin.context_ids and session.rounds == 1


@pytest.mark.parametrize("told", [True, False])
def test_an_answer_that_is_cut_enters_the_history(serve, talk_to, live_pipeline, told, monkeypatch):
    client, slow = serve(), Slowly(live_pipeline.model, free=110)
    with talk_to(client) as talk:
        talk.send(type="text", text="tell me a long story")
        frame = talk.next()
        while not (isinstance(frame, tuple) and frame[0] == 2):
            frame = talk.next()
        talk.send(type="heard", turn=1, seconds=60.0) if told else talk.send(type="interrupt")
        slow.go_on()
        assert talk.until("end")["reason"] == "cancelled"
        talk.until("state", state="listening")
        seen = []
        given = DialogueSession.truncate_answer
        monkeypatch.setattr(DialogueSession, "truncate_answer", lambda s, t: seen.append(t) or given(s, 60.0))
        talk.send(type="text", text="go on")
        assert of(talk.answer(), "end")[0]["valid"]
    session = session_of(client)
    assert session.rounds == 2 and session.messages[2]["content"][0]["text"].endswith("...")
    assert seen == [60.0] if told else 0 < seen[0] < 1.2


def test_the_wall_clock_says_what_can_have_been_heard(live_pipeline, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(live_answers.time, "perf_counter", lambda: now[0])
    conversation = live_conversation.LiveConversation(DialogueSession(live_pipeline), None)

    def heard(**played):
        turn = live_answers.LiveTurn(1, conversation, None, "hi", 3, played=played)
        turn.stop()
        assert turn.stopped.is_set() and turn.done.cancelled() and conversation.heard[0] == 1
        return conversation.heard[1]

    assert heard() == 0
    assert heard(first_motion=(99.0, 2.0)) == 1.0  # seen, as long as there is no sound
    assert heard(first_motion=(90.0, 2.0), first_sound=(99.5, 0.9)) == 0.5
    assert heard(first_sound=(90.0, 0.9)) == 0.9


def test_only_the_last_answer_was_heard(serve, talk_to, live_pipeline):
    client = serve()
    live_pipeline.processor.hearing = "transcript"
    live_pipeline._asr = lambda clips: [""] * len(clips)
    with talk_to(client) as talk:
        talk.send(type="heard", turn=0, seconds=1)
        assert talk.until("error")["code"] == "unknown"
        for text in ("hello", "again"):
            talk.send(type="text", text=text)
            talk.answer()
        talk.send(type="heard", turn=1, seconds=1)
        assert "is not the last one, which is 2" in talk.until("error", code="unknown")["message"]
        for bad in (dict(turn=2), dict(turn=2.0, seconds=1), dict(turn=2, seconds=True), dict(turn=2, seconds="1")):
            talk.send(type="heard", **bad)
            assert talk.until("error")["code"] == "bad_message"
        talk.socket.send_text('{"type": "heard", "turn": 2, "seconds": NaN}')
        assert "no such number" in talk.until("error", code="bad_message")["message"]
        talk.send_sound(np.zeros(800))
        talk.send(type="audio_end")  # no words: no answer, and nothing of the second one is lost
        assert of(talk.answer(), "error")[0]["code"] == "no_speech"
        talk.send(type="heard", turn=3, seconds=0)
        talk.send(type="text", text="hello")
        talk.answer()
    assert session_of(client).rounds == 3


# ---- bounds


def test_the_oldest_rounds_are_forgotten(live_pipeline):
    session = DialogueSession(live_pipeline, "ada", max_rounds=4)
    rounds = []
    for number in range(9):
        assert session.answer([{"type": "text", "text": f"turn {number}"}], decode=False).valid
        rounds.append(session.rounds)
        fresh = DialogueSession(live_pipeline, "ada")
        assert session.context_ids[: len(fresh._system_ids)] == fresh._system_ids
        first = session._rounds[session._first].user["content"]
        last = session._rounds[-1].user["content"]
        assert last[0]["text"] == f"turn {number}" and first[0]["text"] <= last[0]["text"]
    assert rounds == [1, 2, 3, 4, 3, 4, 3, 4, 3]
    assert session.truncate_answer(0.0) is False and session.rounds == 2
    small = DialogueSession(live_pipeline, "ada", max_rounds=1)
    assert [small.answer(f"{n}", decode=False).valid and small.rounds for n in range(3)] == [1, 1, 1]


def test_a_conversation_goes_on_when_it_is_long(serve, talk_to, live_pipeline):
    client = serve(limits=dict(history_turns=3))
    live_pipeline.model.config.max_position_embeddings = 520  # one answer, and two rounds
    with talk_to(client) as talk:
        for number in range(7):
            talk.send(type="text", text=f"turn {number}")
            frames = talk.answer()
            assert of(frames, "end")[0]["valid"] and not of(frames, "error")
    session = session_of(client)
    assert 1 <= session.rounds <= 3 and len(session.context_ids) < 520
    assert session.messages[0]["content"] == "You are Ada."


# ---- lost connections


def test_a_lost_conversation_is_given_back(serve, talk_to, live_pipeline):
    client, twin = serve(), DialogueSession(live_pipeline, "max")
    with talk_to(client, character="max", motion="params") as talk:
        assert talk.info["resumed"] is False and len(talk.info["resume"]) >= 20
        talk.send(type="text", text="hello there")
        talk.answer()
    resume = talk.info["resume"]
    with talk_to(client, resume=resume) as talk:
        assert (talk.info["resumed"], talk.info["resume"], talk.info["turn"]) == (True, resume, 1)
        assert talk.info["character"] == "max" and talk.info["motion"] == "joints"
        talk.send(type="text", text="and now?")
        frames = talk.answer()
        assert of(frames, "end")[0]["turn"] == 2
    for text in ("hello there", "and now?"):
        *_, last = twin.stream([{"type": "text", "text": text}])
    assert text_of(frames) == last.reply.text
    for wrong in ("x" * 24, "", "../../etc/passwd"):
        with talk_to(client, resume=wrong) as talk:
            assert talk.info["resumed"] is False and talk.info["turn"] == 0 and talk.info["resume"] != resume


def test_lost_conversations_are_bounded(serve, talk_to, monkeypatch):
    client, ids = serve(limits=dict(resume_seconds=50.0), max_sessions=2), []
    for _ in range(4):
        with talk_to(client) as talk:
            ids.append(talk.info["resume"])
    assert len(set(ids)) == 4 and list(client.service.conversations) == ids[2:]
    with talk_to(client, resume=ids[0]) as talk:
        assert not talk.info["resumed"]
        talk.send(type="start", resume=ids[3])
        assert talk.until("ready")["resumed"]
        talk.send(type="start")  # ends it
        assert not talk.until("ready")["resumed"]
        talk.send(type="start", resume=ids[3])
        assert not talk.until("ready")["resumed"]
    known = list(client.service.conversations)
    later = time.monotonic() + 51
    monkeypatch.setattr("solami_hf.generation.live.live_conversation.time.monotonic", lambda: later)
    with talk_to(client, resume=known[-1]) as talk:
        assert not talk.info["resumed"] and list(client.service.conversations) == [talk.info["resume"]]


def test_a_conversation_is_taken_over(serve, talk_to, live_pipeline):
    client, slow = serve(max_sessions=1), Slowly(live_pipeline.model)
    with talk_to(client) as old:
        old.send(type="text", text="tell me a long story")
        old.until("text")
        slow.go_on()
        with talk_to(client, resume=old.info["resume"]) as new:  # though the only place is taken
            assert new.info["resumed"] and new.info["turn"] == 1
            closes(old, 1008, "taken_over")
            new.send(type="text", text="hello")
            assert of(new.answer(), "end")[0]["turn"] == 2


def test_two_connections_that_want_each_others_conversations(serve, talk_to):
    client = serve(limits=dict(send_seconds=0.5))
    with talk_to(client) as one, talk_to(client) as two:
        one.send(type="start", resume=two.info["resume"])
        two.send(type="start", resume=one.info["resume"])
        ended = 0
        for talk in (one, two):
            try:
                assert talk.until("ready")["resumed"]
            except WebSocketDisconnect as error:
                assert error.reason == "taken_over"
                ended += 1
        assert ended >= 1
    with talk_to(client) as talk:
        talk.send(type="text", text="hello")
        assert of(talk.answer(), "end")[0]["valid"]
    assert not client.service.places.locked() and not client.service.connections


# ---- the end of the server


def test_a_server_ends_in_peace(serve, talk_to, live_pipeline):
    client, slow = serve(max_sessions=2), Slowly(live_pipeline.model)
    with talk_to(client) as talk, talk_to(client) as idle, client.websocket_connect(ADDRESS) as waiting:
        waiting.send_text('{"type": "start"}')
        assert waiting.receive_json()["state"] == "waiting"
        talk.send(type="text", text="tell me a story")
        talk.until("text")
        closing = client.portal.start_task_soon(client.service.close)
        while not client.service.closing:
            time.sleep(0.01)
        idle.send(type="text", text="hello")
        assert idle.until("error")["code"] == "closing"
        with client.websocket_connect(ADDRESS) as late:
            assert late.receive_json()["code"] == "closing" and late.receive()["code"] == 1001
        slow.go_on()
        assert of(talk.answer(), "end")[0]["valid"]
        for each in (talk, idle):
            closes(each, 1001, "closing")
        while (told := waiting.receive_json())["type"] == "state":  # who waits long is told so again
            assert told["state"] == "waiting"
        assert told["code"] == "closing" and waiting.receive()["code"] == 1001
        closing.result(30)
    assert not client.service.connections


def test_an_answer_that_takes_too_long_is_cut_at_the_end(serve, talk_to, live_pipeline):
    client, slow = serve(), Slowly(live_pipeline.model)
    with talk_to(client) as talk:
        talk.send(type="text", text="tell me a story")
        talk.until("text")
        closing = client.portal.start_task_soon(client.service.close, 0.2)
        time.sleep(0.5)
        slow.go_on()
        assert talk.until("end")["reason"] == "cancelled"
        closes(talk, 1001, "closing")
        closing.result(30)


SERVER = """
import contextlib, sys
from solami_hf.generation import SolamiPipeline
from solami_hf.generation.live.live_connection import LiveService
from solami_hf.generation.live.live_server import Access, LiveServer, live_app
pipeline = SolamiPipeline.from_pretrained(sys.argv[1], max_new_tokens=200)
with contextlib.suppress(KeyboardInterrupt):
    LiveServer(live_app(LiveService(pipeline)), "127.0.0.1", 0, Access()).run()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_an_answer_end(live_pipeline, tmp_path, number):
    live_pipeline.model.save_pretrained(tmp_path)
    live_pipeline.processor.save_pretrained(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[2]
        with connect(address.replace("http", "ws") + "/ws", max_size=None) as socket:
            for event in ({"type": "start"}, {"type": "text", "text": "tell me a story"}):
                socket.send(json.dumps(event))
            events = []
            with pytest.raises(ConnectionClosed) as closed:
                for frame in socket:
                    events += [json.loads(frame)] if isinstance(frame, str) else []
                    if events[-1].get("state") == "thinking":
                        process.send_signal(number)
                socket.recv()
        assert closed.value.rcvd.code == 1001 and "end" in [event["type"] for event in events]
        assert next(event for event in events if event["type"] == "end")["valid"]
        assert process.wait(30) in (0, -number, 128 + number)
    finally:
        process.kill()


# ---- downloads and recordings


def fetch(talk, **event):
    talk.send(type="export", **event)
    told = talk.until("file")
    kind, turn, start, data = talk.next()
    assert (kind, turn, start) == (7, event["turn"], 0.0) and told["bytes"] == len(data)
    assert (told["turn"], told["format"]) == (event["turn"], event["format"])
    return told["name"], data


def test_answers_are_downloaded(serve, talk_to, live_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(live_conversation, "KEPT_TURNS", 2)
    client = serve()
    session = DialogueSession(live_pipeline, "ada")
    with talk_to(client) as talk:
        talk.send(type="export", turn=0, format="html")
        assert talk.until("error")["code"] == "unavailable"
        for number in range(2):
            talk.send(type="text", text=f"hello {number}")
            talk.answer()
            *_, last = session.stream([{"type": "text", "text": f"hello {number}"}])
        reply = last.reply
        for suffix in ("npz", "bvh", "glb"):
            name, data = fetch(talk, turn=2, format=suffix)
            assert name == f"turn2.{suffix}"
            (tmp_path / name).write_bytes(data)
        np.testing.assert_allclose(
            read_motion(tmp_path / "turn2.npz").to_params(), reply.motion.to_params(), atol=1e-4
        )
        assert read_motion(tmp_path / "turn2.bvh").num_frames == reply.motion.num_frames
        assert (tmp_path / "turn2.glb").read_bytes()[:4] == b"glTF"
        name, data = fetch(talk, turn=2, format="wav")
        sound, rate = soundfile.read(BytesIO(data), dtype="float32")
        assert rate == 16000 and len(sound) == len(reply.audio)
        talk.send_sound(np.full(8000, 900))
        talk.send(type="audio_end")
        talk.answer()
        name, page = fetch(talk, turn=0, format="html")
        assert name == "talk.html" and page.startswith(b"<!") and b"A talk with Ada" in page
        assert b"hello 1" in page and b"hello 0" not in page and b"(a recording)" in page  # the last two
        bad = [(1, "wav", "unavailable"), (4, "wav", "unknown"), (0, "wav", "unknown"), (2, "html", "unknown"),
               (-1, "npz", "unknown"), (2, "../x", "unknown"), (2**40, "npz", "unknown")]  # fmt: skip
        for turn, format, code in bad:
            talk.send(type="export", turn=turn, format=format)
            assert talk.until("error")["code"] == code
    with talk_to(client) as other:  # answers of others are out of reach
        other.send(type="export", turn=2, format="wav")
        assert other.until("error")["code"] == "unknown"


def test_recordings_can_be_tried(serve, talk_to):
    client = serve()
    with talk_to(client) as talk:
        listed = talk.info["recordings"]
    assert [each["id"] for each in listed] == [1, 2, 3] and listed[0]["text"].startswith("He was not")
    size = 0
    for each in listed:
        answer = client.get(f"/recordings/{each['id']}")
        assert answer.headers["content-type"] == "audio/ogg"
        sound, rate = soundfile.read(BytesIO(answer.content))
        assert rate == 16000 and 2 < len(sound) / rate < 6 and np.abs(sound).max() > 0.1
        size += len(answer.content)
    assert size < 120_000
    for path in ("0", "4", "-1", "x", "1.ogg", "..%2f..%2fserve.py"):
        assert client.get(f"/recordings/{path}").status_code in (404, 422)
    assert client.get("/recordings/1", headers={"host": "evil.example"}).status_code == 403


# ---- what the body does


def body_frame(kind, start, frames):
    return struct.pack("<BId", kind, 0, start) + np.asarray(frames, "<f4").tobytes()


def poses(count):
    values = np.random.default_rng(0).normal(size=(count, 159)) * 0.1
    return values.astype(np.float32)


def test_poses_belong_to_the_turn(serve, talk_to, live_pipeline):
    client, moves = serve(), poses(45)
    motion = {"type": "motion", "motion": SmplxMotion.from_params(moves)}
    *_, alone = DialogueSession(live_pipeline, "ada").stream([motion])
    *_, both = DialogueSession(live_pipeline, "ada").stream([{"type": "text", "text": "hello"}, motion])
    for text, expected in ((None, alone), ("hello", both)):
        with talk_to(client) as talk:
            for start in (0, 20, 40):
                talk.socket.send_bytes(body_frame(POSES_IN, 5 + start / 30, moves[start : start + 20]))
            talk.send(type="audio_end") if text is None else talk.send(type="text", text=text)
            frames = talk.answer()
            assert of(frames, "end")[0]["valid"] and text_of(frames) == expected.reply.text
            talk.send(type="audio_end")  # it was that turn's
            assert talk.until("error")["code"] == "bad_turn"


def test_landmarks_become_a_motion(serve, talk_to, live_pipeline, monkeypatch):
    seen = []

    def landmarks_to_smplx(landmarks, fps):
        seen.append((landmarks, fps))
        return SmplxMotion.from_params(poses(30))

    monkeypatch.setattr(user_turn, "landmarks_to_smplx", landmarks_to_smplx)
    client = serve()
    with talk_to(client, body_fps=10) as talk:
        points = np.arange(20, dtype=np.float32)[:, None, None] * np.ones((75, 4), np.float32) / 10
        talk.socket.send_bytes(body_frame(LANDMARKS_IN, 1.0, points[:10]))
        talk.socket.send_bytes(body_frame(LANDMARKS_IN, 2.3, points[10:]))  # three were lost
        talk.send(type="text", text="look")
        assert of(talk.answer(), "end")[0]["valid"]
    ((landmarks, fps),) = seen
    assert fps == 10 and landmarks.shape == (23, 75, 4)
    assert np.rint(landmarks[:, 0, 0] * 10).tolist() == [*range(10), 9, 9, 9, *range(10, 20)]
    for fps in (0.5, 500, -1):
        with talk_to(client) as talk:
            talk.send(type="start", body_fps=fps)
            assert talk.until("error")["code"] == "bad_message"


def test_a_body_that_nobody_sees_is_left_out():
    turn = UserTurn(Limits())
    turn.add_body(LANDMARKS_IN, 0.0, np.zeros((30, 75, 4), np.float32))
    with pytest.raises(ValueError, match="shoulders are never seen"):
        turn.content(None)
    assert turn.content("hello") == [{"type": "text", "text": "hello"}]
    turn.add_sound(np.zeros(8000, np.int16))
    assert [block["type"] for block in turn.content(None)] == ["audio"]


def test_pauses_of_a_turn():
    turn, loud, quiet = UserTurn(Limits()), np.resize([3000, -3000], 3200).astype(np.int16), np.zeros(3200, np.int16)
    turn.add_sound(loud // 100)
    assert turn.asks() and not turn.asks() and not turn.pauses
    turn.add_sound(loud)
    turn.add_sound(quiet[:3000] + 50)  # a little noise, and not long enough
    assert not turn.pauses and not turn.asks()
    turn.add_sound(quiet)
    assert turn.pauses and turn.asks() and not turn.asks() and turn.spoken == 6400
    turn.know(9000, "hello")
    turn.add_sound(quiet)
    assert turn.words == "hello"
    turn.add_sound(loud[:320])  # more is said
    assert turn.words is None and not turn.pauses and not turn.asks()
    turn.add_sound(np.zeros(4000, np.int16))
    assert turn.asks() and len(turn.sound()) == turn.samples == 20120 and np.abs(turn.sound()).max() < 0.1


def test_a_turn_in_parts():
    turn = UserTurn(Limits(turn_seconds=2.0))
    assert not turn.has_body and turn.content(None) == []
    for second in range(10):  # of a camera that is always on, the last two seconds are kept
        turn.add_body(POSES_IN, float(second), poses(30) * 0 + second)
    (block,) = turn.content(None)
    assert block["motion"].num_frames == 60 and block["motion"].transl[[0, -1], 0].tolist() == [8.0, 9.0]
    turn.add_sound(np.zeros(8000, np.int16))  # what was done long before it is of no use
    turn.add_body(POSES_IN, 10.0, poses(15))
    motion, sound = turn.content(None)
    assert motion["motion"].num_frames == 30 and len(sound["audio"]["array"]) == 8000
    turn.add_body(POSES_IN, 3.0, poses(5))  # another clock
    assert turn.content("hi")[1]["motion"].num_frames == 5
    with pytest.raises(ProtocolError, match="at most 2 s"):
        turn.add_sound(np.zeros(32000, np.int16))
    turn.add_sound(np.zeros(32000, np.int16))
    assert turn.samples == 32000
    leap = UserTurn(Limits())
    leap.add_body(POSES_IN, 0.0, poses(1))
    leap.add_body(POSES_IN, 1e300, poses(1))
    assert leap.content(None)[0]["motion"].num_frames <= 901


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (body_frame(POSES_IN, 0, np.zeros(158)), "636 bytes a frame"),
        (body_frame(LANDMARKS_IN, 0, np.zeros(4)), "1200 bytes a frame"),
        (body_frame(POSES_IN, float("nan"), np.zeros(159)), "times are finite"),
        (body_frame(POSES_IN, 0, np.full(159, np.nan)), "at most 100"),
        (body_frame(LANDMARKS_IN, 0, np.full(300, np.inf)), "at most 100"),
        (body_frame(7, 0, np.zeros(4)), "kind of 1, 5, 6"),
    ],
)
def test_bad_bodies_are_told(serve, talk_to, frame, told):
    with talk_to(serve()) as talk:
        talk.socket.send_bytes(frame)
        assert told in talk.until("error", code="bad_message")["message"]
        talk.send(type="audio_end")
        assert talk.until("error")["code"] == "bad_turn"


# ---- several at once


def test_answers_in_a_batch_are_those_alone(serve, talk_to, live_pipeline, monkeypatch):
    names, alone = ["ada", "max", "ada", "max", "ada"], []
    for number, name in enumerate(names):
        session = DialogueSession(live_pipeline, name)
        turns = [f"I am number {number} and {'this is long ' * number}", f"code {number}"]
        alone.append([session.answer([{"type": "text", "text": text}], decode=False).text for text in turns])
    assert len({text for texts in alone for text in texts}) > 5
    batches = []
    given = live_answers.answer_together
    monkeypatch.setattr(
        live_answers, "answer_together", lambda asked, k: batches.append(len(asked)) or given(asked, k)
    )
    client, slow = serve(max_sessions=6), Slowly(live_pipeline.model)
    with talk_to(client) as first:
        first.send(type="text", text="wait")  # the others gather meanwhile
        first.until("text")
        with ExitStack() as stack:
            talks = [stack.enter_context(talk_to(client, character=name)) for name in names]
            found = [[] for _ in names]
            for turn in range(2):
                for number, talk in enumerate(talks):
                    text = (f"I am number {number} and {'this is long ' * number}", f"code {number}")[turn]
                    talk.send(type="text", text=text)
                    talk.until("state", state="thinking")
                slow.go_on()
                for number, talk in enumerate(talks):
                    frames = talk.answer()
                    assert of(frames, "end")[0]["valid"] and {frame[1] for frame in of(frames, 2)} == {turn + 1}
                    assert of(frames, 2) and of(frames, 3)
                    found[number].append(text_of(frames))
    assert found == alone and max(batches) == 4
