"""Plans and scripts: what is asked, what is accepted, and what the model is told about the rest."""

import json

import pytest

from solami_hf.processing.synthesize.asking import UnusableAnswer
from solami_hf.processing.synthesize.scripts import (
    Character,
    Plan,
    draw_plans,
    first_messages,
    parse_script,
    read_characters,
    read_topics,
    script_schema,
    write_script,
)
from solami_hf.processing.synthesize.writers import Answer, content_hash

ADA = Character("ada", "Captain Ada", "You are Ada.", "slt")
PLAN = Plan("d-1", "train", 'a "lost" key', ADA, 2, 7)


def line(say="Look over there!", emotion="curious", motion="a person points ahead"):
    return {"say": say, "emotion": emotion, "motion": motion}


def script(**changes):
    rounds = [{"user": line(), "character": line("Where?", motion="")} for _ in range(2)]
    return {"title": "Keys", "topic": PLAN.topic, "character": "Captain Ada", "rounds": rounds, **changes}


def test_packaged_topics_and_characters():
    topics, characters = read_topics(), read_characters()
    assert len(topics) >= 50 and "a lost key and where it might be" in topics and not any("#" in t for t in topics)
    assert len(characters) >= 6 and all(c.voice and c.system.startswith("You are ") for c in characters)


def test_topics_and_characters_of_files(tmp_path):
    (tmp_path / "topics.txt").write_text("# mine\n  rain  and wind \n\nrain and wind\nsun\n")
    assert read_topics(tmp_path / "topics.txt") == ["rain and wind", "sun"]
    (tmp_path / "topics.yaml").write_text("[snow, 3]")
    with pytest.raises(ValueError, match="list of strings"):
        read_topics(tmp_path / "topics.yaml")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no topics"):
        read_topics(tmp_path / "empty.txt")
    (tmp_path / "c.yaml").write_text("ada: {name: Ada}")
    with pytest.raises(ValueError, match="character 'ada' .* needs name and system"):
        read_characters(tmp_path / "c.yaml")


def test_a_longer_list_of_plans_begins_with_the_shorter_one():
    topics, characters = ["a", "b", "c"], [ADA, Character("b", "B", "You are B.")]
    plans = draw_plans(topics, characters, 15, (2, 5), seed=3)
    assert draw_plans(topics, characters, 4, (2, 5), seed=3) == plans[:4]
    assert len({(p.topic, p.character.id) for p in plans[:6]}) == 6  # all pairs before any comes again
    assert {p.rounds for p in plans} <= {2, 3, 4, 5} and len({p.seed for p in plans}) == 15
    assert draw_plans(topics, characters, 6, seed=4)[0].topic + plans[0].topic  # other seeds are other plans
    assert [p.topic for p in draw_plans(topics, characters, 6, seed=4)] != [p.topic for p in plans[:6]]


def test_a_topic_belongs_to_one_split():
    plans = draw_plans(read_topics(), read_characters(), 700, test_share=0.3)
    splits = {}
    for plan in plans:
        splits.setdefault(plan.topic, set()).add(plan.split)
    assert all(len(found) == 1 for found in splits.values())
    assert 0.1 < sum(found == {"test"} for found in splits.values()) / len(splits) < 0.5


@pytest.mark.parametrize("wrong", [{"count": 0}, {"rounds": (3, 2)}, {"rounds": (0, 2)}, {"test_share": 1.0}])
def test_plans_refuse_numbers_out_of_range(wrong):
    with pytest.raises(ValueError, match="expected"):
        draw_plans(["a"], [ADA], **{"count": 1, **wrong})


def test_the_request_tells_everything():
    system, user = first_messages(PLAN, ["a person  waves"], 33)
    assert system["role"] == "system" and user["role"] == "user"
    for said in (
        "exactly 2 rounds",
        'a "lost" key',
        "Captain Ada",
        "You are Ada.",
        "at most 33",
        "- a person waves\n",
    ):
        assert said in user["content"], said
    assert '"topic": "a \\"lost\\" key"' in user["content"]  # the example stays JSON
    assert "practised" not in first_messages(PLAN, [], 33)[1]["content"]


