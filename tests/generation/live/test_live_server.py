"""`solami serve` without a network: what goes over its WebSocket, who gets in, and what a bad client can do."""

import asyncio
import json
import random
import struct
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch
from fastapi import WebSocketDisconnect
from starlette.testclient import WebSocketDenialResponse

from solami_hf.generation import AnswerEnd, AudioPiece, DialogueSession, FacePiece, MotionPiece, TextPiece
from solami_hf.generation.live import live_connection
from solami_hf.generation.live.live_protocol import Limits
from solami_hf.generation.live.live_server import Access
from solami_hf.generation.live.voice_activity import SpeechDetector
from solami_hf.processing.motion.body import joint_positions

ADDRESS = "ws://127.0.0.1/ws"
HELLO = [{"type": "text", "text": "hello there"}]


def of(frames, kind):
    """Events of a type, or binary frames of a kind."""
    if isinstance(kind, str):
        return [frame for frame in frames if isinstance(frame, dict) and frame["type"] == kind]
    return [frame for frame in frames if isinstance(frame, tuple) and frame[0] == kind]


def test_page_health_and_metrics(serve, talk_to):
    client = serve()
    page = client.get("/")
    assert page.status_code == 200 and "solamiLive" in page.text and len(page.content) < 3_000_000
    assert page.headers["content-encoding"] == "gzip" and int(page.headers["content-length"]) < 700_000
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and policy.endswith("; frame-ancestors 'none'")
    framed = serve(access=Access(origins=("https://a.example", "https://b.example"))).get("/").headers
    assert framed["content-security-policy"].endswith("; frame-ancestors https://a.example https://b.example")
    assert client.get("/health").json()["protocol"] == 1
    with talk_to(client) as talk:
        talk.send(type="text", text="hello")
        talk.answer()
        text = client.get("/metrics").text
    assert "solami_connections 1\n" in text and 'solami_turns_total{outcome="valid"} 1\n' in text
    assert 'solami_seconds_count{part="first_sound"} 1\n' in text
    assert client.get("/../setup.py").status_code == 404 and client.get("/etc/passwd").status_code == 404


@pytest.mark.parametrize(("motion", "sampling"), [("params", {}), ("joints", {"do_sample": True, "top_k": 20})])
def test_pieces_are_those_of_the_session(serve, talk_to, live_pipeline, motion, sampling):
    client, twin = serve(sampling=sampling), DialogueSession(live_pipeline, "max")
    with talk_to(client, character="max", motion=motion, face=motion == "params") as talk:
        assert talk.info["characters"] == {"ada": "Ada", "max": "Max"} and talk.info["character"] == "max"
        assert (talk.info["sampling_rate"], talk.info["fps"], len(talk.info["joints"])) == (16000, 30, 55)
        for number in (1, 2):
            torch.manual_seed(number)
            talk.send(type="text", text=f"hello {number}")
            frames = talk.answer()
            torch.manual_seed(number)
            *events, last = twin.stream([{"type": "text", "text": f"hello {number}"}], **sampling)
            assert isinstance(last, AnswerEnd) and last.reply.valid
            texts = [(event.text, event.ends_sentence) for event in events if isinstance(event, TextPiece)]
            assert [(event["text"], event["sentence_end"]) for event in of(frames, "text")] == texts
            sounds = [event for event in events if isinstance(event, AudioPiece)]
            assert [frame[1:3] for frame in of(frames, 2)] == [(number, event.start) for event in sounds]
            for frame, event in zip(of(frames, 2), sounds, strict=True):
                heard = np.frombuffer(frame[3], "<i2") / 32767
                np.testing.assert_allclose(heard, event.samples, atol=0.6 / 32767)
            moves = [event for event in events if isinstance(event, MotionPiece)]
            kind, shape = (3, (-1, 55, 3)) if motion == "joints" else (4, (-1, 159))
            for frame, event in zip(of(frames, kind), moves, strict=True):
                expected = joint_positions(event.motion) if motion == "joints" else event.motion.to_params()
                np.testing.assert_allclose(np.frombuffer(frame[3], "<f4").reshape(shape), expected, atol=1e-6)
                assert frame[1:3] == (number, event.start)
            faces = [event for event in events if isinstance(event, FacePiece)] if motion == "params" else []
            assert len(of(frames, 8)) == len(faces) and (motion == "joints" or faces)
            for frame, event in zip(of(frames, 8), faces, strict=True):
                np.testing.assert_allclose(np.frombuffer(frame[3], "<f4").reshape(-1, 52), event.face, atol=1e-6)
                assert frame[1:3] == (number, event.start)
            sent = [frame[0] for frame in frames if isinstance(frame, tuple)]
            told = [
                2 if type(event) is AudioPiece else 8 for event in events if type(event) in (AudioPiece, FacePiece)
            ]
            assert not faces or [kind for kind in sent if kind in (2, 8)] == told  # a face before its sound
            states = [event["state"] for event in of(frames, "state")]
            assert states == ["thinking", "speaking"] and of(frames, "transcript")[0]["text"] == f"hello {number}"
            (end,) = of(frames, "end")
            assert end["valid"] and end["seconds"] == pytest.approx(1.2)
            assert end["timings"].keys() == {
                "queued", "transcript", "first_text", "first_sound", "first_motion", "total",
                *(["first_face"] if faces else []),
            }  # fmt: skip


