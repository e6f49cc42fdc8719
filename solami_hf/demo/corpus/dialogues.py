"""The demo's scripted dialogues: six characters in YAML, their reader, their rules and a sampler.

Each file of `demo/corpus/dialogues/` holds one character. The rules of `validate` keep the demo honest: the answer can
only be found by listening, watching or remembering, never from the motion or the most frequent answer alone.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

import yaml

GESTURES = tuple(
    "wave bow nod shake_head clap point shrug thumbs_up beckon raise_hands cross_arms offer_hand salute hands_on_hips "
    "scratch_head hand_on_heart".split()
)
MOCAP_ACTIONS = tuple("walk run jump kick punch dance spin spinkick cartwheel crawl roll backflip get_up".split())
ACTIONS = GESTURES + MOCAP_ACTIONS

MAX_CHARACTER_LINES = 112
MAX_ANSWER_ACTION_SHARE = 0.15


@dataclass(frozen=True)
class Line:
    """One side's line and the action id that goes with it."""

    say: str
    do: str


@dataclass(frozen=True)
class Node:
    """One round: what the user may say and do, and the right answer to each of the user's actions.

    `say` are the phrasings to train on, `unseen` is never trained on. `answers` maps every possible user action to the
    right `Line`, one for all actions unless the round hinges on the motion. `next` are the rounds that may follow.
    """

    say: tuple[str, ...]
    unseen: str
    answers: Mapping[str, Line]
    next: tuple["Node", ...] = ()
    hinge: str = "words"  # what decides the answer: "words", "motion" or "history" (the same words have other answers)

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All user phrasings, the unseen one last."""
        return (*self.say, self.unseen)


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
    """One sampled round: what the user says and does, the expected answer, and what the answer hinges on."""

    user: Line
    answer: Line
    hinge: str


@dataclass(frozen=True)
class Lines:
    """All sentences to be spoken, each once, in the order of the files."""

    train: tuple[str, ...]
    unseen: tuple[str, ...]
    character: tuple[str, ...]


def load_dialogues() -> list[Character]:
    """Read the packaged characters, sorted by id, and check them.

    Raises:
        ValueError: A file breaks the format or one of the rules of `validate`.
    """
    folder = resources.files("solami_hf.demo.corpus").joinpath("dialogues")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    characters = [read_character(file.read_text(encoding="utf-8"), file.name) for file in files]
    validate(characters)
    return characters


def read_character(text: str, name: str = "character") -> Character:
    """Read one character from YAML `text`; `name` stands in the errors.

    Raises:
        ValueError: The text is no YAML, or a field is missing, unknown or of the wrong kind.
    """
    try:
        raw = yaml.safe_load(text)
        counts = Counter()
        for row in raw["dialogues"]:
            counts.update(_phrasing_groups(row))
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
        hinge = "motion"
    else:
        answers = dict.fromkeys(row["user"]["do"], Line(**row["answer"]))
        hinge = "history" if counts[say] > 1 else "words"
    following = tuple(_read_node(child, counts) for child in row.get("next") or ())
    return Node(say, row["user"]["unseen"], answers, following, hinge)


def paths(dialogue: Dialogue) -> list[tuple[Node, ...]]:
    """All ways through `dialogue` from its first round to a last one."""

    def walk(node: Node) -> list[tuple[Node, ...]]:
        return [(node, *rest) for child in node.next for rest in walk(child)] or [(node,)]

    return walk(dialogue.root)


def nodes(dialogue: Dialogue) -> list[Node]:
    """All rounds of `dialogue`, each once."""
    return [node for node, _ in _with_parents(dialogue.root)]


def _with_parents(node: Node, parent: Node | None = None) -> Iterator[tuple[Node, Node | None]]:
    yield node, parent
    for child in node.next:
        yield from _with_parents(child, node)


def all_lines(characters: Iterable[Character] | None = None) -> Lines:
    """Every sentence of the corpus that has to be spoken, without repetitions."""
    characters = load_dialogues() if characters is None else characters
    rounds = [node for character in characters for dialogue in character.dialogues for node in nodes(dialogue)]
    return Lines(
        train=tuple(dict.fromkeys(say for node in rounds for say in node.say)),
        unseen=tuple(dict.fromkeys(node.unseen for node in rounds)),
        character=tuple(dict.fromkeys(line.say for node in rounds for line in node.answers.values())),
    )


def sample_conversation(rng: random.Random, path: Iterable[Node], unseen: bool = False) -> list[Round]:
    """Draw one conversation along `path`: a phrasing and a user action for each round, with the right answer.

    Args:
        rng: Decides phrasings and actions.
        path: Rounds, as from `paths`.
        unseen: Take the phrasings that training never uses.
    """
    rounds = []
    for node in path:
        say = node.unseen if unseen else rng.choice(node.say)
        action = rng.choice(list(node.answers))
        rounds.append(Round(Line(say, action), node.answers[action], node.hinge))
    return rounds


def validate(characters: Iterable[Character]) -> None:
    """Check the whole corpus against the rules that make its results mean something.

    Raises:
        ValueError: A rule is broken; the message names the place, what stands there and what was expected.
    """
    characters = list(characters)
    dialogues = [dialogue for character in characters for dialogue in character.dialogues]
    _require(len(characters) == 6, f"{len(characters)} characters, expected 6")
    _require(len(dialogues) >= 40, f"{len(dialogues)} dialogues, expected at least 40")
    _require_unique("character id", [character.id for character in characters])
    _require_unique("system prompt", [character.system for character in characters])
    _require_unique("dialogue id", [dialogue.id for dialogue in dialogues])
    for dialogue in dialogues:
        for node in nodes(dialogue):
            _check_node(dialogue.id, node)
    for character in characters:
        _check_character(character)

    rounds = [node for dialogue in dialogues for node in nodes(dialogue)]
    lines = [line for node in rounds for line in set(node.answers.values())]
    _require_unique("character line", [" ".join(words(line.say)) for line in lines])
    count = len(lines)
    _require(count <= MAX_CHARACTER_LINES, f"{count} character lines, expected at most {MAX_CHARACTER_LINES}")
    action, count = Counter(line.do for line in lines).most_common(1)[0]
    _require(
        count <= MAX_ANSWER_ACTION_SHARE * len(lines),
        f"{action!r} is the action of {count} of {len(lines)} character lines, expected at most "
        f"{MAX_ANSWER_ACTION_SHARE:.0%}: answering it always would score too well",
    )
    unused = set(ACTIONS).difference(*(node.answers for node in rounds))
    _require(not unused, f"no user ever does {sorted(unused)}; every action must occur")
    trained = {" ".join(words(say)) for node in rounds for say in node.say}
    for node in rounds:
        known = " ".join(words(node.unseen)) in trained
        _require(not known, f"the unseen phrasing {node.unseen!r} is also trained on")


def words(text: str) -> list[str]:
    """The lower-case words of `text` without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"demo dialogues: {message}")


