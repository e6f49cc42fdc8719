"""The answer grammar: what may come next in an answer, so that any model, even an untrained one, gives a valid one.

The grammar forbids and never chooses: among the tokens that are left, probabilities keep their ratios. Where it stands
follows from the ids alone (how many tokens of each kind since the character's role marker, and the last one), so it
works for batches, beams, forks and every kind of cache, and one object serves any number of calls.
"""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager

import numpy as np
import torch
from transformers import LogitsProcessor

from ..processing.answers import CHUNK_SECONDS, FORMATS, Chunks, parts_of

# Kinds of tokens; those of the speech levels follow one another from SPEECH on.
NEVER, TEXT, EOT, EOS, SOBO, BODY, EOBO, SOHA, HAND, EOHA, SOSP, EOSP, SPEECH = range(13)
MARKER_KINDS = {
    "eot": EOT, "eos": EOS, "sobo": SOBO, "eobo": EOBO, "soha": SOHA, "eoha": EOHA, "sosp": SOSP, "eosp": EOSP,
}  # fmt: skip
BEGIN = {"body": SOBO, "hand": SOHA, "speech": SOSP}
END = {"body": EOBO, "hand": EOHA, "speech": EOSP}
OVER = np.iinfo(np.int64).max
"""The chunk of a part that has ended."""


