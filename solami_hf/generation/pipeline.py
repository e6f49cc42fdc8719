"""`SolamiPipeline`: one raw turn in (sound, motion, text), one raw turn out."""

from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature

import numpy as np
import torch
from transformers import DynamicCache

from ..character.packaged_character import character_folder
from ..modeling.solami.configuration_solami import require_layout
from ..processing.answers import Answer
from ..processing.audio.recognition import as_recogniser
from ..processing.batching import pad_left
from ..processing.motion.motion_io import read_motions
from ..processing.motion.smplx_motion import SmplxMotion
from ..processing.processing_solami import SolamiProcessor
from ..processing.rendering import check_messages, drop_oldest_rounds, sorted_blocks
from .cache import CACHE, growing, static_cache
from .decoding import decode
from .grammar import AnswerGrammar, grammar_of
from .hearing import with_words
from .loading import answering, input_device, is_adapter, load_model, processor_source
from .serving.onnx_engine import OnnxLanguageModel, onnx_model
from .settings import generate_options
from .streaming_media import FacePieces, lips_of

TASK_FORMATS = {"text": "text", "motion": "motion", "audio": "speech"}
"""Type of a task's target -> format of its answer."""


@dataclass
class Reply:
    """A character's turn.

    Attributes:
        text (`str`): its transcript, empty in the `motion_speech` format.
        motion (`SmplxMotion` | None): at 30 fps, beginning at the origin facing +Z.
        audio (`np.ndarray` of shape `(samples,)` | None): waveform in -1..1.
        sampling_rate (`int`): Hz of the waveform.
        valid (`bool`): the answer was well formed; only then may it enter the history.
        answer (`Answer`): its codes, and what was wrong with an invalid one.
        speech (`np.ndarray` of shape `(n,)`): the codes of its sound: the answer's own, or the talker's where the
            format is `text_motion`.
        face (`np.ndarray` of shape `(frames, 52)` | None): curves 0..1 at 30 fps, see `processing.motion.face`.
    """

    text: str
    motion: SmplxMotion | None
    audio: np.ndarray | None
    sampling_rate: int
    valid: bool
    answer: Answer
    speech: np.ndarray
    face: np.ndarray | None = None

    def message(self) -> dict:
        """The turn as an assistant message for the history, its media as codes."""
        content = [{"type": "text", "text": self.text}] if self.text else []
        content.append({"type": "motion", "motion": {"body": self.answer.body, "hand": self.answer.hand}})
        if len(self.answer.speech):
            content.append({"type": "audio", "audio": {"codes": self.answer.speech}})
        return {"role": "assistant", "content": content}


