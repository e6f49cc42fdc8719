"""An answer while the model is still giving it: words, motion and sound as soon as they can be said.

    for event in session.stream([{"type": "audio", "audio": "hello.wav"}]):
        if isinstance(event, TextPiece):
            show(event.text)                                  # event.ends_sentence: a sentence is complete
        elif isinstance(event, MotionPiece):
            move(event.motion, at=event.start)
        elif isinstance(event, FacePiece):
            show_face(event.face, at=event.start)             # with the sound that it belongs to, or before
        elif isinstance(event, AudioPiece):
            play(event.samples, at=event.start)
    reply = event.reply                                       # AnswerEnd: the whole answer, valid or not

The model writes, and its codes are decoded, in a thread of its own. In `interleaved` answers motion and sound advance
together; in `sequential` ones words come first, then motion once the hand's codes follow the body's (at once where the
motion codec is bound), then sound. The codes are those of `session.answer`; what the media differ by is told in
`streaming_media`, what streaming costs by `benchmarks/generation_streaming.py` (`stream_whole`).
"""

import queue
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from ..modeling.solami.vocabulary import BRACKETS
from ..modeling.talker.spoken_text import spoken_sentences
from ..processing.answers import CHUNK_SECONDS, FORMATS, PARTS
from ..processing.checkpoint_models import MIXED_PRECISION
from ..processing.motion.face import FACE_FPS
from ..processing.motion.smplx_motion import SmplxMotion
from .pipeline import Reply
from .streaming_media import LOOKAHEAD, FacePieces, MotionPieces, SpeechPieces

FIRST_SPEECH_SECONDS = 0.2
"""Length of what is decoded together at first; then it is as long as a chunk of an interleaved answer."""
FIRST_CHUNKS = 3
"""Of a talker's sound, at once: as much as an acoustic model has to see before it says anything."""
# What can be said of a text whose end is not known: words that white space follows, sentences of Chinese and Japanese
_WORD = re.compile(r"\s*(?:\S*?[。！？]+|\S+(?=\s))")
_SENTENCE_END = re.compile(r"""[.!?…。！？]+["'”’»)\]]*$""")


@dataclass(frozen=True)
class TextPiece:
    """Words of the transcript: `text` are whole words, with the white space before them; put end to end the pieces are
    `Reply.text`. With `ends_sentence` a sentence ends with this piece, and no piece goes on behind a sentence's end;
    with `ends_text` no more words come. Words are written ahead of all media, so `start` is always 0 s."""

    text: str
    ends_sentence: bool
    start: float = 0.0
    ends_text: bool = False


@dataclass(frozen=True)
class MotionPiece:
    """The next frames (one or more) of the body; `motion` goes on from the place where the last piece ended. `start`
    are the seconds into the answer's motion at which its first frame is due."""

    motion: SmplxMotion
    start: float


@dataclass(frozen=True)
class FacePiece:
    """The next frames of the face, curves (frames, 52) 0..1 at 30 fps, see `processing.motion.face`. `start` are the
    seconds into the answer at which its first frame is due."""

    face: np.ndarray
    start: float


@dataclass(frozen=True)
class AudioPiece:
    """The next sound of the voice: `samples` (samples,) float32 in -1..1 at `sampling_rate` Hz, of which the first is
    due at `start` seconds into the answer's sound. With `ends_sentence` a talker's sentence ends here; a player may
    wait for the next one as in a breath."""

    samples: np.ndarray
    sampling_rate: int
    start: float
    ends_sentence: bool = False


@dataclass(frozen=True)
class AnswerEnd:
    """The last event: the session is free for the next turn. `reply` is as `DialogueSession.answer` gives it, its
    media put together from the pieces. It is not valid, and without media, where the answer was cancelled or
    malformed; then it is not part of the history, but `DialogueSession.truncate_answer` makes what was heard of a
    cancelled one part of it. The answer lasts `start` seconds, as far as it was given."""

    reply: Reply
    start: float


Event = TextPiece | MotionPiece | FacePiece | AudioPiece | AnswerEnd


