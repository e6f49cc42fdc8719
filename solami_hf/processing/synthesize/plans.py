"""Plans of dialogues: topics and characters, and which dialogue gets which of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from ..files.text_files import read_text, read_yaml
from .writers import content_hash


@dataclass(frozen=True)
class Character:
    """A character that dialogues are written for; `voice` is what the TTS callable is asked for."""

    id: str
    name: str
    system: str
    voice: str | None = None


@dataclass(frozen=True)
class Plan:
    """One dialogue to write."""

    id: str
    split: str  # train or test
    topic: str
    character: Character
    rounds: int
    seed: int


def packaged(name: str) -> str:
    """Text of a data file that lies beside this module."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def read_topics(path: str | Path | None = None) -> list[str]:
    """Topics of a text file, one a line, or of a YAML list; None means the packaged ones.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file has no topics, or is no list of strings.
    """
    if path is not None and Path(path).suffix in (".yaml", ".yml", ".json"):
        topics = read_yaml(path)
        if not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
            raise ValueError(f"{path} must hold a list of strings, one for each topic")
    else:
        text = packaged("topics.txt") if path is None else read_text(path)
        topics = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    topics = list(dict.fromkeys(" ".join(topic.split()) for topic in topics if topic.strip()))
    if not topics:
        raise ValueError(f"{path} has no topics; write one a line")
    return topics


def read_characters(path: str | Path | None = None) -> list[Character]:
    """Characters of a YAML file, `id: {name, system, voice?}`; None means the packaged ones.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a character without name or system prompt, an unknown field, or none at all.
    """
    raw = yaml.safe_load(packaged("characters.yaml")) if path is None else read_yaml(path)
    if not isinstance(raw, dict) or not raw:
        raise ValueError(f"{path} must map the ids of characters to name, system and voice")
    characters = []
    for key, fields in raw.items():
        try:
            character = Character(str(key), **fields)
        except TypeError:
            raise ValueError(f"character {key!r} of {path} needs name and system, and may have voice") from None
        for field in ("name", "system"):
            if not isinstance(getattr(character, field), str) or not getattr(character, field).strip():
                raise ValueError(f"character {key!r} of {path}: {field} must be a text")
        characters.append(character)
    return characters


def draw_plans(
    topics: Sequence[str],
    characters: Sequence[Character],
    count: int,
    rounds: tuple[int, int] = (2, 5),
    test_share: float = 0.0,
    seed: int = 0,
) -> list[Plan]:
    """`count` dialogues: every topic with every character in random order, then all of them again.

    A longer list begins with the shorter one, so that a run can be extended. A topic belongs to one split only, which
    follows from its text alone: no topic is trained on and tested.

    Args:
        rounds: fewest and most rounds of a dialogue.
        test_share: expected share of the topics whose dialogues are for testing.

    Raises:
        ValueError: a number out of its range.
    """
    if count < 1:
        raise ValueError(f"num_dialogues is {count}, expected at least 1")
    if not 1 <= rounds[0] <= rounds[1]:
        raise ValueError(f"rounds are {rounds[0]} to {rounds[1]}, expected 1 <= min_rounds <= max_rounds")
    if not 0 <= test_share < 1:
        raise ValueError(f"test_share is {test_share}, expected 0 to less than 1")
    plans, pairs = [], [(topic, character) for topic in topics for character in characters]
    for index in range(count):
        pass_over, position = divmod(index, len(pairs))
        if position == 0:
            order = list(range(len(pairs)))
            random.Random(f"{seed} {pass_over}").shuffle(order)
        topic, character = pairs[order[position]]
        rng = random.Random(f"{seed} {index}")
        split = "test" if int(content_hash(topic)[:8], 16) < test_share * 16**8 else "train"
        plan_id = f"synthetic-{seed}-{index:06d}"
        plans.append(Plan(plan_id, split, topic, character, rng.randint(*rounds), rng.randrange(2**31)))
    return plans
