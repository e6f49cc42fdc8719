"""Asking a writing model until its answer can be used, for many questions at once."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from .writers import Answer, EndpointError

_TOLD_BACK = 8000  # characters of a wrong answer that the model is shown again


class UnusableAnswer(ValueError):
    """An answer that breaks a rule; the message is told to the model."""


@dataclass
class Asked:
    """Result of a question: a value, or the reason why there is none. `answers` are all answers of the model."""

    value: Any = None
    reason: str | None = None
    answers: list[Answer] = field(default_factory=list)


def ask_until_usable(
    messages: list[dict], complete: Callable, parse: Callable, schema: dict, seed: int, attempts: int, complain
) -> Asked:
    """Asks until an answer is usable, telling the model each time by `complain` what was wrong. `complete(messages,
    seed, schema)` gives a `writers.Answer`, whose text `parse` reads (or raises `UnusableAnswer`); `schema`
    constrains it on servers that can. Each of the `attempts` takes the next seed."""
    asked, dialogue = Asked(), messages
    for attempt in range(attempts):
        answer = complete(dialogue, (seed + attempt) % 2**31, schema)
        asked.answers.append(answer)
        try:
            if answer.finish == "length":
                raise UnusableAnswer("it was cut off because it was too long; write less")
            asked.value, asked.reason = parse(answer.text), None
            return asked
        except UnusableAnswer as error:
            asked.reason = str(error)
            said = {"role": "assistant", "content": answer.text[:_TOLD_BACK] or "{}"}
            dialogue = [*messages, said, {"role": "user", "content": complain(error)}]
    return asked


def first_object(text: str) -> Any:
    """The first JSON object in an answer; thoughts (`</think>`), code fences and other text around it are passed
    over. Raises UnusableAnswer: there is none, or it is broken."""
    text = text.rsplit("</think>", 1)[-1]
    start = text.find("{")
    if start < 0:
        raise UnusableAnswer("it holds no JSON object" if text.strip() else "it is empty; expected a JSON object")
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UnusableAnswer(f"it is not valid JSON: {error.msg} at {place}") from None
    except (RecursionError, ValueError) as error:  # nested without end, numbers of thousands of digits
        raise UnusableAnswer(f"it is not valid JSON: {type(error).__name__}") from None


def ask_in_parallel(
    questions: list, ask: Callable, stop: Callable, concurrency: int, desc: str, unit: str
) -> list[Any | EndpointError]:
    """`ask` of each question, in threads; results in the order of the questions, an `EndpointError` where one failed.
    When the questions that are left are given up, `stop` is called, so that nobody waits for another try. Raises
    OSError: the endpoint refuses everything, or failed for more questions in a row than can be chance."""
    results: list = [None] * len(questions)
    failed_in_row = 0
    executor = ThreadPoolExecutor(concurrency)
    try:
        futures = {executor.submit(ask, question): i for i, question in enumerate(questions)}
        for future in tqdm(as_completed(futures), total=len(questions), desc=desc, unit=unit, disable=None):
            try:
                results[futures[future]], failed_in_row = future.result(), 0
            except EndpointError as error:
                results[futures[future]] = error
                failed_in_row += 1
                if failed_in_row >= concurrency + 3:
                    raise OSError(
                        f"the endpoint failed for {failed_in_row} {unit}s one after another, lastly: {error}; "
                        "its answers so far are kept, run the command again"
                    ) from error
    except BaseException:
        stop()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    return results