class AnswerDecoder:
    """Ids of an answer as they come, to events.

    Nothing is checked: the ids of a malformed answer, which only a model without the grammar gives, are decoded as far
    as they make sense, and others are passed over. `voice` is as in `SolamiProcessor.decode_speech`; `lookahead` codes
    of motion are waited for, see `MotionVQDecoderStream`; `answer_format` is one of `answers.FORMATS`, by default the
    processor's; `face` makes the face. `motions`, `sounds` and `faces` were given out so far; `said` are the talker's
    speech codes (n,), None before the words have ended and where there is no talker. Raises ValueError: an unknown
    voice or format, or a negative look-ahead.
    """

    def __init__(self, processor, voice: str | None = None, lookahead: int = LOOKAHEAD, answer_format=None,
                 face: FacePieces | None = None):  # fmt: skip
        answer_format = answer_format or processor.answer_format
        if answer_format not in FORMATS:
            raise ValueError(f"answer_format must be one of {sorted(FORMATS)}, got {answer_format!r}")
        self._modalities, self._in_text = processor.modalities, FORMATS[answer_format][0]
        self._markers = {token: name for name, token in processor.markers.items()}
        self._words = _Words(processor.tokenizer)
        self._say = processor.say if answer_format == "text_motion" else None
        self.said: np.ndarray | None = None
        self._said: list[np.ndarray] = []  # the talker's codes of each sentence
        self._unheard: list[list[int]] = []  # codes of the talker that are not decoded yet, by sentence
        self._sentence_over = False  # what waits to be decoded ends one
        self._motion = MotionPieces(processor.motion_codec, lookahead, processor.motion_filler)
        self._speech = SpeechPieces(processor, voice)
        motion, speech = processor.motion_codec.config, processor.speech_codec.config
        self._levels = processor.speech_levels
        self._fps, self._rate = motion.fps, speech.sampling_rate
        self._least_motion = max(1, int(CHUNK_SECONDS * motion.frame_rate + 1e-6))
        self._least_speech = [
            self._levels * max(1, int(seconds * speech.frame_rate + 1e-6))
            for seconds in (FIRST_SPEECH_SECONDS, CHUNK_SECONDS)
        ]
        self._waiting: dict[str, list[int]] = {name: [] for name in PARTS if name in self._modalities}
        self._moving = [name for name in ("body", "hand") if name in self._waiting]
        self._motion_end = BRACKETS[self._moving[-1]][1]
        self._speech_codes, self._ended = 0, {self._motion_end: False, "eosp": False}
        self.motions: list[SmplxMotion] = []
        self.sounds: list[np.ndarray] = []
        self.faces: list[np.ndarray] = []
        self._face = face

    def push(self, ids: list[int]) -> Iterator[Event]:
        """Pieces that the next ids make known; media are decoded as the events are asked for."""
        text, was_in_text = [], self._in_text
        for token in ids:
            self._sort(token, text)
        if was_in_text:
            yield from self._words.push(text, last=not self._in_text)
            if self._say is not None:
                self._say_sentences(ended=not self._in_text)
        if self._steps() >= self._least_motion or self._ended[self._motion_end]:
            yield from self._move(last=self._ended[self._motion_end])
        if self._unheard:  # a piece at a time, so that the body does not wait for all of the sound
            self._give_voice(self._least_speech[-1] * (1 if self.sounds else FIRST_CHUNKS))
        if self.said is not None and not self._unheard:  # the rest of the sound does not wait for the body
            self._ended["eosp"] = True
        known = self._ended["eosp"] or self._sentence_over
        if known or len(self._waiting["speech"]) >= self._least_speech[bool(self.sounds)]:
            yield from self._speak(last=self._ended["eosp"])

    def finish(self) -> Iterator[Event]:
        """The last pieces, when no more ids will come."""
        if self._in_text:
            yield from self._words.push([], last=True)
        yield from self._move(last=True)
        while self._unheard:
            self._give_voice(len(self._unheard[0]))
            yield from self._speak(last=False)
        yield from self._speak(last=True)
        if self._face is not None:
            yield from self._show(self._face.finish(max(self.moved_seconds, self.heard_seconds)))

    @property
    def motion(self) -> SmplxMotion | None:
        """All frames so far."""
        if not self.motions:
            return None
        return SmplxMotion.from_params(np.concatenate([m.to_params() for m in self.motions]), fps=self._fps)

    @property
    def audio(self) -> np.ndarray | None:
        """All samples so far."""
        return np.concatenate(self.sounds) if self.sounds else None

    @property
    def moved_seconds(self) -> float:
        """Length of the motion so far."""
        return sum(motion.num_frames for motion in self.motions) / self._fps

    @property
    def heard_seconds(self) -> float:
        """Length of the sound so far."""
        return sum(map(len, self.sounds)) / self._rate

    def _sort(self, token: int, text: list[int]) -> None:
        """Puts an id where it belongs: to the codes that wait, to `text`, or nowhere."""
        for name, waiting in self._waiting.items():
            span = self._modalities[name]
            code = token - span["first_id"]
            if 0 <= code < span["size"]:
                self._in_text = False
                level = code // (span["size"] // self._levels) if name == "speech" else 0
                if name != "speech" or level == self._speech_codes % self._levels:
                    self._speech_codes += name == "speech"
                    waiting.append(code)
                return
        if token in self._markers:
            self._in_text = False
            if self._markers[token] in self._ended:
                self._ended[self._markers[token]] = True
        elif self._in_text:
            text.append(token)

    def _say_sentences(self, ended: bool) -> None:
        """Has the talker say the sentences that are complete."""
        sentences = spoken_sentences(self._words.text, ended)
        for sentence in sentences[len(self._said) :]:
            self._said.append(self._say(sentence))
            self._unheard.append(self._said[-1].tolist())
        if ended:
            self.said = np.concatenate(self._said or [self._say("")])

    def _give_voice(self, count: int) -> None:
        """Hands the next of the talker's codes to the decoder, at most to the end of a sentence."""
        sentence = self._unheard.pop(0)
        self._waiting["speech"] += sentence[:count]
        self._sentence_over = len(sentence) <= count
        if not self._sentence_over:
            self._unheard.insert(0, sentence[count:])

    def _steps(self) -> int:
        """Codes of motion whose parts are all there."""
        return min(len(self._waiting[name]) for name in self._moving)

    def _take(self, name: str, count: int) -> list[int]:
        taken, self._waiting[name] = self._waiting[name][:count], self._waiting[name][count:]
        return taken

    def _move(self, last: bool) -> Iterator[MotionPiece]:
        stream, steps = self._motion, self._steps()
        if stream is None:  # it has ended
            return
        pieces = [stream.push(*(self._take(name, steps) for name in self._moving))]
        if last:
            pieces.append(stream.finish())
            self._motion = None
        for motion in pieces:
            if motion is not None:
                motion = motion if self._face is None else self._face.move(motion)
                start = self.moved_seconds
                self.motions.append(motion)
                yield MotionPiece(motion, start)

    def _show(self, face: np.ndarray) -> Iterator[FacePiece]:
        if len(face):
            self.faces.append(face)
            yield FacePiece(face, (sum(map(len, self.faces)) - len(face)) / FACE_FPS)

    def _speak(self, last: bool) -> Iterator[FacePiece | AudioPiece]:
        stream, whole = self._speech, len(self._waiting["speech"]) // self._levels * self._levels
        if stream is None:
            return
        codes = self._take("speech", whole)
        ends, self._sentence_over = self._sentence_over, False
        samples = stream.push(codes)
        more = stream.finish if last else stream.pause if ends and stream.waits else None
        yield from self._sound(codes, samples, ends and more is None)
        if last:
            self._speech = None
        if more is not None:
            yield from self._sound(codes[:0], more(), ends)

    def _sound(self, codes: list[int], samples: np.ndarray, ends_sentence: bool) -> Iterator[FacePiece | AudioPiece]:
        if self._face is not None:
            yield from self._show(self._face.push(codes, samples))
        if len(samples):
            start = self.heard_seconds
            self.sounds.append(samples)
            yield AudioPiece(samples, self._rate, start, ends_sentence)


