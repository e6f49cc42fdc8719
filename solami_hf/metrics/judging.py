"""A language model as judge of a character's answers: relevance and consistency, 1 to 5.

    judge = open_judge(JudgeSettings(base_url="http://localhost:8000/v1", model="Qwen/Qwen2.5-7B-Instruct"))
    verdicts = judge_answers(judge, questions, repeats=3)

Requests, retries and the cache are those of `processing.synthesize`, which writes dialogues in the same way.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import yaml

from solami_hf.processing.synthesize.asking import (
    Asked,
    UnusableAnswer,
    ask_in_parallel,
    ask_until_usable,
    first_object,
)
from solami_hf.processing.synthesize.writers import CachedWriter, EndpointError, WriterSettings, open_writer

SCORES = ("relevance", "consistency")
LOWEST, HIGHEST = 1, 5
_MARK = {"type": "integer", "minimum": LOWEST, "maximum": HIGHEST}
_PROPERTIES = {"reason": {"type": "string"}, **dict.fromkeys(SCORES, _MARK)}
SCHEMA = {"type": "object", "properties": _PROPERTIES, "required": [*_PROPERTIES], "additionalProperties": False}
_SEED_STEP = 1000  # between two repeats, more than the attempts of one


@dataclass
class JudgeSettings(WriterSettings):
    """Settings of a judge, a writing model whose attempts are at a mark."""

    temperature: float = 0.7  # above 0, so that repeats show how sure the judge is
    max_tokens: int = 300
    cache: str | None = None  # folder in which every answer is kept: asked again the same, nothing is sent
    input_price: float | None = None  # of a million tokens, to count the cost
    output_price: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price and output_price go together: give both, per million tokens, or neither")


def open_judge(settings: JudgeSettings):
    """The judging model behind its cache. Raises ValueError: nobody is named, or too many are."""
    if not (settings.base_url or settings.model or settings.local_model):
        raise ValueError("say who judges: base_url (a server), model (on the Hub's providers) or local_model")
    writer = open_writer(settings)
    return CachedWriter(writer, settings.cache) if settings.cache else writer


@dataclass(frozen=True)
class Question:
    """An answer to mark."""

    answer: str  # what the character said
    context: Sequence[dict]  # messages before it, {"role", "content": text}; the system's are its instruction
    reference: str | None = None  # an answer that was hoped for; None leaves it out of the prompt


@dataclass
class Verdict:
    """The marks of one answer, a dict of both scores for each repeat that gave usable ones, and why others did not."""

    marks: list[dict[str, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answers: list = field(default_factory=list)


@cache
def _prompts() -> dict[str, Template]:
    text = Path(__file__).with_name("judge_prompts.yaml").read_text(encoding="utf-8")
    return {name: Template(prompt) for name, prompt in yaml.safe_load(text).items()}


def messages_of(question: Question) -> list[dict]:
    """The prompt of a question."""
    said = {"user": "Visitor", "assistant": "Character"}
    turns = [m for m in question.context if m["role"] != "system"]
    instruction = "\n".join(m["content"].strip() for m in question.context if m["role"] == "system")
    reference, prompts = question.reference, _prompts()
    request = prompts["request"].substitute(
        instruction=instruction or "(none)",
        conversation="\n".join(f"{said[m['role']]}: {m['content'].strip()}" for m in turns) or "(nothing yet)",
        answer=question.answer.strip() or "(silence)",
        reference="" if reference is None else prompts["reference"].substitute(text=reference.strip()),
    )
    system = prompts["system"].substitute()
    return [{"role": "system", "content": system.strip()}, {"role": "user", "content": request.strip()}]


def parse_marks(text: str) -> dict[str, int]:
    """Both marks in a reply of the judge. Raises UnusableAnswer: no JSON object, a mark is missing, or it is no
    whole number from 1 to 5."""
    reply, marks = first_object(text), {}
    for name in SCORES:
        if name not in reply:
            raise UnusableAnswer(f"it lacks {name}")
        mark = reply[name]
        whole = isinstance(mark, int | float) and not isinstance(mark, bool) and mark == mark and mark % 1 == 0
        if not (whole and LOWEST <= mark <= HIGHEST):
            raise UnusableAnswer(f"{name} is {mark!r}, expected a whole number from {LOWEST} to {HIGHEST}")
        marks[name] = int(mark)
    return marks


def judge_answers(
    judge, questions: Sequence[Question], repeats: int = 3, attempts: int = 3, concurrency: int = 8, seed: int = 0
) -> list[Verdict]:
    """Verdicts of the questions, in order, each answer marked `repeats` times, every time with another seed; a
    reply that cannot be used is asked for again up to `attempts` times. `judge` has `complete(messages, seed,
    schema)`, giving a `writers.Answer`, and `close()`. Raises OSError: the endpoint refuses everything or fails
    time after time."""
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected at least 1")
    asked_for = [(i, seed + _SEED_STEP * repeat) for i in range(len(questions)) for repeat in range(repeats)]

    def ask(job) -> Asked:
        index, job_seed = job
        return ask_until_usable(
            messages_of(questions[index]),
            judge.complete,
            parse_marks,
            SCHEMA,
            job_seed,
            attempts,
            lambda error: _prompts()["retry"].substitute(error=error).strip(),
        )

    verdicts = [Verdict() for _ in questions]
    replies = ask_in_parallel(asked_for, ask, judge.close, concurrency, "judge", "mark")
    for (index, _), asked in zip(asked_for, replies, strict=True):
        verdict = verdicts[index]
        if isinstance(asked, EndpointError):
            verdict.failures.append(f"endpoint: {asked}")
            continue
        verdict.answers += asked.answers
        if asked.value is None:
            verdict.failures.append(asked.reason)
        else:
            verdict.marks.append(asked.value)
    return verdicts


def usage(verdicts: Sequence[Verdict], settings: JudgeSettings) -> dict[str, Any]:
    """Requests, how many of them the cache answered, tokens, and what they cost; `paid` leaves the cache's out."""
    answers = [answer for verdict in verdicts for answer in verdict.answers]
    fresh = [answer for answer in answers if not answer.cached]

    def cost(some):
        if settings.input_price is None:
            return None
        sent, received = (sum(getattr(a, f"{kind}_tokens") for a in some) for kind in ("prompt", "completion"))
        return (sent * settings.input_price + received * settings.output_price) / 1e6

    return {
        "requests": len(answers),
        "from_cache": len(answers) - len(fresh),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "completion_tokens": sum(answer.completion_tokens for answer in answers),
        "cost": cost(answers),
        "paid": cost(fresh),
    }


def agreement(marks: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """Agreement of the repeats' marks on the same answers; None where there is nothing to compare. Returns `exact`
    and `within_one`: shares of pairs of repeats that give the same mark, or at most one apart; `alpha`:
    Krippendorff's alpha with squared differences (Krippendorff 2004, chapter 11): 1 is agreement, 0 is chance, None
    also where all marks are the same."""
    repeated = [np.asarray(row, float) for row in marks if len(row) > 1]
    if not repeated:
        return {"exact": None, "within_one": None, "alpha": None}
    apart = np.array([abs(a - b) for row in repeated for a, b in itertools.combinations(row, 2)])
    values = np.concatenate(repeated)
    # Mean squared differences within the answers and over all marks: twice a variance with n - 1 below.
    within = sum(2 * row.var(ddof=1) * len(row) for row in repeated) / len(values)
    overall = 2 * values.var(ddof=1)
    alpha = float(1 - within / overall) if overall else None
    return {"exact": float((apart == 0).mean()), "within_one": float((apart <= 1).mean()), "alpha": alpha}
