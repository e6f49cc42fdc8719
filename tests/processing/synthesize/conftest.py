"""A server that speaks the real protocol, three motions to be found, a voice, and the arguments that name them."""

import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from solami_hf.processing.motion_files import write_motion
from solami_hf.processing.synthesize import SynthesizeArguments

TTS = """
import numpy as np

def speak(text, voice, seed):
    if "unspeakable" in text.lower():
        raise RuntimeError("no such sound")
    rng = np.random.default_rng([len(text), len(voice), seed])
    return (rng.normal(size=4000 + 100 * len(text)) * 0.1).astype("float32"), 16000
"""


def script_for(body: dict, **line) -> str:
    """A script as the request wants it; its words follow from topic and character."""
    asked = body["messages"][1]["content"]
    topic, rounds = re.search("Topic: (.*)", asked)[1], int(re.search(r"exactly (\d+) rounds", asked)[1])
    name = re.search(r"The character is called (.*?)\. This", asked)[1]
    user = {"say": f"Let us talk about {topic}", "emotion": "happy", "motion": "he is waving", **line}
    answer = {"say": f"Gladly, says {name}", "emotion": "calm", "motion": "a deep bow"}
    turns = [{"user": user, "character": {**answer, "say": f"{answer['say']} {i}"}} for i in range(rounds)]
    return json.dumps({"title": "Talk", "topic": topic, "character": name, "rounds": turns})


class StubServer(ThreadingHTTPServer):
    """`POST /v1/chat/completions`. `behave(number, body)` gives what to do with a request: a text to answer, an HTTP
    status with headers, or a function that does something to the handler; None answers with a fitting script."""

    daemon_threads = True
    script_for = staticmethod(script_for)

    def __init__(self):
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.requests, self.headers_seen, self.lock = [], [], threading.Lock()
        self.behave, self.delay, self.under_way, self.most_under_way = lambda number, body: None, 0.0, 0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class StubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.requests)
            server.requests.append(body)
            server.headers_seen.append(dict(self.headers))
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        time.sleep(server.delay)
        try:
            self.respond(number, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with server.lock:
                server.under_way -= 1

    def respond(self, number, body):
        if self.path != "/v1/chat/completions":
            return self.send(404, {"error": {"message": "no such path"}})
        what = self.server.behave(number, body)
        if callable(what):
            return what(self)
        if isinstance(what, tuple):
            status, headers = what
            return self.send(status, {"error": {"message": f"stub says {status}"}}, headers)
        text = script_for(body) if what is None else what
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        return self.send(200, {**answer, "choices": [choice], "usage": usage})

    def send(self, status, content, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    stub = StubServer()
    thread = threading.Thread(target=stub.serve_forever, args=(0.01,))
    thread.start()
    yield stub
    stub.shutdown()
    stub.server_close()
    thread.join()


@pytest.fixture
def motions(tmp_path, small_motion):
    folder = tmp_path / "motions"
    folder.mkdir()
    write_motion(folder / "a.npz", small_motion)
    captions = {"w/1": "a person waves", "bow 2": "someone makes a deep bow", "k": "a person kicks a ball"}
    rows = [{"id": name, "motion": "a.npz", "text": [text]} for name, text in captions.items()]
    rows += [{"id": "t", "motion": "a.npz", "text": "a person is waving", "split": "test"}]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def arguments(tmp_path, motions, server, monkeypatch):
    (tmp_path / "stub_voice.py").write_text(TTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    defaults = dict(num_dialogues=3, base_url=server.url, model="stub", first_wait=0.01, timeout=5.0, concurrency=2)

    def make(output="out", **changes):
        return SynthesizeArguments(str(motions), str(tmp_path / output), **{**defaults, **changes})

    return make


@pytest.fixture
def rows_of():
    """`rows_of(folder, name="manifest")`: the rows of a JSONL file."""

    def read(folder, name="manifest"):
        return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]

    return read
