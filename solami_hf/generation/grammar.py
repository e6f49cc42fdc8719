"""The answer grammar: what may come next in an answer, so that any model, even an untrained one, gives a valid one.

The grammar forbids and never chooses: among the tokens that are left, probabilities keep their ratios. Where it stands
follows from the ids alone (how many tokens of each kind since the character's role marker, and the last one), so it
works for batches, beams, forks and every kind of cache, and one object serves any number of calls.
"""

import itertools
import math

import numpy as np
import torch
from transformers import LogitsProcessor

from ..modeling.solami.configuration_solami import require_layout
from ..processing.answers import CHUNK_SECONDS, Chunks, parts_of

# Kinds of tokens; those of the speech levels follow one another from SPEECH on.
NEVER, TEXT, EOT, EOS, SOBO, BODY, EOBO, SOHA, HAND, EOHA, SOSP, EOSP, SPEECH = range(13)
MARKER_KINDS = {
    "eot": EOT, "eos": EOS, "sobo": SOBO, "eobo": EOBO, "soha": SOHA, "eoha": EOHA, "sosp": SOSP, "eosp": EOSP,
}  # fmt: skip
BEGIN = {"body": SOBO, "hand": SOHA, "speech": SOSP}
END = {"body": EOBO, "hand": EOHA, "speech": EOSP}
ENDS = (NEVER, EOT, EOS, EOBO, EOSP)
"""Kinds that may come instead of going on."""
MOST_SECONDS = {"motion": 10.0, "speech": None}
"""Of an answer; speech is bounded by the number of tokens alone."""
OVER = np.iinfo(np.int64).max
"""The chunk of a part that has ended."""


