"""From generated ids back to an answer: text, body, hand and speech codes, and whether the answer was well formed.

An interleaved answer, made so that a character moves and speaks while the rest is still being generated, holds the
tokens of the sequential one in another order: all tokens of the first chunk of time, then those of the second, and so
on; within a chunk body, hand, speech. A span's begin token stands before its first code and its end token behind its
last, so a part that is over before the others simply does not come again:

    <sobo> b b b <soha> h h h <sosp> s..20..s  b b <eobo> h h <eoha> s..20..s  s s s <eosp>

This costs no token more than the sequential format, and reading it back is sorting by part.
"""

import json
from dataclasses import dataclass, field

import numpy as np

from ..modeling.solami.configuration_solami import require_layout
from ..modeling.solami.vocabulary import BRACKETS

PARTS = ("body", "hand", "speech")
# Whether words come first, and the parts behind them. The last three are the answers of the one-shot tasks.
FORMATS = {
    "motion_speech": (False, PARTS),
    "text_motion_speech": (True, PARTS),
    "text_motion": (True, ("body", "hand")),
    "text": (True, ()),
    "motion": (False, ("body", "hand")),
    "speech": (False, ("speech",)),
}

CHUNK_SECONDS = 0.4
"""The shortest time in which the paper's rates have whole codes: 3 of body, 3 of hand, 20 of speech."""


@dataclass
class Answer:
    """One character turn as codes.

    Attributes:
        text_ids (`list[int]`): ids of the transcript, empty in the `motion_speech` format.
        body, hand (`np.ndarray` of shape `(n,)`): motion codes, 7.5 a second. Of a bound motion codec, whose
            layout has no `hand`, there are body codes alone.
        speech (`np.ndarray` of shape `(m,)`): semantic speech codes, 50 a second.
        valid (`bool`): the ids follow the answer format exactly, from the first to the end token.
        reason (`str`): what was wrong, empty for a valid answer.
    """

    text_ids: list = field(default_factory=list)
    body: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    hand: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    speech: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    valid: bool = False
    reason: str = ""


def parts_of(config, answer_format: str | None = None) -> tuple[bool, tuple[str, ...]]:
    """True if words come first in an answer, and the parts behind them that the layout of `config` has tokens for.
    Raises ValueError: a config without modality tokens, or an unknown format."""
    require_layout(config)
    answer_format = answer_format or config.answer_format
    if answer_format not in FORMATS:
        raise ValueError(f"answer_format must be one of {sorted(FORMATS)}, got {answer_format!r}")
    has_text, parts = FORMATS[answer_format]
    return has_text, tuple(name for name in parts if name in config.modalities)


def parse_answer(ids, config, answer_format: str | None = None, interleaved: bool | None = None) -> Answer:
    """Reads an answer strictly: nothing is repaired, and whatever deviates from the format makes it invalid. `ids` are
    those generated, without the prompt; padding after `<eos>` is ignored. `config` is anything with `modalities` and
    `markers` (`SolamiConfig`, `SolamiProcessor`), and has the defaults of `answer_format` (one of `FORMATS`) and
    `interleaved`. The codes that could be read are there even when the answer is invalid. Raises ValueError: a config
    without modality tokens, or an unknown format."""
    has_text, parts = parts_of(config, answer_format)
    if interleaved if interleaved is not None else getattr(config, "interleaved", False):
        return parse_interleaved(ids, config, answer_format)
    markers, ids = config.markers, np.asarray(ids, dtype=np.int64).reshape(-1)
    answer, problems = Answer(), []
    ends = np.flatnonzero(ids == markers["eos"])
    if len(ends):
        ids = ids[: ends[0]]
    else:
        problems.append("no <eos>")
    if has_text:
        # What is nothing but text ends with the answer
        cuts = np.flatnonzero(ids == markers["eot"]) if parts else np.array([len(ids)])
        if len(cuts):
            answer.text_ids, ids = ids[: cuts[0]].tolist(), ids[cuts[0] + 1 :]
            if not answer.text_ids or is_reserved(np.asarray(answer.text_ids), config).any():
                problems.append("transcript empty or with modality tokens")
        else:
            problems.append("no <eot>")
    expected_start = 0
    for name in parts:
        begin, end = (np.flatnonzero(ids == markers[marker]) for marker in BRACKETS[name])
        if len(begin) != 1 or len(end) != 1 or end[0] < begin[0]:
            problems.append(f"no single {name} span")
            continue
        if begin[0] != expected_start:
            problems.append(f"{name} span out of place")
        expected_start = end[0] + 1
        codes = ids[begin[0] + 1 : end[0]] - config.modalities[name]["first_id"]
        inside = (codes >= 0) & (codes < config.modalities[name]["size"])
        if not len(codes) or not inside.all():
            problems.append(f"{name} span empty or with foreign tokens")
        if name == "speech" and len(codes) and inside.all() and not _levels_in_turn(codes, config):
            problems.append("speech codes of the wrong level, or no whole frames")
        setattr(answer, name, codes[inside])
    if expected_start != len(ids):
        problems.append("tokens after the last span")
    if "hand" in parts and len(answer.body) != len(answer.hand):
        problems.append(f"{len(answer.body)} body codes but {len(answer.hand)} hand codes")
    answer.valid, answer.reason = not problems, "; ".join(problems)
    return answer


