"""Turns that wait for an answer, and the thread that answers them, several at once: a step reads the weights once.

All turns that wait, up to a batch, are taken in the order in which they came; one that comes meanwhile waits for the
next batch. Each conversation's own part is read by itself; then the caches become rows of one, padded on the left. A
row that has ended is padded until all have. Greedy answers are those of `DialogueSession.stream` but for rounding.
Sampled ones of a batch draw from one generator, so that a seed says nothing of a single row.
"""

import ctypes
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Event

import torch
from transformers import StoppingCriteria

from ...processing.batching import pad_left
from ...processing.motion.body import joint_positions
from ...processing.motion.face import FACE_FPS
from ...processing.rendering import sorted_blocks
from ..cache import CACHE, joined, row_of
from ..pipeline import SolamiPipeline
from ..streaming import AnswerDecoder, AnswerEnd, AudioPiece, FacePiece, TextPiece, answer_end
from .live_conversation import LiveConversation
from .live_protocol import FACE_OUT, JOINTS_OUT, MICROPHONE_RATE, SOUND_OUT, ProtocolError, motion_frame, sound_frame
from .user_turn import UserTurn

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class LiveTurn:
    """A turn that is to be answered.

    Attributes:
        number, conversation, user: whose turn it is, and what came of it.
        text: what was typed, if anything was.
        motion_kind: of the frames.
        face: whether those of the face are wanted.
        give: called in the worker thread with a part of the answer: its name, the frame, and seconds at its end.
        stopped: nothing more of it is wanted.
        done: the fields of `end`, or an error.
        timings: seconds from the turn's end to the first of each part.
        played: name of a part -> when its first frame was sent, and the seconds of it that were.
    """

    number: int
    conversation: LiveConversation
    user: UserTurn
    text: str | None
    motion_kind: int
    face: bool = False
    give: Callable | None = None
    begin: float = field(default_factory=time.perf_counter)
    stopped: Event = field(default_factory=Event)
    done: Future = field(default_factory=Future)
    timings: dict = field(default_factory=dict)
    played: dict[str, tuple[float, float]] = field(default_factory=dict)

    def passed(self, part: str) -> bool:
        """Notes the seconds to the first of its kind; True where it is the first."""
        if part in self.timings:
            return False
        self.timings[part] = round(time.perf_counter() - self.begin, 4)
        return True

    def stop(self) -> None:
        """Ends the answer; what can have been heard by now, or without sound seen, is history."""
        now = time.perf_counter()
        begin, end = self.played.get("first_sound") or self.played.get("first_motion") or (now, 0.0)
        self.conversation.heard = self.number, min(end, now - begin)
        self.stopped.set()
        self.conversation.session.cancel()
        self.done.cancel()  # where it has not begun

    def fail(self, error: Exception) -> None:
        """Ends the turn by an error, if it has not ended."""
        if not self.done.done():
            self.done.set_exception(error)

    def take(self, event) -> None:
        """Gives an event of the answer on."""
        number, conversation = self.number, self.conversation
        if self.stopped.is_set():
            conversation.session.cancel()
        if isinstance(event, AnswerEnd):
            reply, conversation.answered = event.reply, number
            if reply.valid:
                conversation.keep(number, self.content, reply)
            end = {"valid": reply.valid, "reason": reply.answer.reason, "seconds": round(event.start, 4)}
            self.done.set_result(end)
        elif isinstance(event, TextPiece):
            told = {"text": event.text, "sentence_end": event.ends_sentence, "last": event.ends_text}
            self.give("first_text", {"type": "text", "turn": number, **told}, 0.0)
        elif isinstance(event, AudioPiece):
            end = event.start + len(event.samples) / event.sampling_rate
            self.give("first_sound", sound_frame(SOUND_OUT, number, event.start, event.samples), end)
            if event.ends_sentence:
                self.give("first_sound", {"type": "sentence", "turn": number, "seconds": round(end, 4)}, end)
        elif isinstance(event, FacePiece):
            if self.face:
                end = event.start + len(event.face) / FACE_FPS
                self.give("first_face", motion_frame(FACE_OUT, number, event.start, event.face), end)
        else:
            values = joint_positions(event.motion) if self.motion_kind == JOINTS_OUT else event.motion.to_params()
            frame = motion_frame(self.motion_kind, number, event.start, values)
            self.give("first_motion", frame, event.start + event.motion.duration)

    def perceive(self, pipeline: SolamiPipeline) -> None:
        """Makes `content` of what came, its words recognised where the model reads words."""
        self.passed("queued")
        self.conversation.take_back()
        content = self.user.content(self.user.words if self.text is None else self.text)
        (message,) = pipeline.perceive([{"role": "user", "content": content}])
        self.content = sorted_blocks(message["content"])
        if words := " ".join(block["text"] for block in self.content if block["type"] == "text").strip():
            self.give("transcript", {"type": "transcript", "turn": self.number, "text": words}, 0.0)
        elif self.user.samples and pipeline.processor.hearing != "codes":
            raise ProtocolError("no_speech", "no words were understood; say it again")


