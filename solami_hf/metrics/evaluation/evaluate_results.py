"""One results folder to one evaluation: figures of the answers, sanity rows, controls, latency, counts."""

import logging
from collections.abc import Sequence

from ...processing.files.processes import is_first_process
from ..judging import JudgeSettings
from .answer_pairs import PARTS, Pair, Results
from .figures import Figures, latency, multimodality, parts_of
from .intervals import Estimate, difference, summarize
from .judged import Judged
from .media import views_of
from .parts import Parts

logger = logging.getLogger(__name__)


def evaluate_results(
    results: Results,
    parts: Parts,
    seed: int = 0,
    judge: JudgeSettings | None = None,
    judge_repeats: int = 3,
    bert: dict | None = None,
) -> dict | None:
    """Measures a results folder; under `accelerate launch` together with the other processes.

    `parts` keep the values of single media; `seed` is of halves, jitter, shuffling and bootstrap. `judge`, if any,
    marks the answers of a chat `judge_repeats` times each; `bert` is BERTScore's `model_id` and `layer`. Returns
    `{"task", "model", "run", "views": {view: {figure: summary}}, "latency", "conditions", "controls", "judge",
    "counts", "left_out"}`, summaries as from `intervals.summarize`; None in all processes but the first. Raises
    ValueError: the results can't be measured at all; OSError: the judge cannot be reached.
    """
    conditions = {name: results.repetitions(name) for name in results.conditions}
    main = next(iter(conditions))
    views = [views_of(pairs, number, seed) for number, pairs in enumerate(conditions[main])]
    parts.compute(part for view in views for pairs in view.values() for part in parts_of(pairs))
    others = [pair for name, reps in conditions.items() if name != main for pairs in reps for pair in pairs]
    # Controls ask for right answers alone; sound is listened to only where an answer has no words in writing.
    unwritten = [pair for pair in others if pair.text is None and pair.audio]
    parts.compute(part for part in parts_of(unwritten) if part.what == "sound")
    if not is_first_process():
        return None
    lines = sorted({text for pairs in conditions[main] for pair in pairs for text in pair.reference_texts})
    figures = Figures(results.task, parts, parts.measures.compute, lines, bert)
    judged = None
    if judge is not None and results.task == "chat":
        rows = [row for row in results.rows if row["condition"] == main]
        judged = Judged(parts.measures.module("dialogue_judge"), judge, judge_repeats, figures.said, rows)
    found = _figures_by_view(views, figures, judged)
    evaluation = {
        "task": results.task,
        "model": results.name,
        "condition": main,
        "run": {**results.run, "folder": str(results.folder)},
        "views": {view: _summaries(repetitions, seed) for view, repetitions in found.items()},
        "latency": _summaries([latency(pairs, parts) for pairs in conditions[main]], seed),
        "batch_size": max(pair.row["batch_size"] or 1 for pairs in conditions[main] for pair in pairs),
    }
    if "motion" in PARTS[results.task] and len(views) > 1:
        for view, summary in evaluation["views"].items():
            spread = multimodality([repetition[view] for repetition in views], parts)
            if spread.count:
                summary["multimodality"] = summarize([spread], seed)
    if results.task == "chat":
        evaluation["conditions"] = {
            name: _summaries([figures.right(pairs) for pairs in repetitions], seed)
            for name, repetitions in conditions.items()
        }
        evaluation["controls"] = _scores(conditions, figures)
    if judged is not None:
        evaluation["judge"] = {
            "judge": judged.judge, "repeats": judged.repeats, **judged.usage, "agreement": judged.agreement,
        }  # fmt: skip
    return {**evaluation, "counts": _counts(conditions[main]), "left_out": _left_out(figures, parts)}


def _figures_by_view(views: list[dict[str, list[Pair]]], figures: Figures, judged: Judged | None) -> dict[str, list]:
    """The figures of each repetition by view, and a judge's marks beside them."""
    found: dict[str, list[dict[str, Estimate]]] = {}
    for repetition in views:
        for view, pairs in repetition.items():
            if pairs:
                estimates = figures.of(pairs, repetition["answers"]) | (judged.of(pairs, view) if judged else {})
                found.setdefault(view, []).append(estimates)
    return found


def _summaries(repetitions: Sequence[dict[str, Estimate]], seed: int) -> dict[str, dict]:
    """Summaries of the figures that every repetition has."""
    names = [name for name in repetitions[0] if all(name in figures for figures in repetitions)]
    return {name: summarize([figures[name] for figures in repetitions], seed) for name in names}


def _counts(repetitions: Sequence[Sequence[Pair]]) -> dict:
    pairs = [pair for repetition in repetitions for pair in repetition]
    failed = sum(not pair.valid for pair in pairs)
    return {
        "repetitions": len(repetitions),
        "answers": len(pairs),
        "items": len({pair.item for pair in pairs}),
        "failed": failed,
        "unusable_inputs": sum(bool(pair.row["error"]) for pair in pairs),
        "failure_rate": failed / len(pairs),
    }


def _left_out(figures: Figures, parts: Parts) -> dict[str, int | str]:
    """Figures that could not be had, and media that no figure was given for, by reason."""
    reasons: dict[str, int | str] = {what: reason for what, reason in parts.measures.missing.items()}
    for reason in figures.left_out:
        # Media differ in their name; what is wrong with them is what counts.
        reason = reason.split(": ", 1)[-1]
        reasons[reason] = int(reasons.get(reason, 0)) + 1
    return reasons


def _scores(conditions: dict[str, list[list[Pair]]], figures: Figures) -> dict[str, dict]:
    """Listening and watching scores, for each way of telling right answers, as far as there are conditions: right
    answers minus right answers to the same rounds with another user's sound or motion."""
    found: dict[str, dict] = {}
    for score, condition in (("listening", "other_audio"), ("watching", "other_motion")):
        if condition not in conditions or "given" not in conditions:
            continue
        swapped = conditions[condition]
        same = [
            [pair for pair in answers if pair.key in {other.key for other in others}]
            for answers, others in zip(conditions["given"], swapped, strict=False)
        ]
        sides = [[figures.right(pairs) for pairs in side] for side in (same, swapped[: len(same)])]
        for right in ("right_line", "nearest_line"):
            if same and all(right in estimates for side in sides for estimates in side):
                first, second = ([estimates[right] for estimates in side] for side in sides)
                found.setdefault(score, {})[right] = difference(first, second)
    return found