def test_the_schema_and_the_check_agree():
    schema = script_schema(PLAN)
    assert schema["required"] == ["title", "topic", "character", "rounds"]
    assert schema["properties"]["rounds"]["minItems"] == schema["properties"]["rounds"]["maxItems"] == 2
    assert schema["properties"]["topic"]["enum"] == [PLAN.topic] and not schema["additionalProperties"]


@pytest.mark.parametrize(
    "wrap", ["{}", "```json\n{}\n```", "<think>maybe {{x}}</think>\n{}", "Here it is:\n{} Enjoy!"]
)
def test_a_script_is_found_in_what_stands_around_it(wrap):
    parsed = parse_script(wrap.format(json.dumps(script())), PLAN)
    assert parsed["character"] == "ada" and parsed["rounds"][1]["user"] == line()


def test_spelling_of_topic_and_white_space_are_put_in_order():
    odd = script(topic="A lost  key.", rounds=[{"user": line(" Look \n here "), "character": line()}] * 2)
    parsed = parse_script(json.dumps(odd), PLAN)
    assert parsed["topic"] == PLAN.topic and parsed["rounds"][0]["user"]["say"] == "Look here"


def rounds_with(**changes):
    return script(rounds=[{"user": line(), "character": line()}, {"user": line(), "character": {**line(), **changes}}])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "empty"),
        ("I would rather not.", "no JSON object"),
        ('{"title": "Keys",', "not valid JSON: .* line 1"),
        ('{"a":' * 50000, "not valid JSON"),
        (json.dumps({"title": "x"}), "lacks topic, character, rounds"),
        (json.dumps(script(mood="good")), "unknown fields: 'mood'"),
        (json.dumps(script(topic="a found key")), "topic is 'a found key', expected"),
        (json.dumps(script(character="Bob")), "character is 'Bob'"),
        (json.dumps(script(rounds={})), "exactly 2 rounds, got dict"),
        (json.dumps(script(rounds=script()["rounds"][:1])), "got 1 rounds"),
        (json.dumps(script(rounds=[1, 2])), r"rounds\[0\] must be an object"),
        (json.dumps(rounds_with(say="")), r"rounds\[1\].character.say is empty"),
        (json.dumps(rounds_with(say=3)), "must be a text, got int"),
        (json.dumps(rounds_with(say="Hi *waves*")), r"holds '\*'"),
        (json.dumps(rounds_with(say="Hello<eos>")), "holds '<'"),
        (json.dumps(rounds_with(say="Nice 🗣")), "cannot be read aloud"),
        (json.dumps(rounds_with(say="...")), "no words"),
        (json.dumps(rounds_with(say="la " * 41)), "41 words, expected at most 40"),
        (json.dumps(rounds_with(motion="go " * 60)), "one short movement"),
        (json.dumps(rounds_with(emotion="a\x00b")), "control characters"),
        (json.dumps(rounds_with(say="\ud800")), "control characters"),
    ],
)
def test_an_unusable_script_is_refused_with_its_place(answer, told):
    with pytest.raises(UnusableAnswer, match=told):
        parse_script(answer, PLAN)


class Scripted:
    """A model that gives prepared answers and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, messages, seed, schema):
        self.asked.append((messages, seed))
        return self.answers.pop(0)


def test_the_model_is_told_what_was_wrong():
    model = Scripted(Answer("nonsense"), Answer(json.dumps(rounds_with(say="")), "stop"), Answer(json.dumps(script())))
    written = write_script(PLAN, model, [], 3, 40)
    assert written.value["title"] == "Keys" and written.reason is None and len(written.answers) == 3
    messages, seed = model.asked[2]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"] and seed == 9
    assert messages[2]["content"] == json.dumps(rounds_with(say=""))
    assert "rounds[1].character.say is empty" in messages[3]["content"]
    assert "no JSON object" in model.asked[1][0][3]["content"]


def test_a_model_that_never_learns_is_given_up():
    model = Scripted(Answer("no"), Answer(json.dumps(script()), finish="length"))
    written = write_script(PLAN, model, [], 2, 40)
    assert written.value is None and "cut off" in written.reason
    assert [answer.text for answer in written.answers] == ["no", json.dumps(script())]


def test_content_hash_knows_content_only():
    assert content_hash({"a": 1, "b": "ü"}) == content_hash({"b": "ü", "a": 1}) != content_hash({"a": 1, "b": "u"})