def test_sound_is_heard(serve, talk_to, live_pipeline):
    samples = (np.random.default_rng(0).normal(size=9600) * 3000).astype(np.int16)
    audio = {"array": samples.astype(np.float32) / 32768, "sampling_rate": 16000}
    *_, last = DialogueSession(live_pipeline, "ada").stream([{"type": "audio", "audio": audio}])
    client = serve()
    with talk_to(client) as talk:
        for part in np.array_split(samples, 7):
            talk.send_sound(part)
        talk.send(type="audio_end")
        frames = talk.answer()
    assert "".join(event["text"] for event in of(frames, "text")) == last.reply.text and not of(frames, "transcript")


def test_words_that_were_recognised_are_told(serve, talk_to, live_pipeline):
    heard = ["", "wave your hand"]
    live_pipeline.processor.hearing = "transcript"
    live_pipeline._asr = lambda clips: [heard.pop(0) for _ in clips]
    client = serve()
    with talk_to(client) as talk:
        for number in (1, 2):
            talk.send_sound(np.zeros(4000))
            talk.send(type="audio_end")
            frames = talk.answer()
            if number == 1:  # nothing but silence
                assert of(frames, "error")[0]["code"] == "no_speech" and not of(frames, "end")[0]["valid"]
            else:
                assert of(frames, "transcript")[0]["text"] == "wave your hand" and of(frames, "end")[0]["valid"]


