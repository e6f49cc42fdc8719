"""The authored dialogues keep their own rules, and each planted fault is found."""

import dataclasses
import random
import re
from collections import Counter
from importlib import resources

import pytest

from solami_hf.demo.corpus.captions import ACTIONS
from solami_hf.demo.corpus.dialogues import (
    Character,
    Dialogue,
    Line,
    Node,
    character_lines,
    load_dialogues,
    nodes,
    paths,
    read_character,
    sample_conversation,
)
from solami_hf.metrics.evaluation.figures import words_of

MAX_CHARACTER_LINES = 112
MAX_ANSWER_ACTION_SHARE = 0.15


def validate(characters: list[Character]) -> None:
    """Raises ValueError where the corpus breaks one of the rules that make its results mean something."""
    dialogues = [dialogue for character in characters for dialogue in character.dialogues]
    require(len(characters) == 6, f"{len(characters)} characters, expected 6")
    require(len(dialogues) >= 40, f"{len(dialogues)} dialogues, expected at least 40")
    require_unique("character id", [character.id for character in characters])
    require_unique("system prompt", [character.system for character in characters])
    require_unique("dialogue id", [dialogue.id for dialogue in dialogues])
    for dialogue in dialogues:
        for node in nodes(dialogue):
            check_node(dialogue.id, node)
    for character in characters:
        check_character(character)

    rounds = [node for dialogue in dialogues for node in nodes(dialogue)]
    lines = [line for node in rounds for line in set(node.answers.values())]
    require_unique("character line", [" ".join(words_of(line.say)) for line in lines])
    count = len(lines)
    require(count <= MAX_CHARACTER_LINES, f"{count} character lines, expected at most {MAX_CHARACTER_LINES}")
    action, count = Counter(line.do for line in lines).most_common(1)[0]
    require(
        count <= MAX_ANSWER_ACTION_SHARE * len(lines),
        f"{action!r} is the action of {count} of {len(lines)} character lines, expected at most "
        f"{MAX_ANSWER_ACTION_SHARE:.0%}: answering it always would score too well",
    )
    unused = set(ACTIONS).difference(*(node.answers for node in rounds))
    require(not unused, f"no user ever does {sorted(unused)}; every action must occur")
    trained = {" ".join(words_of(say)) for node in rounds for say in node.say}
    for node in rounds:
        known = " ".join(words_of(node.unseen)) in trained
        require(not known, f"the unseen phrasing {node.unseen!r} is also trained on")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"demo dialogues: {message}")


def require_unique(what: str, values: list[str]) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    require(not repeated, f"{what} {repeated[:1]} occurs twice, expected each once")


def check_node(where: str, node: Node) -> None:
    require(3 <= len(node.say) <= 5, f"{where}: {len(node.say)} phrasings of {node.say[:1]}, expected 3 to 5")
    for say in (*node.say, node.unseen):
        check_sentence(where, say, longest=9)
    require_unique(f"{where}: phrasing", [" ".join(words_of(say)) for say in (*node.say, node.unseen)])
    require(len(node.answers) >= 3, f"{where}: user actions {list(node.answers)}, expected at least 3")
    require(len(node.next) <= 2, f"{where}: {len(node.next)} following rounds, expected at most 2")
    for line in node.answers.values():
        check_sentence(where, line.say, longest=8)
    for action in (*node.answers, *(line.do for line in node.answers.values())):
        require(action in ACTIONS, f"{where}: unknown action {action!r}, expected one of {', '.join(ACTIONS)}")


def check_sentence(where: str, text: str, longest: int) -> None:
    plain = isinstance(text, str) and re.fullmatch(r"[A-Za-z ,.!?]+", text)
    require(bool(plain), f"{where}: {text!r} has more than plain letters and , . ! ? (spell it out)")
    require(
        3 <= len(words_of(text)) <= longest, f"{where}: {text!r} has {len(words_of(text))} words, expected 3-{longest}"
    )


