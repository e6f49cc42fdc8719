"""Tasks and dialogues rendered to ids and labels.

Codes become ids by adding the modality's first id; text runs are tokenized once and cached. No modality token ever
passes through a string, and labels are exact because every piece knows whether it is trained on. The result equals the
tokenization of the string that the chat template writes (tested), as all text runs end at added tokens.
"""

from __future__ import annotations

import numpy as np

from ..modeling.solami.configuration_solami import require_layout
from ..modeling.solami.vocabulary import BRACKETS, MARKERS
from .answers import CHUNK_SECONDS, Chunks, _is_reserved

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


class TokenRenderer:
    """Renders messages and tasks with one tokenizer and vocabulary layout.

    Args:
        tokenizer: a text tokenizer that `vocabulary.extend_tokenizer` has extended.
        layout: anything with `modalities` and `markers` (`SolamiConfig`, `SolamiProcessor`).
        interleaved: whether answers are written in chunks of equal time; by default what the layout says, else not.
        chunk_seconds: length of these chunks, see `interleaving`.
    """

    def __init__(self, tokenizer, layout, interleaved: bool | None = None, chunk_seconds: float = CHUNK_SECONDS):
        require_layout(layout)
        self.tokenizer, self.layout = tokenizer, layout
        interleaved = getattr(layout, "interleaved", False) if interleaved is None else interleaved
        self.chunks = Chunks.of(layout, chunk_seconds) if interleaved else None
        self._text_cache: dict[tuple[str, bool], np.ndarray | None] = {}
        spans = [span["first_id"] + span["size"] for span in layout.modalities.values()]
        self._reserved = _is_reserved(np.arange(max(*spans, *layout.markers.values()) + 1), layout)

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
        return self._join([(piece, False) for piece in prompt] + [(piece, True) for piece in answer])

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
        return self._join(pieces)

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

    def _join(self, pieces: list) -> dict:
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
