"""Scripts of dialogues: what a writing model is asked, how its answer is checked, how it is told what was wrong."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from string import Template

import yaml

from .asking import UnusableAnswer, ask_until_usable, first_object
from .plans import Plan, packaged

UNSPEAKABLE = re.compile(r"[<>\[\]{}*_#|\\^~`@]|[\U0001F000-\U0001FAFF\u2600-\u27BF\u200B-\u200F\u202A-\u202E\ufe0f]")
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
LINE = ("say", "emotion", "motion")
MAX_MOTION_WORDS = 40
MAX_TITLE = 200  # characters


@dataclass
class Written:
    """Result of a plan: a script, or the reason why there is none. `answers` are all answers of the model."""

    plan: Plan
    script: dict | None = None
    reason: str | None = None
    answers: list = field(default_factory=list)


def script_schema(plan: Plan) -> dict:
    """JSON schema of the script of a plan, for servers that constrain their answers."""
    text = {"type": "string"}
    line = _object(say=text, emotion=text, motion=text)
    rounds = {"type": "array", "minItems": plan.rounds, "maxItems": plan.rounds}
    rounds["items"] = _object(user=line, character=line)
    topic, name = {"type": "string", "enum": [plan.topic]}, {"type": "string", "enum": [plan.character.name]}
    return _object(title=text, topic=topic, character=name, rounds=rounds)


def _object(**properties) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@cache
def _prompts() -> dict[str, Template]:
    return {name: Template(text) for name, text in yaml.safe_load(packaged("prompts.yaml")).items()}


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
    return [
        {"role": "system", "content": prompts["system"].substitute().strip()},
        {"role": "user", "content": request.strip()},
    ]


def write_script(plan: Plan, complete, captions: list[str], attempts: int, max_words: int) -> Written:
    """Asks for the script of a plan until one is usable, telling the model each time what was wrong.

    Args:
        complete: `complete(messages, seed, schema)` gives a `writers.Answer`.
        attempts: how often to ask.

    Returns:
        `Written` with a script, or with the reason why the last answer was refused.
    """
    asked = ask_until_usable(
        first_messages(plan, captions, max_words),
        complete,
        lambda text: parse_script(text, plan, max_words),
        script_schema(plan),
        plan.seed,
        attempts,
        lambda error: _prompts()["retry"].substitute(error=error).strip(),
    )
    return Written(plan, asked.value, asked.reason, asked.answers)


def parse_script(text: str, plan: Plan, max_words: int = 40) -> dict:
    """The script in a model's answer: `{"title", "topic", "character", "rounds": [{"user", "character"}]}`.

    Text around the JSON object (thoughts, code fences) is passed over. Lines are `{"say", "emotion", "motion"}` with
    white space put in order; topic and character are written as in the plan.

    Raises:
        UnusableAnswer: there is no JSON object, or it breaks a rule; the message names the place.
    """
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
        checked.append({who: _line(turn[who], f"rounds[{number}].{who}", max_words) for who in ("user", "character")})
    return {"title": title, "topic": plan.topic, "character": plan.character.id, "rounds": checked}


def _check_fields(value, fields: tuple[str, ...], where: str) -> None:
    if not isinstance(value, dict):
        raise UnusableAnswer(f"{where} must be an object with {', '.join(fields)}, got {type(value).__name__}")
    missing, unknown = [name for name in fields if name not in value], sorted(set(value) - set(fields))
    if missing:
        raise UnusableAnswer(f"{where} lacks {', '.join(missing)}")
    if unknown:
        raise UnusableAnswer(f"{where} has unknown fields: {', '.join(map(repr, unknown[:5]))}")


def _line(line, where: str, max_words: int) -> dict:
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
