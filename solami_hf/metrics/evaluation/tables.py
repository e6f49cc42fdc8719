"""Evaluations as tables in the paper's layout, in Markdown and HTML."""

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCard

from ...hub_cards.cards import with_results
from ...processing.files.folder_or_hub import hub_id
from ...processing.files.text_files import write_text
from .media import VIEWS

FIGURES: dict[str, dict] = yaml.safe_load(Path(__file__).with_name("figures.yaml").read_text(encoding="utf-8"))
"""Every figure by name, in order: `name`, `better`, `meaning`, `scale`."""
PAPER = ("fid", "diversity", "pa_mpjpe", "rotation_error", "similarity", "relevance", "consistency", "total")
"""The columns of the paper's table; the others follow in a second one."""
TASKS = {
    "chat": "Conversation",
    "t2m": "Text to motion",
    "m2t": "Motion to text",
    "m2m": "Motion to motion",
    "t2s": "Text to speech",
    "s2t": "Speech to text",
    "s2s": "Speech to speech",
}
CONDITIONS = {
    "given": "as given: the references' history",
    "own_history": "the model's own answers as history",
    "no_history": "without history",
    "other_audio": "another user's sound",
    "other_motion": "another user's motion",
}
ENOUGH_MOTIONS = 1000
_CELLS = "Cells: mean ± standard deviation over repetitions (95 % bootstrap interval over items)."
_ARROWS = {"higher": " ↑", "lower": " ↓"}


@dataclass
class Table:
    """Rows of cells under headings."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]  # the first cell and the others
    notes: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)  # explains the columns
    own: int = 1  # rows that are models; the others are there to compare with


def tables_of(evaluation: dict) -> list[Table]:
    """The tables of one evaluation (`run.evaluate_results`)."""
    model, views = evaluation["model"], evaluation["views"]
    rows = {model if view == "answers" else view: row for view, row in views.items()}
    rows[model] = {**views["answers"], **evaluation["latency"]}
    tables = _paper_first(f"{TASKS[evaluation['task']]}: {model}", rows)
    tables[0].notes += _notes(evaluation)
    tables[-1].notes += _view_notes(views)
    return tables + _control_tables(evaluation)


def side_by_side(evaluations: list[dict]) -> list[Table]:
    """Tables of the tasks that several models have answered: a row a model, then the first one's sanity rows."""
    tables = []
    for task in dict.fromkeys(evaluation["task"] for evaluation in evaluations):
        models = [evaluation for evaluation in evaluations if evaluation["task"] == task]
        if len(models) < 2:
            continue
        rows = {}
        for one in models:
            scores = {f"{score}_score": row.get("right_line") for score, row in one.get("controls", {}).items()}
            scores = {name: summary for name, summary in scores.items() if summary}
            rows[one["model"]] = {**one["views"]["answers"], **one["latency"], **scores}
        views = models[0]["views"]
        of_references = {view: views[view] for view in ("halves", "jittered") if view in views}
        found = _paper_first(f"{TASKS[task]}: {len(models)} models", {**rows, **of_references}, len(models))
        found[0].notes += [f"{one['model']}: {_counted(one['counts'])}" for one in models] + [_CELLS]
        found[-1].notes += _view_notes(of_references)
        tables += found
    return tables


def _paper_first(title: str, rows: dict[str, dict], own: int = 1) -> list[Table]:
    """The paper's columns, then all others, of rows of summaries."""
    names = [name for name in FIGURES if any(name in row for row in rows.values())]
    paper = [name for name in names if name in PAPER]
    further = [name for name in names if name not in PAPER]
    if len(paper) < 3:  # a task that the paper has no table for
        paper, further = names, []
    tables = [_matrix(heading, some, rows) for heading, some in ((title, paper), ("Further figures", further)) if some]
    for table in tables:
        table.own = own
    return tables


def _view_notes(views) -> list[str]:
    return [f"{view}: {meaning}." for view, meaning in VIEWS.items() if view in views and view != "answers"]


def _matrix(title: str, names: list[str], rows: dict[str, dict]) -> Table:
    figures = [FIGURES[name] for name in names]
    columns = [figure["name"] + _ARROWS.get(figure["better"], "") for figure in figures]
    scales = {name: FIGURES[name].get("scale", 1) for name in names}
    cells = [(label, [_cell(row.get(name), scales[name]) for name in names]) for label, row in rows.items()]
    legend = [(column, figure["meaning"]) for column, figure in zip(columns, figures, strict=True)]
    return Table(title, columns, cells, legend=legend)


def _control_tables(evaluation: dict) -> list[Table]:
    conditions = evaluation.get("conditions") or {}
    if len(conditions) < 2:
        return []
    names = [name for name in FIGURES if any(name in row for row in conditions.values())]
    tables = [_matrix("Controls", names, {CONDITIONS.get(name, name): row for name, row in conditions.items()})]
    scores = evaluation["controls"]
    if scores:
        right = [name for name in ("right_line", "nearest_line") if any(name in row for row in scores.values())]
        table = _matrix("Listening and watching", right, {f"{name} score": row for name, row in scores.items()})
        table.notes.append(
            "Points: right answers minus right answers to another user's sound (listening) or motion (watching), over "
            "the same rounds. 0 means that the model has not listened, or not watched."
        )
        table.legend = []
        tables.append(table)
    return tables