def _levels_in_turn(codes: np.ndarray, config) -> bool:
    """True if speech codes are whole frames with each level in its place, see `vocabulary`."""
    levels = getattr(config, "speech_levels", 1)
    size = config.modalities["speech"]["size"] // levels
    return len(codes) % levels == 0 and np.array_equal(codes // size, np.arange(len(codes)) % levels)


def is_reserved(ids: np.ndarray, config) -> np.ndarray:
    """Boolean mask of the ids that are markers or modality codes."""
    reserved = np.isin(ids, list(config.markers.values()))
    for span in config.modalities.values():
        reserved |= (ids >= span["first_id"]) & (ids < span["first_id"] + span["size"])
    return reserved


@dataclass(frozen=True)
class Chunks:
    """In which chunk of `seconds` a code falls, at `rates` of body, hand and speech (all levels counted); the codes of
    a speech frame never part. Where a rate has no whole codes in a chunk, chunks take turns in being longer by one."""

    rates: dict
    speech_levels: int = 1
    seconds: float = CHUNK_SECONDS

    def __post_init__(self):
        if not self.seconds > 0 or not all(self.rates.get(name, 0) > 0 for name in PARTS):
            raise ValueError(
                f"chunks need a length above 0 and a rate above 0 for each of {PARTS}, got {self.seconds} s and "
                f"{self.rates}"
            )

    @classmethod
    def of(cls, layout, seconds: float = CHUNK_SECONDS) -> "Chunks":
        """Those of anything with `frame_rates` and `speech_levels`; the paper's rates where there are none."""
        levels = getattr(layout, "speech_levels", 1)
        rates = getattr(layout, "frame_rates", None) or {"speech": 50.0 * levels, "body": 7.5, "hand": 7.5}
        return cls(dict(rates), levels, seconds)

    def frames(self, name: str) -> float:
        """Frames of a part in a chunk: its codes, all levels of speech as one."""
        return self.seconds * self.rates[name] / (self.speech_levels if name == "speech" else 1)

    def of_codes(self, name: str, places: np.ndarray) -> np.ndarray:
        """The chunks (n,) of the codes of a part at `places` (n,), counted from 0."""
        levels = self.speech_levels if name == "speech" else 1
        return np.ceil((places // levels + 1) / self.frames(name) - 1e-9).astype(np.int64) - 1

    def of_span(self, name: str, count: int) -> np.ndarray:
        """The chunks of a span of `count` codes with its begin and end token, (count + 2,); the transform's are 0."""
        if name not in BRACKETS:
            return np.zeros(count, dtype=np.int64)
        codes = self.of_codes(name, np.arange(count))
        return np.concatenate([[0], codes, codes[-1:] if count else [0]])


_TEMPLATE_BEGIN = "{%- set chunks = "


def with_chunks(template: str | dict[str, str], chunks: Chunks | None) -> str | dict[str, str]:
    """The packaged chat template as it writes answers in these chunks, or one part after the other with None. Another
    template than the packaged one finds what it needs in `chunks`: frames of `body`, `hand` and `speech` in a chunk,
    and `levels` of a frame of speech."""
    if isinstance(template, dict):  # several, by name
        return {name: with_chunks(each, chunks) for name, each in template.items()}
    if template.startswith(_TEMPLATE_BEGIN):
        template = template.split("\n", 1)[1]
    if chunks is None:
        return template
    sizes = {name: chunks.frames(name) for name in PARTS} | {"levels": chunks.speech_levels}
    return f"{_TEMPLATE_BEGIN}{json.dumps(sizes)} -%}}\n{template}"


def parse_interleaved(ids, config, answer_format: str | None = None, chunk_seconds: float = CHUNK_SECONDS) -> Answer:
    """Reads an interleaved answer, in chunks of so many seconds, as strictly as `parse_answer` reads a sequential one.
    Arguments and result are as there; the config has `frame_rates` where they are not the paper's."""
    ids = np.asarray(ids, dtype=np.int64).reshape(-1)
    has_text, parts = parts_of(config, answer_format)
    ends = np.flatnonzero(ids == config.markers["eos"])
    end, begin = (ends[0] if len(ends) else len(ids)), 0
    if has_text and parts:
        cuts = np.flatnonzero(ids[:end] == config.markers["eot"])
        begin = cuts[0] + 1 if len(cuts) else 0
    media = ids[begin:end]
    sequential = media[np.argsort(_part_of(media, config), kind="stable")]
    answer = parse_answer(np.concatenate([ids[:begin], sequential, ids[end:]]), config, answer_format, False)
    if answer.valid and parts:
        chunks = Chunks.of(config, chunk_seconds)
        places = np.concatenate([chunks.of_span(name, len(getattr(answer, name))) for name in parts])
        if not np.array_equal(sequential[np.argsort(places, kind="stable")], media):
            answer.valid, answer.reason = False, f"body, hand and speech are not in chunks of {chunk_seconds} s"
    return answer


def _part_of(ids: np.ndarray, config) -> np.ndarray:
    """0, 1, 2 for tokens of body, hand, speech and their markers, 3 for all others."""
    part = np.full(len(ids), len(PARTS))
    for number, name in enumerate(PARTS):
        span = config.modalities.get(name, {"first_id": 0, "size": 0})  # a bound motion codec has no hand codes
        inside = (ids >= span["first_id"]) & (ids < span["first_id"] + span["size"])
        part[inside | np.isin(ids, [config.markers[marker] for marker in BRACKETS[name]])] = number
    return part