def test_a_pause_is_used_to_recognise_what_was_said(serve, talk_to, live_pipeline):
    clips, loud, quiet = [], np.resize([3000, -3000], 8000), np.zeros(8000)
    live_pipeline.processor.hearing = "transcript"
    live_pipeline._asr = lambda heard: [clips.append(len(clip)) or f"words {len(clip)}" for clip in heard]
    client, twin = serve(), DialogueSession(live_pipeline, "ada")

    def wait(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with talk_to(client) as talk:
        (conversation,) = client.service.conversations.values()
        for more, words in ((quiet, "words 16000"), (loud, "words 24000")):
            clips.clear()
            talk.send_sound(loud)
            wait(lambda: conversation.session._cached[: len(twin.context_ids) - 1] == twin.context_ids[:-1])
            talk.send_sound(quiet)
            wait(lambda: clips == [16000])
            client.service.worker._thread.submit(lambda: None).result(30)
            talk.send_sound(more)
            talk.send(type="audio_end")
            frames = talk.answer()
            assert of(frames, "transcript")[0]["text"] == words and clips == [16000] + [24000] * (more is loud)
            *_, last = twin.stream(words)
            assert "".join(event["text"] for event in of(frames, "text")) == last.reply.text
            assert (conversation.session.prefilled_tokens == 1) == (more is quiet)


def test_a_turn_that_waits_too_long_is_told(serve, talk_to, live_pipeline):
    client, slow = serve(limits=dict(wait_seconds=0.3)), Slowly(live_pipeline.model)
    with talk_to(client) as first, talk_to(client) as second:
        first.send(type="text", text="tell me a long story")
        first.until("text")
        second.send(type="text", text="hello there")
        assert second.until("state", state="thinking")["ahead"] == 1
        assert "try again later" in second.until("error", code="busy")["message"]
        assert second.until("end")["reason"] == "failed"
        slow.go_on()
        assert of(first.answer(), "end")[0]["valid"]
        second.send(type="text", text="hello there")
        assert second.until("state", state="thinking")["ahead"] == 0 and of(second.answer(), "end")[0]["valid"]


def test_hands_free_turns_begin_and_end_by_themselves(serve, talk_to, monkeypatch):
    def loud():
        return SpeechDetector(lambda window: float(np.abs(window).max() > 0.1))

    monkeypatch.setattr(live_connection, "speech_detector", loud)
    client = serve()
    with talk_to(client) as talk:
        assert talk.info["hands_free"]
        talk.send(type="listen", hands_free=True)
        for _ in range(2):
            talk.send_sound(np.zeros(8000))
            talk.send_sound(np.full(8000, 9000))
            assert talk.until("state")["state"] == "hearing"
            talk.send_sound(np.zeros(16000))
            assert of(talk.answer(), "end")[0]["valid"]
        talk.send_sound(np.full(800, 9000))  # a click is no turn
        talk.send_sound(np.zeros(16000))
        talk.send(type="listen", hands_free=False)
        talk.send_sound(np.zeros(8000))
        talk.send(type="audio_end")
        assert talk.until("state")["state"] == "thinking" and of(talk.answer(), "end")[0]["turn"] == 3
        monkeypatch.setattr(live_connection, "can_detect", lambda: False)
        talk.send(type="listen", hands_free=True)
        assert talk.until("error")["code"] == "unavailable"


class Slowly:
    """Lets a layer of the model wait for a permit at each step, after the first few."""

    def __init__(self, model, free=30):
        self.forward, self.layer = model.model.layers[0].forward, model.model.layers[0]
        self.free, self.steps, self.permits = free, 0, threading.Semaphore(0)
        self.layer.forward = self

    def __call__(self, *args, **kwargs):
        self.steps += 1
        if self.steps > self.free:
            self.permits.acquire(timeout=60)
        return self.forward(*args, **kwargs)

    def go_on(self):
        self.free = 10**9
        self.permits.release()


@pytest.mark.parametrize("by", ["interrupt", "sound", "text", "start", "leaving"])
def test_an_answer_is_interrupted(serve, talk_to, live_pipeline, by):
    client, slow = serve(), Slowly(live_pipeline.model)
    with talk_to(client) as talk:
        talk.send(type="text", text="tell me a long story")
        talk.until("text")
        if by == "sound":
            talk.send_sound(np.zeros(800))
        elif by == "text":
            talk.send(type="text", text="hello there")
        elif by != "leaving":
            talk.send(type=by)
        if by == "leaving":
            slow.go_on()
            return
        slow.go_on()
        end = talk.until("end")
        assert (end["valid"], end["reason"], end["turn"]) == (False, "cancelled", 1)
        if by != "text":
            talk.until("state", state="listening")
            talk.send(type="interrupt")  # drops the sound; without an answer it does nothing else
            talk.send(type="text", text="hello there")
        frames = talk.answer()
    assert of(frames, "end")[0]["turn"] == 2
    *_, last = DialogueSession(live_pipeline, "ada").stream(HELLO)  # nothing of the first turn was kept
    assert "".join(event["text"] for event in of(frames, "text")) == last.reply.text


def test_an_error_of_the_model_costs_one_answer(serve, talk_to, live_pipeline, monkeypatch, caplog):
    client = serve()
    with talk_to(client) as talk:
        with monkeypatch.context() as patch:
            patch.setattr(live_pipeline.model.model.layers[1], "forward", lambda *args, **kwargs: 1 / 0)
            talk.send(type="text", text="hello there")
            frames = talk.answer()
        assert of(frames, "error")[0] == {
            "type": "error", "code": "internal", "message": "the answer failed (ZeroDivisionError)", "turn": 1,
        }  # fmt: skip
        assert of(frames, "end")[0]["reason"] == "failed" and "an answer failed" in caplog.text
        talk.send(type="text", text="hello there")
        assert of(talk.answer(), "end")[0]["valid"]


def test_two_conversations_do_not_mix(serve, talk_to, live_pipeline):
    alone, talks = {}, {}
    for name in ("ada", "max"):
        session = DialogueSession(live_pipeline, name)
        alone[name] = [session.answer(f"I am {name} {i}", decode=False).text for i in range(2)]
    assert alone["ada"] != alone["max"]
    client, found = serve(), {"ada": [], "max": []}
    with talk_to(client, character="ada") as talks["ada"], talk_to(client, character="max") as talks["max"]:
        for i in range(2):
            for name, talk in talks.items():
                talk.send(type="text", text=f"I am {name} {i}")
            for name, talk in talks.items():
                found[name].append("".join(event["text"] for event in of(talk.answer(), "text")))
    assert found == alone


def test_places_are_given_in_order(serve, talk_to, monkeypatch):
    client = serve(max_sessions=1)
    with talk_to(client) as first:
        with client.websocket_connect(ADDRESS) as second, client.websocket_connect(ADDRESS) as third:
            for ahead, socket in enumerate((second, third)):
                socket.send_text('{"type": "start"}')
                assert socket.receive_json() == {"type": "state", "state": "waiting", "turn": 0, "ahead": ahead}
            assert "solami_waiting 2\n" in client.get("/metrics").text
            first.send(type="text", text="hello")
            assert of(first.answer(), "end")[0]["valid"]
            first.socket.close()
            assert second.receive_json()["type"] == "ready"
            second.close()
            assert third.receive_json()["type"] == "ready"
    monkeypatch.setattr(live_connection, "TELL_SECONDS", 0.05)
    with talk_to(client), client.websocket_connect(ADDRESS) as second, client.websocket_connect(ADDRESS) as third:
        second.send_text('{"type": "start"}')
        assert [second.receive_json()["ahead"] for _ in range(3)] == [0, 0, 0]
        third.send_text('{"type": "start"}')
        assert third.receive_json()["ahead"] == 1
        second.close()
        while (told := third.receive_json()["ahead"]) == 1:
            pass
        assert told == 0
    with talk_to(client):  # who waits and leaves takes no place
        with client.websocket_connect(ADDRESS) as impatient:
            impatient.send_text('{"type": "start"}')
            assert impatient.receive_json()["state"] == "waiting"
    with talk_to(client):
        assert client.service.waiting == []


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"origin": "http://evil.example"}, "/ws", 403),
        ({"origin": "http://127.0.0.1:9999"}, "/ws", 403),
        ({"origin": "null"}, "/ws", 403),
        ({"origin": "http://[", "host": "127.0.0.1"}, "/ws", 403),
        ({"origin": "http://evil.example", "host": "evil.example"}, "/ws", 403),  # its name points at 127.0.0.1
        ({"host": "evil.example"}, "/", 403),
        ({"origin": "http://127.0.0.1"}, "/ws", 0),
        ({"origin": "http://localhost:8080", "host": "localhost:8080"}, "/ws", 0),
        ({"origin": "http://[::1]:8080", "host": "[::1]:8080"}, "/ws", 0),
        ({"origin": "https://talk.example.org"}, "/ws", 0),
        ({"origin": "https://talk.example.org", "host": "talk.example.org"}, "/ws", 0),
    ],
)
def test_pages_of_others_do_not_get_in(serve, talk_to, headers, path, status):
    client = serve(access=Access(origins=("https://talk.example.org",)))
    if path == "/":
        assert client.get("/", headers=headers).status_code == status
    elif status:
        with pytest.raises(WebSocketDenialResponse) as refused, talk_to(client, headers=headers):
            pass
        assert refused.value.status_code == status
    else:
        with talk_to(client, headers=headers) as talk:
            assert talk.info["version"] == 1


