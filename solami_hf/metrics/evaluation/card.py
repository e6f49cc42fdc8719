"""An evaluation as `EvalResult`s, and these in a model card's head."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index

from ...hub_cards.cards import with_results
from ...processing.files.atomic_write import atomic_write
from .tables import TASKS, explained


def eval_results(evaluation: dict) -> list[EvalResult]:
    """Figures of the answers, their latency and the controls' scores, for `ModelCardData(eval_results=...)`."""
    run, found = evaluation["run"], {**evaluation["views"]["answers"], **evaluation["latency"]}
    names = {name: explained()[name]["name"] for name in found}
    for score, row in evaluation.get("controls", {}).items():
        if "right_line" in row:
            found[f"{score}_score"], names[f"{score}_score"] = row["right_line"], f"{score.capitalize()} score"
    data = Path(str(run.get("input") or run["folder"])).name
    return [
        EvalResult(
            task_type="text-generation",
            task_name=TASKS[evaluation["task"]],
            dataset_type="custom",
            dataset_config=evaluation["task"],  # the Hub takes results of one configuration for one task
            dataset_name=data,
            dataset_split=run.get("split"),
            metric_type=name,
            metric_name=names[name],
            metric_value=summary["mean"],
            metric_args={key: summary[key] for key in ("std", "low", "high", "count") if summary[key] is not None},
        )
        for name, summary in found.items()
        if summary["mean"] == summary["mean"]
    ]


def model_index(model: str, measured: list[EvalResult]) -> list[dict]:
    """The `model-index` of a model card."""
    return eval_results_to_model_index(model, measured)


def update_card(folder: str | Path, measured: list[EvalResult]) -> None:
    """Writes the figures into head and table of `folder/README.md`; those of other tasks or data stay as they are.

    Raises:
        FileNotFoundError: there is no card.
    """
    path = Path(folder) / "README.md"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `card` expects a model folder with its README.md")
    card = ModelCard.load(path)
    new = {_place(result) for result in measured}
    kept = [result for result in card.data.eval_results or [] if _place(result) not in new]
    with atomic_write(path) as temporary:
        temporary.write_text(with_results(str(card), kept + measured), encoding="utf-8")


def _place(result: EvalResult) -> tuple:
    return result.dataset_config, result.dataset_name, result.metric_type
