"""Cards for the Hub, filled with what was measured and with nothing else.

A section appears only when something was passed for it, so a card cannot claim what nobody measured.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

_FOLDER = Path(__file__).parent
_TAGS = ["solami", "smpl-x", "human-motion"]
_MODEL_KINDS = {
    "model": ("model_card.md", ["speech", "multimodal", *_TAGS]),
    "motion_codec": ("motion_codec_card.md", ["motion-tokenizer", "vq-vae", *_TAGS]),
}


def _shown(value: Any) -> str:
    if isinstance(value, Real) and not isinstance(value, bool | int):
        return f"{value:.4g}"
    # A pipe or a line break would end the table's cell.
    return " ".join(str(value).replace("|", "\\|").split())


def _rows(table: Mapping[str, Any] | None, name: str) -> list[tuple[str, str]]:
    if table is not None and not isinstance(table, Mapping):
        raise ValueError(f"`{name}` is a {type(table).__name__}, expected a dict of name to value")
    return [(_shown(key), _shown(value)) for key, value in (table or {}).items()]


def _check_id(identifier: str, name: str) -> str:
    if not isinstance(identifier, str) or not identifier.strip():
        raise ValueError(f"`{name}` is {identifier!r}, expected a Hub id such as 'org/solami' or a folder's name")
    return identifier


def model_card(
    model_id: str,
    *,
    kind: str = "model",
    description: str = "",
    facts: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    results: Mapping[str, float] | None = None,
    evaluated_on: str = "",
    limits: Sequence[str] = (),
    license: str | None = None,
    language: str = "en",
    base_model: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """The README.md of a model folder.

    Args:
        model_id: Hub id or name of the folder, used in the example code.
        kind: "model" or "motion_codec".
        description: a paragraph on what is special here.
        facts: name to value, what the model is (parameters, codebook sizes, ...).
        training: name to value, how it was trained (steps, seconds, hardware, ...).
        results: metric name to measured number; also written as machine-readable results when `evaluated_on` is given.
        evaluated_on: the data that `results` were measured on.
        limits: sentences.
        license, language, base_model, datasets: the Hub's metadata.

    Returns:
        Markdown with a YAML head.

    Raises:
        ValueError: for an empty id, an unknown kind, a table that is no dict, or a result that is no number.
    """
    _check_id(model_id, "model_id")
    if kind not in _MODEL_KINDS:
        raise ValueError(f"`kind` is {kind!r}, expected one of: {', '.join(_MODEL_KINDS)}")
    template, tags = _MODEL_KINDS[kind]
    title = model_id.rsplit("/", 1)[-1]
    measured = _measured(results or {}, evaluated_on, title, kind)
    data = ModelCardData(
        language=language,
        license=license,
        library_name="transformers",
        tags=tags,
        base_model=base_model,
        datasets=list(datasets) or None,
        **measured,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_FOLDER / template),
        title=title,
        model_id=model_id,
        description=description.strip(),
        facts=_rows(facts, "facts"),
        training=_rows(training, "training"),
        results=_rows(results, "results"),
        evaluated_on=evaluated_on,
        limits=[_shown(limit) for limit in limits],
    )
    return str(card)


def _measured(results: Mapping[str, float], evaluated_on: str, title: str, kind: str) -> dict[str, Any]:
    """The machine-readable results of a card's head; nothing where it is not known what they were measured on."""
    for name, value in results.items():
        if not isinstance(value, Real) or value != value:
            raise ValueError(f"`results` holds {value!r} for {name!r}, expected a measured number")
    if not (results and evaluated_on):
        return {}
    task = "text-generation" if kind == "model" else "feature-extraction"
    measured = [
        EvalResult(task, "custom", dataset_name=evaluated_on, metric_type=name, metric_value=float(value))
        for name, value in results.items()
    ]
    return {"eval_results": measured, "model_name": title}


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
    """The README.md of a token dataset folder.

    Args:
        dataset_id: Hub id or name of the folder.
        description: a paragraph on what is in it.
        configs: configuration to {split: file pattern}, e.g. `{"motion": {"train": "motion/train-*.parquet"}}`;
            written to the head, so that `load_dataset(folder, "motion")` finds the files.
        codecs: codec to id and revision.
        splits: split (or "config/split") to number of rows.
        columns: column to what it holds.
        sources: where the material comes from, with licences.
        license, language: the Hub's metadata.

    Returns:
        Markdown with a YAML head.

    Raises:
        ValueError: for an empty id or a table that is no dict.
    """
    _check_id(dataset_id, "dataset_id")
    title = dataset_id.rsplit("/", 1)[-1]
    found = {}
    if configs:
        found["configs"] = [
            {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in files.items()]}
            for name, files in configs.items()
        ]
    data = DatasetCardData(language=language, license=license, pretty_name=title, tags=_TAGS, **found)
    card = DatasetCard.from_template(
        data,
        template_path=str(_FOLDER / "dataset_card.md"),
        title=title,
        description=description.strip(),
        codecs=_rows(codecs, "codecs"),
        splits=_rows(splits, "splits"),
        columns=_rows(columns, "columns"),
        sources=[_shown(source) for source in sources],
    )
    return str(card)
