"""`DialogueSession`: a conversation that keeps what the model has read, so that a turn costs only its own tokens.

The original reads the whole dialogue again at every turn. A session keeps the keys and values of everything up to the
last answer and prefills the new turn alone. When the context is full it drops whole rounds, the oldest first, down to
a low-water mark, and prefills the rest once; the next many turns are then cheap again.

    session = DialogueSession(pipeline, character="ada")
    reply = session.answer([{"type": "audio", "audio": "hello.wav"}, {"type": "motion", "motion": "wave.npz"}])
    for event in session.stream("And who are you?"): ...  # the next answer, while it is being given
"""

import copy
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import DynamicCache, StoppingCriteria

from ..modeling.solami.backbones import model_fingerprint
from ..modeling.speech_codec.codec_interface import codec_fingerprint
from ..processing.files.atomic_write import atomic_write
from ..processing.files.text_files import write_json
from .cache import CACHE, copied, fitted, moved, shortened
from .hearing import heard_part
from .loading import answering, input_device
from .pipeline import Reply, SolamiPipeline, check_turn
from .streaming import LOOKAHEAD, Event, stream_answer

logger = logging.getLogger(__name__)

STATE_FILE, CACHE_FILE = "session.json", "cache.safetensors"


@dataclass(frozen=True)
class Round:
    """A user's turn (its media as codes, and as ids up to the character's role marker) and the answer's ids."""

    user: dict
    user_ids: list[int]
    answer_ids: list[int]


