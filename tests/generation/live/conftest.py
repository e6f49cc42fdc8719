"""A small character that answers by voice and body, the application around it, and how clients talk to that."""

import copy
import json
import struct
import threading
import time

import anyio
import numpy as np
import pytest
import torch
from fastapi import WebSocketDisconnect
from fastapi.testclient import TestClient

from solami_hf.generation import AnswerGrammar, SolamiPipeline
from solami_hf.generation.live.live_connection import LiveService
from solami_hf.generation.live.live_protocol import Limits
from solami_hf.generation.live.live_server import Access, LiveServer, live_app
from solami_hf.processing.processing_solami import SolamiProcessor

ADDRESS = "http://127.0.0.1"

# anyio imports its parts when they are first asked for, which was in a server's thread. pytest parses them then, and
# CPython 3.11 does not always bear two threads that parse: "AST constructor recursion depth mismatch"
for name in dir(anyio):
    getattr(anyio, name)


@pytest.fixture
def live_pipeline(tiny_model, tiny_processor):
    """Answers of one second, words, motion and sound together, that depend on what was read."""
    with torch.no_grad():
        for weight in tiny_model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.5)
    speech = copy.deepcopy(tiny_processor.speech_codec)
    with torch.no_grad():
        speech.decoder.layers[-1].gain.mul_(0.1)
    characters = {"ada": {"name": "Ada", "system": "You are Ada."}, "max": {"name": "Max", "system": "You are Max."}}
    processor = SolamiProcessor(
        tiny_processor.tokenizer, tiny_processor.motion_codec, speech, characters=characters,
        answer_format="text_motion_speech", interleaved=True,
    )  # fmt: skip
    pipeline = SolamiPipeline(tiny_model, processor, max_new_tokens=200)
    bounds = {"min_seconds": 1.2, "max_seconds": 1.2, "max_new_tokens": 400, "max_text_tokens": 20}
    grammar = AnswerGrammar(processor, "text_motion_speech", True, **bounds)
    pipeline.grammar = lambda *args, **kwargs: grammar
    return pipeline


@pytest.fixture
def serve(live_pipeline):
    """`serve(limits={...}, access=..., **settings)`: a client of an application of its own."""
    opened = []

    def start(limits=None, access=None, camera=None, **settings):
        service = LiveService(live_pipeline, "ada", Limits(**(limits or {})), **settings)
        client = TestClient(live_app(service, access, camera), base_url=ADDRESS)
        client.service = service
        opened.append(client.__enter__())
        return client

    yield start
    for client in opened:
        client.__exit__(None, None, None)
    assert not [thread for thread in threading.enumerate() if thread.name == "answer"]


class Talk:
    """The client's side of one WebSocket."""

    def __init__(self, socket, **choices):
        self.socket = socket
        if choices is not None:
            self.send(type="start", version=1, **choices)
            self.info = self.until("ready")
            self.until("state")

    def send(self, **event):
        self.socket.send_text(json.dumps(event))

    def send_sound(self, samples):
        self.socket.send_bytes(struct.pack("<BId", 1, 0, 0.0) + np.asarray(samples, "<i2").tobytes())

    def next(self):
        """The next frame: an event, or (kind, turn, start, payload)."""
        message = self.socket.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"], message.get("reason", ""))
        if message.get("text") is not None:
            return json.loads(message["text"])
        data = message["bytes"]
        return *struct.unpack("<BId", data[:13]), data[13:]

    def until(self, kind, **fields):
        """The next event of a type, with these values; all before it are in `self.before`. An answer that ends
        before its first word fails."""
        self.before = []
        while True:
            frame = self.next()
            if isinstance(frame, dict) and frame["type"] == kind and fields.items() <= frame.items():
                return frame
            assert kind != "text" or not isinstance(frame, dict) or frame["type"] != "end", self.before
            self.before.append(frame)

    def answer(self):
        """All frames of an answer, the last one `end`."""
        end = self.until("end")
        frames = [*self.before, end]
        self.until("state", state="listening")
        return frames


@pytest.fixture
def listening(live_pipeline):
    """A server that listens at a port of this machine: its address."""
    service = LiveService(live_pipeline, "ada")
    server = LiveServer(live_app(service), "127.0.0.1", 0, Access())
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.address:
        assert thread.is_alive()
        time.sleep(0.02)
    yield server.address
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def talk_to():
    """`with talk_to(client, character=...) as talk`: a conversation."""
    from contextlib import contextmanager

    @contextmanager
    def open_talk(client, path="/ws", headers=None, **choices):
        with client.websocket_connect(f"ws://127.0.0.1{path}", headers=headers or {}) as socket:
            yield Talk(socket, **choices)

    return open_talk
