"""One client of `solami serve`: its messages in, a `DialogueSession`'s answers out.

The event loop reads and sends; one worker thread, shared by all, answers turn after turn in the order in which they
came. What an answer is made of waits in memory for a slow client, so that nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from fastapi import WebSocket, WebSocketDisconnect

from ...processing.motion.body import SMPLX_JOINT_NAMES, joint_positions
from ...processing.rendering import sorted_blocks
from ..pipeline import SolamiPipeline
from ..session import DialogueSession
from ..streaming import AnswerEnd, AudioPiece, TextPiece
from .live_metrics import LiveMetrics
from .live_protocol import (
    JOINTS_OUT,
    MICROPHONE_RATE,
    MOTIONS,
    SOUND_OUT,
    VERSION,
    Limits,
    ProtocolError,
    motion_frame,
    parse_event,
    parse_sound,
    sound_frame,
)
from .voice_activity import SpeechDetector, can_detect, speech_detector

logger = logging.getLogger(__name__)

INBOX = 16
"""Messages of a client that may wait; then it is not read from until there is room."""
MOST_WAITING = 64
POLICY, TOO_BIG, FAILED, TRY_LATER = 1008, 1009, 1011, 1013


@dataclass
class LiveService:
    """What all connections share.

    Attributes:
        pipeline (`SolamiPipeline`): model, processor, and recogniser.
        character (`str`, *optional*): of clients that name none.
        limits (`Limits`): for each of them.
        max_sessions (`int`): conversations at once; others wait for a place, in order.
        sampling (`dict`): keyword arguments of `DialogueSession.stream`.
    """

    pipeline: SolamiPipeline
    character: str | None = None
    limits: Limits = field(default_factory=Limits)
    max_sessions: int = 4
    sampling: dict = field(default_factory=dict)
    metrics: LiveMetrics = field(default_factory=LiveMetrics)

    def __post_init__(self):
        if self.max_sessions < 1:
            raise ValueError(f"max_sessions is {self.max_sessions}, expected 1 or more")
        self.places, self.waiting = asyncio.Semaphore(self.max_sessions), 0
        # One thread: turns are answered one by one, first come, first served
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="turns")


@dataclass
class _Turn:
    """A turn that is being answered."""

    number: int
    content: list[dict]
    spoken: bool
    begin: float = field(default_factory=time.perf_counter)
    stopped: threading.Event = field(default_factory=threading.Event)
    timings: dict = field(default_factory=dict)

    def passed(self, part: str) -> bool:
        """Notes the seconds to the first of its kind; True where it is the first."""
        if part in self.timings:
            return False
        self.timings[part] = round(time.perf_counter() - self.begin, 4)
        return True


class LiveConnection:
    """A client from its first message to its last.

    Args:
        socket: accepted.
        service: what it shares with the others.
    """

    def __init__(self, socket: WebSocket, service: LiveService):
        self.socket, self.service, self.limits = socket, service, service.limits
        self.session: DialogueSession | None = None
        self.motion_kind, self.turns, self.bad = JOINTS_OUT, 0, 0
        self.detector: SpeechDetector | None = None
        self.answering: asyncio.Task | None = None
        self._turn, self._work = None, None
        self._sound: list[np.ndarray] = []
        self._samples, self._overflowed = 0, False
        self._inbox: asyncio.Queue = asyncio.Queue(INBOX)
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Talks until the client leaves, says nothing for too long, or breaks the rules."""
        self.service.metrics.add("connections")
        reading, seated = asyncio.create_task(self._read()), False
        try:
            first = await self._next()
            if not isinstance(first, str) or parse_event(first)["type"] != "start":
                raise ProtocolError("bad_message", "the first message must be start", POLICY)
            await self._take_place(reading)
            seated = True
            await self._start(parse_event(first))
            while True:
                await self._take(await self._next())
        except ProtocolError as error:
            await self._end(error)
        except WebSocketDisconnect:
            pass
        except Exception:
            logger.exception("a connection failed")
            await self._end(ProtocolError("internal", "the server failed; see its log", FAILED))
        finally:
            reading.cancel()
            await self._stop()
            if seated:
                self.service.places.release()
            self.service.metrics.add("connections", -1)

    # ---- messages in

    async def _read(self) -> None:
        """Puts the client's messages where `_next` finds them; the last is None."""
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                break
            text = message.get("text")
            await self._inbox.put(message["bytes"] if text is None else text)
        await self._inbox.put(None)

    async def _next(self) -> str | bytes:
        try:
            message = await asyncio.wait_for(self._inbox.get(), self.limits.idle_seconds)
        except TimeoutError:
            told = f"nothing came for {self.limits.idle_seconds:g} s; connect again to go on"
            raise ProtocolError("idle", told, POLICY) from None
        if message is None:
            raise WebSocketDisconnect
        if len(message) > self.limits.message_bytes:
            told = f"a message has {len(message)} bytes, at most {self.limits.message_bytes} are taken"
            raise ProtocolError("too_large", told, TOO_BIG)
        return message

    async def _take_place(self, reading: asyncio.Task) -> None:
        """Waits for one of the places, first come, first served."""
        service = self.service
        if service.places.locked():
            if service.waiting >= MOST_WAITING:
                raise ProtocolError("full", f"{service.waiting} others wait already; try again later", TRY_LATER)
            await self._send({"type": "state", "state": "waiting", "turn": 0, "ahead": service.waiting})
        service.waiting += 1
        service.metrics.add("waiting")
        place = asyncio.create_task(service.places.acquire())
        try:
            await asyncio.wait({place, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not place.done():
                raise WebSocketDisconnect
        except BaseException:
            if not place.cancel():
                service.places.release()
            raise
        finally:
            service.waiting -= 1
            service.metrics.add("waiting", -1)

    async def _take(self, message: str | bytes) -> None:
        """Does what a message asks for; a bad one is told and forgotten, a few times."""
        try:
            if isinstance(message, bytes):
                await self._hear(parse_sound(message))
                return
            event = parse_event(message)
            if event["type"] == "start":
                await self._start(event)
            elif event["type"] == "listen":
                await self._listen(event["hands_free"])
            elif event["type"] == "interrupt":
                self._clear_sound()
                await self._stop()
            else:
                await self._begin_turn(event.get("text"))
        except ProtocolError as error:
            self.bad += 1
            if error.close is not None:
                raise
            await self._tell(error)
            if self.bad >= self.limits.bad_messages:
                raise ProtocolError("bad_messages", f"{self.bad} messages could not be used", POLICY) from None

    async def _start(self, event: dict) -> None:
        """Begins a conversation, with the character and voice that were asked for."""
        await self._stop()
        self._clear_sound()
        motion = event["motion"] or "joints"
        if motion not in MOTIONS:
            raise ProtocolError("unknown", f"motion is {motion[:40]!r}, expected one of {', '.join(MOTIONS)}")
        pipeline, character = self.service.pipeline, event["character"] or self.service.character
        try:
            session = await asyncio.to_thread(DialogueSession, pipeline, character, None, event["voice"])
        except ValueError as error:
            raise ProtocolError("unknown", str(error)[:400], POLICY if self.session is None else None) from None
        self.session, self.motion_kind = session, MOTIONS[motion]
        processor = pipeline.processor
        characters = {name: known.get("name", name) for name, known in processor.characters.items()}
        await self._send(
            {
                "type": "ready",
                "version": VERSION,
                "characters": characters,
                "character": character,
                "voices": processor.voices.names,
                "voice": session.voice,
                "sampling_rate": processor.speech_codec.config.sampling_rate,
                "fps": processor.motion_codec.config.fps,
                "motion": motion,
                "joints": SMPLX_JOINT_NAMES,
                "hands_free": can_detect(),
                "turn_seconds": self.limits.turn_seconds,
                "message_bytes": self.limits.message_bytes,
            }
        )
        await self._tell_state("listening")

    async def _listen(self, hands_free: bool) -> None:
        """Whether turns begin and end by what is heard, or by what the client says."""
        if hands_free and not can_detect():
            raise ProtocolError("unavailable", "hands_free needs silero-vad: pip install 'solami_hf[serve]'")
        self._clear_sound()
        self.detector = await asyncio.to_thread(speech_detector) if hands_free else None

    async def _hear(self, samples: np.ndarray) -> None:
        """Sound of a turn; hands-free, sound in which a turn may be."""
        if self.detector is None:
            await self._keep(samples)
            return
        for part, found in await asyncio.to_thread(list, self.detector.push(samples)):
            if part == "end":
                await self._begin_turn(None)
                continue
            await self._keep(found)
            if part == "begin":
                await self._tell_state("hearing")

    async def _keep(self, samples: np.ndarray) -> None:
        """Keeps sound until the turn ends; the first of it stops an answer."""
        await self._stop()
        most = int(self.limits.turn_seconds * MICROPHONE_RATE)
        if len(samples := samples[: most - self._samples]):
            self._sound.append(samples)
            self._samples += len(samples)
        if self._samples >= most and not self._overflowed:
            self._overflowed = True
            told = f"a turn has at most {self.limits.turn_seconds:g} s of sound; what follows is not heard"
            await self._tell(ProtocolError("too_long", told))

    async def _begin_turn(self, text: str | None) -> None:
        """A user's turn is complete: the sound that came, typed words, or both, which then are what was said."""
        await self._stop()
        content = [] if text is None else [{"type": "text", "text": text}]
        if self._samples:
            sound = np.concatenate(self._sound).astype(np.float32) / 32768
            content.append({"type": "audio", "audio": {"array": sound, "sampling_rate": MICROPHONE_RATE}})
        spoken = self._samples > 0 and text is None
        self._clear_sound()
        if text is not None and not 0 < len(text.strip()) <= self.limits.text_characters:
            told = f"a text has 1 to {self.limits.text_characters} characters, got {len(text.strip())}"
            raise ProtocolError("bad_turn", told)
        if not content:
            raise ProtocolError("bad_turn", "audio_end came without any sound before it")
        if self.session.rounds >= self.limits.history_turns:
            told = f"this conversation has {self.session.rounds} turns, the most; send start to begin another"
            raise ProtocolError("history_full", told)
        self.turns, self.bad = self.turns + 1, 0
        self._turn = _Turn(self.turns, content, spoken)
        self.answering = asyncio.create_task(self._answer(self._turn))

    def _clear_sound(self) -> None:
        self._sound, self._samples, self._overflowed = [], 0, False

    async def _stop(self) -> None:
        """Stops the answer that is being given, if any, and waits until it has ended."""
        if self.answering is None:
            return
        if not self.answering.done():
            self._turn.stopped.set()
            self.session.cancel()
            if self._work is not None:
                self._work.cancel()  # where it has not begun
        await asyncio.wait({self.answering})
        self.answering, self._work = None, None

    # ---- answers out

    async def _answer(self, turn: _Turn) -> None:
        """Sends an answer as the worker thread makes it; whatever goes wrong is told, and the next turn can come."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()

        def give(piece: tuple | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        outcome, end = "failed", None
        try:
            await self._tell_state("thinking")
            self._work = work = self.service.worker.submit(self._generate, turn, give)
            work.add_done_callback(lambda _: give(None))
            while (piece := await pieces.get()) is not None:
                if not turn.stopped.is_set():
                    await self._send_piece(turn, *piece)
            end = _without_answer("cancelled") if work.cancelled() else work.result()
            outcome = "valid" if end["valid"] else "cancelled" if end["reason"] == "cancelled" else "malformed"
        except WebSocketDisconnect:
            outcome = "gone"
            turn.stopped.set()
            self.session.cancel()
        except ProtocolError as error:
            await self._tell(error)
        except ValueError as error:
            await self._tell(ProtocolError("bad_turn", str(error)[:400]))
        except Exception as error:
            logger.exception("an answer failed")
            await self._tell(ProtocolError("internal", f"the answer failed ({type(error).__name__})"))
        end = end or _without_answer("failed")
        turn.passed("total")
        self.service.metrics.add("turns_total", outcome=outcome)
        for part, seconds in turn.timings.items():
            self.service.metrics.observe(part, seconds)
        await self._send({"type": "end", "turn": turn.number, **end, "timings": turn.timings}, quiet=True)
        await self._tell_state("listening")

    async def _send_piece(self, turn: _Turn, part: str, frame: dict | bytes) -> None:
        if turn.passed(part) and part != "transcript" and sum(name.startswith("first") for name in turn.timings) == 1:
            await self._tell_state("speaking")
        await self._send(frame)

    def _generate(self, turn: _Turn, give: Callable[[tuple], None]) -> dict:
        """In the worker thread: gives pieces (part, frame); returns the fields of `end`."""
        turn.passed("queued")
        if turn.stopped.is_set():
            return _without_answer("cancelled")
        (message,) = self.service.pipeline.perceive([{"role": "user", "content": turn.content}])
        texts = [block["text"] for block in sorted_blocks(message["content"]) if block["type"] == "text"]
        words = " ".join(texts).strip()
        if words:
            give(("transcript", {"type": "transcript", "turn": turn.number, "text": words}))
        elif turn.spoken and self.service.pipeline.processor.hearing != "codes":
            raise ProtocolError("no_speech", "no words were understood; say it again")
        if turn.stopped.is_set():
            return _without_answer("cancelled")
        for event in self.session.stream(message, **self.service.sampling):
            if turn.stopped.is_set():
                self.session.cancel()
            if isinstance(event, AnswerEnd):
                reply = event.reply
                return {"valid": reply.valid, "reason": reply.answer.reason, "seconds": round(event.start, 4)}
            give(self._piece(turn.number, event))

    def _piece(self, number: int, event) -> tuple[str, dict | bytes]:
        if isinstance(event, TextPiece):
            told = {"type": "text", "turn": number, "text": event.text, "sentence_end": event.ends_sentence}
            return "first_text", told
        if isinstance(event, AudioPiece):
            return "first_sound", sound_frame(SOUND_OUT, number, event.start, event.samples)
        values = joint_positions(event.motion) if self.motion_kind == JOINTS_OUT else event.motion.to_params()
        return "first_motion", motion_frame(self.motion_kind, number, event.start, values)

    # ---- sending

    async def _tell_state(self, state: str) -> None:
        await self._send({"type": "state", "state": state, "turn": self.turns}, quiet=True)

    async def _tell(self, error: ProtocolError) -> None:
        self.service.metrics.add("errors_total", code=error.code)
        await self._send({"type": "error", "code": error.code, "message": str(error), "turn": self.turns}, quiet=True)

    async def _end(self, error: ProtocolError) -> None:
        """Tells an error that ends the connection."""
        await self._tell(error)
        await self._close(error.close or POLICY, error.code)

    async def _close(self, code: int, reason: str) -> None:
        try:
            await self.socket.close(code, reason)
        except (RuntimeError, WebSocketDisconnect):  # it is closed
            pass

    async def _send(self, frame: dict | bytes, quiet: bool = False) -> None:
        """Sends a frame; WebSocketDisconnect where the client has gone or does not read, unless `quiet`."""
        sent = self.socket.send_bytes(frame) if isinstance(frame, bytes) else self.socket.send_text(json.dumps(frame))
        try:
            async with self._sending:
                await asyncio.wait_for(sent, self.limits.send_seconds)
        except (TimeoutError, RuntimeError, WebSocketDisconnect) as error:
            if isinstance(error, TimeoutError):
                self.service.metrics.add("errors_total", code="slow_reader")
                await self._close(POLICY, "slow_reader")
            if not quiet:
                raise WebSocketDisconnect from None


def _without_answer(reason: str) -> dict:
    return {"valid": False, "reason": reason, "seconds": 0.0}


__all__ = ["LiveConnection", "LiveService"]