def check_character(character: Character) -> None:
    name, dialogues = character.id, character.dialogues
    require(len(character.system.split()) <= 30, f"{name}: the system prompt has more than 30 words")
    depths = [max(len(path) for path in paths(dialogue)) for dialogue in dialogues]
    require(max(depths) == 3, f"{name}: the longest dialogue has {max(depths)} rounds, expected 3")
    branching = sum(len(dialogue.root.next) == 2 for dialogue in dialogues)
    require(branching >= 2, f"{name}: {branching} dialogues with two second rounds, expected at least 2")
    reasons = {node.depends_on for dialogue in dialogues for node in nodes(dialogue)}
    require(reasons == {"words", "motion", "history"}, f"{name}: answers depend on {sorted(reasons)} only")
    for action in sorted({action for dialogue in dialogues for action in dialogue.root.answers}):
        count = sum(action in dialogue.root.answers for dialogue in dialogues)
        require(count >= 3, f"{name}: {action!r} opens only {count} dialogues, expected 3: it gives the answer away")
    check_phrasings(character)


def check_phrasings(character: Character) -> None:
    """The same words may come twice only in later rounds after different histories."""
    before: dict[str, list[int | None]] = {}  # phrasing -> the round before each of its places, None at the start
    for dialogue in character.dialogues:
        parents = {id(child): node for node in nodes(dialogue) for child in node.next}
        for node in nodes(dialogue):
            parent = parents.get(id(node))
            for say in (*node.say, node.unseen):
                before.setdefault(" ".join(words_of(say)), []).append(parent and id(parent))
    for say, places in before.items():
        repeated = len(places) > 1 and (None in places or len(set(places)) < len(places))
        require(not repeated, f"{character.id}: {say!r} is said twice after the same history")


@pytest.fixture(scope="module")
def characters():
    return load_dialogues()


def _with_root(characters, character, dialogue, **changes):
    """The corpus with one changed first round."""
    copy = list(characters)
    dialogues = list(copy[character].dialogues)
    root = dataclasses.replace(dialogues[dialogue].root, **changes)
    dialogues[dialogue] = Dialogue(dialogues[dialogue].id, dialogues[dialogue].topic, root)
    copy[character] = dataclasses.replace(copy[character], dialogues=tuple(dialogues))
    return copy


def test_counts(characters):
    dialogues = [dialogue for character in characters for dialogue in character.dialogues]
    rounds = [node for dialogue in dialogues for node in nodes(dialogue)]
    assert [character.id for character in characters] == ["ada", "bruno", "max", "merlin", "nova", "rose"]
    assert len(dialogues) == 42
    assert len(rounds) == 90
    assert {len(node.say) for node in rounds} == {4}
    assert Counter(node.depends_on for node in rounds) == {"words": 60, "motion": 6, "history": 24}
    assert len(ACTIONS) == 29


def test_lines_are_unique_and_few(characters):
    rounds = [node for character in characters for dialogue in character.dialogues for node in nodes(dialogue)]
    assert len(character_lines(characters)) == len(set(character_lines(characters))) == 108
    assert not {node.unseen for node in rounds} & {say for node in rounds for say in node.say}


def test_the_packaged_dialogues_keep_the_rules(characters):
    validate(characters)


def test_paths_follow_the_branches(characters):
    first = characters[0].dialogues[0]
    spoken = [[node.answers["wave"].say for node in path] for path in paths(first)]
    assert spoken == [
        ["Welcome aboard, young sailor!", "Then you must wash the floor.", "After that you get hot soup."],
        ["Welcome aboard, young sailor!", "You can sleep down below.", "The morning bell will wake you."],
    ]
    assert len(paths(characters[0].dialogues[4])) == 1


def test_the_same_words_have_another_answer_after_another_history(characters):
    parrot, treasure = (paths(dialogue)[0][1] for dialogue in characters[0].dialogues[2:4])
    assert parrot.say == treasure.say
    assert parrot.depends_on == treasure.depends_on == "history"
    assert parrot.answers["wave"].say == "He swallowed a whole trumpet."
    assert treasure.answers["wave"].say == "A hungry whale has eaten everything."


def test_sample_answers_the_action_and_the_words(characters):
    watching = paths(characters[0].dialogues[4])[0]
    answers = {}
    for seed in range(40):
        (turn,) = sample_conversation(random.Random(seed), watching)
        assert turn.user.say in watching[0].say
        answers[turn.user.do] = turn.answer
    assert set(answers) == {"salute", "jump", "walk", "point"}
    assert answers["jump"] == Line("Dolphins jump exactly like you.", "jump")