class SolamiPipeline:
    """A model and its processor, ready to talk.

    The model is a `SolamiForCausalLM`, or another decoder whose config has the layout (`extend_backbone`); the
    processor has both codecs. The longest answer, `max_new_tokens`, is by default what the model's generation config
    says, else the paper's 600. `asr` recognises the user's speech where the checkpoint reads words (`hearing`): a Hub
    id, a folder, a loaded recogniser of transformers or faster-whisper, or a function from clips (T,) at 16 kHz to
    texts; by default the Whisper tiny.en that `solami_hf[eval]` installs. `face` gives answers a face, and where the
    user's place is known turns eyes and head to it.
    """

    def __init__(self, model, processor, max_new_tokens: int | None = None, asr=None, face: bool = True):
        require_layout(model.config)
        self.model, self.processor, self.face = model.eval(), processor, face
        self._asr = asr
        self.max_new_tokens = max_new_tokens or model.generation_config.max_new_tokens or 600

    @classmethod
    def from_pretrained(
        cls,
        path=None,
        dtype=torch.float32,
        max_new_tokens: int | None = None,
        quantization: str | None = None,
        base=None,
        merge: bool = False,
        codec_device=None,
        codec_dtype: torch.dtype | None = None,
        asr=None,
        face: bool = True,
        engine: str | None = None,
        **kwargs,
    ) -> "SolamiPipeline":
        """Loads a checkpoint, or an adapter on the model that it was trained on; by default the packaged character.

        `path` is a folder or hub id of a checkpoint, or of a PEFT adapter (`adapter_config.json`); None is the
        packaged character, see `solami_hf.character`. `dtype`, that of the language model (`torch_dtype` is the same),
        `quantization`, `base`, `merge` and `kwargs` for the model's `from_pretrained` (`device_map`, `revision`, ...):
        see `loading.load_model`; `max_new_tokens`, `asr` and `face`: see the class. Codecs and acoustic model are by
        default on the language model's first device, in float32. `engine` "onnx" runs the language model in 8 bits on
        ONNX Runtime, on the CPU, an adapter merged into it; see `serving.onnx_engine`.

        Raises OSError: nothing to load there, or the adapter's base is gone; ValueError: the checkpoint has no
        modality tokens or no codecs, or arguments that exclude one another.
        """
        if engine not in (None, "onnx"):
            raise ValueError(f"engine is {engine!r}, expected onnx or None")
        if engine and (quantization or kwargs.get("device_map") is not None):
            raise ValueError(
                "engine='onnx' is for the CPU and has 8 bits of its own: leave quantization and device_map"
            )
        path = character_folder() if path is None else path
        source, hub = processor_source(path, base, **kwargs)
        processor = SolamiProcessor.from_pretrained(source, **hub)
        merge |= engine is not None and is_adapter(path, **kwargs)
        model = load_model(path, dtype=dtype, quantization=quantization, base=base, merge=merge, **kwargs)
        if engine:
            model = onnx_model(model, processor.tokenizer)
        pipeline = cls(model, processor, max_new_tokens, asr, face)
        processor.place_codecs(input_device(model) if codec_device is None else codec_device, codec_dtype)
        for codec in (processor.motion_codec, processor.speech_codec):  # fail now, not in the first answer
            codec.eval()
        return pipeline

    def __call__(self, messages: list[dict], **generate_kwargs) -> Reply:
        """The character's answer to a conversation whose last message is the user's; see `respond`."""
        return self.respond([messages], **generate_kwargs)[0]

    def respond(
        self, conversations: list[list[dict]], decode: bool = True, voice: str | None = None, **generate_kwargs
    ) -> list[Reply]:
        """Answers to several conversations, generated in one batch.

        `conversations` are messages as in `SolamiProcessor.apply_chat_template`, with raw media or codes; where one
        with its answer would outgrow the model's positions, its oldest rounds are left out. `decode` makes motion and
        waveform of the valid answers; without it there are only text and codes. `voice` is one of the processor's, for
        all of them; None is the voice of the character whose system prompt a conversation begins with, if it has one.

        `generate_kwargs` for `model.generate` (`do_sample`, `temperature`, `generation_config`, `streamer`, ...) go
        before what the model's own generation config says. By default greedy, with the pipeline's `max_new_tokens`,
        and with a cache, whatever the checkpoint says of that. A `logits_processor` of your own comes before the
        grammar of answers; an `AnswerGrammar` takes its place, and `[]` leaves it out. With
        `cache_implementation="static", compile_config=CompileConfig(...)` steps are compiled; see `decoding`.

        Raises ValueError: a last message that is not the user's or is empty, an unreadable medium, a single turn that
        is too long, an unknown voice, an option that is unknown or asks for several answers, or too few
        `max_new_tokens` for any answer.
        """
        conversations = [self.perceive(messages) if messages else messages for messages in conversations]
        for messages in conversations:
            if not messages or messages[-1]["role"] != "user":
                raise ValueError("a conversation to answer must end with the user's turn")
        voices = [voice or self.processor.voice_of(messages) for messages in conversations]
        for name in set(voices) - {None}:  # fail now, not after the answer
            self.processor.voices.prompt(name, self.processor.speech_codec)
        options = self.options(generate_kwargs)
        longest = options["generation_config"].max_new_tokens
        conversations = self.processor.encode_media(conversations)
        prompts = [self.chat_prompt(messages, longest) for messages in conversations]
        ids = self.generate_prompts(prompts, **options)
        answers = [self.processor.parse_response(row) for row in ids]
        users = [messages[-1] for messages in conversations]
        turns = zip(answers, voices, users, strict=True)
        return [self.reply(answer, decode, voice, user) for answer, voice, user in turns]

    @property
    def takes_batches(self) -> bool:
        """False where the language model reads one row at once, so that answers to several are given in turn."""
        return not isinstance(self.model, OnnxLanguageModel)

    @cached_property
    def asr(self):
        """The recogniser of the user's speech, from clips (T,) at 16 kHz to texts; loaded on first use."""
        return as_recogniser(self._asr)

    @cached_property
    def lips(self) -> tuple:
        """See `streaming_media.lips_of`; loaded on first use."""
        return lips_of(self.processor)

    def perceive(self, messages: list[dict]) -> list[dict]:
        """Messages as the processor takes them: motion files are read, and speech is recognised where words are
        read. Raises ValueError: what is no message, or an unreadable file."""
        messages, hearing = read_motions(messages, self.processor), self.processor.hearing
        return with_words(messages, hearing, lambda clips: self.asr(clips))

    def generate_ids(self, conversations: list[list[dict]], **generate_kwargs) -> list[list[int]]:
        """Generated ids (without prompt) of conversations whose media are codes, of which nothing is left out."""
        render = self.processor.renderer.chat
        prompts = [render(messages, add_generation_prompt=True)["input_ids"].tolist() for messages in conversations]
        return self.generate_prompts(prompts, **generate_kwargs)

    def chat_prompt(self, messages: list[dict], max_new_tokens: int | None = None) -> list[int]:
        """Ids of a conversation up to the character's answer, without the oldest rounds where there is no room.
        Media are codes (`processor.encode_media`); `max_new_tokens` are left to the answer, by default the
        pipeline's. Raises ValueError: an unknown role, an empty last turn, one that is too long, or codes or words
        that the model does not know."""
        check_messages(messages)
        check_turn(messages[-1])
        limit = self.room_for_prompt(max_new_tokens or self.max_new_tokens)
        ids: list[int] = []

        def fits(kept):
            ids[:] = self.processor.renderer.chat(kept, add_generation_prompt=True)["input_ids"].tolist()
            return len(ids) <= limit

        if drop_oldest_rounds(messages, fits) is None:
            raise ValueError(
                f"the last turn alone needs more than the {limit} tokens that leave room for an answer; shorten it"
            )
        return ids

    def task_prompt(
        self, instruction: str, source: dict, target_type: str, max_new_tokens: int | None = None
    ) -> list[int]:
        """Ids of a one-shot task up to its answer; arguments as in `run_task` and `chat_prompt`. Raises ValueError:
        a source that is too long, or codes or words that the model does not know."""
        target = {"type": target_type, target_type: {"text": "", "motion": {}, "audio": {"codes": []}}[target_type]}
        sample = self.processor.renderer.task(instruction, source, target)
        ids = sample["input_ids"][sample["labels"] < 0].tolist()
        limit = self.room_for_prompt(max_new_tokens or self.max_new_tokens)
        if len(ids) > limit:
            raise ValueError(f"the input needs {len(ids)} tokens, more than the {limit} that leave room for an answer")
        return ids

    def room_for_prompt(self, max_new_tokens: int) -> int:
        """Tokens of the context that an answer of so many leaves; ValueError where it leaves none."""
        context = self.model.config.max_position_embeddings
        if max_new_tokens >= context:
            raise ValueError(f"max_new_tokens={max_new_tokens} fill the context of {context} tokens; lower it")
        return context - max_new_tokens

    @torch.inference_mode()
    def generate_prompts(
        self, prompts: list[list[int]], answer_format: str | None = None, **generate_kwargs
    ) -> list[list[int]]:
        """Generated ids of prompts (see `chat_prompt` and `task_prompt`), padded on the left to one batch; what
        follows an `<eos>` is padding. `answer_format` is one of `answers.FORMATS`, by default the processor's."""
        if not prompts:
            return []
        if len(prompts) > 1 and not self.takes_batches:
            return [self.generate_prompts([ids], answer_format, **generate_kwargs)[0] for ids in prompts]
        rows = {"input_ids": prompts, "attention_mask": [[1] * len(ids) for ids in prompts]}
        padded = pad_left(rows, self.processor.tokenizer.pad_token_id)
        ids, mask = map(torch.tensor, padded.values())
        return self.generate_padded(ids, mask, answer_format=answer_format, **generate_kwargs)

    def grammar(self, answer_format: str | None = None, max_new_tokens: int | None = None) -> AnswerGrammar:
        """The grammar of answers; with the format "text", "motion" or "speech", the output of a task."""
        processor, most = self.processor, max_new_tokens or self.max_new_tokens
        settings = answer_format or processor.answer_format, processor.renderer.chunks is not None, most
        return grammar_of(self.model.config, processor.tokenizer, *settings)

    def options(self, generate_kwargs: dict) -> dict:
        """Keyword arguments as `model.generate` gets them, with all settings in `generation_config`; see `respond`."""
        return generate_options(self.model, self.max_new_tokens, generate_kwargs)

    @torch.inference_mode()
    def generate_padded(self, input_ids, attention_mask, answer_format=None, **generate_kwargs) -> list[list[int]]:
        """Generated ids of prompts (B, T), padded on the left; see `generate_prompts`."""
        options, device = self.options(generate_kwargs), input_device(self.model)
        settings, own = options["generation_config"], options.get("logits_processor")
        takes = signature(self.model.forward).parameters
        mode, cache = settings.get_generation_mode(options.get("assistant_model")), options.get(CACHE)
        simple = mode in ("greedy_search", "sample") and settings.prefill_chunk_size is None
        if cache is None and simple and settings.use_cache:
            if settings.cache_implementation == "static":
                tokens = input_ids.shape[1] + settings.max_new_tokens
                cache = static_cache(self.model.config, tokens, settings.max_cache_len)
                settings.cache_implementation = settings.max_cache_len = None
            elif settings.cache_implementation is None and CACHE in takes:
                cache = DynamicCache(config=self.model.config)
            options |= {CACHE: cache} if cache is not None else {}
        if type(cache) is DynamicCache and simple:
            growing(cache)
        if settings.stop_strings:
            options.setdefault("tokenizer", self.processor.tokenizer)
        grammar = None
        if own is None or (own and not any(isinstance(processor, AnswerGrammar) for processor in own)):
            grammar = self.grammar(answer_format, settings.max_new_tokens)
            options["logits_processor"] = [*(own or []), grammar]
        # Stop strings need a tokenizer, which `generate` keeps from other loops
        own_loop = simple and not settings.stop_strings
        if own_loop and cache is not None and settings.cache_implementation is None:
            loop = partial(
                decode,
                streamer=options.get("streamer"),
                pad=self.processor.tokenizer.pad_token_id,
                sliced_by=grammar if own is None else None,  # others' processors may look at any row
            )
            options.setdefault("custom_generate", loop)
        with answering(self.model):
            inputs = {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
            output = self.model.generate(**inputs, **options)
        return getattr(output, "sequences", output)[:, input_ids.shape[1] :].tolist()

    def run_task(self, instruction: str, sources: list[dict], target_type: str, **generate_kwargs) -> list[list[int]]:
        """Generated ids of a one-shot task for a batch of sources (content blocks, media as codes), well formed as
        the target demands; `target_type` (`text`, `motion` or `audio`) decides how the prompt is worded, by a
        phrasing of the task as `instruction`."""
        options = self.options(generate_kwargs)
        longest = options["generation_config"].max_new_tokens
        prompts = [self.task_prompt(instruction, source, target_type, longest) for source in sources]
        return self.generate_prompts(prompts, TASK_FORMATS[target_type], **options)

    def face_pieces(self, user: dict | None = None) -> FacePieces | None:
        """The maker of an answer's face, None where it has none."""
        return FacePieces(self.processor, self.lips, user) if self.face else None

    def reply(
        self, answer: Answer, decode: bool, voice: str | None, user: dict | None = None, said: np.ndarray | None = None
    ) -> Reply:
        """An answer as a turn, with motion and waveform where it is valid and they are wanted. The face looks at
        `user`, the turn that is answered, its media as codes; `said` are speech codes of the talker, where it has
        said the answer already."""
        text = self.processor.tokenizer.decode(answer.text_ids).strip() if answer.text_ids else ""
        rate = self.processor.speech_codec.config.sampling_rate
        motion = audio = face = None
        speech = self.spoken(answer, text) if said is None else said
        if decode and answer.valid:
            motion = self.processor.decode_motion({"body": answer.body, "hand": answer.hand})
            audio = self.processor.decode_speech(speech, voice) if len(speech) else None
            if (pieces := self.face_pieces(user)) is not None:
                motion, face = pieces.whole(motion, speech, audio)
        return Reply(text, motion, audio, rate, answer.valid, answer, speech, face)

    def spoken(self, answer: Answer, text: str, answer_format: str | None = None) -> np.ndarray:
        """The speech codes (n,) of an answer: its own, or the talker's where its format leaves words to a talker.
        `answer_format`: one of `answers.FORMATS`, by default the processor's."""
        if (answer_format or self.processor.answer_format) == "text_motion" and answer.valid:
            return self.processor.say(text)
        return answer.speech


def check_turn(message: dict) -> None:
    """ValueError for a user's turn, its media as codes, without words, motion or sound, or with half a motion."""
    filled = False
    for block in sorted_blocks(message["content"]):
        content = block[block["type"]]
        if block["type"] == "motion":
            body, hand = (len(content.get(name) or ()) for name in ("body", "hand"))
            if body != hand:
                raise ValueError(f"a motion has as many codes of the body as of the hands, got {body} and {hand}")
        filled |= any(content.values()) if isinstance(content, dict) else bool(str(content).strip())
    if not filled:
        raise ValueError("the user's turn is empty; give it text, motion or audio")
