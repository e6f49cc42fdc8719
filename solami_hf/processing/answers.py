"""From generated ids back to an answer: text, body, hand and speech codes, and whether the answer was well formed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..modeling.solami.configuration_solami import require_layout
from ..modeling.solami.vocabulary import BRACKETS

PARTS = ("body", "hand", "speech")
# Whether words come first, and the parts behind them. The last three are the answers of the one-shot tasks.
FORMATS = {
    "motion_speech": (False, PARTS),
    "text_motion_speech": (True, PARTS),
    "text": (True, ()),
    "motion": (False, ("body", "hand")),
    "speech": (False, ("speech",)),
}


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
    """Whether words come first in an answer, and the parts behind them that the layout of `config` has tokens for.

    Raises:
        ValueError: a config without modality tokens, or an unknown format.
    """
    require_layout(config)
    answer_format = answer_format or config.answer_format
    if answer_format not in FORMATS:
        raise ValueError(f"answer_format must be one of {sorted(FORMATS)}, got {answer_format!r}")
    has_text, parts = FORMATS[answer_format]
    return has_text, tuple(name for name in parts if name in config.modalities)


def parse_answer(ids, config, answer_format: str | None = None, interleaved: bool | None = None) -> Answer:
    """Reads an answer strictly: nothing is repaired, and whatever deviates from the format makes it invalid.

    Args:
        ids (sequence of `int`): generated ids, without the prompt. Padding after `<eos>` is ignored.
        config: anything with `modalities` and `markers` (`SolamiConfig`, `SolamiProcessor`).
        answer_format (`str`, *optional*): one of `FORMATS`, by default the config's.
        interleaved (`bool`, *optional*): by default the config's; see `interleaving`.

    Returns:
        `Answer`; the codes that could be read are there even when it is invalid.

    Raises:
        ValueError: a config without modality tokens, or an unknown format.
    """
    has_text, parts = parts_of(config, answer_format)
    if interleaved if interleaved is not None else getattr(config, "interleaved", False):
        from .interleaving import parse_interleaved

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
            if not answer.text_ids or _is_reserved(np.asarray(answer.text_ids), config).any():
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
    """Whether speech codes are whole frames with each level in its place, see `vocabulary`."""
    levels = getattr(config, "speech_levels", 1)
    size = config.modalities["speech"]["size"] // levels
    return len(codes) % levels == 0 and np.array_equal(codes // size, np.arange(len(codes)) % levels)


def _is_reserved(ids: np.ndarray, config) -> np.ndarray:
    """Boolean mask of the ids that are markers or modality codes."""
    reserved = np.isin(ids, list(config.markers.values()))
    for span in config.modalities.values():
        reserved |= (ids >= span["first_id"]) & (ids < span["first_id"] + span["size"])
    return reserved
