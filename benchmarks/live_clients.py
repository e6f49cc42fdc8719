"""A server of its own and the clients that `benchmarks/live.py` talks to it with, which check all that they get."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from websockets.asyncio.client import connect

from solami_hf.generation.live.live_protocol import MICROPHONE_RATE, MOTIONS, SOUND_IN, SOUND_OUT, parse_frame
from solami_hf.generation.live.live_protocol import sound_frame as to_frame

PATIENCE = 300  # seconds that an answer may take
PIECE = MICROPHONE_RATE // 10  # samples that a client sends at once
PARTS = ("text", "sound", "motion", "end")  # of an answer
AHEAD = 0.3  # seconds that a player holds the first piece of sound, at least
# While more words are written, as long as the sentences so far lack to 3 s, at 15 letters a second; see live_sound.js
LETTERS, ENOUGH, LONGEST_HOLD = 15, 3.0, 1.2
BREATH = 0.4  # seconds by which a pause between sentences may be longer


class Server:
    """`solami serve` as a process of its own.

    Args:
        words: of the command line.
        port: to listen at; 0 takes a free one.
    """

    def __init__(self, words: list[str], port: int = 0):
        begun, self.log = time.perf_counter(), tempfile.TemporaryFile("w+")
        code = "import sys; from solami_hf.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "serve", *words, "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("Talk at "):
            self.log.seek(0)
            raise RuntimeError(f"the server did not start: {line}{self.log.read()[-2000:]}")
        self.url, self.pid, self.seconds = line.split()[2], self.process.pid, time.perf_counter() - begun

    def stop(self, kill: bool = False) -> None:
        """Ends it, gracefully or at once."""
        self.process.kill() if kill else self.process.terminate()
        self.process.wait(60)


def memory(pid: int) -> float:
    """Megabytes of a process that are in memory (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@dataclass
class Answer:
    """What a client got for a turn; times in seconds from the turn's end.

    Attributes:
        first: part to the time of its first piece.
        sound, motion: (time, start in the answer, values) of each piece.
        sentences: seconds of the answer at which one ends.
        letters, written: of the sentences that are complete, and whether all are.
        hold: seconds that a player holds the first piece of sound.
        busy: others were answered instead, and the server said so.
        wrong: what should not have come.
    """

    sent: str | None
    text: str = ""
    transcript: str | None = None
    end: dict = field(default_factory=dict)
    first: dict = field(default_factory=dict)
    sound: list = field(default_factory=list)
    sentences: list = field(default_factory=list)
    motion: list = field(default_factory=list)
    wrong: list = field(default_factory=list)
    busy: bool = False
    letters: int = 0
    written: bool = False
    hold: float = AHEAD

    def media(self) -> tuple[np.ndarray, np.ndarray]:
        """All sound (samples,) and motion (frames, ...)."""
        return tuple(np.concatenate([p[2] for p in pieces] or [np.zeros(0)]) for pieces in (self.sound, self.motion))

    def ahead(self) -> float:
        """Seconds after the first piece of sound at which a player has to begin to have no gap."""
        return max(came - start for came, start, _ in self.sound) - (self.sound[0][0] - self.sound[0][1])

    def pauses(self) -> tuple[float, float]:
        """The longest silence, in seconds, within a sentence and between two, of a player that holds the first piece,
        plays on, and where a piece is late goes on when it comes."""
        longest, zero = {False: 0.0, True: 0.0}, self.sound[0][0] + self.hold - self.sound[0][1]
        for came, start, _ in self.sound:
            late = max(0.0, came - start - zero)
            zero += late
            between = any(abs(start - end) < 1e-3 for end in self.sentences)
            longest[between] = max(longest[between], late)
        return longest[False], longest[True]


class Client:
    """One WebSocket, and what has to be true of all that comes over it.

    Args:
        url: of the server, with http.
        foreign: words of others, which may not come.
    """

    def __init__(self, url: str, foreign: tuple[str, ...] = (), **choices):
        self.url, self.foreign, self.turn = url.replace("http", "ws", 1) + "/ws", foreign, 0
        self.choices, self.hands_free = {"motion": "joints", **choices}, False

    async def __aenter__(self):
        self.socket = await connect(self.url, max_size=None, compression=None, ping_interval=None)
        return self

    async def __aexit__(self, *_):
        await self.socket.close()

    async def send(self, **event) -> None:
        """An event to the server."""
        await self.socket.send(json.dumps(event))

    async def next(self) -> dict | tuple:
        """The next event, or (kind, turn, start, values) of a frame."""
        message = await asyncio.wait_for(self.socket.recv(), PATIENCE)
        return parse_frame(message) if isinstance(message, bytes) else json.loads(message)

    async def until(self, kind: str, **fields) -> dict:
        """The next event of a type with these values."""
        while True:
            frame = await self.next()
            if isinstance(frame, dict) and frame["type"] == kind and fields.items() <= frame.items():
                return frame

    async def start(self) -> "Client":
        """Begins a conversation."""
        await self.send(type="start", version=1, **self.choices)
        self.info = await self.until("ready")
        await self.until("state", state="listening")
        return self

    async def listen(self) -> None:
        """Lets turns end by what is heard: behind a spoken one a second of silence is sent."""
        await self.send(type="listen", hands_free=True)
        self.hands_free = True

    async def say(self, turn: str | np.ndarray) -> None:
        """A typed turn, or sound (samples,) at 16 kHz, sent as it would be spoken."""
        self.turn, self.sent = self.turn + 1, turn if isinstance(turn, str) else None
        if isinstance(turn, str):
            await self.send(type="text", text=turn)
        else:
            await self._speak(turn)
            if self.hands_free:
                self.silence = asyncio.create_task(self._speak(np.zeros(MICROPHONE_RATE, np.float32)))
            else:
                await self.send(type="audio_end")
        self.begun = time.perf_counter()

    async def _speak(self, sound: np.ndarray) -> None:
        begun = time.perf_counter()
        for start in range(0, len(sound), PIECE):
            piece = sound[start : start + PIECE]
            await asyncio.sleep(begun + (start + len(piece)) / MICROPHONE_RATE - time.perf_counter())
            await self.socket.send(to_frame(SOUND_IN, 0, 0.0, piece))

    async def answer(self) -> Answer:
        """The answer to the turn that was said."""
        answer, frame = Answer(self.sent), {}
        while not answer.end or frame.get("state") != "listening":
            frame = await self.next()
            now = time.perf_counter() - self.begun
            if isinstance(frame, tuple):
                self._keep(answer, now, frame)
                frame = {}
                continue
            kind = frame["type"]
            if frame.get("turn", self.turn) != self.turn:
                answer.wrong.append(f"{kind} of turn {frame['turn']} in {self.turn}")
            elif kind == "text":
                answer.first.setdefault("text", now)
                answer.text += frame["text"]
                answer.letters = len(answer.text) if frame.get("sentence_end") else answer.letters
                answer.written = frame.get("last", False)
            elif kind == "sentence":
                answer.sentences.append(frame["seconds"])
            elif kind == "transcript":
                answer.transcript = frame["text"]
            elif kind == "end":
                answer.end, answer.first["end"] = frame, now
            elif kind == "error" and frame["code"] == "busy":
                answer.busy = True
            elif kind == "error":
                answer.wrong.append(f"{frame['code']}: {frame['message']}")
        if self.sent is not None and answer.transcript != self.sent and not answer.busy:
            answer.wrong.append(f"said {self.sent!r}, came back as {answer.transcript!r}")
        told = f"{answer.text} {answer.transcript}".lower()
        answer.wrong += [f"the word {word} of another conversation" for word in self.foreign if word in told]
        return answer

    def _keep(self, answer: Answer, now: float, frame: tuple) -> None:
        kind, turn, start, values = frame
        if turn != self.turn or kind not in (SOUND_OUT, MOTIONS[self.choices["motion"]]):
            answer.wrong.append(f"a frame of kind {kind} and turn {turn} in {self.turn}")
            return
        pieces = answer.sound if kind == SOUND_OUT else answer.motion
        if kind == SOUND_OUT and not pieces:
            lacks = 0.0 if answer.written else min(LONGEST_HOLD, ENOUGH - answer.letters / LETTERS)
            answer.hold = max(AHEAD, lacks)
        answer.first.setdefault("sound" if kind == SOUND_OUT else "motion", now)
        rate = self.info["sampling_rate"] if kind == SOUND_OUT else self.info["fps"]
        if abs(sum(len(piece[2]) for piece in pieces) / rate - start) > 0.5 / rate:
            answer.wrong.append(f"a frame of kind {kind} at {start:.4f} s does not follow the one before it")
        pieces.append((now, start, values))


def figures(answers: list[Answer]) -> dict:
    """Latencies as {part: {median, p95}}, and shares of all answers."""
    found = {"answers": len(answers), "valid": sum(answer.end["valid"] for answer in answers)}
    found["busy"] = sum(answer.busy for answer in answers)
    found["wrong"] = [told for answer in answers for told in answer.wrong]
    times = {part: [answer.first[part] for answer in answers if part in answer.first] for part in PARTS}
    times["ahead"] = [answer.ahead() for answer in answers if answer.sound]
    times["heard"] = [answer.first["sound"] + answer.hold for answer in answers if answer.sound and answer.first]
    pauses = [answer.pauses() for answer in answers if answer.sound]
    times["breath"] = [between for _, between in pauses if between]
    smooth = [inside == 0 and between <= BREATH for inside, between in pauses]
    strict = [max(pause) == 0 for pause in pauses]
    at_once = [ahead <= 0.1 for ahead in times["ahead"]]
    for name, those in (("without_gap", smooth), ("without_wait", strict), ("without_hold", at_once)):
        found[name] = round(sum(those) / len(those), 3) if those else None
    for part, values in times.items():
        if values:
            median, high = np.percentile(values, [50, 95])
            found[part] = {"median": round(float(median), 3), "p95": round(float(high), 3)}
    return found
