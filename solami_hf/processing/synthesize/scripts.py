"""Plans of dialogues, what a writing model is asked for each of them, and how its answer is checked."""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template

import yaml

from ..files.text_files import read_text, read_yaml
from .asking import Asked, UnusableAnswer, ask_until_usable, first_object
from .writers import content_hash

UNSPEAKABLE = re.compile(r"[<>\[\]{}*_#|\\^~`@]|[\U0001F000-\U0001FAFF\u2600-\u27BF\u200B-\u200F\u202A-\u202E\ufe0f]")
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
LINE = ("say", "emotion", "motion")
MAX_MOTION_WORDS = 40
MAX_TITLE = 200  # characters


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


def _packaged(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def read_topics(path: str | Path | None = None) -> list[str]:
    """Topics of a text file, one a line, or of a YAML list; None means the packaged ones. Raises FileNotFoundError:
    no such file; ValueError: the file has no topics, or is no list of strings."""
    if path is not None and Path(path).suffix in (".yaml", ".yml", ".json"):
        topics = read_yaml(path)
        if not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
            raise ValueError(f"{path} must hold a list of strings, one for each topic")
    else:
        text = _packaged("topics.txt") if path is None else read_text(path)
        topics = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    topics = list(dict.fromkeys(" ".join(topic.split()) for topic in topics if topic.strip()))
    if not topics:
        raise ValueError(f"{path} has no topics; write one a line")
    return topics


def read_characters(path: str | Path | None = None) -> list[Character]:
    """Characters of a YAML file, `id: {name, system, voice?}`; None means the packaged ones. Raises FileNotFoundError:
    no such file; ValueError: a character without name or system prompt, an unknown field, or none at all."""
    raw = yaml.safe_load(_packaged("characters.yaml")) if path is None else read_yaml(path)
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
    """`count` dialogues: every topic with every character in random order, then all of them again. A longer list
    begins with the shorter one, so that a run can be extended. A topic belongs to one split only, which follows from
    its text alone: no topic is trained on and tested. `rounds` are the fewest and most of a dialogue, `test_share` the
    expected share of the topics whose dialogues are for testing. Raises ValueError: a number out of its range."""
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


def script_schema(plan: Plan) -> dict:
    """JSON schema of the script of a plan, for servers that constrain their answers."""
    text = {"type": "string"}
    line = _object(say=text, emotion=text, motion=text)
    rounds = {"type": "array", "minItems": plan.rounds, "maxItems": plan.rounds}
    rounds["items"] = _object(user=line, character=line)
    topic, name = {"type": "string", "enum": [plan.topic]}, {"type": "string", "enum": [plan.character.name]}
    return _object(title=text, topic=topic, character=name, rounds=rounds)


def _object(**properties) -> dict:
    rules = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": properties, **rules}


@cache
def _prompts() -> dict[str, Template]:
    return {name: Template(text) for name, text in yaml.safe_load(_packaged("prompts.yaml")).items()}


def first_messages(plan: Plan, captions: list[str], max_words: int) -> list[dict]:
    """The messages that ask for a script; `captions` are examples of motions that exist."""
    prompts = _prompts()
    listed = "\n".join(f"- {' '.join(caption.split())}" for caption in captions)
    request = prompts["request"].substitute(
        rounds=plan.rounds,
        topic=plan.topic,
        topic_json=json.dumps(plan.topic, ensure_ascii=False),
        name=plan.character.name,
        name_json=json.dumps(plan.character.name, ensure_ascii=False),
        system=plan.character.system,
        max_words=max_words,
        hints=prompts["hints"].substitute(captions=listed) if captions else "",
    )
    system = prompts["system"].substitute().strip()
    return [{"role": "system", "content": system}, {"role": "user", "content": request.strip()}]


def write_script(plan: Plan, complete: Callable, captions: list[str], attempts: int, max_words: int) -> Asked:
    """Asks for the script of a plan until one is usable, see `ask_until_usable` and `first_messages`."""
    return ask_until_usable(
        first_messages(plan, captions, max_words),
        complete,
        lambda text: parse_script(text, plan, max_words),
        script_schema(plan),
        plan.seed,
        attempts,
        lambda error: _prompts()["retry"].substitute(error=error).strip(),
    )


def parse_script(text: str, plan: Plan, max_words: int = 40) -> dict:
    """The script in a model's answer: `{"title", "topic", "character", "rounds": [{"user", "character"}]}`. Text
    around the JSON object (thoughts, code fences) is passed over. Lines are `{"say", "emotion", "motion"}` with white
    space put in order; topic and character are written as in the plan. Raises UnusableAnswer: there is no JSON object,
    or it breaks a rule; the message names the place."""
    script = first_object(text)
    _check_fields(script, ("title", "topic", "character", "rounds"), "the script")
    title = _text(script["title"], "title")[:MAX_TITLE]
    for key, expected in (("topic", plan.topic), ("character", plan.character.name)):
        if _plain(_text(script[key], key)) != _plain(expected):
            raise UnusableAnswer(f"{key} is {script[key]!r}, expected {expected!r}")
    rounds = script["rounds"]
    if not isinstance(rounds, list) or len(rounds) != plan.rounds:
        came = f"{len(rounds)} rounds" if isinstance(rounds, list) else type(rounds).__name__
        raise UnusableAnswer(f"rounds must be a list of exactly {plan.rounds} rounds, got {came}")
    checked = []
    for number, turn in enumerate(rounds):
        _check_fields(turn, ("user", "character"), f"rounds[{number}]")
        checked.append(
            {who: check_line(turn[who], f"rounds[{number}].{who}", max_words) for who in ("user", "character")}
        )
    return {"title": title, "topic": plan.topic, "character": plan.character.id, "rounds": checked}


def _check_fields(value, fields: tuple[str, ...], where: str) -> None:
    if not isinstance(value, dict):
        raise UnusableAnswer(f"{where} must be an object with {', '.join(fields)}, got {type(value).__name__}")
    missing, unknown = [name for name in fields if name not in value], sorted(set(value) - set(fields))
    if missing:
        raise UnusableAnswer(f"{where} lacks {', '.join(missing)}")
    if unknown:
        raise UnusableAnswer(f"{where} has unknown fields: {', '.join(map(repr, unknown[:5]))}")


def check_line(line, where: str, max_words: int) -> dict:
    """A line `{"say", "emotion", "motion"}` with white space put in order. Raises UnusableAnswer: it breaks a rule;
    the message names the place."""
    _check_fields(line, LINE, where)
    say, emotion, motion = (_text(line[name], f"{where}.{name}", empty=name != "say") for name in LINE)
    if len(say.split()) > max_words:
        raise UnusableAnswer(f"{where}.say has {len(say.split())} words, expected at most {max_words}")
    if found := UNSPEAKABLE.search(say):
        raise UnusableAnswer(f"{where}.say holds {found[0]!r}, which cannot be read aloud; write spoken words only")
    if not any(c.isalnum() for c in say):
        raise UnusableAnswer(f"{where}.say holds no words")
    if len(motion.split()) > MAX_MOTION_WORDS:
        raise UnusableAnswer(f"{where}.motion has {len(motion.split())} words; describe one short movement")
    return {"say": say, "emotion": emotion, "motion": motion}


def _text(value, where: str, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise UnusableAnswer(f"{where} must be a text, got {type(value).__name__}")
    value = " ".join(value.split())
    if CONTROL.search(value):
        raise UnusableAnswer(f"{where} holds control characters")
    if not value and not empty:
        raise UnusableAnswer(f"{where} is empty")
    return value


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
