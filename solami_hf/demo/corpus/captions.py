"""Captions of the demo's motions: several captions an action, and the way back from a caption to its action."""

import re
from pathlib import Path

import numpy as np
import yaml

SLOW_BELOW, QUICK_ABOVE = 0.92, 1.1

_KNOWN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CAPTIONS: dict[str, tuple[str, ...]] = {action: tuple(known["captions"]) for action, known in _KNOWN.items()}
ACTIONS: tuple[str, ...] = tuple(CAPTIONS)
"""The 29 action ids: gestures, then mocap."""
_PATTERNS = {action: re.compile(rf"\b({known['words']})\b", re.IGNORECASE) for action, known in _KNOWN.items()}
_CONTAINS = {"spinkick": {"spin", "kick", "jump"}}  # the words of one action that another one's name is made of


def caption(template: str, side: str | None = None, speed: float | None = None) -> str:
    """A template of `CAPTIONS` with what is known of side ("left", "right") and speed (1 is usual)."""
    pace = "" if speed is None else "slow" if speed < SLOW_BELOW else "quick" if speed > QUICK_ABOVE else ""
    if pace and not re.search(r"\b(a|does a) \{pace\}", template):
        pace += "ly"
    hand = f"with the {side} hand" if side else ""
    return " ".join(template.format(hand=hand, pace=pace).split())


def captions_for(
    action: str, rng: np.random.Generator, side: str | None = None, speed: float | None = None, count: int = 4
) -> list[str]:
    """`count` different captions of an action, in random order; about half of them tell side and speed where known.
    Raises ValueError: an unknown action, or `count` beyond the captions there are."""
    if action not in CAPTIONS:
        raise ValueError(f"`action` is {action!r}, expected one of {', '.join(CAPTIONS)}.")
    bank = CAPTIONS[action]
    if not 1 <= count <= len(bank):
        raise ValueError(f"`count` is {count}, expected 1 to {len(bank)}.")
    chosen = rng.permutation(len(bank))[:count]
    told = rng.random(count) < 0.5
    known = [(side, speed) if tell else (None, None) for tell in told]
    return [caption(bank[i], *details) for i, details in zip(chosen, known, strict=True)]


def action_of_caption(text: str) -> str | None:
    """The action that a caption names, by keywords; `None` if it names none, or several."""
    found = {action for action, pattern in _PATTERNS.items() if pattern.search(text)}
    for action, parts in _CONTAINS.items():
        if action in found:
            found -= parts
    return found.pop() if len(found) == 1 else None