def test_a_token(serve, talk_to):
    client = serve(access=Access("kolibri"))
    assert client.get("/health").status_code == 200
    for path in ("/", "/metrics"):
        answers = [client.get(path + query).status_code for query in ("", "?token=x", "?token=kolibri")]
        assert answers == [401, 401, 200]
    wrong = [("", {}), ("?token=", {}), ("?token=kolibr\u00ed", {}), ("", {"authorization": "Bearer x"})]
    for query, headers in wrong:
        with pytest.raises(WebSocketDenialResponse) as refused, talk_to(client, "/ws" + query, headers):
            pass
        assert refused.value.status_code == 401 and "a token is needed" in refused.value.text
    for query, headers in (("?token=kolibri", {}), ("", {"authorization": "bearer kolibri"})):
        with talk_to(client, "/ws" + query, {**headers, "host": "talk.example.org"}) as talk:
            assert talk.info["version"] == 1
    with pytest.raises(ValueError, match="expected a scheme and a host"):
        Access(origins=("talk.example.org",))


def closes(talk, code, reason):
    with pytest.raises(WebSocketDisconnect) as closed:
        error = talk.until("error", code=reason)
        assert error["message"]
        talk.until("nothing")
    assert (closed.value.code, closed.value.reason) == (code, reason)


