"""One client of `solami serve`: its messages in, a `DialogueSession`'s answers out.

The event loop reads and sends; a thread that all share answers (`live_answers`). What an answer is made of waits in
memory for a slow client, so that nobody else waits for it.
"""

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from fastapi import WebSocket, WebSocketDisconnect

from ...processing.motion.body import SMPLX_JOINT_NAMES
from ..pipeline import SolamiPipeline
from ..session import DialogueSession
from .live_answers import AnswerWorker, LiveTurn, without_answer
from .live_conversation import LiveConversation, LiveConversations
from .live_files import recordings, turn_file
from .live_metrics import LiveMetrics
from .live_protocol import (
    FILE_OUT,
    HEAD,
    JOINTS_OUT,
    MOTIONS,
    SOUND_IN,
    VERSION,
    Limits,
    ProtocolError,
    parse_binary,
    parse_event,
)
from .user_turn import POSES_FPS, UserTurn
from .voice_activity import SpeechDetector, can_detect, speech_detector

logger = logging.getLogger(__name__)

INBOX = 16
"""Messages of a client that may wait; then it is not read from until there is room."""
MOST_WAITING = 64
TELL_SECONDS = 10.0
"""After which a client that waits for a place is told again how many go first."""
GOING_AWAY, POLICY, TOO_BIG, FAILED, TRY_LATER = 1001, 1008, 1009, 1011, 1013


