"""Cards for the Hub, filled with what was measured and with nothing else.

A section appears only when something was passed for it, so a card cannot claim what nobody measured. What a folder
says of itself is gathered by `card_facts`.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import (
    DatasetCard,
    DatasetCardData,
    EvalResult,
    ModelCard,
    ModelCardData,
    SpaceCard,
    SpaceCardData,
)

from ..processing.files.atomic_write import atomic_write

logger = logging.getLogger(__name__)
_FOLDER = Path(__file__).parent
LOSS_PLOT = "loss.png"
_TAGS = ["solami", "smpl-x", "human-motion"]
# Kind -> tags, library, and the task that results are listed under.
_MODEL_KINDS = {
    "model": (["speech", "multimodal", *_TAGS], "transformers", "any-to-any"),
    "motion_codec": (["motion-tokenizer", "vq-vae", *_TAGS], "transformers", "feature-extraction"),
    "speech_codec": (["speech-tokenizer", "speech-codec", "solami"], "transformers", "audio-to-audio"),
    "acoustic_model": (["soundstorm", "text-to-speech", "solami"], "transformers", "audio-to-audio"),
    "motion_filler": (["soundstorm", "motion-tokenizer", *_TAGS], "transformers", "feature-extraction"),
    "talker": (["text-to-speech", "solami"], "transformers", "text-to-speech"),
    "lips": (["lip-sync", "visemes", "solami"], "transformers", "audio-classification"),
    "evaluator": (["text-to-motion", "evaluation", *_TAGS], "transformers", "feature-extraction"),
    "adapter": (["speech", "multimodal", "lora", *_TAGS], "peft", "any-to-any"),
}
# Shares of answers that can be played: what is missing to 1 has failed.
_VALIDITY = ("valid", "answer_validity")
_EVALUATION = "Evaluation"


@dataclass(frozen=True)
class _Table:
    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    note: str = ""


def _shown(value: Any) -> str:
    if isinstance(value, Real) and not isinstance(value, bool | int):
        return f"{value:.4g}"
    # A pipe or a line break would end the table's cell.
    return " ".join(str(value).replace("|", "\\|").split())


def _rows(table: Mapping[str, Any] | None, name: str) -> list[tuple[str, str]]:
    if table is not None and not isinstance(table, Mapping):
        raise ValueError(f"`{name}` is a {type(table).__name__}, expected a dict of name to value")
    return [(_shown(key), _shown(value)) for key, value in (table or {}).items()]


def _check_id(identifier: str, name: str) -> None:
    if not isinstance(identifier, str) or not identifier.strip():
        raise ValueError(f"`{name}` is {identifier!r}, expected a Hub id such as 'org/solami' or a folder's name")


def model_card(
    model_id: str,
    *,
    kind: str = "model",
    description: str = "",
    modalities: Sequence[Sequence[Any]] = (),
    facts: Mapping[str, Any] | None = None,
    codecs: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    plot: str = "",
    results: Mapping[str, float] | None = None,
    evaluated_on: str = "",
    eval_results: Sequence[EvalResult] = (),
    limits: Sequence[str] = (),
    license: str | None = None,
    inherited: Mapping[str, str] | None = None,
    language: str = "en",
    base_model: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """The README.md of a model folder: Markdown with a YAML head.

    Args:
        model_id: Hub id or name of the folder, used in the example code.
        kind: "model", "motion_codec", "speech_codec", "acoustic_model", "motion_filler", "talker", "lips",
            "evaluator" or "adapter".
        description: a paragraph on what is special here.
        modalities: rows of what it reads and writes: direction, what, format, codes a second, number of codes.
        facts: name to value, what the model is (parameters, codebook sizes, ...).
        codecs: codec to id, revision and fingerprint.
        data: name to value, what it was trained on.
        training: name to value, how it was trained (steps, seconds, hardware, ...).
        plot: name of an image of the loss beside the card, see `write_loss_plot`.
        results: metric name to measured number; also written as machine-readable results when `evaluated_on` is given.
        evaluated_on: the data that `results` were measured on.
        eval_results: measured results that name their own data, as `solami evaluate` gives them.
        limits: sentences.
        license: an id of the Hub.
        inherited: what it was made of (base model, data, codecs, voices) to the licence that comes with it.
        language, base_model, datasets: the Hub's metadata.

    Raises ValueError: an empty id, an unknown kind, a table that is no dict, or a result that is no number.
    """
    _check_id(model_id, "model_id")
    if kind not in _MODEL_KINDS:
        raise ValueError(f"`kind` is {kind!r}, expected one of: {', '.join(_MODEL_KINDS)}")
    tags, library, task = _MODEL_KINDS[kind]
    title = model_id.rsplit("/", 1)[-1]
    measured = [_apart(result) for result in [*_measured(results or {}, evaluated_on, task), *eval_results]]
    head = ModelCardData(
        language=language,
        license=license,
        library_name=library,
        tags=tags,
        base_model=base_model,
        datasets=list(datasets) or None,
        **({"base_model_relation": "adapter"} if kind == "adapter" and base_model else {}),
        **({"eval_results": measured, "model_name": title} if measured else {}),
    )
    formats = ("", "what", "format", "codes a second", "codes")
    tables = [
        _Table("What it reads and writes", formats, [[_shown(value) for value in row] for row in modalities]),
        _Table("What it is", ("", ""), _rows(facts, "facts")),
        _Table("Codecs", ("", ""), _rows(codecs, "codecs"), "Codes mean something only to the codecs that made them."),
        _Table("Training data", ("", ""), _rows(data, "data")),
        _Table("Training", ("", ""), _rows(training, "training")),
        _evaluation(eval_results),
        _Table("Measured", ("metric", "value"), _rows(results, "results")),
    ]
    card = ModelCard.from_template(
        head,
        template_str=_template(f"{kind}_card.md") + _template("card_sections.md"),
        title=title,
        model_id=model_id,
        base_model=base_model,
        description=description.strip(),
        tables=[table for table in tables if table.rows],
        plot=plot,
        evaluated_on=evaluated_on if results else "",
        limits=[_shown(limit) for limit in limits],
        license=license,
        inherited=_rows(inherited, "inherited"),
    )
    return str(card)


def _template(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _measured(results: Mapping[str, float], evaluated_on: str, task: str) -> list[EvalResult]:
    """The machine-readable results of a card's head; none where it is not known what they were measured on."""
    for name, value in results.items():
        if not isinstance(value, Real) or value != value:
            raise ValueError(f"`results` holds {value!r} for {name!r}, expected a measured number")
    if not evaluated_on:
        return []
    return [
        EvalResult(task, "custom", dataset_name=evaluated_on, metric_type=name, metric_value=float(value))
        for name, value in results.items()
    ]


