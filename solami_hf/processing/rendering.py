"""Messages and tasks rendered to ids and labels, and what of messages and keywords is checked before.

Codes become ids by adding the modality's first id; text runs are tokenized once and cached. No modality token ever
passes through a string, and labels are exact because every piece knows whether it is trained on. The result equals the
tokenization of the string that the chat template writes (tested), as all text runs end at added tokens.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import jinja2
import numpy as np
from jinja2 import meta

from ..modeling.solami.configuration_solami import require_layout
from ..modeling.solami.vocabulary import BRACKETS, MARKERS
from .answers import CHUNK_SECONDS, Chunks, is_reserved

IGNORE = -100
MOST_CACHED_TEXTS = 50_000
TASKS = {
    "motion_to_text": ("motion", "text"),
    "text_to_motion": ("text", "motion"),
    "motion_to_motion": ("motion", "motion"),
    "text_to_speech": ("text", "audio"),
    "speech_to_text": ("audio", "text"),
    "speech_to_speech": ("audio", "audio"),
}
ROLES = ("system", "user", "assistant")
CODES = ("trans", "body", "hand")
_BLOCKS = {
    "text": ("text",),
    "motion": ("motion", "path", "url"),
    "audio": ("audio", "array", "raw", "bytes", "path", "url"),
}

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


class TokenRenderer:
    """Renders messages and tasks with one tokenizer and vocabulary layout.

    Args:
        tokenizer: a text tokenizer that `vocabulary.extend_tokenizer` has extended.
        layout: anything with `modalities` and `markers` (`SolamiConfig`, `SolamiProcessor`).
        interleaved: whether answers are written in chunks of equal time; by default what the layout says, else not.
        chunk_seconds: length of these chunks, see `answers`.
    """

    def __init__(self, tokenizer, layout, interleaved: bool | None = None, chunk_seconds: float = CHUNK_SECONDS):
        require_layout(layout)
        self.tokenizer, self.layout = tokenizer, layout
        interleaved = getattr(layout, "interleaved", False) if interleaved is None else interleaved
        self.chunks = Chunks.of(layout, chunk_seconds) if interleaved else None
        self._text_cache: dict[tuple[str, bool], np.ndarray | None] = {}
        spans = [span["first_id"] + span["size"] for span in layout.modalities.values()]
        self._reserved = is_reserved(np.arange(max(*spans, *layout.markers.values()) + 1), layout)

    def text(self, text: str, first: bool = False) -> np.ndarray:
        """Ids of a run of text. `first`: at the very start of a sequence, where some tokenizers add a space.

        Raises:
            ValueError: the text holds a marker or modality token; text must not be able to write those.
        """
        (ids,) = self.texts([(text, first)])
        if ids is None:
            raise ValueError(f"text holds reserved tokens such as <eos> or a modality token; remove them: {text!r}")
        return ids

    def texts(self, keys: list[tuple[str, bool]]) -> list[np.ndarray | None]:
        """Ids of many `(text, first)`, tokenized in one call; None where a text holds reserved tokens."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._text_cache]
        if unknown:
            if len(self._text_cache) + len(unknown) > MOST_CACHED_TEXTS:  # streams have no end
                self._text_cache.clear()
                unknown = list(dict.fromkeys(keys))
            strings = [text if first else MARKERS["eoh"] + text for text, first in unknown]
            rows = self.tokenizer(strings, add_special_tokens=False)["input_ids"]
            for key, row in zip(unknown, rows, strict=True):
                ids = np.asarray(row, dtype=np.int64)[0 if key[1] else 1 :]
                bad = self._reserved[ids[ids < len(self._reserved)]].any()
                self._text_cache[key] = None if bad else ids
        return [self._text_cache[key] for key in keys]

    def codes(self, modality: str, codes) -> np.ndarray:
        """Ids of a span of codes, with its begin and end tokens where the modality has them.

        Raises:
            ValueError: a code is outside the modality's codebook, or there are no tokens for the modality.
        """
        if modality not in self.layout.modalities:
            known = ", ".join(self.layout.modalities)
            raise ValueError(f"{modality} codes have no tokens here, only {known}; another codec made them")
        codes, span = np.asarray(codes, dtype=np.int64).reshape(-1), self.layout.modalities[modality]
        if len(codes) and (codes.min() < 0 or codes.max() >= span["size"]):
            raise ValueError(
                f"{modality} codes must lie in 0..{span['size'] - 1}, got {codes.min()}..{codes.max()}; they were "
                "probably made by another codec"
            )
        ids = codes + span["first_id"]
        if modality not in BRACKETS:
            return ids
        begin, end = (self.layout.markers[name] for name in BRACKETS[modality])
        return np.concatenate([[begin], ids, [end]])

    def block(self, block: dict) -> list:
        """Pieces of one content block whose media are codes already."""
        if block["type"] == "text":
            return [block["text"]]
        if block["type"] == "motion":
            codes = block["motion"]
            return [self.codes(name, codes[name]) for name in ("trans", "body", "hand") if _filled(codes.get(name))]
        if block["type"] == "audio":
            return [self.codes("speech", block["audio"]["codes"])]
        raise ValueError(f"unknown content type {block['type']!r}; expected text, motion or audio")

    def task(self, instruction: str, source: dict, target: dict) -> dict:
        """A one-shot task: `[Human]: {instruction} {input}<eoh> [MMGPT]: {output}<eos>`.

        Args:
            instruction: what is to be done.
            source, target: content blocks (text, motion or audio as codes).

        Returns:
            `{"input_ids", "labels"}`, arrays of shape `(T,)`; labels cover the output and its `<eos>` only.
        """
        markers = self.layout.markers
        lead = instruction + (" " if target["type"] == "text" else " This is input: ")
        prompt = [np.array([markers["human"]]), lead, *self.block(source), np.array([markers["eoh"]]), " "]
        prompt += [np.array([markers["mmgpt"]])]
        answer = [*self._answer([target]), np.array([markers["eos"]])]
        return self.join([(piece, False) for piece in prompt] + [(piece, True) for piece in answer])

    def chat(
        self, messages: list[dict], add_generation_prompt: bool = False, continue_final_message: bool = False
    ) -> dict:
        """A dialogue in the format of the chat template; labels cover the character's answers and their `<eos>`.

        Args:
            messages: as in `SolamiProcessor.apply_chat_template`, media as codes.
            add_generation_prompt: end with the character's role marker.
            continue_final_message: leave the last message open; it holds words alone.

        Returns:
            `{"input_ids", "labels"}`, arrays of shape `(T,)`.
        """
        markers, pieces = self.layout.markers, []
        for i, message in enumerate(messages):
            if message["role"] == "system":
                pieces += [(text, False) for text in (text_of(message["content"]), "\n")]
                continue
            if i and messages[i - 1]["role"] != "system":
                pieces.append(("\n", False))
            trained = message["role"] == "assistant"
            role, end = ("mmgpt", "eos") if trained else ("human", "eoh")
            pieces.append((np.array([markers[role]]), False))
            pieces += [(piece, trained) for piece in self._content(message, trained)]
            pieces.append((np.array([markers[end]]), trained))
        if continue_final_message:
            pieces.pop()  # the end of the last message
        if add_generation_prompt:
            pieces += [("\n", False), (np.array([markers["mmgpt"]]), False)]
        return self.join(pieces)

    def _content(self, message: dict, is_answer: bool) -> list:
        blocks = sorted_blocks(message["content"])
        return self._answer(blocks) if is_answer else [piece for block in blocks for piece in self.block(block)]

    def _answer(self, blocks: list[dict]) -> list:
        """Pieces of what the character says: its words, `<eot>` where media follow them, and these."""
        words = [block["text"] for block in blocks if block["type"] == "text" and block["text"]]
        media = [block for block in blocks if block["type"] != "text"]
        pieces = [piece for block in media for piece in self.block(block)]
        if self.chunks is not None and pieces:
            chunks = np.concatenate([self.chunks.of_span(name, count) for name, count in _spans(media)])
            pieces = [np.concatenate(pieces)[np.argsort(chunks, kind="stable")]]
        if words and pieces:
            words.append(np.array([self.layout.markers["eot"]]))
        return words + pieces

    def join(self, pieces: list) -> dict:
        """Merges neighbouring strings, tokenizes them, and concatenates ids and labels."""
        merged = []
        for piece, trained in pieces:
            if isinstance(piece, str) and merged and isinstance(merged[-1][0], str) and merged[-1][1] == trained:
                merged[-1] = (merged[-1][0] + piece, trained)
            else:
                merged.append((piece, trained))
        ids, labels = [], []
        for i, (piece, trained) in enumerate(merged):
            piece = self.text(piece, first=i == 0) if isinstance(piece, str) else piece
            ids.append(piece)
            labels.append(piece if trained else np.full(len(piece), IGNORE))
        return {"input_ids": np.concatenate(ids), "labels": np.concatenate(labels)}


