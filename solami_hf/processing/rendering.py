"""Dialogues and tasks rendered to ids and labels, and what of messages and keywords is checked before.

Codes become ids by adding the modality's first id; text runs are tokenized once and cached. All turns of a batch are
written together, one array operation per part of a turn; one dialogue is a batch of one. No modality token ever passes
through a string. The result equals the tokenization of the string that the chat template writes (tested), as all text
runs end at added tokens.
"""

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
SYSTEM, USER, ASSISTANT = range(3)
CODES = ("trans", "body", "hand")
KINDS = ("text", *CODES, "speech")
_ENCLOSED = np.array([kind in BRACKETS for kind in KINDS])
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


class Turns:
    """Turns of dialogues in order, and the parts that they hold: a text, then spans of codes.

    Args:
        row (N,): the dialogue of each turn, ascending.
        role (N,): `SYSTEM`, `USER` or `ASSISTANT`.
        turn (P,): the turn of each part, ascending.
        kind (P,): of each part, as an index of `KINDS`; the text of a turn comes first.
        begin, count (P,): where the ids of each part lie among `ids`.
        ids: of all parts, without the tokens that enclose them.
        is_open (N,): turns that are not ended, none by default.

    Attributes:
        length (N,): tokens of each turn, without the line break before it.
    """

    def __init__(self, row, role, turn, kind, begin, count, ids, is_open=None):
        self.row, self.role, self.turn, self.kind = row, role, turn, kind
        self.begin, self.count, self.ids = begin, count, ids
        self.is_open = np.zeros(len(role), dtype=bool) if is_open is None else is_open
        self.spoken, self.ended = role != SYSTEM, (role != SYSTEM) & ~self.is_open
        self.enclosed = _ENCLOSED[kind]
        self.size = count + 2 * self.enclosed
        words, media = (np.bincount(turn[part], minlength=len(role)) > 0 for part in (kind == 0, kind > 0))
        self.with_eot = (role == ASSISTANT) & words & media
        self.length = self.sum(self.size) + self.with_eot + self.spoken + self.ended

    def sum(self, of_parts: np.ndarray) -> np.ndarray:
        """The sums (N,) over the parts of each turn."""
        return np.bincount(self.turn, of_parts, len(self.role)).astype(np.int64)

    def take(self, turns: np.ndarray) -> "Turns":
        """The turns with these numbers, in ascending order."""
        number = np.full(len(self.role), -1)
        number[turns] = np.arange(len(turns))
        kept = number[self.turn] >= 0
        parts = (number[self.turn][kept], self.kind[kept], self.begin[kept], self.count[kept])
        return Turns(self.row[turns], self.role[turns], *parts, self.ids, self.is_open[turns])


