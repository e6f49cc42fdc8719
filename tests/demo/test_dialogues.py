"""The authored dialogues keep their own rules, and each planted fault is found."""

import dataclasses
import random
from collections import Counter
from importlib import resources

import pytest

from solami_hf.demo.corpus.dialogues import (
    ACTIONS,
    Dialogue,
    Line,
    all_lines,
    load_dialogues,
    nodes,
    paths,
    read_character,
    sample_conversation,
    validate,
)


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
    assert Counter(node.hinge for node in rounds) == {"words": 60, "motion": 6, "history": 24}
    assert len(ACTIONS) == 29


def test_lines_are_unique_and_few(characters):
    lines = all_lines(characters)
    assert len(lines.character) == 108
    assert not set(lines.unseen) & set(lines.train)
    assert lines == all_lines()


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
    assert parrot.hinge == treasure.hinge == "history"
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
    """Every first round of a character that hinges on the words takes the same user actions."""
    for character in characters:
        words = [dialogue.root for dialogue in character.dialogues if dialogue.root.hinge == "words"]
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
