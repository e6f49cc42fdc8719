"""Dialogues in which a small model, which writes no JSON, answers a visitor's authored lines, many at once.

The visitor's lines are drawn from `visitor_lines.yaml`: an opening about the topic, then replies that fit any answer.
The character's are what the model answers to its system prompt and the dialogue so far, so that training on them keeps
the model's habits. An answer is cut behind its last whole sentence within `max_words`. Each answer is also the
description of its movement: it gets the motion whose caption lies nearest.
"""

import random
import re
from functools import cache
from importlib import resources

import yaml
from tqdm import tqdm

from .asking import Asked, UnusableAnswer
from .scripts import Plan, check_line
from .writers import CachedWriter

WAVE = 512  # dialogues that are written at the same time
_SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)
_PAPER = re.compile(
    r"\b(AI|assistant|language model|SmolLM|Hugging Face|chatbot|user)\b|https?:|\.\.|[^\x00-\x7f]|[:\"();/&%$+=]"
)
FEWEST_WORDS = 3


@cache
def _visitor_lines() -> dict[str, list[str]]:
    return yaml.safe_load(resources.files(__package__).joinpath("visitor_lines.yaml").read_text(encoding="utf-8"))


def visitor_lines(plan: Plan) -> list[str]:
    """What the visitor of a plan says, a line a round."""
    rng, lines = random.Random(f"{plan.seed} visitor"), _visitor_lines()
    return [rng.choice(lines["openings"]).format(topic=plan.topic), *rng.sample(lines["replies"], plan.rounds - 1)]


def write_line_by_line(plans: list[Plan], writer: CachedWriter, attempts: int, max_words: int) -> list[Asked]:
    """A script of each plan, in order, as `scripts.parse_script` gives it, by a local model that answers many requests
    at once; a line is asked for `attempts` times, and what could not be written has a reason."""
    results = []
    bar = tqdm(total=len(plans), desc="write", unit="dialogue", disable=None)
    for start in range(0, len(plans), WAVE):
        wave = plans[start : start + WAVE]
        asked, rounds, visitors = [Asked() for _ in wave], [[] for _ in wave], [visitor_lines(plan) for plan in wave]
        for number in range(max(plan.rounds for plan in wave)):
            here = [i for i, plan in enumerate(wave) if number < plan.rounds and asked[i].reason is None]
            for i in here:
                rounds[i].append({"user": {"say": visitors[i][number], "emotion": "", "motion": ""}})
            _answer(here, wave, asked, rounds, writer, attempts, max_words)
        for plan, result, lines in zip(wave, asked, rounds, strict=True):
            if result.reason is None:
                heads = {"title": plan.topic, "topic": plan.topic, "character": plan.character.id}
                result.value = {**heads, "rounds": lines}
        results += asked
        bar.update(len(wave))
    bar.close()
    return results


def _answer(here: list[int], wave, asked, rounds, writer, attempts: int, max_words: int) -> None:
    """Asks for the answers of the last rounds; a dialogue whose answer stays unusable gets the reason."""
    for attempt in range(attempts):
        requests = [_messages(wave[i], rounds[i]) for i in here]
        seeds = [(wave[i].seed + 1000 * len(rounds[i]) + attempt) % 2**31 for i in here]
        for i, answer in zip(list(here), writer.complete_all(requests, seeds), strict=True):
            asked[i].answers.append(answer)
            try:
                line = spoken_line(answer.text, max_words)
                if any(line == turn["character"]["say"] for turn in rounds[i][:-1]):
                    raise UnusableAnswer(f"{line!r} was said before")
            except UnusableAnswer as error:
                asked[i].reason = str(error)
                continue
            asked[i].reason, rounds[i][-1]["character"] = None, {"say": line, "emotion": "", "motion": line}
            here.remove(i)
        if not here:
            return


def first_sentences(text: str, max_words: int) -> str:
    """The first whole sentences of a text, at most `max_words` together; the first one whatever its length."""
    text = " ".join(text.replace("\u2019", "'").strip().strip('"').split())
    kept: list[str] = []
    for sentence in _SENTENCE.findall(text):
        if kept and len(" ".join([*kept, sentence]).split()) > max_words:
            break
        kept.append(sentence.strip())
    return " ".join(kept)


def spoken_line(text: str, max_words: int) -> str:
    """The line in a model's answer: its first whole sentences that have at most `max_words` together. Raises
    UnusableAnswer: no whole sentence is short enough, or it is not for speaking, or it goes round in circles."""
    line = first_sentences(text, max_words)
    if not FEWEST_WORDS <= len(line.split()) <= max_words:
        raise UnusableAnswer(f"no whole sentences of {FEWEST_WORDS} to {max_words} words: {text[:80]!r}")
    if found := _PAPER.search(line):
        raise UnusableAnswer(f"{found[0]!r} is not for speaking")
    words = [word.strip(".,!?").casefold() for word in line.split()]
    threes = list(zip(words, words[1:], words[2:], strict=False))
    if len(set(threes)) < len(threes):
        raise UnusableAnswer(f"it repeats itself: {line!r}")
    return check_line({"say": line, "emotion": "", "motion": ""}, "line", max_words)["say"]


def _messages(plan: Plan, rounds: list[dict]) -> list[dict]:
    """The dialogue so far as the character reads it."""
    messages = [{"role": "system", "content": plan.character.system}]
    for turn in rounds:
        messages.append({"role": "user", "content": turn["user"]["say"]})
        if "character" in turn:
            messages.append({"role": "assistant", "content": turn["character"]["say"]})
    return messages
