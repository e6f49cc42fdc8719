"""`SolamiPipeline`: one raw turn in (sound, motion, text), one raw turn out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from ..modeling.configuration_solami import require_layout
from ..processing.answers import Answer
from ..processing.batching import pad_left
from ..processing.motion import SmplxMotion
from ..processing.processing_solami import SolamiProcessor
from ..processing.rendering import drop_oldest_rounds, sorted_blocks
from .grammar import AnswerGrammar, sliced_head

MOST_SECONDS = {"motion": 10.0, "speech": None}
"""Of an answer; speech is bounded by `max_new_tokens` alone."""


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
    """

    text: str
    motion: SmplxMotion | None
    audio: np.ndarray | None
    sampling_rate: int
    valid: bool
    answer: Answer

    def message(self) -> dict:
        """The turn as an assistant message for the history, its media as codes."""
        content = [{"type": "text", "text": self.text}] if self.text else []
        content.append({"type": "motion", "motion": {"body": self.answer.body, "hand": self.answer.hand}})
        content.append({"type": "audio", "audio": {"codes": self.answer.speech}})
        return {"role": "assistant", "content": content}


class SolamiPipeline:
    """A model and its processor, ready to talk.

    Args:
        model: a `SolamiForCausalLM`, or another decoder whose config has the layout (`extend_backbone`).
        processor (`SolamiProcessor`): with both codecs.
        max_new_tokens (`int`): longest answer; the paper uses 600.
    """

    def __init__(self, model, processor, max_new_tokens: int = 600):
        require_layout(model.config)
        self.model, self.processor, self.max_new_tokens = model.eval(), processor, max_new_tokens

    @classmethod
    def from_pretrained(cls, path, dtype=torch.float32, max_new_tokens: int = 600, **kwargs) -> SolamiPipeline:
        """Loads a checkpoint folder or hub id; `kwargs` go to the model's `from_pretrained`.

        Raises:
            OSError: nothing to load there.
            ValueError: the checkpoint has no modality tokens or no codecs.
        """
        hub = {k: v for k, v in kwargs.items() if k in ("revision", "token", "cache_dir", "local_files_only")}
        processor = SolamiProcessor.from_pretrained(path, **hub)
        pipeline = cls(AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **kwargs), processor, max_new_tokens)
        for codec in (processor.motion_codec, processor.speech_codec):  # fail now, not in the first answer
            codec.eval()
        return pipeline

    def __call__(self, messages: list[dict], **generate_kwargs) -> Reply:
        """The character's answer to a conversation whose last message is the user's; see `respond`."""
        return self.respond([messages], **generate_kwargs)[0]

    def respond(
        self,
        conversations: list[list[dict]],
        decode: bool = True,
        voice: str | None = None,
        **generate_kwargs,
    ) -> list[Reply]:
        """Answers to several conversations, generated in one batch.

        Args:
            conversations: messages as in `SolamiProcessor.apply_chat_template`; raw media or codes. Where one
                with its answer would outgrow the model's positions, its oldest rounds are left out.
            decode: make motion and waveform of the valid answers; without it only text and codes.
            voice: one of the processor's voices, for all of them. None: the voice of the character whose system prompt
                a conversation begins with, if it has one.
            generate_kwargs: for `model.generate` (`do_sample`, `temperature`, `top_p`, ...); greedy by default.

        Raises:
            ValueError: a last message that is not the user's or is empty, an unreadable medium, a single turn that is
                too long, an unknown voice, or too few `max_new_tokens` for any answer.
        """
        for messages in conversations:
            if not messages or messages[-1].get("role") != "user":
                raise ValueError("a conversation to answer must end with the user's turn")
        voices = [voice or self.processor.voice_of(messages) for messages in conversations]
        for name in set(voices) - {None}:  # fail now, not after the answer
            self.processor.voices.prompt(name, self.processor.speech_codec)
        encoded = [self._fit(messages) for messages in self.processor.encode_media(conversations)]
        ids = self.generate_ids(encoded, **generate_kwargs)
        answers = [self.processor.parse_response(row) for row in ids]
        return [self._reply(answer, decode, voice) for answer, voice in zip(answers, voices, strict=True)]

    @torch.inference_mode()
    def generate_ids(self, conversations: list[list[dict]], **generate_kwargs) -> list[list[int]]:
        """Generated ids (without prompt) of conversations whose media are codes."""
        inputs = self.processor.apply_chat_template(
            conversations, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        return self._generate(inputs["input_ids"], inputs["attention_mask"], **generate_kwargs)

    def grammar(self, answer_format: str | None = None, max_new_tokens: int | None = None) -> AnswerGrammar:
        """What an answer may consist of; with the format "text", "motion" or "speech", the output of a task."""
        config, tokenizer = self.model.config, self.processor.tokenizer
        return AnswerGrammar(
            config,
            answer_format or self.processor.answer_format,
            interleaved=self.processor._renderer.chunks is not None,
            min_seconds=0,  # a nod and a "no" are answers
            max_seconds=MOST_SECONDS,
            max_new_tokens=max_new_tokens or self.max_new_tokens,
            not_text={*tokenizer.all_special_ids, *range(len(tokenizer), config.vocab_size)},
            **({"max_text_tokens": None} if answer_format == "text" else {}),
        )

    @torch.inference_mode()
    def _generate(self, input_ids, attention_mask, answer_format=None, **generate_kwargs) -> list[list[int]]:
        device = self.model.device
        settings = {"do_sample": False, "max_new_tokens": self.max_new_tokens, **generate_kwargs}
        head = nullcontext()
        if "logits_processor" not in settings:
            grammar = self.grammar(answer_format, settings["max_new_tokens"])
            settings["logits_processor"] = [grammar]
            # Beams compare log-probabilities over all rows, and a cache of fixed shape may have the model compiled.
            if settings.get("num_beams", 1) == 1 and "cache_implementation" not in settings:
                head = sliced_head(self.model, grammar)
        with head:
            output = self.model.generate(
                input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), **settings
            )
        return output[:, input_ids.shape[1] :].tolist()

    @torch.inference_mode()
    def run_task(self, instruction: str, sources: list[dict], target_type: str, **generate_kwargs) -> list[list[int]]:
        """Generated ids of a one-shot task for a batch of sources, well formed as the target demands.

        Args:
            instruction: one of the task's phrasings (`processing.tasks.phrasings`).
            sources: content blocks, media as codes.
            target_type: `text`, `motion` or `audio`; it decides how the prompt is worded.
        """
        target = {
            "text": {"type": "text", "text": ""},
            "motion": {"type": "motion", "motion": {}},
            "audio": {"type": "audio", "audio": {"codes": []}},
        }[target_type]
        renderer, pad = self.processor._renderer, self.processor.tokenizer.pad_token_id
        samples = [renderer.task(instruction, source, target) for source in sources]
        prompts = [sample["input_ids"][sample["labels"] < 0].tolist() for sample in samples]
        rows = pad_left({"input_ids": prompts, "attention_mask": [[1] * len(ids) for ids in prompts]}, pad)
        inputs = (torch.tensor(rows[k]) for k in ("input_ids", "attention_mask"))
        answer_format = "speech" if target_type == "audio" else target_type
        return self._generate(*inputs, answer_format=answer_format, **generate_kwargs)

    def _fit(self, messages: list[dict]) -> list[dict]:
        check_not_empty(messages[-1])
        limit = self.model.config.max_position_embeddings - self.max_new_tokens
        render = self.processor._renderer.chat
        kept = drop_oldest_rounds(messages, lambda m: len(render(m, add_generation_prompt=True)["input_ids"]) <= limit)
        if kept is None:
            raise ValueError(
                f"the last turn alone needs more than the {limit} tokens that leave room for an answer; shorten it"
            )
        return kept

    def _reply(self, answer: Answer, decode: bool, voice: str | None) -> Reply:
        text = self.processor.tokenizer.decode(answer.text_ids).strip() if answer.text_ids else ""
        rate = self.processor.speech_codec.config.sampling_rate
        motion = audio = None
        if decode and answer.valid:
            motion = self.processor.decode_motion({"body": answer.body, "hand": answer.hand})
            audio = self.processor.decode_speech(answer.speech, voice)
        return Reply(text, motion, audio, rate, answer.valid, answer)


def check_not_empty(message: dict) -> None:
    """ValueError for a user's turn, its media as codes, without words, motion or sound."""
    for block in sorted_blocks(message["content"]):
        content = block[block["type"]]
        if any(content.values()) if isinstance(content, dict) else content:
            return
    raise ValueError("the user's turn is empty; give it text, motion or audio")