class _Words:
    """Ids of a text that is still coming, to whole words; see `TextPiece`."""

    def __init__(self, tokenizer):
        self.tokenizer, self.ids, self.said = tokenizer, [], 0
        self.text = ""  # all of it so far

    def push(self, ids: list[int], last: bool) -> Iterator[TextPiece]:
        self.ids += ids
        text = self.tokenizer.decode(self.ids).lstrip()
        self.text = text.rstrip()
        text = self.text if last else text.rstrip("\ufffd")  # half a character
        begin = place = self.said
        while match := _WORD.match(text, place):
            place = match.end()
            if _SENTENCE_END.search(match[0]):
                yield TextPiece(text[begin:place], True, ends_text=last and place == len(text))
                begin = place
        if last:
            place = len(text)
        if place > begin:
            yield TextPiece(text[begin:place], last, ends_text=last)
        self.said = place


class _EventStream:
    """Events of an answer that another thread generates and decodes; a streamer for `model.generate`. One thread does
    both: two that compute on all cores of a CPU hinder each other. `generate` is called with the streamer in the other
    thread and returns all ids; once `cancelled` is set nothing more is decoded."""

    def __init__(self, decoder: AnswerDecoder, generate, cancelled: threading.Event):
        self._decoder, self._cancelled, self._events = decoder, cancelled, queue.SimpleQueue()
        self._result, self._error, self._prompt_seen = None, None, False
        # Mixed precision is a thread's own
        on = [(kind, torch.get_autocast_dtype(kind)) for kind in filter(torch.is_autocast_enabled, MIXED_PRECISION)]
        self._thread = threading.Thread(target=self._run, args=(generate, on), name="answer", daemon=True)
        self._thread.start()

    def put(self, value) -> None:
        """For `generate`: first the prompt, then each token."""
        if self._prompt_seen:
            self._give(self._decoder.push(value.reshape(-1).tolist()))
        self._prompt_seen = True

    def end(self) -> None:
        """For `generate`; the thread says itself when it has ended."""

    def __iter__(self) -> Iterator[Event]:
        """Waits for events until there are no more."""
        return iter(self._events.get, None)

    def wait(self) -> None:
        """Until the other thread has ended."""
        self._thread.join()

    @property
    def result(self) -> list[int]:
        """The ids, after `wait`; raises what went wrong."""
        if self._error is not None:
            raise self._error
        return self._result

    def _give(self, events: Iterator[Event]) -> None:
        for event in events:
            if self._cancelled.is_set():
                break
            self._events.put(event)

    def _run(self, generate, autocast: list[tuple]) -> None:
        try:
            with ExitStack() as stack:
                for kind, dtype in autocast:
                    stack.enter_context(torch.autocast(kind, dtype=dtype))
                self._result = generate(self)
                self._give(self._decoder.finish())
        except BaseException as error:  # for whoever asks for the result
            self._error = error
        self._events.put(None)


