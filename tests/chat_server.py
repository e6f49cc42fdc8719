"""A server on this machine that speaks the chat-completions protocol, for tests of what asks language models.

with chat_server(answer=lambda body: "text") as server:
    client(base_url=server.url)
"""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StubServer(ThreadingHTTPServer):
    """`POST /v1/chat/completions`. `behave(number, body)` gives what to do with a request: a text to answer, an HTTP
    status with headers, or a function that does something to the handler; None answers with `answer(body)`."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.answer = answer
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
        text = self.server.answer(body) if what is None else what
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


@contextmanager
def chat_server(answer):
    """A running `StubServer`; `answer(body)` gives the text where `behave` has nothing to say."""
    stub = StubServer(answer)
    thread = threading.Thread(target=stub.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield stub
    finally:
        stub.shutdown()
        stub.server_close()
        thread.join()
