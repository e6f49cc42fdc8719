"""The chat side of `SolamiProcessor`: messages with raw media to the language model's ids, or to a template's text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import jinja2
from jinja2 import meta
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .batching import pad_to
from .messages import check_messages, plain_codes, raw_medium
from .rendering import TokenRenderer, sorted_blocks

PADDING = ("padding", "max_length", "pad_to_multiple_of", "padding_side")
_OPTIONS = (*PADDING, "truncation", "return_tensors", "sampling_rate", "add_special_tokens")
_GROUPS = ("processor_kwargs", "tokenizer_kwargs", "common_kwargs", "text_kwargs", "audio_kwargs")
_ARGUMENTS = ("add_generation_prompt", "chat_template", "continue_final_message", "conversation", "return_dict",
              "return_assistant_tokens_mask", "tokenize")  # fmt: skip
_CHOICES = {
    "padding": (True, False, "longest", "max_length", "do_not_pad"),
    "truncation": (True, False, "longest_first", "only_first", "do_not_truncate"),
    "padding_side": ("left", "right"),
    "add_special_tokens": (False,),  # the template writes all tokens itself
}
_LEFT_OUT = ("tools", "documents", "load_audio_from_video", "sanitize_control_tokens")
"""Arguments of transformers that ask for nothing when they are empty."""
_NO_LIMIT = 1 << 30  # the `model_max_length` of tokenizers that have none is larger


class ChatProcessing(ProcessorMixin):
    """What `SolamiProcessor` inherits. Needs its `encode_motion`, `encode_speech` and tokenizer."""

    _renderer: TokenRenderer
    _first_template: str | dict

    def encode_media(self, conversations: list[list[dict]], sampling_rate: int | None = None) -> list[list[dict]]:
        """Conversations whose raw media are replaced by codes, encoded in batches.

        Args:
            conversations: as in `apply_chat_template`.
            sampling_rate: Hz of arrays of sound that tell no rate of their own, by default the speech codec's.

        Raises:
            ValueError: what is no message, see `messages.check_messages`, or an unreadable medium.
        """
        for conversation in conversations:
            check_messages(conversation)
        copies = [
            [
                {**message, "content": [dict(block) for block in sorted_blocks(message["content"])]}
                if not isinstance(message["content"], str)
                else dict(message)
                for message in conversation
            ]
            for conversation in conversations
        ]
        whose = [(b, m["role"]) for c in copies for m in c if not isinstance(m["content"], str) for b in m["content"]]
        media = [(block, raw_medium(block), role) for block, role in whose if block["type"] != "text"]
        for kind in ("motion", "audio"):
            raw = [(block, medium) for block, medium, _ in media if block["type"] == kind and medium is not None]
            given = [medium for _, medium in raw]
            if not raw:
                continue
            if kind == "motion":
                encoded = self.encode_motion(given)
            else:
                encoded = [{"codes": codes} for codes in self.encode_speech(given, sampling_rate=sampling_rate)]
            for (block, _), codes in zip(raw, encoded, strict=True):
                block.clear()  # nothing is left of the medium for a template to see
                block.update({"type": kind, kind: codes})
        for block, _, role in media:
            kind = block["type"]
            block[kind] = plain_codes(kind, block[kind], with_transform=role != "assistant")
        return copies

    def apply_chat_template(
        self,
        conversation,
        chat_template=None,
        add_generation_prompt=False,
        tokenize=False,
        return_dict=False,
        return_tensors=None,
        return_assistant_tokens_mask=False,
        continue_final_message=False,
        **kwargs,
    ):
        """A dialogue as the language model's input.

        Args:
            conversation: messages, or a list of them. Content is a string or blocks: `{"type": "text", "text"}`,
                `{"type": "motion", "motion": SmplxMotion | path | {"body", "hand", "trans"}}`,
                `{"type": "audio", "audio": recording | {"codes"}}`; a recording is anything that `audio.read_audio`
                takes, and `url`, `path` or `sampling_rate` may stand in the block itself. Raw media are encoded.
            chat_template: another template, or the name of one of the processor's; it is then rendered as a string
                and tokenized, and so is one that was set on the processor.
            add_generation_prompt: end with the character's role marker.
            tokenize: ids instead of a string.
            return_dict: `BatchFeature` with `input_ids`, `attention_mask` (and `assistant_masks` when asked for), a
                batch even of one conversation, as all processors of transformers give it and TRL reads it. It is
                padded on the left when `return_tensors` is given.
            continue_final_message: leave the last message open, for the model to go on with its words.
            kwargs: variables of another template (`tools`, ...), and for ids `padding`, `padding_side`,
                `pad_to_multiple_of`, `truncation`, `max_length` as in tokenizers; `sampling_rate` of arrays of sound
                that tell none. These may also come in `processor_kwargs`, as in processors of transformers.

        Raises:
            ValueError: unknown content types or roles, unreadable media, codes outside the codebooks, an unknown
                keyword, or `truncation` of a conversation with motion or sound.
        """
        if isinstance(conversation, Iterable) and not isinstance(conversation, (str, bytes, Mapping)):
            conversation = list(conversation)  # a column of a data set, too
        single = not isinstance(conversation, list) or not conversation or isinstance(conversation[0], Mapping)
        template = self._template(chat_template)
        exact = chat_template is None and self.chat_template == self._first_template
        options, variables = _sorted_keywords(kwargs, set() if exact else _variables_of(template))
        return_tensors = options.pop("return_tensors", return_tensors)
        return_tensors = None if return_tensors == "auto" else return_tensors
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise ValueError("return_assistant_tokens_mask=True needs tokenize=True and return_dict=True")
        sampling_rate = options.pop("sampling_rate", None)
        conversations = self.encode_media([conversation] if single else conversation, sampling_rate)
        if continue_final_message:
            if add_generation_prompt or return_assistant_tokens_mask:
                raise ValueError("continue_final_message excludes add_generation_prompt and assistant masks")
            for messages in conversations:
                _check_continued(messages[-1], continue_final_message)
        # Not only for ids: what cannot be said as ids must not be said as a string either
        rendered = [self._renderer.chat(c, add_generation_prompt, bool(continue_final_message)) for c in conversations]
        if not tokenize or not exact:
            by_template = self.tokenizer.apply_chat_template(
                conversations[0] if single and not tokenize else conversations,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tokenize=tokenize,
                return_dict=tokenize,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                **variables,
            )
            if not tokenize:
                return by_template
            rows = {name: by_template[name] for name in ("input_ids", "assistant_masks") if name in by_template}
        else:
            rows = {"input_ids": [r["input_ids"].tolist() for r in rendered]}
            if return_assistant_tokens_mask:
                rows["assistant_masks"] = [(r["labels"] >= 0).astype(int).tolist() for r in rendered]
        rows["attention_mask"] = [[1] * len(ids) for ids in rows["input_ids"]]
        if options.get("truncation"):
            rows = self._cut(rows, self._limit(options, "truncation"), conversations)
        side = "left" if exact else self.tokenizer.padding_side
        rows = self._padded(rows, options, return_tensors is not None, side)
        output = BatchFeature(rows, tensor_type=return_tensors)
        if return_dict:
            return output
        return output["input_ids"][0] if single and return_tensors is None else output["input_ids"]

    def _template(self, chosen: str | None) -> str:
        """A chat template by its name or text, by default the processor's own."""
        known = self.chat_template if isinstance(self.chat_template, dict) else {"default": self.chat_template}
        if chosen is None and "default" not in known:
            raise ValueError(f"chat_template must be one of {', '.join(known)}: the processor has no default")
        return known["default"] if chosen is None else known.get(chosen, chosen)

    def _limit(self, options: dict, needed_by: str) -> int:
        limit = options.get("max_length", self.tokenizer.model_max_length)
        if not isinstance(limit, int) or not 0 < limit < _NO_LIMIT:
            raise ValueError(f"{needed_by} needs a positive max_length, as the tokenizer knows none; got {limit!r}")
        return limit

    def _cut(self, rows: dict, limit: int, conversations: list[list[dict]]) -> dict:
        """Rows of `limit` tokens at most, cut where the tokenizer cuts."""
        for ids, messages in zip(rows["input_ids"], conversations, strict=True):
            blocks = (block for m in messages if not isinstance(m["content"], str) for block in m["content"])
            if len(ids) > limit and any(block["type"] != "text" for block in blocks):
                raise ValueError(
                    f"truncation would cut through motion or audio: {len(ids)} tokens, max_length={limit}; leave out "
                    "the oldest rounds, or cut the recordings"
                )
        cut = slice(-limit, None) if self.tokenizer.truncation_side == "left" else slice(limit)
        return {name: [row[cut] for row in column] for name, column in rows.items()}

    def _padded(self, rows: dict, options: dict, as_tensors: bool, side: str) -> dict:
        how, step = options.get("padding", as_tensors), options.get("pad_to_multiple_of", 1)
        if not isinstance(step, int) or step < 1 or (step > 1 and not how):
            raise ValueError(f"pad_to_multiple_of is {step!r}, expected 1 or more, beside padding=True")
        if not how:
            return rows
        longest = max(map(len, rows["input_ids"]))
        width = self._limit(options, "padding='max_length'") if how == "max_length" else longest
        if width < longest and as_tensors:
            raise ValueError(
                f"max_length is {width}, but a conversation has {longest} tokens; pass truncation=True or a larger one"
            )
        return pad_to(-(-width // step) * step, rows, self.tokenizer.pad_token_id, options.get("padding_side", side))


def refuse_unknown(names: Iterable[str], known: Iterable[str], place: str, others: Iterable[str] = ()) -> None:
    """ValueError for the first name that is none of the known ones, with the one, or of `others`, that is like it."""
    known, hints = set(known), sorted({*known, *others})
    for name in names:
        if name not in known:
            like = difflib.get_close_matches(name, hints, 1)
            hint = f"did you mean {like[0]}?" if like else f"expected among {', '.join(hints)}"
            raise ValueError(f"{place} has no argument {name!r}; {hint}")


def _sorted_keywords(kwargs: dict, variables: set[str]) -> tuple[dict, dict]:
    """Keywords of `apply_chat_template` as options for ids and variables of the template."""
    given: dict = {}
    waiting = [kwargs]
    while waiting:
        for name, value in waiting.pop().items():
            if name in _GROUPS and isinstance(value, Mapping):
                waiting.append(value)
            elif value is not None and not (name in _LEFT_OUT and not value):
                given[name] = value
    for name in ("tools", "documents"):
        if name in given and name not in variables:
            raise ValueError(f"the chat template has no place for {name}; leave them out, or give another template")
    refuse_unknown(given, {*_OPTIONS, *variables}, "apply_chat_template", _ARGUMENTS)
    options = {name: value for name, value in given.items() if name in _OPTIONS}
    for name, values in _CHOICES.items():
        if name in options and options[name] not in values:
            raise ValueError(f"{name} is {options[name]!r}, expected one of {', '.join(map(repr, values))}")
        if options.get(name) in ("do_not_pad", "do_not_truncate"):
            options[name] = False
    if "max_length" in options and not options.get("truncation") and options.get("padding") != "max_length":
        raise ValueError(f"max_length={options['max_length']} needs truncation=True or padding='max_length'")
    options.pop("add_special_tokens", None)
    return options, {name: value for name, value in given.items() if name not in _OPTIONS}


@lru_cache(maxsize=16)
def _variables_of(template: str) -> set[str]:
    """The names that a template reads and does not set."""
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)  # a tag that only transformers knows
    found = meta.find_undeclared_variables(jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain))
    return found - {"messages", "add_generation_prompt"}


def _check_continued(message: dict, field: bool | str) -> None:
    """ValueError for a last message that cannot be gone on with."""
    if field not in (True, "content"):
        raise ValueError(f"continue_final_message is {field!r}, expected True: messages have no such words")
    content = message["content"]
    kinds = {"text"} if isinstance(content, str) else {block["type"] for block in content}
    if kinds != {"text"}:
        told = " and ".join(sorted(kinds)) or "nothing"
        raise ValueError(f"continue_final_message goes on with words, and the last message holds {told}")


__all__ = ["ChatProcessing"]