def _notes(evaluation: dict) -> list[str]:
    notes = [f"{_counted(evaluation['counts'])} {_CELLS}"]
    fid, repetitions = evaluation["views"]["answers"].get("fid"), evaluation["counts"]["repetitions"]
    if fid and fid["count"] < ENOUGH_MOTIONS * repetitions:
        notes.append(
            f"The FID stands on {fid['count'] / repetitions:.0f} motions a repetition. Under "
            f"about {ENOUGH_MOTIONS} it depends much on their number: look at the rows below it, not at other papers'."
        )
    if evaluation["latency"] and evaluation["batch_size"] > 1:
        notes.append(
            f"Times are those of batches of up to {evaluation['batch_size']} answers; a live turn's need "
            "`solami generate --batch_size 1`."
        )
    if "judge" in evaluation:
        notes.append(_judge_note(evaluation["judge"]))
    notes += [
        f"Not judged: {what} ({how} times)." if isinstance(how, int) else f"Left out: {what}, as {how}."
        for what, how in evaluation["left_out"].items()
    ]
    return notes


def _counted(counts: dict) -> str:
    return (
        f"{counts['answers']} answers to {counts['items']} items in {counts['repetitions']} repetition(s); "
        f"{counts['failed']} failed ({100 * counts['failure_rate']:.1f} %), {counts['unusable_inputs']} of them for "
        "their input."
    )


def _judge_note(judge: dict) -> str:
    model = judge["judge"].get("model") if isinstance(judge["judge"], dict) else judge["judge"]
    agreed = judge["agreement"].get("answers", {}).get("relevance", {})
    text = (
        f"Judge: {model}, {judge['repeats']} marks an answer, {judge['requests']} requests ({judge['from_cache']} "
        f"from the cache), {judge['prompt_tokens']} + {judge['completion_tokens']} tokens, "
        f"{judge['failed_marks']} marks failed"
    )
    if judge.get("cost") is not None:
        text += f", cost {judge['cost']:.4g} ({judge['paid']:.4g} in this run)"
    if agreed.get("exact") is not None:
        alpha = "" if agreed["alpha"] is None else f", alpha {agreed['alpha']:.2f}"
        text += f"; repeats agree on relevance in {100 * agreed['exact']:.0f} % of pairs{alpha}"
    return text + "."


def _cell(summary: dict | None, scale: float = 1) -> str:
    if summary is None or summary["mean"] != summary["mean"]:
        return ""
    text = _number(summary["mean"] * scale)
    if summary["std"] is not None:
        text += f" ± {_number(summary['std'] * scale)}"
    if summary["low"] is not None:
        text += f" ({_number(summary['low'] * scale)} to {_number(summary['high'] * scale)})"
    return text


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def as_markdown(tables: list[Table]) -> str:
    """The tables, one under the other."""
    sections = []
    for table in tables:
        lines = [f"## {table.title}", "", *(f"{note}\n" for note in table.notes)]
        lines += [f"| | {' | '.join(table.columns)} |", "|---" * (len(table.columns) + 1) + "|"]
        rows = [(" ".join(label.replace("|", "\\|").split()), cells) for label, cells in table.rows]
        lines += [f"| {label} | {' | '.join(cells)} |" for label, cells in rows]
        lines += ["", *(f"- {name}: {meaning}" for name, meaning in table.legend)]
        sections.append("\n".join(lines).rstrip() + "\n")
    return "\n".join(sections)


def as_html(title: str, tables: list[Table]) -> str:
    """A page of its own, in the dress of the report page."""
    style = resources.files("solami_hf.report").joinpath("style.css").read_text(encoding="utf-8")
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(page)
    return template.render(title=title, style=style, tables=tables)


def eval_results(evaluation: dict) -> list[EvalResult]:
    """Figures of the answers, their latency and the controls' scores, for `ModelCardData(eval_results=...)`."""
    run, found = evaluation["run"], {**evaluation["views"]["answers"], **evaluation["latency"]}
    names = {name: FIGURES[name]["name"] for name in found}
    for score, row in evaluation.get("controls", {}).items():
        if "right_line" in row:
            found[f"{score}_score"], names[f"{score}_score"] = row["right_line"], f"{score.capitalize()} score"
    data = Path(str(run.get("input") or run["folder"])).name
    return [
        EvalResult(
            task_type="text-generation",
            task_name=TASKS[evaluation["task"]],
            dataset_type=hub_id(str(run.get("input") or "")) or "custom",
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


def update_card(folder: str | Path, measured: list[EvalResult]) -> None:
    """Writes the figures into head and table of `folder/README.md`; those of other tasks or data stay as they are.
    Raises FileNotFoundError: there is no card."""
    path = Path(folder) / "README.md"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `card` expects a model folder with its README.md")
    card = ModelCard.load(path)
    new = {_place(result) for result in measured}
    kept = [result for result in card.data.eval_results or [] if _place(result) not in new]
    write_text(path, with_results(str(card), kept + measured))


def _place(result: EvalResult) -> tuple:
    return result.dataset_config, result.dataset_name, result.metric_type