def test_sample_is_seeded_and_keeps_unseen_apart(characters):
    path = paths(characters[3].dialogues[0])[1]
    assert sample_conversation(random.Random(3), path) == sample_conversation(random.Random(3), path)
    unseen = sample_conversation(random.Random(3), path, unseen=True)
    assert [turn.user.say for turn in unseen] == [node.unseen for node in path]
    assert len(unseen) == 3


def test_motion_alone_does_not_give_the_answer(characters):
    """Every first round of a character that depends on the words takes the same user actions."""
    for character in characters:
        words = [dialogue.root for dialogue in character.dialogues if dialogue.root.depends_on == "words"]
        assert len(words) == 6
        assert len({tuple(root.answers) for root in words}) == 1


LINE = Line("Something else entirely, friend.", "nod")
FAULTS = {
    "expected 3 to 5": {"say": ("Please open the door.", "Open it now, please.")},
    "has 2 words": {"unseen": "Hello there."},
    "plain letters": {"unseen": "Give me 5 coins."},
    "at least 3": {"answers": {"wave": LINE, "nod": LINE}},
    "unknown action 'juggle'": {"answers": dict.fromkeys(("wave", "nod", "juggle"), LINE)},
    "at most 2": {"next": "three"},
    "gives the answer away": {"answers": dict.fromkeys(("wave", "nod", "cartwheel"), LINE)},
    "longest dialogue has 2 rounds": {"next": ()},
    "said twice after the same history": {"unseen": "Who are you?"},
    "phrasing .* occurs twice": {"unseen": "may i come aboard"},
    "character line .* occurs twice": {
        "answers": dict.fromkeys(("wave", "nod", "jump"), Line("Sing a song now.", "nod"))
        | {"walk": Line("Sing a song, now!", "nod")}
    },
    "is also trained on": {"unseen": "I am very hungry."},
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_planted_fault_is_named(characters, message):
    changes = dict(FAULTS[message])
    if changes.get("next") == "three":
        changes["next"] = characters[0].dialogues[0].root.next + characters[0].dialogues[2].root.next
    with pytest.raises(ValueError, match=message):
        validate(_with_root(characters, 0, 0, **changes))


def test_too_few_branches_are_named(characters):
    with pytest.raises(ValueError, match="ada: 1 dialogues with two second rounds"):
        validate(_with_root(characters, 0, 1, next=()))


def test_missing_and_repeated_characters_are_named(characters):
    with pytest.raises(ValueError, match="5 characters, expected 6"):
        validate(characters[1:])
    with pytest.raises(ValueError, match="character id .* occurs twice"):
        validate([characters[0], *characters[:5]])


def test_one_answer_action_everywhere_is_refused(characters):
    def nodding(node):
        answers = {action: Line(line.say, "nod") for action, line in node.answers.items()}
        return dataclasses.replace(node, answers=answers, next=tuple(nodding(child) for child in node.next))

    lazy = [
        dataclasses.replace(
            character, dialogues=tuple(dataclasses.replace(d, root=nodding(d.root)) for d in character.dialogues)
        )
        for character in characters
    ]
    with pytest.raises(ValueError, match="'nod' is the action of 108 of 108"):
        validate(lazy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("character: x\nname: X\nsystem: y\n", "x.yaml: the field 'dialogues' is missing"),
        ("dialogues: [", "x.yaml: not a character file"),
        ("", "x.yaml: not a character file"),
        ("dialogues: [{id: a, topic: b, user: {say: 3}}]", "x.yaml: not a character file"),
    ],
)
def test_a_broken_file_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        read_character(text, "x.yaml")


def test_task_phrasings():
    folder = resources.files("solami_hf.processing.datasets").joinpath("tasks")
    texts = {file.name: file.read_text(encoding="utf-8").splitlines() for file in folder.iterdir()}
    assert sorted(texts) == [
        "motion_to_motion.txt",
        "motion_to_text.txt",
        "speech_to_speech.txt",
        "speech_to_text.txt",
        "text_to_motion.txt",
        "text_to_speech.txt",
    ]
    phrasings = [line for lines in texts.values() for line in lines]
    assert {len(lines) for lines in texts.values()} == {25}
    assert len(set(phrasings)) == 150
    assert all(4 <= len(line.split()) <= 12 for line in phrasings)