class TokenRenderer:
    """Renders messages and tasks with one tokenizer, which `vocabulary.extend_tokenizer` has extended, and vocabulary
    layout, anything with `modalities` and `markers` (`SolamiConfig`, `SolamiProcessor`). `interleaved` answers are
    written in chunks of equal time, `chunk_seconds` long, see `answers`; by default as the layout says, else not."""

    def __init__(self, tokenizer, layout, interleaved: bool | None = None, chunk_seconds: float = CHUNK_SECONDS):
        require_layout(layout)
        self.tokenizer, self.layout = tokenizer, layout
        interleaved = getattr(layout, "interleaved", False) if interleaved is None else interleaved
        self.chunks = Chunks.of(layout, chunk_seconds) if interleaved else None
        self._text_cache: dict[tuple[str, bool], np.ndarray | None] = {}
        spans = [span["first_id"] + span["size"] for span in layout.modalities.values()]
        self._reserved = is_reserved(np.arange(max(*spans, *layout.markers.values()) + 1), layout)

    @property
    def hearing(self) -> str:
        """What is read of a user's speech: `codes`, `transcript` or `both`."""
        return getattr(self.layout, "hearing", "codes")

    def text(self, text: str, first: bool = False) -> np.ndarray:
        """Ids of a run of text. `first`: at the very start of a sequence, where some tokenizers add a space. Raises
        ValueError: the text holds a marker or modality token; text must not be able to write those."""
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
        """Ids of codes. Raises ValueError: a code is outside the modality's codebook, or there are no tokens for
        the modality."""
        if modality not in self.layout.modalities:
            known = ", ".join(self.layout.modalities)
            raise ValueError(f"{modality} codes have no tokens here, only {known}; another codec made them")
        codes, span = np.asarray(codes, dtype=np.int64).reshape(-1), self.layout.modalities[modality]
        if len(codes) and (codes.min() < 0 or codes.max() >= span["size"]):
            raise ValueError(
                f"{modality} codes must lie in 0..{span['size'] - 1}, got {codes.min()}..{codes.max()}; they were "
                "probably made by another codec"
            )
        return codes + span["first_id"]

    def task(self, instruction: str, source: dict, target: dict) -> dict:
        """A one-shot task: `[Human]: {instruction} {input}<eoh> [MMGPT]: {output}<eos>`, of which `source` and
        `target` are content blocks (text, motion or audio as codes). Returns `{"input_ids", "labels"}`, arrays of
        shape `(T,)`; labels cover the output and its `<eos>` only."""
        lead = text_block(instruction + (" " if target["type"] == "text" else " This is input: "))
        return self._render([(USER, *self._parts([lead, source])), (ASSISTANT, *self._parts([target]))], " ")

    def chat(
        self, messages: list[dict], add_generation_prompt: bool = False, continue_final_message: bool = False
    ) -> dict:
        """A dialogue, messages as in `SolamiProcessor.apply_chat_template`, media as codes, in the format of the chat
        template. `add_generation_prompt` ends with the character's role marker; `continue_final_message` leaves the
        last message, which holds words alone, open. Returns `{"input_ids", "labels"}`, arrays of shape `(T,)`; labels
        cover the character's answers and their `<eos>`."""
        turns: list[tuple] = []
        for message in messages:
            role, (text, media) = ROLES.index(message["role"]), self._parts(message["content"])
            if role == SYSTEM:
                text += "" if continue_final_message and message is messages[-1] else "\n"
                if turns and turns[-1][0] == SYSTEM:  # neighbouring texts are one run
                    text = turns.pop()[1] + text
            turns.append((role, text, media))
        if add_generation_prompt:
            if turns[-1][0] == SYSTEM:
                turns[-1] = (SYSTEM, turns[-1][1] + "\n", [])
            turns.append((ASSISTANT, "", []))
        return self._render(turns, is_open=add_generation_prompt or continue_final_message)

    def content(self, blocks: list[dict]) -> np.ndarray:
        """Ids (T,) of content blocks whose media are codes, without a role."""
        return self._render([(SYSTEM, *self._parts(blocks))])["input_ids"]

    def _parts(self, content) -> tuple[str, list[tuple[str, np.ndarray]]]:
        """The text of a message's content, and name and ids of each span of codes."""
        blocks, media = sorted_blocks(content), []
        for block in blocks:
            if block["type"] == "motion":
                codes = block["motion"]
                filled = (name for name in CODES if codes.get(name) is not None and len(codes[name]))
                media += [(name, self.codes(name, codes[name])) for name in filled]
            elif block["type"] == "audio":
                media.append(("speech", self.codes("speech", block["audio"]["codes"])))
            elif block["type"] != "text":
                raise ValueError(f"unknown content type {block['type']!r}; expected text, motion or audio")
        return "".join(block["text"] for block in blocks if block["type"] == "text"), media

    def _render(self, turns: list[tuple], separator: str = "\n", is_open: bool = False) -> dict:
        """One sample of `(role, text, spans)` of each turn. `is_open`: the last turn is not ended."""
        roles, parts = np.array([role for role, _, _ in turns]), []
        for number, (role, text, media) in enumerate(turns):
            if text:
                parts.append((number, 0, self.text(text, first=number == 0 and role == SYSTEM)))
            parts += [(number, KINDS.index(name), ids) for name, ids in media]
        turn, kind, count = np.array([(t, k, len(ids)) for t, k, ids in parts], dtype=np.int64).reshape(-1, 3).T
        values = np.concatenate([np.zeros(0, np.int64), *(ids for _, _, ids in parts)])
        last = np.arange(len(roles)) == len(roles) - 1 if is_open else None
        ids, trained, _ = self.write(
            Turns(np.zeros_like(roles), roles, turn, kind, np.cumsum(count) - count, count, values, last), separator
        )
        return {"input_ids": ids.astype(np.int64), "labels": np.where(trained, ids, IGNORE).astype(np.int64)}

    def write(self, turns: Turns, separator: str = "\n") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(ids, trained, tokens of each turn)`: ids int32 and trained bool over all tokens of all turns."""
        markers, number = self.layout.markers, len(turns.role)
        answer = turns.role == ASSISTANT
        follows = turns.spoken.copy()
        follows[:1] = False
        follows[1:] &= (turns.row[1:] == turns.row[:-1]) & turns.spoken[:-1]
        gap = self.text(separator) if follows.any() else []
        length = turns.length + follows * len(gap)
        begin = np.cumsum(length) - length
        out = np.empty(int(length.sum()), dtype=np.int32)
        for i, token in enumerate(gap):
            out[begin[follows] + i] = token
        place = begin + follows * len(gap)
        out[place[turns.spoken]] = np.where(answer, markers["mmgpt"], markers["human"])[turns.spoken]
        place += turns.spoken
        out[(begin + length - 1)[turns.ended]] = np.where(answer, markers["eos"], markers["eoh"])[turns.ended]
        words = turns.sum(np.where(turns.kind == 0, turns.size, 0))
        out[(place + words)[turns.with_eot]] = markers["eot"]
        of_turn = turns.sum(turns.size)
        start = (place - np.cumsum(of_turn) + of_turn)[turns.turn] + np.cumsum(turns.size) - turns.size
        start += turns.with_eot[turns.turn] & (turns.kind > 0)
        before, codes = np.cumsum(turns.count) - turns.count, np.arange(int(turns.count.sum()))
        target = np.repeat(start + turns.enclosed - before, turns.count) + codes
        out[target] = turns.ids[np.repeat(turns.begin - before, turns.count) + codes]
        for kind in np.flatnonzero(_ENCLOSED):
            here, (first, last) = turns.kind == kind, BRACKETS[KINDS[kind]]
            out[start[here]], out[(start + turns.size - 1)[here]] = markers[first], markers[last]
        untrained = np.where(answer, place - begin, length)
        pairs = np.stack([untrained, length - untrained], axis=1).reshape(-1)
        trained = np.repeat(np.tile([False, True], number), pairs)
        if self.chunks is not None:
            chunk = self._chunks(turns, start, target, len(out))
            top = int(chunk.max(initial=0)) + 1
            chunk[(begin + length - 1)[turns.ended]] = top
            key = np.repeat(np.arange(number), length - untrained) * (top + 1) + chunk[trained]
            out[trained] = out[trained][np.argsort(key, kind="stable")]
        return out, trained, length

    def _chunks(self, turns: Turns, start: np.ndarray, target: np.ndarray, size: int) -> np.ndarray:
        """The chunk of each token: 0 for words, from 1 on for spans, which begin at `start` with codes at `target`."""
        chunk = np.zeros(size, dtype=np.int64)
        chunk[target] = np.repeat(turns.kind > 0, turns.count)
        for kind in np.flatnonzero(_ENCLOSED):
            here = turns.kind == kind
            codes = target[np.repeat(here, turns.count)]
            places = codes - 1 - np.repeat(start[here], turns.count[here])
            chunk[codes] = 1 + self.chunks.of_codes(KINDS[kind], places)
            first, last = start[here], (start + turns.size - 1)[here]
            chunk[first], chunk[last] = 1, np.maximum(1, chunk[last - 1])
        return chunk


def text_block(text: str) -> dict:
    """A content block with text."""
    return {"type": "text", "text": text}


def sorted_blocks(content) -> list[dict]:
    """Content blocks in the order in which they are rendered: text, motion, audio. A string is one text block."""
    if isinstance(content, str):
        return [text_block(content)] if content else []
    order = {"text": 0, "motion": 1, "audio": 2}
    return sorted(content, key=lambda block: order.get(block["type"], 3))


UNHEARD = (
    'a user\'s turn has sound without its transcript, and hearing="transcript" reads words; put {"type": "text", '
    '"text": ...} beside the sound, or let a SolamiPipeline hear it, see its `asr`'
)


def heard(blocks: list[dict], hearing: str) -> list[dict]:
    """Blocks of a user's turn without the sound, where words are read in its place. Raises ValueError: there is
    sound, and no words are given."""
    kinds = {block["type"] for block in blocks}
    if hearing != "transcript" or "audio" not in kinds:
        return blocks
    if "text" not in kinds:
        raise ValueError(UNHEARD)
    return [block for block in blocks if block["type"] != "audio"]


def text_of(content) -> str:
    """The words of a system message."""
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


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
    """ValueError for what is no conversation: a list of `{"role", "content"}` whose content is a string or blocks. A
    block is `{"type": "text", "text": str}`, or of type "motion" or "audio" with the medium under the same name, or
    under another that `audio.read_audio` knows."""
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
    """Codes of a motion or audio block as lists of int, as the chat template needs them, `with_transform` of a
    motion, which the character's turns carry none of. Raises ValueError: other names than those of codes, or codes
    that are no integers."""
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