def _apart(result: EvalResult) -> EvalResult:
    """The result under a type of its own: huggingface_hub gives all of one type the name of the first data set."""
    if result.dataset_type != "custom":
        return result
    slug = re.sub(r"[^a-z0-9]+", "-", result.dataset_name.lower()).strip("-")
    return replace(result, dataset_type=slug or "custom")


def _evaluation(eval_results: Sequence[EvalResult]) -> _Table:
    rows = []
    for result in eval_results:
        settings = ", ".join(f"{key} {_shown(value)}" for key, value in (result.metric_args or {}).items())
        task = f"{result.task_name}, " if result.task_name else ""
        split = f", {result.dataset_split}" if result.dataset_split else ""
        name, value = result.metric_name or result.metric_type, result.metric_value
        rows.append([*map(_shown, (name, value, f"{task}{result.dataset_name}{split}")), settings])
        if result.metric_type in _VALIDITY and isinstance(value, Real):
            rows.append(["Failed answers", f"{1 - value:.1%}", rows[-1][2], ""])
    return _Table(_EVALUATION, ("metric", "value", "on", "settings"), rows)


def with_results(card: str, eval_results: Sequence[EvalResult]) -> str:
    """A model card with these results in its head and as its table of them, in place of those that it had. ValueError
    where the card's head is no YAML."""
    known = ModelCard(card)
    known.data.eval_results = [_apart(result) for result in eval_results]
    title = re.search(r"^# (.+)$", known.text, re.MULTILINE)
    known.data.model_name = known.data.model_name or (title[1] if title else "model")
    section = jinja2.Template(_template("card_sections.md")).render(tables=[_evaluation(eval_results)])
    before, _, after = known.text.partition(f"\n## {_EVALUATION}\n")
    if after:
        after = "".join(re.findall(r"\n## .*", after, re.DOTALL)[:1])
    else:
        before, after = re.fullmatch(r"(.*?)(\n## (?:Limits|Licence)\n.*|)", known.text, re.DOTALL).groups()
    known.text = f"{before.rstrip()}\n\n{section.strip()}\n{after}"
    return str(known)


