"""The demo's scripted dialogues: six characters in YAML, their reader and a sampler.

Each file of `demo/corpus/dialogues/` holds one character. `tests/demo/test_dialogues.py` keeps them honest: an answer
can only be found by listening, watching or remembering, never from the motion or the most frequent answer alone.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Line:
    """One side's line and the action id that goes with it."""

    say: str
    do: str


@dataclass(frozen=True)
class Node:
    """One round: what the user may say and do, and the right answer to each of the user's actions. `say` are the
    phrasings to train on, `unseen` is never trained on. `answers` maps every possible user action to the right `Line`,
    one for all actions unless it depends on the motion. `next` are the rounds that may follow. `depends_on` is what
    decides the answer: "words", "motion" or "history" (the same words have other answers)."""

    say: tuple[str, ...]
    unseen: str
    answers: Mapping[str, Line]
    next: tuple["Node", ...] = ()
    depends_on: str = "words"


@dataclass(frozen=True)
class Dialogue:
    """A tree of rounds that starts with `root`."""

    id: str
    topic: str
    root: Node


@dataclass(frozen=True)
class Character:
    """One of the demo's characters with the system prompt that tells who it is."""

    id: str
    name: str
    system: str
    dialogues: tuple[Dialogue, ...]


@dataclass(frozen=True)
class Round:
    """One sampled round: what the user says and does, the expected answer, and what the answer depends on."""

    user: Line
    answer: Line
    depends_on: str


def load_dialogues() -> list[Character]:
    """The packaged characters, sorted by id. Raises ValueError: A file breaks the format."""
    files = sorted(Path(__file__).with_suffix("").glob("*.yaml"))
    return [read_character(file.read_text(encoding="utf-8"), file.name) for file in files]


def read_character(text: str, name: str = "character") -> Character:
    """Read one character from YAML `text`; `name` stands in the errors. Raises ValueError: The text is no YAML, or
    a field is missing, unknown or of the wrong kind."""
    try:
        raw = yaml.safe_load(text)
        counts = Counter(say for row in raw["dialogues"] for say in _phrasing_groups(row))
        dialogues = tuple(Dialogue(row["id"], row["topic"], _read_node(row, counts)) for row in raw["dialogues"])
        return Character(raw["character"], raw["name"], raw["system"], dialogues)
    except KeyError as error:
        raise ValueError(f"{name}: the field {error} is missing; see ada.yaml for the format") from error
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: not a character file ({error}); see ada.yaml for the format") from error


def _phrasing_groups(row: dict) -> Iterator[tuple[str, ...]]:
    yield tuple(row["user"]["say"])
    for child in row.get("next") or ():
        yield from _phrasing_groups(child)


def _read_node(row: dict, counts: Counter) -> Node:
    say = tuple(row["user"]["say"])
    if "answers" in row:
        answers = {action: Line(**answer) for action, answer in row["answers"].items()}
        depends_on = "motion"
    else:
        answers = dict.fromkeys(row["user"]["do"], Line(**row["answer"]))
        depends_on = "history" if counts[say] > 1 else "words"
    following = tuple(_read_node(child, counts) for child in row.get("next") or ())
    return Node(say, row["user"]["unseen"], answers, following, depends_on)


def paths(dialogue: Dialogue) -> list[tuple[Node, ...]]:
    """All ways through `dialogue` from its first round to a last one."""

    def walk(node: Node) -> list[tuple[Node, ...]]:
        return [(node, *rest) for child in node.next for rest in walk(child)] or [(node,)]

    return walk(dialogue.root)


def nodes(dialogue: Dialogue) -> list[Node]:
    """All rounds of `dialogue`, each once."""

    def walk(node: Node) -> Iterator[Node]:
        yield node
        for child in node.next:
            yield from walk(child)

    return list(walk(dialogue.root))


def character_lines(characters: Iterable[Character]) -> list[str]:
    """Every line that a character may say, each once."""
    rounds = (node for character in characters for dialogue in character.dialogues for node in nodes(dialogue))
    return list(dict.fromkeys(line.say for node in rounds for line in node.answers.values()))


def sample_conversation(rng: random.Random, path: Iterable[Node], unseen: bool = False) -> list[Round]:
    """Draws one conversation along `path`, as from `paths`: a phrasing (`unseen`: one that training never uses) and
    a user action for each round, with the right answer."""
    rounds = []
    for node in path:
        say = node.unseen if unseen else rng.choice(node.say)
        action = rng.choice(list(node.answers))
        rounds.append(Round(Line(say, action), node.answers[action], node.depends_on))
    return rounds