class AnswerGrammar(LogitsProcessor):
    """Forbids every token after which no valid answer could follow; see `processing.answers` for what is valid.

    Body and hand get equally many codes (where the motion codec is bound there is no hand), spans begin and end in
    their places (in chunks of equal time when interleaved), speech consists of whole frames, and the answer ends
    within `max_new_tokens`.

    Args:
        config: anything with `modalities` and `markers` (`SolamiConfig`, or another decoder's with the layout).
        answer_format (`str`, *optional*): one of `FORMATS`; by default the config's.
        interleaved (`bool`, *optional*): by default the config's.
        min_seconds, max_seconds (`float` or `dict`): bounds of an answer's motion and speech, one for both or
            `{"motion": ..., "speech": ...}`. Each part has at least one code. A longest duration of None leaves that
            part to `max_new_tokens`.
        max_new_tokens (`int`, *optional*): tokens of the longest answer, `<eos>` included.
        max_text_tokens (`int`, *optional*): ids of the longest text; None leaves it to `max_new_tokens`.
        not_text: ids that are no text, though they are neither markers nor codes (special tokens of the tokenizer).
        chunk_seconds: length of the chunks of an interleaved answer.

    Attributes:
        max_tokens (`int`): tokens of the longest answer that the grammar lets pass, `<eos>` included.

    Raises:
        ValueError: a config without the layout, an unknown format, bounds that leave no answer, or interleaved motion
            whose rates differ.
    """

    def __init__(
        self,
        config,
        answer_format: str | None = None,
        interleaved: bool | None = None,
        min_seconds: float | dict = 0.5,
        max_seconds: float | dict | None = 10.0,
        max_new_tokens: int | None = None,
        max_text_tokens: int | None = 128,
        not_text=(),
        chunk_seconds: float = CHUNK_SECONDS,
    ):
        self.has_text, self.parts = parts_of(config, answer_format)
        interleaved = getattr(config, "interleaved", False) if interleaved is None else interleaved
        self.answer_format, self.interleaved = answer_format or config.answer_format, interleaved
        self._per_code = 2 if "hand" in self.parts else 1  # tokens of a step of motion
        self.modalities, self.markers, self.not_text = config.modalities, config.markers, list(not_text)
        self.levels = getattr(config, "speech_levels", 1)
        chunks = Chunks.of(config, chunk_seconds)
        if interleaved and chunks.rates["body"] != chunks.rates["hand"]:
            raise ValueError(f"interleaved body and hand need one rate, got {chunks.rates}; use interleaved=False")
        self._set_bounds(chunks.rates, min_seconds, max_seconds, max_new_tokens, max_text_tokens)
        self._chunks = {}
        for name in self.parts:
            places = np.arange((self.most_speech if name == "speech" else self.most_motion) + 2)
            self._chunks[name] = chunks.of_codes(name, places) if interleaved else np.zeros_like(places)
        self._kinds: np.ndarray | None = None
        self._forbidden: dict = {}
        self._device, self._length, self._prompt = None, -1, 0

    def _set_bounds(self, rates, min_seconds, max_seconds, max_new_tokens, max_text_tokens) -> None:
        """Least and most codes of motion and speech, most words, and the length of the longest answer."""
        if max_new_tokens is None and (max_text_tokens is None and self.has_text):
            raise ValueError("an answer with text needs a longest text or answer; give max_text_tokens=...")
        budget = max_new_tokens if max_new_tokens is not None else OVER // 4
        bounds = {}
        for part, rate, step in (("motion", rates["body"], 1), ("speech", rates["speech"], self.levels)):
            low, high = (b.get(part) if isinstance(b, dict) else b for b in (min_seconds, max_seconds))
            if high is None and max_new_tokens is None:
                raise ValueError(f"nothing bounds the {part} of an answer; give max_seconds or max_new_tokens")
            low = max(1, math.ceil((low or 0) * rate / step - 1e-9)) * step
            high = budget // step * step if high is None else math.floor(high * rate / step + 1e-9) * step
            used = {"motion": "body", "speech": "speech"}[part] in self.parts
            if used and low > high:
                raise ValueError(f"{part} of {min_seconds} to {max_seconds} s leaves {low} to {high} codes: none")
            bounds[part] = (low, high) if used else (0, 0)
        (self.least_motion, motion), (self.least_speech, speech) = bounds["motion"], bounds["speech"]
        # Markers of the spans, and <eos>
        self._markers_of_media = 2 * len(self.parts) + 1 if self.parts else 0
        media = self._markers_of_media + self._per_code * self.least_motion + self.least_speech
        shortest = media + (2 if self.has_text else 0)
        if budget < shortest:
            raise ValueError(
                f"max_new_tokens={max_new_tokens}, but the shortest answer in the format {self.answer_format!r} with "
                f"min_seconds={min_seconds} has {shortest} tokens; raise it"
            )
        words = budget - media - 1 if max_text_tokens is None else min(max_text_tokens, budget - media - 1)
        self.most_words = words if self.has_text else 0
        room = budget - self._markers_of_media - (2 if self.has_text else 0)
        self.most_motion = min(motion, (room - self.least_speech) // self._per_code) if motion else 0
        self.most_speech = min(speech, room - self._per_code * self.least_motion) // self.levels * self.levels
        longest = (self.most_words + 1 if self.has_text else 0) + self._markers_of_media
        self.max_tokens = min(budget, longest + self._per_code * self.most_motion + self.most_speech)

    # ---- logits

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`scores (B, vocab)` with what may not come next at minus infinity, for `input_ids (B, T)`.

        An answer begins behind the last of the character's role markers; in a row without one, where the prompt of
        this call of `generate` ended.
        """
        self._prepare(scores.shape[1], scores.device)
        keys = [row.tobytes() for row in self._allowed_kinds(input_ids)]
        if len(set(keys)) == 1:
            forbidden = self._forbidden_ids(keys[0])
        else:
            forbidden = torch.stack([self._forbidden_ids(key) for key in keys])
        scores = scores.masked_fill(forbidden, float("-inf"))
        # Rows of which other processors (a least length, no repetitions) have left nothing: here they do not count
        empty = scores.amax(dim=1, keepdim=True) == float("-inf")
        return scores.masked_fill(empty & ~forbidden, 0.0) if empty.any() else scores

    def _prepare(self, size: int, device) -> None:
        """The kind of each id of a vocabulary of `size`, made once."""
        if self._kinds is not None and len(self._kinds) == size and self._device == device:
            return
        kinds = np.full(size, TEXT)
        kinds[[i for i in self.not_text if i < size]] = NEVER
        kinds[list(self.markers.values())] = NEVER
        for name, span in self.modalities.items():
            codes = slice(span["first_id"], span["first_id"] + span["size"])
            kinds[codes] = {"body": BODY, "hand": HAND}.get(name, NEVER)
            if name == "speech":
                kinds[codes] = SPEECH + np.arange(span["size"]) // (span["size"] // self.levels)
        for name, kind in MARKER_KINDS.items():
            kinds[self.markers[name]] = kind
        self._kinds, self._device, self._forbidden = kinds, device, {}

    def _forbidden_ids(self, key: bytes) -> torch.BoolTensor:
        """Mask (vocab,) for a row of allowed kinds; an answer meets some dozen different ones."""
        if key not in self._forbidden:
            allowed = np.frombuffer(key, dtype=bool)
            self._forbidden[key] = torch.from_numpy(~allowed[self._kinds]).to(self._device)
        return self._forbidden[key]

    # ---- state

    def _allowed_kinds(self, input_ids: torch.LongTensor) -> np.ndarray:
        """Which kinds of tokens may come next, (B, kinds)."""
        ids = input_ids[:, -self.max_tokens - 1 :].cpu().numpy()
        rows, width = ids.shape
        is_marker = ids == self.markers["mmgpt"]
        found = is_marker.any(axis=1)
        if input_ids.shape[1] != self._length + 1:  # another call of `generate`
            self._prompt = input_ids.shape[1]
        self._length = input_ids.shape[1]
        answered = self._length - self._prompt
        # Rows that ended long ago and were filled up have lost their marker, and their prompt, from sight.
        lost = ~found & (answered > width)
        begins = width - np.where(found, is_marker[:, ::-1].argmax(axis=1), min(answered, width))
        kinds = np.where(np.arange(width) >= begins[:, None], self._kinds[ids], NEVER)
        count = SPEECH + self.levels
        flat = (kinds + count * np.arange(rows)[:, None]).ravel()
        counts = np.bincount(flat, minlength=rows * count).reshape(rows, count)
        counts[lost, EOS] = 1
        return self._next_kinds(counts, kinds[:, -1])

    def _next_kinds(self, counts: np.ndarray, last: np.ndarray) -> np.ndarray:
        """What may come after answers with `counts (B, kinds)` tokens of each kind that end with a `last (B,)` one."""
        allowed = np.zeros(counts.shape, dtype=bool)
        done, words = counts[:, EOS] > 0, counts[:, TEXT]
        in_media = ~done
        if self.has_text:
            text_end = EOT if self.parts else EOS
            in_text = counts[:, text_end] == 0
            allowed[:, TEXT] = in_text & (words < self.most_words)
            allowed[:, text_end] = in_text & (words > 0)
            in_media &= ~in_text
        if self.parts:
            self._next_media_kinds(allowed, counts, last, in_media)
        allowed[done] = False
        allowed[done, EOS] = True  # the row is filled up; something has to be possible
        return allowed

    def _next_media_kinds(self, allowed, counts, last, rows) -> None:
        """Marks in `allowed` what may come next in the answers among `rows` whose text is over."""
        speech = counts[:, SPEECH:].sum(axis=1)
        codes = {"body": counts[:, BODY], "hand": counts[:, HAND], "speech": speech}
        begun = {name: counts[:, BEGIN[name]] > 0 for name in self.parts}
        ended = {name: counts[:, END[name]] > 0 for name in self.parts}
        hand_full = ended.get("body", False) & (codes["hand"] >= codes["body"])

        # Where nothing ends, the part that is behind in time goes on; among equals the first.
        chunks, kinds = [], []
        for name in self.parts:
            table = self._chunks[name]
            chunk = np.where(begun[name], table[np.minimum(codes[name], len(table) - 1)], 0)
            kind = {"body": BODY, "hand": HAND, "speech": SPEECH + speech % self.levels}[name]
            if name == "hand":  # its end stands behind its last code
                chunk, kind = np.where(hand_full, -1, chunk), np.where(hand_full, EOHA, HAND)
            chunks.append(np.where(ended[name], OVER, chunk))
            kinds.append(np.where(begun[name], kind, BEGIN[name]))
        turn, every = np.argmin(chunks, axis=0), np.arange(len(last))
        over = np.min(chunks, axis=0) == OVER
        follows = np.where(over, EOS, np.stack(kinds)[turn, every])

        # Behind a code of body or speech the model chooses: end here, or go on and have at least one more.
        after_body, after_frame = last == BODY, (last >= SPEECH) & (speech % self.levels == 0)
        body_needed = codes["body"] + ~(after_body | ended.get("body", True))
        whole = -(-(speech + 1) // self.levels) * self.levels
        speech_needed = np.where(after_frame | ended.get("speech", True), speech, whole)
        room = self.max_tokens - counts[:, TEXT] - counts[:, EOT] - self._markers_of_media
        most_body = (room - np.maximum(speech_needed, self.least_speech)) // self._per_code
        most_speech = room - self._per_code * np.maximum(body_needed, self.least_motion)
        allowed[:, EOBO] = rows & after_body & (codes["body"] >= self.least_motion)
        allowed[:, EOSP] = rows & after_frame & (speech >= self.least_speech)
        must_end = after_body & (codes["body"] >= np.minimum(most_body, self.most_motion))
        must_end |= after_frame & (speech + self.levels > np.minimum(most_speech, self.most_speech))
        allowed[every, follows] |= rows & ~must_end

    # ---- for the head

    def media_rows(self, size: int) -> slice | torch.LongTensor:
        """Ids below `size` that can follow once an answer's text is over; a slice where they are dense."""
        self._prepare(size, self._device or torch.device("cpu"))
        ids = np.flatnonzero(self._kinds > EOT)
        first, end = int(ids[0]), int(ids[-1]) + 1
        return slice(first, end) if end - first <= 1.5 * len(ids) else torch.from_numpy(ids)

    def is_past_text(self, last_ids: torch.LongTensor) -> bool:
        """Whether no text can follow `last_ids (B,)` in any row."""
        if not self.has_text:
            return True
        ids = last_ids.cpu().numpy()
        return bool(((self._kinds[ids] >= EOT) | (ids == self.markers["pad"])).all())


@contextmanager
def sliced_head(model, grammar: AnswerGrammar):
    """While a model generates within a grammar, its head computes only the rows that may come next.

    Once the text of all rows is over, these are the media tokens and their markers; the logits of all others become
    minus infinity, as the grammar makes them anyway. Greedy and sampled answers stay the same; beam search compares
    log-probabilities over the whole vocabulary and must not be run inside. A head that is no plain `nn.Linear`
    (quantised, adapted, moved between devices) is left alone. Calls from other threads see the whole head.

    Args:
        model: a decoder of `AutoModelForCausalLM`.
        grammar: the one that its `generate` is given.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or "forward" in vars(head):
        yield
        return
    rows = grammar.media_rows(head.out_features)
    rows = rows if isinstance(rows, slice) else rows.to(head.weight.device)
    weight, bias = head.weight[rows], None if head.bias is None else head.bias[rows]
    thread, sliced = threading.get_ident(), [False]

    def look_at_last(module, args, kwargs):
        if threading.get_ident() == thread:
            ids = kwargs.get("input_ids", args[0] if args else None)
            sliced[0] = ids is not None and grammar.is_past_text(ids[:, -1])

    def forward(hidden):
        if not (threading.get_ident() == thread and sliced[0] and hidden.shape[1] == 1):
            return torch.nn.functional.linear(hidden, head.weight, head.bias)
        some = torch.nn.functional.linear(hidden, weight, bias)  # under autocast of another dtype than `hidden`
        logits = some.new_full((*some.shape[:-1], head.out_features), float("-inf"))
        logits[..., rows] = some
        return logits

    hook = model.register_forward_pre_hook(look_at_last, with_kwargs=True)
    head.forward = forward
    try:
        yield
    finally:
        hook.remove()
        del head.forward


__all__ = ["FORMATS", "AnswerGrammar", "sliced_head"]