def dataset_card(
    dataset_id: str,
    *,
    description: str = "",
    configs: Mapping[str, Mapping[str, str]] | None = None,
    codecs: Mapping[str, str] | None = None,
    splits: Mapping[str, int] | None = None,
    columns: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
    license: str | None = None,
    language: str = "en",
) -> str:
    """The README.md of a token dataset folder: Markdown with a YAML head.

    `dataset_id` is its Hub id or name, `description` a paragraph on what is in it. `configs` are configuration to
    {split: file pattern}, e.g. `{"motion": {"train": "motion/train-*.parquet"}}`, written to the head, so that
    `load_dataset(folder, "motion")` finds the files. `codecs`: codec to id and revision; `splits`: split (or
    "config/split") to number of rows; `columns`: column to what it holds; `sources`: where the material comes from,
    with licences; `license`, `language`: the Hub's metadata. Raises ValueError: an empty id or a table that is no
    dict.
    """
    _check_id(dataset_id, "dataset_id")
    title = dataset_id.rsplit("/", 1)[-1]
    found = {}
    if configs:
        found["configs"] = [
            {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in files.items()]}
            for name, files in configs.items()
        ]
    card = DatasetCard.from_template(
        DatasetCardData(language=language, license=license, pretty_name=title, tags=_TAGS, **found),
        template_str=_template("dataset_card.md"),
        title=title,
        description=description.strip(),
        codecs=_rows(codecs, "codecs"),
        splits=_rows(splits, "splits"),
        columns=_rows(columns, "columns"),
        sources=[_shown(source) for source in sources],
    )
    return str(card)


def metric_card(
    metric_id: str,
    *,
    description: str,
    parts: Mapping[str, str],
    call: str = "predictions=predictions, references=references",
    emoji: str = "📏",
) -> str:
    """The README.md of a metric's folder, with the YAML head of the Gradio Space that `evaluate.load` reads.
    `metric_id` is its Hub id or name; `description` one sentence on what it measures, also the Space's; `parts` are
    heading to Markdown: inputs, output (range, which way is better), published values, limits; `call` the arguments of
    the example; `emoji` is shown on the Space. Raises ValueError: an empty id or description, or `parts` that is no
    dict."""
    _check_id(metric_id, "metric_id")
    if not description.strip():
        raise ValueError("`description` is empty, expected a sentence on what the metric measures")
    if not isinstance(parts, Mapping):
        raise ValueError(f"`parts` is a {type(parts).__name__}, expected a dict of heading to Markdown")
    title = metric_id.rsplit("/", 1)[-1].replace("_", " ").capitalize()
    data = SpaceCardData(
        title=title, sdk="gradio", app_file="app.py", tags=["evaluate", "metric"], emoji=emoji, colorFrom="indigo",
        colorTo="yellow", pinned=False, description=description.strip(),
    )  # fmt: skip
    card = SpaceCard.from_template(
        data,
        template_str=_template("metric_card.md"),
        title=title,
        model_id=metric_id,
        description=description.strip(),
        call=call,
        parts=[(heading, text.strip()) for heading, text in parts.items()],
    )
    return str(card)


def write_loss_plot(folder: str | Path, log: Sequence[dict]) -> str:
    """Writes `folder/loss.png` from Trainer's log, and returns its name; "" without a loss or without matplotlib.
    Held-out losses are those whose names begin with `eval_` and end with `loss`."""
    series = {}
    for row in log:
        for name, value in row.items():
            if (name == "loss" or _held_out(name)) and "step" in row and math.isfinite(value):
                series.setdefault(name, []).append((row["step"], value))
    if not series:
        return ""
    if find_spec("matplotlib") is None:
        logger.info("the card has no loss curves: pip install 'solami_hf[plots]' brings what draws them")
        return ""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), dpi=100, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.subplots()
    for name, points in series.items():
        label = name.replace("eval_", "held-out ").replace("_", " ")
        axes.plot(*zip(*points, strict=True), label=label, marker="o" if _held_out(name) else None, markersize=3)
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(Path(folder) / LOSS_PLOT) as temporary:
        figure.savefig(temporary, format="png")
    return LOSS_PLOT


def _held_out(name: str) -> bool:
    return name.startswith("eval_") and name.endswith("loss")
