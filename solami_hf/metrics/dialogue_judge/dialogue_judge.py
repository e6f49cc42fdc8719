"""Marks of a judging language model for a character's answers: relevance and consistency."""

import dataclasses

import datasets
import numpy as np
from solami_hf.metrics.judging import SCORES, JudgeSettings, Question, agreement, judge_answers, open_judge, usage
from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import counts

TEXT = datasets.Value("string")

INPUTS = """\
predictions: list of what the character said; None where there is no answer.
references: list of answers that were hoped for; needed with `with_reference=True` only.
contexts: list of the conversations before each answer: messages {"role": ..., "content": text} of the roles system
    (the character's instruction), user and assistant.
with_reference: True shows the judge the reference beside the answer.
repeats, seed: how often each answer is marked, with a new seed each time.
judge: an object with `complete(messages, seed, schema)` and `close()`; or the fields of
    `metrics.judging.JudgeSettings`: base_url, model, local_model, cache, temperature, input_price, output_price, ...
"""


class DialogueJudge(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate
    >>> from solami_hf.metrics import folder_of
    >>> from solami_hf.processing.synthesize.writers import Answer
    >>> class KindJudge:  # in place of a server
    ...     def complete(self, messages, seed, schema):
    ...         return Answer('{"reason": "It greets back.", "relevance": 5, "consistency": 4}', prompt_tokens=300)
    ...
    ...     def close(self):
    ...         pass
    >>> judge = evaluate.load(folder_of("dialogue_judge"))
    >>> context = [{"role": "system", "content": "You are a captain."}, {"role": "user", "content": "Hello!"}]
    >>> result = judge.compute(predictions=["Welcome aboard!"], contexts=[context], judge=KindJudge(), repeats=2)
    >>> {name: result[name] for name in ("relevance", "consistency", "judged", "requests", "prompt_tokens")}
    {'relevance': 5.0, 'consistency': 4.0, 'judged': 1.0, 'requests': 2, 'prompt_tokens': 600}
    """

    description = "Relevance and consistency of answers, 1 to 5, marked by a language model. Higher is better."
    inputs = INPUTS
    columns = {"predictions": TEXT, "references": TEXT, "contexts": datasets.List({"role": TEXT, "content": TEXT})}

    def compute(self, *, predictions=None, references=None, **options):
        """Compute the metric; see the card. Without `references`, none is shown to the judge."""
        if predictions is not None and references is None:
            references = [None] * len(predictions)
        return super().compute(predictions=predictions, references=references, **options)

    def _compute(
        self,
        predictions,
        references,
        contexts=None,
        with_reference=False,
        repeats=3,
        seed=0,
        judge=None,
        mode="corrected",
        **settings,
    ):
        if mode != "corrected":
            raise ValueError(f"`mode` is {mode!r}, expected 'corrected'; the original's prompt is not reproduced")
        settings = _settings(settings)
        asked = _questions(predictions, references, contexts, with_reference)
        opened = open_judge(settings) if judge is None else judge
        verdicts = judge_answers(opened, list(asked.values()), repeats, settings.attempts, settings.concurrency, seed)
        judged = sum(bool(verdict.marks) for verdict in verdicts)
        if not judged:
            raise ValueError(f"the judge gave no usable mark at all; the first reason: {verdicts[0].failures[0]}")
        given = {i: verdict.marks for i, verdict in zip(asked, verdicts, strict=True)}
        of_all = [given.get(i, []) for i in range(len(predictions))]
        marks = {name: [[mark[name] for mark in row] for row in of_all] for name in SCORES}
        result = {name: float(np.mean([np.mean(row) for row in marks[name] if row])) for name in SCORES}
        for name in SCORES:
            result |= {f"{name}_marks": marks[name], f"{name}_agreement": agreement(marks[name])}
        failures = [reason for verdict in verdicts for reason in verdict.failures]
        return {
            **result,
            "judged": judged / len(verdicts),
            "failed_marks": len(failures),
            "failures": sorted(set(failures))[:10],
            "repeats": repeats,
            "with_reference": with_reference,
            "judge": getattr(getattr(opened, "writer", opened), "name", type(opened).__name__),
            **usage(verdicts, settings),
            **counts(predictions, mode),
        }


def _settings(options):
    known = {field.name for field in dataclasses.fields(JudgeSettings)}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"unknown options {', '.join(unknown)}; expected some of: {', '.join(sorted(known))}")
    return JudgeSettings(**options)


def _questions(predictions, references, contexts, with_reference):
    """Position to question of the answers that are there."""
    if contexts is None or len(contexts) != len(predictions):
        raise ValueError(
            f"got {len(predictions)} `predictions` and {'no' if contexts is None else len(contexts)} `contexts`, "
            "expected one conversation for each answer"
        )
    questions = {}
    for i, (answer, reference, context) in enumerate(zip(predictions, references, contexts, strict=True)):
        if answer is None:
            continue
        if not isinstance(answer, str):
            raise ValueError(f"`predictions[{i}]` is {type(answer).__name__}, expected what the character said")
        bad = [m for m in context if m.get("role") not in ("system", "user", "assistant") or "content" not in m]
        if bad or not any(m["role"] == "user" for m in context):
            raise ValueError(
                f"`contexts[{i}]` needs a user's message; each has a role (system, user or assistant) and content"
            )
        if with_reference and not (reference or "").strip():
            raise ValueError(f"`references[{i}]` is empty, but with_reference=True shows it to the judge")
        questions[i] = Question(answer, context, reference if with_reference else None)
    if not questions:
        raise ValueError("every item of `predictions` is None, expected at least one answer")
    return questions