def stream_answer(session, turn, lookahead: int, generate_kwargs: dict) -> Iterator[Event]:
    """The events of `DialogueSession.stream`; see there."""
    options = session.options(generate_kwargs)
    if options["generation_config"].num_beams not in (None, 1) or "streamer" in options:
        raise ValueError("a stream has one beam, and a streamer of its own; session.answer() takes several beams")
    pipeline, cancelled = session.pipeline, session.cancelled
    with session.begin_turn(turn, options) as (prompt, user, keep):
        decoder = AnswerDecoder(pipeline.processor, session.voice, lookahead, face=pipeline.face_pieces(user))
        stream = _EventStream(
            decoder, lambda streamer: session.generate_ids(prompt, {**options, "streamer": streamer}), cancelled
        )
        try:
            for event in stream:
                if cancelled.is_set():
                    break
                yield event
            was_cancelled = cancelled.is_set()
        finally:  # also when nobody asks for more
            cancelled.set()
            stream.wait()
        end = answer_end(session, decoder, stream.result, was_cancelled, keep)
    yield end


def answer_end(session, decoder: AnswerDecoder, ids: list[int], was_cancelled: bool, keep) -> AnswerEnd:
    """The last event of an answer's ids, of which `keep` of `DialogueSession.begin_turn` is told."""
    answer = session.pipeline.processor.parse_response(ids)
    if was_cancelled:
        answer.valid, answer.reason = False, "cancelled"
    reply = session.pipeline.reply(answer, False, session.voice, said=decoder.said)
    if reply.valid:
        reply.motion, reply.audio = decoder.motion, decoder.audio
        reply.face = np.concatenate(decoder.faces) if decoder.faces else None
    keep(ids, reply)
    return AnswerEnd(reply, max(decoder.moved_seconds, decoder.heard_seconds))