class DialogueSession:
    """A character and its conversation so far.

    Sessions share a pipeline. `character` is one of the checkpoint's, with its system prompt and voice; `system` a
    system prompt of your own instead; `voice` one of the processor's, by default the character's. At most the share
    `low_water` of the context is filled after rounds had to be dropped; with `max_rounds`, of more rounds the oldest
    are forgotten, at first those outside the context, then down to the low-water mark. `prefilled_tokens` were read
    for the last turn. Raises ValueError: an unknown character or voice, both a character and a system prompt, or no
    share in 0..1.
    """

    def __init__(
        self,
        pipeline: SolamiPipeline,
        character: str | None = None,
        system: str | None = None,
        voice: str | None = None,
        low_water: float = 0.5,
        max_rounds: int | None = None,
    ):
        if character is not None and system is not None:
            raise ValueError("give a character or a system prompt of your own, not both")
        if not 0 < low_water <= 1:
            raise ValueError(f"low_water is a share of the context in 0..1, got {low_water}")
        processor = pipeline.processor
        self.pipeline, self.low_water, self.max_rounds = pipeline, low_water, max_rounds
        self.system = system if character is None else processor.character_system(character)
        begin = [{"role": "system", "content": self.system}] if self.system else []
        self.voice = voice or processor.voice_of(begin)
        if self.voice is not None:  # fail now, not after the answer
            processor.voices.prompt(self.voice, processor.speech_codec)
        self._system_ids = self._render(begin) if begin else []
        self._between = processor.renderer.text("\n").tolist()
        self._rounds: list[Round] = []
        self._first = 0  # round that the context begins with
        self._given: tuple | None = None  # the last answer: rounds before it, its first one, round, a talker's codes
        self._cache, self._cached = DynamicCache(), []  # keys and values, and the ids that they belong to
        self.prefilled_tokens = 0
        self.cancelled, self._busy = threading.Event(), threading.Lock()

    # ---- talking

    def answer(self, turn, decode: bool = True, **generate_kwargs) -> Reply:
        """The character's answer. Only a valid one becomes history; after any other, or an error, nothing has changed.

        `turn` is what the user does, as a message, its content blocks, or a string; media raw or as codes. `decode`
        makes motion and waveform; without it there are only text and codes. `generate_kwargs` are as in
        `SolamiPipeline.respond`; the cache is the session's own, and static with `cache_implementation="static"`. A
        reply that was cancelled is not valid, and its `answer.reason` says "cancelled". Raises ValueError: an empty
        turn, unreadable media, codes outside the codebooks, a turn that with its answer does not fit into the context,
        or an option that is unknown or of no use here; RuntimeError: another thread is using this session.
        """
        options = self.options(generate_kwargs)
        with self.begin_turn(turn, options) as (prompt, user, keep):
            answer_ids = self.generate_ids(prompt, options)
            answer = self.pipeline.processor.parse_response(answer_ids)
            if not answer.valid and self.cancelled.is_set():
                answer.reason = "cancelled"
            reply = self.pipeline.reply(answer, decode, self.voice, user)
            keep(answer_ids, reply)
        return reply

    def stream(self, turn, lookahead: int = LOOKAHEAD, **generate_kwargs) -> Iterator[Event]:
        """The character's answer while it is being given: words, motion and sound as soon as they can be said.

        Nothing happens, and nothing is checked, before the first event is asked for. The answer becomes history when
        the last event, `AnswerEnd`, comes. It does not, and the model stops at its next token, when the stream is left
        before that (a `break`, an error in the loop's body, `close`) or `cancel` is called from anywhere; then only
        `AnswerEnd` comes, with a reply that is not valid. Until the end the session is busy; close a stream that was
        given a name (`contextlib.closing`).

        `turn` and `generate_kwargs` (one beam) are as in `answer`; `lookahead` codes of motion are waited for, each
        0.13 s; see `streaming_motion_vq` for what they are worth. Yields `TextPiece`, `MotionPiece`, `FacePiece`,
        `AudioPiece`, in the end `AnswerEnd`, see `streaming`. Codes are those of `answer`; what motion and sound
        differ by is told in `streaming_media`. Raises ValueError, RuntimeError: as `answer`; several beams.
        """
        return stream_answer(self, turn, lookahead, generate_kwargs)

    def cancel(self) -> None:
        """Stops the answer or stream that is being given, at its next token; without one it does nothing."""
        self.cancelled.set()

    def read_ahead(self, turn=None, **generate_kwargs) -> None:
        """Reads the conversation, and a turn that may still change, so that the next answer begins sooner; arguments
        and errors as in `answer`, `turn` None is the conversation alone. Answers and history stay as they are, but for
        rounding."""
        with self._alone():
            prompt = self.context_ids + self._between * (self.rounds > self._first)
            if turn is not None:
                _, _, _, prompt = self._prompt(turn, self.options(generate_kwargs))
            self.prefill(prompt)

    # ---- history

    def truncate_answer(self, seconds: float) -> bool:
        """Makes what was heard of the last answer history: a valid one is shortened, a cancelled one enters. Its words
        end with "...", motion and speech with the moment: `seconds` of the answer's sound, or without sound of its
        motion, that were played; see `hearing.heard_part`. Until the next turn it may be called again, with more
        seconds too. Returns true if the answer is history; False where nothing of it was heard, or no answer was
        given. Raises RuntimeError: the session is answering."""
        with self._alone():
            if self._given is None:
                return False
            number, first, given, said = self._given
            ids = heard_part(self.pipeline.processor, given.answer_ids, said, seconds)
            self._rounds[number:] = [] if ids is None else [Round(given.user, given.user_ids, ids)]
            self._first = first
            self._forget_other(self.context_ids)
            return ids is not None

    @property
    def rounds(self) -> int:
        """Rounds that are remembered, those outside the context too."""
        return len(self._rounds)

    @property
    def context_ids(self) -> list[int]:
        """Ids of system prompt and rounds in the context, up to the last answer's end."""
        return self._context(self._first)

    @property
    def messages(self) -> list[dict]:
        """The conversation as it is remembered, as messages, media as codes."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for past in self._rounds:
            answer = self.pipeline.processor.parse_response(past.answer_ids)
            messages += [past.user, self.pipeline.reply(answer, False, None).message()]
        return messages

    def reset(self) -> None:
        """Forgets the conversation; the system prompt stays read."""
        with self._alone():
            self._rounds, self._first, self._given = [], 0, None
            self._forget(len(self._system_ids))

    def fork(self) -> "DialogueSession":
        """A session that goes on from here by itself. Nothing is copied until it differs."""
        with self._alone():
            other = copy.copy(self)
            other._rounds, other._cached = list(self._rounds), list(self._cached)
            other._cache = copied(self._cache)
        other.cancelled, other._busy = threading.Event(), threading.Lock()
        return other

    # ---- folders

    def save(self, folder: str | Path, cache: bool = False) -> None:
        """Writes the conversation to a folder, made where it is missing: `session.json`, and with `cache` keys and
        values in `cache.safetensors`, which are large; the restored session then reads nothing twice."""
        folder, layout = Path(folder), self.pipeline.model.config
        with self._alone():
            state = {
                "system": self.system,
                "voice": self.voice,
                "low_water": self.low_water,
                "first": self._first,
                "markers": layout.markers,
                "modalities": layout.modalities,
                "interleaved": self.pipeline.processor.interleaved,
                "hearing": self.pipeline.processor.hearing,
                "codecs": _codecs(self.pipeline.processor),
                "rounds": [{"user": past.user, "answer_ids": past.answer_ids} for past in self._rounds],
            }
            write_json(folder / STATE_FILE, state, indent=None)
            (folder / CACHE_FILE).unlink(missing_ok=True)
            if cache and self._cached:
                tensors = {"ids": torch.tensor(self._cached)}
                for i, layer in enumerate(moved(self._cache, DynamicCache()).layers):
                    tensors |= {f"{i}.keys": layer.keys, f"{i}.values": layer.values}
                with atomic_write(folder / CACHE_FILE) as temporary:
                    save_file(tensors, temporary, {"model": model_fingerprint(self.pipeline.model)})

    @classmethod
    def load(cls, folder: str | Path, pipeline: SolamiPipeline) -> "DialogueSession":
        """A session of a folder that `save` wrote. Keys and values of another model are left aside, and the
        conversation is read again at the next turn. Raises FileNotFoundError: no session there; ValueError: the
        session's codes or ids mean something else in this pipeline, or its file is damaged."""
        path = Path(folder) / STATE_FILE
        if not path.is_file():
            raise FileNotFoundError(f"no session in {folder}: there is no {STATE_FILE}")
        try:
            state = dict(json.loads(path.read_text(encoding="utf-8")))
            state["codecs"] = dict(state["codecs"])
            state["rounds"] = [Round(dict(r["user"]), [], list(r["answer_ids"])) for r in state["rounds"]]
            low_water, first = float(state["low_water"]), int(state["first"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path} is damaged, it is no session that was saved ({error!r})") from None
        layout, processor = pipeline.model.config, pipeline.processor
        ours = {"markers": layout.markers, "modalities": layout.modalities, "interleaved": processor.interleaved}
        for name, value in {**ours, "hearing": processor.hearing}.items():
            if state.get(name, {"interleaved": False, "hearing": "codes"}.get(name)) != value:
                raise ValueError(f"the session in {folder} was made with another vocabulary or format ({name} differ)")
        for name, ours in _codecs(processor).items():
            if state["codecs"].get(name) != ours:
                raise ValueError(
                    f"the session in {folder} has codes of another {name} ({state['codecs'].get(name)}, here {ours}); "
                    "load it with the checkpoint that it was made with"
                )
        session = cls(pipeline, system=state.get("system"), voice=state.get("voice"), low_water=low_water)
        for past in state["rounds"]:
            user_ids = session._render([past.user], add_generation_prompt=True)
            session._rounds.append(Round(past.user, user_ids, past.answer_ids))
        session._first = first
        if (Path(folder) / CACHE_FILE).is_file():
            try:
                session._load_cache(Path(folder) / CACHE_FILE)
            except SafetensorError as error:
                logger.warning("%s is damaged (%s); the conversation is read again", CACHE_FILE, error)
                session._forget(0)
        return session

    def _load_cache(self, path: Path) -> None:
        with safe_open(path, "pt", device=str(input_device(self.pipeline.model))) as file:
            if file.metadata().get("model") != model_fingerprint(self.pipeline.model):
                logger.warning("%s is of another model; the conversation is read again", path)
                return
            self._cached = file.get_tensor("ids").tolist()
            for i in range(len(file.keys()) // 2):
                self._cache.update(file.get_tensor(f"{i}.keys"), file.get_tensor(f"{i}.values"), i)

    # ---- what stands behind

    def options(self, generate_kwargs: dict) -> dict:
        """As `SolamiPipeline.options`; ValueError for another cache than the session's, which may be static."""
        options = self.pipeline.options(generate_kwargs)
        if options["generation_config"].cache_implementation not in (None, "static") or CACHE in options:
            raise ValueError(
                f"a session has a cache of its own; leave cache_implementation (other than 'static') and {CACHE} out"
            )
        return options

    @contextmanager
    def begin_turn(self, turn, options: dict):
        """A user's turn: gives the prompt, the message, and what to call with ids and reply. A valid one is history;
        otherwise nothing changes, and `truncate_answer` finds what was cancelled."""
        with self._alone():
            self.cancelled.clear()
            self._given = None
            (message, user_ids, first, prompt), kept = self._prompt(turn, options), []

            def keep(answer_ids: list[int], reply: Reply) -> None:
                if not reply.valid and reply.answer.reason != "cancelled":
                    return
                given, begin = Round(message, user_ids, answer_ids), first
                if self.max_rounds and len(self._rounds) >= self.max_rounds:
                    del self._rounds[:begin]
                    self._first, begin = max(0, self._first - begin), 0
                talker = self.pipeline.processor.answer_format == "text_motion"
                self._given = len(self._rounds), begin, given, reply.speech if talker else ()
                if reply.valid:
                    self._rounds.append(given)
                    self._first = begin
                    kept.append(True)

            try:
                yield prompt, message, keep
            finally:
                if not kept:
                    self._forget(len(self._context(first)))

    def _prompt(self, turn, options: dict) -> tuple[dict, list[int], int, list[int]]:
        """A user's message, its ids, the round that the context begins with, and all ids up to the answer."""
        message = self._user_message(turn)
        user_ids = self._render([message], add_generation_prompt=True)
        first = self._first_fitting(len(user_ids), options["generation_config"].max_new_tokens)
        between = self._between * (len(self._rounds) > first)
        return message, user_ids, first, self._context(first) + between + user_ids

    @contextmanager
    def _alone(self):
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this session is answering; wait, cancel() it, close its stream, or fork() it before")
        try:
            yield
        finally:
            self._busy.release()

    def _render(self, messages: list[dict], add_generation_prompt: bool = False) -> list[int]:
        return self.pipeline.processor.renderer.chat(messages, add_generation_prompt)["input_ids"].tolist()

    def _user_message(self, turn) -> dict:
        message = turn if isinstance(turn, dict) and "role" in turn else {"role": "user", "content": turn}
        if message["role"] != "user":
            raise ValueError(f"a session answers the user, got a message of role {message['role']!r}")
        ((encoded,),) = self.pipeline.processor.encode_media([self.pipeline.perceive([message])])
        check_turn(encoded)
        return encoded

    def _context(self, first: int) -> list[int]:
        ids = list(self._system_ids)
        for i, past in enumerate(self._rounds[first:]):
            ids += self._between * (i > 0) + past.user_ids + past.answer_ids
        return ids

    def _first_fitting(self, turn: int, answer: int) -> int:
        """The round that the context begins with so that a turn and its answer of so many tokens fit behind it."""
        limit = self.pipeline.room_for_prompt(answer)
        sizes = [len(past.user_ids) + len(past.answer_ids) + len(self._between) for past in self._rounds]
        if len(self._system_ids) + turn > limit:
            raise ValueError(
                f"the turn has {turn} tokens and the system prompt {len(self._system_ids)}, more than the {limit} "
                "that leave room for an answer; shorten it"
            )
        first = self._first
        if self.max_rounds and len(sizes) - first >= self.max_rounds:
            first = len(sizes) - int(self.low_water * self.max_rounds)
        total = len(self._system_ids) + turn + sum(sizes[first:])
        if total > limit:
            while first < len(sizes) and total > self.low_water * limit:
                total -= sizes[first]
                first += 1
        return first

    def generate_ids(self, prompt: list[int], options: dict) -> list[int]:
        """An answer's ids; the cache then holds the prompt and the answer but for its last token, or less."""
        options = self.options(options)
        settings, beams = options["generation_config"], options["generation_config"].num_beams or 1
        known = self._forget_other(prompt[:-1])
        if settings.use_cache:
            static = settings.cache_implementation == "static" and beams == 1
            tokens = len(prompt) + settings.max_new_tokens if static else 0
            self._cache = fitted(self._cache, self.pipeline.model.config, tokens, settings.max_cache_len)
        settings.cache_implementation = settings.max_cache_len = None
        self.prefilled_tokens = len(prompt) - known * settings.use_cache
        self._cached = list(prompt)  # whatever happens, what is in the cache begins like this
        ids = torch.tensor([prompt])
        options["stopping_criteria"] = [*options.get("stopping_criteria", []), _StopWhen(self.cancelled)]
        try:
            if settings.use_cache:
                options[CACHE] = self._cache
            if settings.use_cache and beams > 1:  # they leave a cache of which no row need be the answer's
                self._read(prompt[known:-1])
                options[CACHE] = copied(self._cache)
                options[CACHE].batch_repeat_interleave(beams)
            (answer_ids,) = self.pipeline.generate_padded(ids, torch.ones_like(ids), **options)
        except BaseException:  # layers that came after the error have read no more than before
            self._forget(known)
            raise
        self._cached = (prompt + answer_ids)[: int(self._cache.get_seq_length())]
        return answer_ids

    def prefill(self, prompt: list[int]) -> DynamicCache:
        """Reads all of a prompt but its last token, for a batch of sessions; returns the cache."""
        known = self._forget_other(prompt[:-1])
        self._cache = fitted(self._cache, self.pipeline.model.config, 0)
        self.prefilled_tokens = len(prompt) - known
        try:
            self._read(prompt[known:-1])
        except BaseException:
            self._forget(known)
            raise
        self._cached = prompt[:-1]
        return self._cache

    def adopt(self, cache: DynamicCache, ids: list[int]) -> None:
        """Takes keys and values of these ids that were made elsewhere."""
        self._cache, self._cached = cache, list(ids)

    @torch.inference_mode()
    def _read(self, ids: list[int]) -> None:
        if ids:
            model = self.pipeline.model
            inputs = torch.tensor([ids], device=input_device(model))
            with answering(model):
                model.base_model(input_ids=inputs, **{CACHE: self._cache}, use_cache=True)

    def _forget_other(self, ids: list[int]) -> int:
        """Shortens the cache to what it has in common with ids; returns its length."""
        pairs = zip(self._cached, ids, strict=False)
        known = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self._cached), len(ids)))
        self._forget(known)
        return known

    def _forget(self, length: int) -> None:
        """Shortens the cache to `length` tokens at most."""
        self._cache, length = shortened(self._cache, length)
        self._cached = self._cached[:length]


class _StopWhen(StoppingCriteria):
    """Ends a generation once an event is set."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def _codecs(processor) -> dict[str, str]:
    """Fingerprints of what made the codes."""
    return {name: codec_fingerprint(getattr(processor, name)) for name in ("motion_codec", "speech_codec")}