class AnswerGrammar(LogitsProcessor):
    """Forbids every token after which no valid answer could follow; see `processing.answers` for what is valid.

    Body and hand get equally many codes (where the motion codec is bound there is no hand), spans begin and end in
    their places (in chunks of equal time, `chunk_seconds` long, when interleaved), speech consists of whole frames,
    and the answer ends within `max_new_tokens`.

    `config` is anything with `modalities` and `markers` (`SolamiConfig`, or another decoder's with the layout), and
    has the defaults of `answer_format` (one of `FORMATS`) and `interleaved`. `min_seconds` and `max_seconds` bound an
    answer's motion and speech, one number for both or `{"motion": ..., "speech": ...}`; each part has at least one
    code, and a longest duration of None leaves that part to `max_new_tokens`, which counts `<eos>`. `max_text_tokens`
    of None likewise leaves the longest text to it. `not_text` are ids that are no text, though they are neither
    markers nor codes (special tokens of the tokenizer). `max_tokens` is the length of the longest answer that passes,
    `<eos>` included. Raises ValueError: a config without the layout, an unknown format, bounds that leave no answer,
    or interleaved motion whose rates differ.
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
        self._forbidden, self._tables, self._xp = None, {}, np
        self._length, self._prompt = -1, 0

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
        """`scores (B, vocab)` with what may not come next at minus infinity, for `input_ids (B, T)`. An answer begins
        behind the last of the character's role markers; in a row without one, where the prompt of this call of
        `generate` ended."""
        self._prepare(scores.shape[1], scores.device)
        ids = input_ids.to(scores.device)
        choice = self._choice(ids.numpy() if self._xp is np else ids)
        forbidden = self._forbidden[torch.as_tensor(choice)]
        scores = scores.masked_fill(forbidden, float("-inf"))
        # Rows of which other processors (a least length, no repetitions) have left nothing: here they do not count
        empty = scores.amax(dim=1, keepdim=True) == float("-inf")
        if scores.device.type == "cpu" and not empty.any():  # a GPU would make the host wait for the answer
            return scores
        return scores.masked_fill_(empty & ~forbidden, 0.0)

    def _prepare(self, size: int, device) -> None:
        """Tables: the kind of each id of a vocabulary of `size`, and the ids that each choice forbids."""
        if self._forbidden is not None and self._forbidden.shape[1] == size and self._forbidden.device == device:
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
        # A choice is what follows (one kind, or NEVER where a part must end) and which end marker may come instead.
        choices = itertools.product(ENDS, range(SPEECH + self.levels))
        forbidden = np.stack([(kinds == NEVER) | (kinds != kind) & (kinds != end) for end, kind in choices])
        self._forbidden = torch.from_numpy(forbidden).to(device)
        tables = {**self._chunks, "kinds": kinds, "every": np.arange(max(SPEECH + self.levels, self.max_tokens + 2))}
        self._xp = np if device.type == "cpu" else torch
        self._tables = {k: t if self._xp is np else torch.from_numpy(t).to(device) for k, t in tables.items()}

    # ---- state: on a GPU nothing of it is read by the host. The same lines take arrays of NumPy, which on a CPU do so
    # small a piece of work in a third of the time, and tensors.

    def _choice(self, input_ids):
        """The row of the table `_forbidden` that says what may come next, (B,), for ids (B, T)."""
        xp, ids = self._xp, input_ids[:, -self.max_tokens - 1 :]
        width = ids.shape[1]
        if input_ids.shape[1] != self._length + 1:  # another call of `generate`
            self._prompt = input_ids.shape[1]
        self._length = input_ids.shape[1]
        answered, places = self._length - self._prompt, self._tables["every"][:width]
        begins = xp.amax((ids == self.markers["mmgpt"]) * (places + 1), 1)
        found = begins > 0
        begins = xp.where(found, begins, width - min(answered, width))
        kinds = self._tables["kinds"][ids] * (places >= begins[:, None])
        counts = (kinds[:, :, None] == self._tables["every"][: SPEECH + self.levels]).sum(1)
        done = counts[:, EOS] > 0
        if answered > width:  # Rows that ended long ago and were filled up have lost their marker from sight.
            done = done | ~found
        return xp.where(done, EOS, self._next(counts, kinds[:, -1]))

    def _next(self, counts, last):
        """The choice (B,) after answers with `counts (B, kinds)` tokens of each kind, ended by a `last (B,)` kind."""
        choice = self._next_media(counts, last) if self.parts else None
        if self.has_text:
            words, text_end = counts[:, TEXT], EOT if self.parts else EOS
            text = self._xp.where(words < self.most_words, TEXT, NEVER)
            text = text + (words > 0) * (ENDS.index(text_end) * counts.shape[1])
            choice = text if choice is None else self._xp.where(counts[:, text_end] == 0, text, choice)
        return choice

    def _next_media(self, counts, last):
        """The choice (B,) in answers whose text is over."""
        xp, total = self._xp, counts[:, SPEECH:].sum(1)
        codes = {"body": counts[:, BODY], "hand": counts[:, HAND], "speech": total}
        begun = {name: counts[:, BEGIN[name]] > 0 for name in self.parts}
        ended = {name: counts[:, END[name]] > 0 for name in self.parts}

        # Where nothing ends, the part that is behind in time goes on; among equals the first.
        turn = follows = None
        for name in self.parts:
            table = self._tables[name]
            chunk = table[xp.clip(codes[name], None, len(table) - 1)] * begun[name]
            kind = {"body": BODY, "hand": HAND, "speech": SPEECH + total % self.levels}[name]
            if name == "hand":  # its end stands behind its last code
                full = ended["body"] & (codes["hand"] >= codes["body"])
                chunk, kind = xp.where(full, -1, chunk), xp.where(full, EOHA, HAND)
            chunk, kind = xp.where(ended[name], OVER, chunk), xp.where(begun[name], kind, BEGIN[name])
            if turn is not None:
                kind = xp.where(chunk < turn, kind, follows)
                chunk = xp.minimum(chunk, turn)
            turn, follows = chunk, kind
        follows = xp.where(turn == OVER, EOS, follows)

        # Behind a code of body or speech the model chooses: end here, or go on and have at least one more.
        room = self.max_tokens - counts[:, TEXT] - counts[:, EOT] - self._markers_of_media
        speech, ends = total, []
        if "speech" in self.parts:
            after_frame = (last >= SPEECH) & (total % self.levels == 0)
            whole = (total + self.levels) // self.levels * self.levels
            speech = xp.where(after_frame | ended["speech"], total, whole)
        if "body" in self.parts:
            after_body = last == BODY
            most = (room - xp.clip(speech, self.least_speech, None)) // self._per_code
            must_end = codes["body"] >= xp.clip(most, None, self.most_motion)
            ends.append((EOBO, after_body, must_end, codes["body"] >= self.least_motion))
        if "speech" in self.parts:
            body = codes["body"]
            if "body" in self.parts:
                body = body + ~(after_body | ended["body"])
            most = room - self._per_code * xp.clip(body, self.least_motion, None)
            must_end = total + self.levels > xp.clip(most, None, self.most_speech)
            ends.append((EOSP, after_frame, must_end, total >= self.least_speech))
        for end, here, must_end, may_end in ends:
            follows = xp.where(here & must_end, NEVER, follows)
            follows = follows + (here & may_end) * (ENDS.index(end) * counts.shape[1])
        return follows

    # ---- for the head

    def media_rows(self, size: int) -> slice | torch.LongTensor:
        """Ids below `size` that can follow once an answer's text is over; a slice where they are dense."""
        self._prepare(size, torch.device("cpu") if self._forbidden is None else self._forbidden.device)
        kinds = torch.as_tensor(self._tables["kinds"]).cpu()
        ids = (kinds > EOT).nonzero()[:, 0]
        first, end = int(ids[0]), int(ids[-1]) + 1
        return slice(first, end) if end - first <= 1.5 * len(ids) else ids

    def is_past_text(self, last_ids: torch.LongTensor) -> bool:
        """True if no text can follow `last_ids (B,)` in any row; False on a GPU where an answer may have text."""
        if not self.has_text:
            return True
        if last_ids.device.type != "cpu":  # the host would wait for it at every token
            return False
        ids = last_ids.numpy()
        return bool(((self._tables["kinds"][ids] >= EOT) | (ids == self.markers["pad"])).all())


def grammar_of(config, tokenizer, answer_format: str, interleaved: bool, max_new_tokens: int) -> AnswerGrammar:
    """The grammar of a checkpoint's answers of up to `max_new_tokens` tokens: model's config and tokenizer, whose
    special tokens are no text; one of `answers.FORMATS` ("text", "motion" and "speech" are the outputs of the
    tasks); and whether body, hand and speech come in chunks of equal time."""
    require_layout(config)
    return AnswerGrammar(
        config,
        answer_format,
        interleaved=interleaved,
        min_seconds=0,  # a nod and a "no" are answers
        max_seconds=MOST_SECONDS,
        max_new_tokens=max_new_tokens,
        not_text={*tokenizer.all_special_ids, *range(len(tokenizer), config.vocab_size)},
        **({"max_text_tokens": None} if answer_format == "text" else {}),
    )


def answers_so_far(grammar: AnswerGrammar, rows: list[list[int]]) -> torch.LongTensor:
    """Ids (B, T) of answers of different lengths as the grammar reads them: behind a role marker, padded left."""
    pad, begin = grammar.markers["pad"], grammar.markers["mmgpt"]
    width = max(map(len, rows), default=0)
    padded = [[pad] * (width - len(row)) + [begin, *row] for row in rows]
    return torch.tensor(padded, dtype=torch.long).view(len(rows), width + 1)