def sorted_blocks(content) -> list[dict]:
    """Content blocks in the order in which they are rendered: text, motion, audio. A string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    order = {"text": 0, "motion": 1, "audio": 2}
    return sorted(content, key=lambda block: order.get(block["type"], 3))


def text_of(content) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def _spans(media: list[dict]):
    """Name and number of codes of each span that `TokenRenderer.block` writes for motion and audio."""
    for block in media:
        if block["type"] == "audio":
            yield "speech", len(block["audio"]["codes"])
            continue
        for name in ("trans", "body", "hand"):
            if _filled(block["motion"].get(name)):
                yield name, len(block["motion"][name])


def _filled(codes) -> bool:
    return codes is not None and len(codes) > 0


def drop_oldest_rounds(messages: list[dict], fits) -> list[dict] | None:
    """The longest tail of whole rounds (system prompt kept) for which `fits(messages)` holds, None if none fits."""
    system = [m for m in messages if m["role"] == "system"]
    turns = [m for m in messages if m["role"] != "system"]
    while turns:
        if fits(system + turns):
            return system + turns
        later = [i for i, m in enumerate(turns) if m["role"] == "user" and i > 0]
        turns = turns[later[0] :] if later else []
    return None


# ---- checks


def check_messages(messages) -> None:
    """ValueError for what is no conversation: a list of `{"role", "content"}` whose content is a string or blocks.

    A block is `{"type": "text", "text": str}`, or of type "motion" or "audio" with the medium under the same name, or
    under another that `audio.read_audio` knows.
    """
    if not isinstance(messages, (list, tuple)):
        raise ValueError(f"a conversation is a list of messages, got {type(messages).__name__}")
    if not messages:
        raise ValueError("the conversation is empty; give at least one message")
    for message in messages:
        if not isinstance(message, Mapping):
            raise ValueError(f'a message is like {{"role": "user", "content": ...}}, got {type(message).__name__}')
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"role must be system, user or assistant, got {role!r}")
        if isinstance(content, str):
            continue
        if not isinstance(content, (list, tuple)):
            raise ValueError(f"a message's content is a string or a list of blocks, got {type(content).__name__}")
        for block in content:
            _check_block(block, role)


def _check_block(block, role: str) -> None:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if isinstance(kind, str) and kind not in _BLOCKS:
        raise ValueError(f"unknown content type {kind!r}; expected text, motion or audio")
    if not isinstance(kind, str) or all(block.get(name) is None for name in _BLOCKS[kind]):
        told = sorted(map(str, block)) if isinstance(block, Mapping) else type(block).__name__
        told = f"{told}, with no {kind} in it" if isinstance(kind, str) else told
        raise ValueError(f'a content block is like {{"type": "audio", "audio": ...}}, got {told}')
    if kind == "text" and not isinstance(block["text"], str):
        raise ValueError(f"the text of a block is a string, got {type(block['text']).__name__}")
    if kind != "text" and role == "system":
        raise ValueError(f"a system message has words alone, got a block of type {kind}")


def raw_medium(block: Mapping):
    """Medium of a motion or audio block for `encode_motion` or `encode_speech`, None where it holds codes."""
    named = block.get(block["type"])
    if isinstance(named, Mapping) and (block["type"] == "motion" or "codes" in named):
        return None
    if block["type"] == "motion":
        return named if named is not None else block.get("path") or block.get("url")
    return {name: value for name, value in block.items() if name not in ("type", "text", "motion")}


def plain_codes(kind: str, codes: Mapping, with_transform: bool) -> dict[str, list[int]]:
    """Codes of a motion or audio block as lists of int, as the chat template needs them.

    Args:
        with_transform: keep a motion's transform; the character's turns carry none.

    Raises:
        ValueError: other names than those of codes, or codes that are no integers.
    """
    known = ("codes",) if kind == "audio" else CODES
    if codes.keys() - set(known):
        form = '{"codes"}' if kind == "audio" else 'a SmplxMotion, a path or {"body", "hand", "trans"}'
        raise ValueError(f"the codes of {kind} are {form}, got {sorted(map(str, codes))}")
    plain = {}
    for name, values in codes.items():
        if (values is None and kind == "motion") or (name == "trans" and not with_transform):
            continue
        values = np.asarray(values)
        if values.size and values.dtype.kind not in "iu":
            raise ValueError(f"{name} of a block of {kind} holds {values.dtype}, expected codes, which are integers")
        plain[name] = values.astype(np.int64).reshape(-1).tolist()
    return plain


def refuse_unknown(names: Iterable[str], known: Iterable[str], place: str, others: Iterable[str] = ()) -> None:
    """ValueError for the first name that is none of the known ones, with the one, or of `others`, that is like it."""
    known, hints = set(known), sorted({*known, *others})
    for name in names:
        if name not in known:
            like = difflib.get_close_matches(name, hints, 1)
            hint = f"did you mean {like[0]}?" if like else f"expected among {', '.join(hints)}"
            raise ValueError(f"{place} has no argument {name!r}; {hint}")


def sorted_keywords(kwargs: dict, variables: set[str]) -> tuple[dict, dict]:
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
def variables_of(template: str) -> set[str]:
    """The names that a template reads and does not set."""
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)  # a tag that only transformers knows
    found = meta.find_undeclared_variables(jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain))
    return found - {"messages", "add_generation_prompt"}


def check_continued(message: dict, field: bool | str) -> None:
    """ValueError for a last message that cannot be gone on with."""
    if field not in (True, "content"):
        raise ValueError(f"continue_final_message is {field!r}, expected True: messages have no such words")
    content = message["content"]
    kinds = {"text"} if isinstance(content, str) else {block["type"] for block in content}
    if kinds != {"text"}:
        told = " and ".join(sorted(kinds)) or "nothing"
        raise ValueError(f"continue_final_message goes on with words, and the last message holds {told}")