def test_sizes_are_bounded(serve, talk_to):
    client = serve(limits=dict(message_bytes=5000, turn_seconds=0.5, history_turns=1, text_characters=20))
    with talk_to(client) as talk:
        for _ in range(5):  # ten times as much as is heard
            talk.send_sound(np.ones(2000))
        assert talk.until("error")["code"] == "too_long"
        talk.send(type="audio_end")
        assert of(talk.answer(), "end")[0]["valid"] and not of(talk.before, "error")
        talk.send(type="text", text="hello")  # the first turn is forgotten
        assert of(talk.answer(), "end")[0]["valid"]
        talk.send(type="start", character="max")
        assert talk.until("ready")["character"] == "max"
        talk.send(type="text", text="x" * 21)
        assert "1 to 20 characters, got 21" in talk.until("error", code="bad_turn")["message"]
        talk.send(type="text", text="hello")
        assert of(talk.answer(), "end")[0]["valid"]
        talk.send_sound(np.zeros(2600))
        closes(talk, 1009, "too_large")
    with talk_to(client) as talk:
        talk.send(type="text", text="x" * 6000)
        closes(talk, 1009, "too_large")


def test_who_says_nothing_is_let_go(serve, talk_to):
    client = serve(limits=dict(idle_seconds=0.2), max_sessions=1)
    for _ in range(2):
        with talk_to(client) as talk:
            closes(talk, 1008, "idle")


@pytest.mark.parametrize(
    ("message", "code", "told"),
    [
        ("{", "bad_message", "must be JSON"),
        ("[" * 5000, "bad_message", "must be JSON"),
        ("[]", "bad_message", "type is one of start, text, audio_end, listen, interrupt"),
        ('{"type": []}', "bad_message", "type is one of"),
        ('{"type": "shout"}', "bad_message", "type is one of"),
        ('{"type": "text"}', "bad_message", "text of text is a NoneType, expected a str"),
        ('{"type": "text", "text": 3}', "bad_message", "text of text is a int"),
        ('{"type": "text", "text": "hi", "path": "/etc"}', "bad_message", "no field 'path'"),
        ('{"type": "text", "text": " "}', "bad_turn", "1 to 2000 characters, got 0"),
        ('{"type": "listen", "hands_free": 1}', "bad_message", "is a int, expected a bool"),
        ('{"type": "audio_end"}', "bad_turn", "without any sound"),
        ('{"type": "start", "character": "Link"}', "unknown", "unknown character 'Link'"),
        ('{"type": "start", "voice": "../voice"}', "unknown", "unknown voice '../voice'"),
        ('{"type": "start", "motion": "fbx"}', "unknown", "joints, params"),
        (b"", "bad_message", "got no bytes"),
        (b"\x01\x00", "bad_message", "kind 1 and 2 bytes"),
        (struct.pack("<BId", 2, 0, 0), "bad_message", "kind 2"),
        (struct.pack("<BId", 1, 0, 0) + b"x", "bad_message", "even length"),
    ],
)
def test_bad_messages_are_told(serve, talk_to, message, code, told):
    client = serve()
    with talk_to(client) as talk:
        talk.socket.send_bytes(message) if isinstance(message, bytes) else talk.socket.send_text(message)
        error = talk.until("error")
        assert error["code"] == code and told in error["message"]
        talk.send(type="text", text="hello")
        assert of(talk.answer(), "end")[0]["valid"]


def test_the_first_message_begins_a_conversation(serve):
    client = serve()
    for first, reason in (
        ('{"type": "text", "text": "hi"}', "bad_message"),
        ('{"type": "start", "version": 2}', "bad_version"),
        ('{"type": "start", "character": "Link"}', "unknown"),
        ("nonsense", "bad_message"),
    ):
        with client.websocket_connect(ADDRESS) as socket:
            socket.send_text(first)
            assert socket.receive_json()["code"] == reason
            assert socket.receive()["code"] == (1002 if reason == "bad_version" else 1008)