@dataclass
class LiveService:
    """What all connections share.

    Attributes:
        pipeline (`SolamiPipeline`): model, processor, and recogniser.
        character (`str`, *optional*): of clients that name none.
        limits (`Limits`): for each of them.
        max_sessions (`int`): conversations at once; others wait for a place, in order. As many are kept for clients
            whose connection was lost.
        batch (`int`): turns that are answered at once.
        sampling (`dict`): keyword arguments of `DialogueSession.stream`.
    """

    pipeline: SolamiPipeline
    character: str | None = None
    limits: Limits = field(default_factory=Limits)
    max_sessions: int = 4
    sampling: dict = field(default_factory=dict)
    metrics: LiveMetrics = field(default_factory=LiveMetrics)
    batch: int = 4

    def __post_init__(self):
        for name in ("max_sessions", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        self.places, self.waiting = asyncio.Semaphore(self.max_sessions), []
        self.worker = AnswerWorker(self.pipeline, self.sampling, self.batch)
        self.conversations = LiveConversations(self.limits.resume_seconds, self.max_sessions)
        self.connections: set[LiveConnection] = set()
        self.closing = False

    async def close(self, seconds: float = 10.0) -> None:
        """Takes no more turns, lets answers that are being given end, for so long, and ends all connections."""
        self.closing = True
        answering = [c.answering for c in self.connections if c.answering is not None]
        if answering:
            await asyncio.wait(answering, timeout=seconds)
        leaving = [connection.leave(_closing(GOING_AWAY)) for connection in self.connections]
        await asyncio.gather(*leaving, return_exceptions=True)


def _closing(close: int | None = None) -> ProtocolError:
    return ProtocolError("closing", "the server is being stopped; connect again in a while", close)


class LiveConnection:
    """A client from its first message to its last, on an accepted socket; it shares `service` with the others."""

    def __init__(self, socket: WebSocket, service: LiveService):
        self.socket, self.service, self.limits = socket, service, service.limits
        self.conversation: LiveConversation | None = None
        self.motion_kind, self.face, self.bad = JOINTS_OUT, False, 0
        self.detector: SpeechDetector | None = None
        self.answering: asyncio.Task | None = None
        self._turn: LiveTurn | None = None
        self._user, self._body_fps = UserTurn(self.limits), POSES_FPS
        self._inbox: asyncio.Queue = asyncio.Queue(INBOX)
        self._sending, self._left = asyncio.Lock(), asyncio.Event()
        self._leaving: ProtocolError | None = None

    async def run(self) -> None:
        """Talks until the client leaves, says nothing for too long, or breaks the rules."""
        self.service.metrics.add("connections")
        self.service.connections.add(self)
        self._reading, seated, ending = asyncio.create_task(self._read()), False, None
        try:
            if self.service.closing:
                raise _closing(GOING_AWAY)
            first = await self._next()
            if not isinstance(first, str) or (start := parse_event(first))["type"] != "start":
                raise ProtocolError("bad_message", "the first message must be start", POLICY)
            await self._take_over(start["resume"])  # it may hold the place that is needed
            await self._take_place()
            seated = True
            await self._start(start)
            while True:
                await self._take(await self._next())
        except ProtocolError as error:
            ending = error
        except WebSocketDisconnect:
            pass
        except Exception:
            logger.exception("a connection failed")
            ending = ProtocolError("internal", "the server failed; see its log", FAILED)
        finally:
            self._reading.cancel()
            try:
                await self._stop()
            finally:  # also where the server cancels this
                if self.conversation is not None:
                    self.conversation.owner, self.conversation.lost = None, time.monotonic()
                    self.service.conversations.forget_old()
                if seated:
                    self.service.places.release()
                self.service.connections.discard(self)
                self._left.set()
                self.service.metrics.add("connections", -1)
        if ending is not None:
            await self._end(ending)

    async def leave(self, error: ProtocolError) -> None:
        """Ends the connection from outside; returns once its conversation is free, TimeoutError where it is not."""
        self._leaving = error
        self._reading.cancel()
        while not self._inbox.empty():
            self._inbox.get_nowait()
        self._inbox.put_nowait(error)
        await asyncio.wait_for(self._left.wait(), self.limits.send_seconds)

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
        if isinstance(message, ProtocolError):
            raise message
        if len(message) > self.limits.message_bytes:
            told = f"a message has {len(message)} bytes, at most {self.limits.message_bytes} are taken"
            raise ProtocolError("too_large", told, TOO_BIG)
        return message

    async def _take_over(self, resume: str | None) -> None:
        """Ends the connection that has the conversation of an id; ids are known to their clients alone."""
        known = self.service.conversations.get(resume)
        if known is not None and known.owner not in (None, self):
            told = "another connection goes on with this conversation"
            try:
                await known.owner.leave(ProtocolError("taken_over", told, POLICY))
            except TimeoutError:  # it may wait for this one
                raise ProtocolError("taken_over", "the connection that has it does not end", TRY_LATER) from None

    async def _take_place(self) -> None:
        """Waits for one of the places, first come, first served."""
        service = self.service
        if service.places.locked():
            if (waiting := len(service.waiting)) >= MOST_WAITING:
                raise ProtocolError("full", f"{waiting} others wait already; try again later", TRY_LATER)
            await self._tell_state("waiting", ahead=waiting)
        service.waiting.append(self)
        service.metrics.add("waiting")
        place = asyncio.create_task(service.places.acquire())
        try:
            both = {place, self._reading}
            while not (await asyncio.wait(both, timeout=TELL_SECONDS, return_when=asyncio.FIRST_COMPLETED))[0]:
                await self._tell_state("waiting", ahead=service.waiting.index(self))
            if self._reading.done():  # also where a place came in the same moment
                raise self._leaving or WebSocketDisconnect
        except BaseException:
            if not place.cancel():
                service.places.release()
            raise
        finally:
            service.waiting.remove(self)
            service.metrics.add("waiting", -1)

    async def _take(self, message: str | bytes) -> None:
        """Does what a message asks for; a bad one is told and forgotten, a few times."""
        try:
            if isinstance(message, bytes):
                kind, start, values = parse_binary(message)
                if kind == SOUND_IN:
                    await self._hear(values)
                else:
                    self._user.add_body(kind, start, values)
                return
            event = parse_event(message)
            if event["type"] == "start":
                await self._start(event)
            elif event["type"] == "listen":
                await self._listen(event["hands_free"])
            elif event["type"] == "interrupt":
                self._forget_turn()
                await self._stop()
            elif event["type"] == "heard":
                await self._shorten(event["turn"], event["seconds"])
            elif event["type"] == "export":
                await self._export(event["turn"], event["format"])
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
        """Begins a conversation, with the character and voice that were asked for, or goes on with a lost one."""
        await self._stop()
        motion, fps = event["motion"] or "joints", event["body_fps"] or POSES_FPS
        if motion not in MOTIONS:
            raise ProtocolError("unknown", f"motion is {motion[:40]!r}, expected one of {', '.join(MOTIONS)}")
        if not 1 <= fps <= 120:
            raise ProtocolError("bad_message", f"body_fps is {fps}, expected 1 to 120")
        self._body_fps = fps
        self._forget_turn()
        pipeline, conversations = self.service.pipeline, self.service.conversations
        await self._take_over(event["resume"])
        conversations.forget_old()
        conversation = conversations.get(event["resume"])
        resumed = conversation is not None
        if not resumed:
            conversation = await self._begin(event["character"] or self.service.character, event["voice"])
        if self.conversation not in (None, conversation):
            conversations.pop(self.conversation.id, None)
        conversation.owner, conversations[conversation.id] = self, conversation
        self.conversation, self.motion_kind, self.face = conversation, MOTIONS[motion], bool(event["face"])
        processor = pipeline.processor
        characters = {name: known.get("name", name) for name, known in processor.characters.items()}
        await self._send(
            {
                "type": "ready",
                "version": VERSION,
                "resume": conversation.id,
                "resumed": resumed,
                "turn": conversation.turns,
                "characters": characters,
                "character": conversation.character,
                "voices": processor.voices.names,
                "voice": conversation.session.voice,
                "sampling_rate": processor.speech_codec.config.sampling_rate,
                "fps": processor.motion_codec.config.fps,
                "motion": motion,
                "joints": SMPLX_JOINT_NAMES,
                "hands_free": can_detect(),
                "recordings": recordings(),
                "turn_seconds": self.limits.turn_seconds,
                "message_bytes": self.limits.message_bytes,
            }
        )
        await self._tell_state("listening")

    async def _begin(self, character: str | None, voice: str | None) -> LiveConversation:
        make = partial(DialogueSession, voice=voice, max_rounds=self.limits.history_turns)
        try:
            session = await asyncio.to_thread(make, self.service.pipeline, character)
        except ValueError as error:
            close = POLICY if self.conversation is None else None
            raise ProtocolError("unknown", str(error)[:400], close) from None
        return LiveConversation(session, character, self.turns)

    @property
    def turns(self) -> int:
        """The number of the last turn."""
        return 0 if self.conversation is None else self.conversation.turns

    async def _listen(self, hands_free: bool) -> None:
        """Whether turns begin and end by what is heard, or by what the client says."""
        if hands_free and not can_detect():
            raise ProtocolError("unavailable", "hands_free needs silero-vad: pip install 'solami_hf[serve]'")
        self._forget_turn()
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
        try:
            self._user.add_sound(samples)
        except ProtocolError as error:  # its own, no bad message
            await self._tell(error)
        if self._user.asks():
            self.service.worker.listen(self.conversation, self._user)

    async def _begin_turn(self, text: str | None) -> None:
        """A user's turn is complete: sound and movement that came, typed words, which then are what was said."""
        await self._stop()
        user = self._user
        self._forget_turn()
        if text is not None and not 0 < len(text.strip()) <= self.limits.text_characters:
            told = f"a text has 1 to {self.limits.text_characters} characters, got {len(text.strip())}"
            raise ProtocolError("bad_turn", told)
        if text is None and not (user.samples or user.has_body):
            raise ProtocolError("bad_turn", "audio_end came without any sound before it")
        if self.service.closing:
            raise _closing()
        self.bad, self.conversation.turns = 0, self.turns + 1
        self._turn = LiveTurn(self.turns, self.conversation, user, text, self.motion_kind, self.face)
        self.answering = asyncio.create_task(self._answer(self._turn))

    def _forget_turn(self) -> None:
        self._user.ended = True
        self._user = UserTurn(self.limits, self._body_fps)

    async def _stop(self) -> None:
        """Stops the answer that is being given, if any, and waits until it has ended. What was sent of it by now
        counts as heard, as far as there was time to play it."""
        if self.answering is None:
            return
        if not self.answering.done():
            self._turn.stop()
        await asyncio.wait({self.answering})
        self.answering = None

    async def _shorten(self, turn: int, seconds: float) -> None:
        """The client says how much of the last answer was played."""
        if not turn or turn != self.turns:
            raise ProtocolError("unknown", f"turn {turn} is not the last one, which is {self.turns}")
        await self._stop()
        self.conversation.heard = turn, seconds

    async def _export(self, turn: int, format: str) -> None:
        """Sends an answer, or the whole talk, as a file."""
        try:
            name, data = await asyncio.to_thread(turn_file, self.conversation, turn, format, self.service.pipeline)
        except ProtocolError:
            raise
        except ValueError as error:
            raise ProtocolError("unavailable", str(error)[:400]) from None
        await self._send({"type": "file", "turn": turn, "format": format, "name": name, "bytes": len(data)})
        await self._send(HEAD.pack(FILE_OUT, turn, 0.0) + data)

    # ---- answers out

    async def _answer(self, turn: LiveTurn) -> None:
        """Sends an answer as the worker thread makes it; whatever goes wrong is told, and the next turn can come."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()

        def give(*piece) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        outcome, end, turn.give = "failed", None, give
        try:
            await self._tell_state("thinking", ahead=self.service.worker.ahead)
            turn.done.add_done_callback(lambda _: give())
            self.service.worker.ask(turn)
            patience = loop.call_later(self.limits.wait_seconds, turn.done.cancel)  # of no use once it has begun
            while piece := await pieces.get():
                if not turn.stopped.is_set():
                    await self._send_piece(turn, *piece)
            patience.cancel()
            if turn.done.cancelled() and not turn.stopped.is_set():
                told = f"others were answered for {self.limits.wait_seconds:g} s, and more wait; try again later"
                raise ProtocolError("busy", told)
            end = without_answer("cancelled") if turn.done.cancelled() else turn.done.result()
            outcome = "valid" if end["valid"] else "cancelled" if end["reason"] == "cancelled" else "malformed"
        except WebSocketDisconnect:
            outcome = "gone"
            turn.stop()
        except ProtocolError as error:
            await self._tell(error)
        except ValueError as error:
            await self._tell(ProtocolError("bad_turn", str(error)[:400]))
        except Exception as error:
            logger.exception("an answer failed")
            await self._tell(ProtocolError("internal", f"the answer failed ({type(error).__name__})"))
        end = end or without_answer("failed")
        turn.passed("total")
        self.service.metrics.add("turns_total", outcome=outcome)
        for part, seconds in turn.timings.items():
            self.service.metrics.observe(part, seconds)
        await self._send({"type": "end", "turn": turn.number, **end, "timings": turn.timings}, quiet=True)
        await self._tell_state("listening")

    async def _send_piece(self, turn: LiveTurn, part: str, frame: dict | bytes, end: float) -> None:
        if turn.passed(part) and part != "transcript" and sum(name.startswith("first") for name in turn.timings) == 1:
            await self._tell_state("speaking")
        await self._send(frame)
        turn.played[part] = turn.played.get(part, (time.perf_counter(), 0.0))[0], end

    # ---- sending

    async def _tell_state(self, state: str, **more: int) -> None:
        await self._send({"type": "state", "state": state, "turn": self.turns, **more}, quiet=True)

    async def _tell(self, error: ProtocolError) -> None:
        self.service.metrics.add("errors_total", code=error.code)
        await self._send({"type": "error", "code": error.code, "message": str(error), "turn": self.turns}, quiet=True)

    async def _end(self, error: ProtocolError) -> None:
        """Tells an error that ends the connection."""
        await self._tell(error)
        await self._close(error.close or POLICY, error.code)

    async def _close(self, code: int, reason: str) -> None:
        try:
            await asyncio.wait_for(self.socket.close(code, reason), self.limits.send_seconds)
        except (TimeoutError, RuntimeError, WebSocketDisconnect):  # it is closed
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