def _require_unique(what: str, values: list[str]) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    _require(not repeated, f"{what} {repeated[:1]} occurs twice, expected each once")


def _check_node(where: str, node: Node) -> None:
    _require(3 <= len(node.say) <= 5, f"{where}: {len(node.say)} phrasings of {node.say[:1]}, expected 3 to 5")
    for say in node.phrasings:
        _check_sentence(where, say, longest=9)
    _require_unique(f"{where}: phrasing", [" ".join(words(say)) for say in node.phrasings])
    _require(len(node.answers) >= 3, f"{where}: user actions {list(node.answers)}, expected at least 3")
    _require(len(node.next) <= 2, f"{where}: {len(node.next)} following rounds, expected at most 2")
    for line in node.answers.values():
        _check_sentence(where, line.say, longest=8)
    for action in (*node.answers, *(line.do for line in node.answers.values())):
        _require(action in ACTIONS, f"{where}: unknown action {action!r}, expected one of {', '.join(ACTIONS)}")


def _check_sentence(where: str, text: str, longest: int) -> None:
    plain = isinstance(text, str) and re.fullmatch(r"[A-Za-z ,.!?]+", text)
    _require(bool(plain), f"{where}: {text!r} has more than plain letters and , . ! ? (spell it out)")
    _require(3 <= len(words(text)) <= longest, f"{where}: {text!r} has {len(words(text))} words, expected 3-{longest}")


def _check_character(character: Character) -> None:
    name, dialogues = character.id, character.dialogues
    _require(len(character.system.split()) <= 30, f"{name}: the system prompt has more than 30 words")
    depths = [max(len(path) for path in paths(dialogue)) for dialogue in dialogues]
    _require(max(depths) == 3, f"{name}: the longest dialogue has {max(depths)} rounds, expected 3")
    branching = sum(len(dialogue.root.next) == 2 for dialogue in dialogues)
    _require(branching >= 2, f"{name}: {branching} dialogues with two second rounds, expected at least 2")
    hinges = {node.hinge for dialogue in dialogues for node in nodes(dialogue)}
    _require(hinges == {"words", "motion", "history"}, f"{name}: answers hinge on {sorted(hinges)} only")
    for action in sorted({action for dialogue in dialogues for action in dialogue.root.answers}):
        count = sum(action in dialogue.root.answers for dialogue in dialogues)
        _require(count >= 3, f"{name}: {action!r} opens only {count} dialogues, expected 3: it gives the answer away")
    _check_phrasings(character)


def _check_phrasings(character: Character) -> None:
    """The same words may come twice only in later rounds after different histories."""
    before: dict[str, list[int | None]] = {}  # phrasing -> the round before each of its places, None at the start
    for dialogue in character.dialogues:
        for node, parent in _with_parents(dialogue.root):
            for say in node.phrasings:
                before.setdefault(" ".join(words(say)), []).append(parent and id(parent))
    for say, parents in before.items():
        repeated = len(parents) > 1 and (None in parents or len(set(parents)) < len(parents))
        _require(not repeated, f"{character.id}: {say!r} is said twice after the same history")