class Deaf:
    """A socket whose client asks for an answer and then reads nothing of it."""

    def __init__(self):
        self.messages, self.sent, self.closed = (
            ['{"type": "start"}', '{"type": "text", "text": "hi"}'],
            [],
            asyncio.Event(),
        )

    async def receive(self):
        if self.messages:
            return {"type": "websocket.receive", "text": self.messages.pop(0)}
        await self.closed.wait()
        return {"type": "websocket.disconnect"}

    async def send_text(self, text):
        if '"thinking"' in text:
            await asyncio.Event().wait()
        self.sent.append(text)

    async def close(self, code, reason):
        self.reason = code, reason
        self.closed.set()


def test_who_does_not_read_is_let_go(live_pipeline):
    async def talk():
        service = live_connection.LiveService(live_pipeline, "ada", Limits(send_seconds=0.2))
        await asyncio.wait_for(live_connection.LiveConnection(deaf, service).run(), 60)
        return service

    deaf = Deaf()
    service = asyncio.run(talk())
    service.worker.shutdown()
    assert deaf.reason == (1008, "slow_reader") and json.loads(deaf.sent[0])["type"] == "ready"
    assert "solami_connections 0\n" in service.metrics.text() and not service.places.locked()


def fuzzed(rng):
    """A message that no client should send."""
    known = ["start", "text", "audio_end", "listen", "interrupt", "heard", "export"]
    event = {"type": rng.choice([*known, "state", "\ud800", None, 7, {}])}
    fields = {"heard": ["turn", "seconds"], "export": ["turn", "format"]}.get(str(event["type"]), [])
    others = ["text", "character", "voice", "motion", "version", "path", "resume", "body_fps", "hands_free", ""]
    bad = ["", "x" * 3000, "\ud800", "../../etc/passwd", "hi\0", None, True, [], {}, -1, 10**400, 1e308, float("nan")]
    for name in [*fields, *rng.choices(others, k=rng.randrange(1 if fields else 4))]:
        event[name] = rng.choice(bad)
    text = json.dumps(event)
    match rng.randrange(5):
        case 0:
            return rng.randbytes(rng.randrange(60))
        case 1:
            return bytes([1]) + rng.randbytes(rng.randrange(40))
        case 2:
            return text[: rng.randrange(len(text) + 1)]
        case 3:
            count = rng.choice([0, 4, 636, 1200, 1272])
            payload = rng.choice([bytes(count), rng.randbytes(count), b"\xff" * count])
            start = rng.choice([0.0, -1.0, 1e308, float("nan")])
            return struct.pack("<BId", rng.choice([5, 6, 7]), 0, start) + payload
    return text


def test_200_bad_messages(serve, talk_to, live_pipeline, monkeypatch):
    def landmarks_to_smplx(landmarks, fps):
        raise ValueError("no body")

    module = types.SimpleNamespace(landmarks_to_smplx=landmarks_to_smplx)
    monkeypatch.setitem(sys.modules, "solami_hf.processing.motion.landmarks", module)
    client, rng, closed = serve(limits=dict(turn_seconds=0.1)), random.Random(0), []
    messages, twin = [fuzzed(rng) for _ in range(200)], DialogueSession(live_pipeline, "max")
    with talk_to(client, character="max") as other:
        for number in range(2):
            send_all(client, talk_to, messages[number * 100 :][:100], closed)
            other.send(type="text", text=f"hello {number}")  # who is unharmed
            expected = twin.answer([{"type": "text", "text": f"hello {number}"}], decode=False).text
            assert "".join(event["text"] for event in of(other.answer(), "text")) == expected
    assert closed and set(closed) <= {(1008, "bad_messages"), (1002, "bad_version")}
    with talk_to(client) as talk:
        talk.send(type="text", text="hello")
        assert of(talk.answer(), "end")[0]["valid"]
    assert 'code="internal"' not in client.get("/metrics").text


def send_all(client, talk_to, messages, closed):
    """Sends messages on as many connections as it takes."""
    while messages:
        with talk_to(client) as talk:
            try:
                while messages:
                    message = messages.pop()
                    talk.socket.send_bytes(message) if isinstance(message, bytes) else talk.socket.send_text(message)
                    if len(messages) % 10 == 0:  # it still lives
                        talk.send(type="start", character="max")
                        assert talk.until("ready", character="max")
            except WebSocketDisconnect as error:
                closed.append((error.code, error.reason))