class AnswerWorker:
    """Answers turns in a thread of its own, `batch` at once if the model takes batches; `sampling` are keyword
    arguments of `DialogueSession.stream`."""

    def __init__(self, pipeline: SolamiPipeline, sampling: dict, batch: int):
        self.pipeline, self.sampling, self.batch = pipeline, sampling, batch if pipeline.takes_batches else 1
        self._waiting: deque[LiveTurn] = deque()
        self._taken: list[LiveTurn] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="turns")

    def ask(self, turn: LiveTurn) -> None:
        """Puts a turn behind those that wait; `LiveTurn.done` tells its end."""
        self._waiting.append(turn)
        self._thread.submit(self._work)

    @property
    def ahead(self) -> int:
        """Turns that wait or are being answered."""
        return sum(not turn.done.done() for turn in [*self._waiting, *self._taken])

    def listen(self, conversation: LiveConversation, user: UserTurn) -> None:
        """Reads ahead, while somebody speaks and nobody waits, what a turn will need; see `UserTurn.asks`."""
        self._thread.submit(self._listen, conversation, user)

    def shutdown(self) -> None:
        """Ends the thread when it has answered what it is at."""
        self._thread.shutdown(cancel_futures=True)

    def _listen(self, conversation: LiveConversation, user: UserTurn) -> None:
        if self._waiting or user.ended or user.words:
            return
        try:
            conversation.take_back()
            reads_words = self.pipeline.processor.hearing != "codes"
            if not (reads_words and user.pauses):
                conversation.session.read_ahead()
                return
            sound = user.sound()
            medium = {"type": "audio", "audio": {"array": sound, "sampling_rate": MICROPHONE_RATE}}
            (message,) = self.pipeline.perceive([{"role": "user", "content": [medium]}])
            user.know(len(sound), " ".join(block["text"] for block in message["content"] if block["type"] == "text"))
            if (words := user.words) and not (user.has_body or self._waiting):
                conversation.session.read_ahead(user.content(words), **self.sampling)
        except Exception:  # it is told when the turn is answered
            logger.debug("a turn could not be read ahead", exc_info=True)

    def _work(self) -> None:
        turns: list[LiveTurn] = []
        while self._waiting and len(turns) < self.batch:
            turn = self._waiting.popleft()
            self._taken.append(turn)
            try:
                if turn.done.set_running_or_notify_cancel():
                    turn.perceive(self.pipeline)
                    turns.append(turn)
            except Exception as error:
                turn.fail(error)
        try:
            if len(turns) > 1:
                answer_together(turns, self.sampling)
            for turn in turns if len(turns) == 1 else []:
                for event in turn.conversation.session.stream(turn.content, **self.sampling):
                    turn.take(event)
        except Exception as error:
            for turn in turns:
                turn.fail(error)
        self._taken = []
        _trim_heap()


def _trim_heap() -> None:
    """Gives freed memory back to the system: glibc keeps what caches and sounds leave in pieces, 4 to 8 MB a turn."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def without_answer(reason: str) -> dict:
    """The fields of `end` where there was no answer."""
    return {"valid": False, "reason": reason, "seconds": 0.0}


# ---- several at once


class _Row:
    """A turn in a batch, of which `is_over` says whether it has ended."""

    def __init__(self, turn: LiveTurn, prompt: list[int], user: dict, keep: Callable):
        self.turn, self.prompt, self.keep, self.session = turn, prompt, keep, turn.conversation.session
        pipeline = self.session.pipeline
        self.decoder = AnswerDecoder(pipeline.processor, self.session.voice, face=pipeline.face_pieces(user))
        self.cache, self.ids, self.is_over = self.session.prefill(prompt), [], False

    def push(self, token: int, last: bool) -> None:
        """The next token; what goes wrong is this row's own matter."""
        if self.is_over:
            return
        self.ids.append(token)
        try:
            self._give(self.decoder.push([token]))
            if last or self.session.cancelled.is_set():
                self.finish()
        except Exception as error:
            self.is_over = True
            self.turn.fail(error)

    def finish(self) -> None:
        self.is_over = True
        self._give(self.decoder.finish())
        was_cancelled = self.session.cancelled.is_set()
        self.turn.take(answer_end(self.session, self.decoder, self.ids, was_cancelled, self.keep))

    def _give(self, events) -> None:
        while not self.session.cancelled.is_set() and (event := next(events, None)):
            self.turn.take(event)


class _Rows(StoppingCriteria):
    """Gives tokens to rows, as a streamer of `generate`, and tells which of them have ended."""

    def __init__(self, rows: list[_Row], eos: int):
        self.rows, self.eos, self._prompt_seen = rows, eos, False

    def put(self, value) -> None:
        if self._prompt_seen:
            for row, token in zip(self.rows, value.tolist(), strict=True):
                row.push(token, token == self.eos)
        self._prompt_seen = True

    def end(self) -> None:
        pass

    def __call__(self, input_ids, scores, **kwargs):
        return torch.tensor([row.is_over for row in self.rows], device=input_ids.device)


def answer_together(turns: list[LiveTurn], sampling: dict) -> None:
    """Answers turns of different conversations, their `content` made, in one batch."""
    rows: list[_Row] = []
    with ExitStack() as stack:
        for turn in turns:
            try:
                session, options = turn.conversation.session, turn.conversation.session.options(sampling)
                rows.append(_Row(turn, *stack.enter_context(session.begin_turn(turn.content, options))))
            except Exception as error:
                turn.fail(error)
        if not rows:
            return
        prompts, pipeline = [row.prompt for row in rows], rows[0].session.pipeline
        columns = {"input_ids": prompts, "attention_mask": [[1] * len(prompt) for prompt in prompts]}
        ids, mask = map(torch.tensor, pad_left(columns, pipeline.processor.tokenizer.pad_token_id).values())
        cache = joined([row.cache for row in rows], ids.shape[1] - 1)
        streamer = _Rows(rows, pipeline.processor.markers["eos"])
        options |= {CACHE: cache, "streamer": streamer, "stopping_criteria": [streamer]}
        pipeline.generate_padded(ids, mask, **options)
        for number, row in enumerate(rows):
            if not row.is_over:  # the longest answer
                row.finish()
            begin, read = ids.shape[1] - len(row.prompt), (row.prompt + row.ids)[:-1]
            row.session.adopt(row_of(cache, number, begin, begin + len(read)), read)
