"""A card's measured results as `.eval_results/solami.yaml`, where the Hub looks for them beside `model-index`."""

import logging
from collections.abc import Iterator
from numbers import Real
from pathlib import Path

import yaml
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCard,
    eval_result_entries_to_yaml,
    parse_eval_result_entries,
)

from ..processing.files.folder_or_hub import hub_id
from ..processing.files.text_files import write_text
from ..processing.hub_upload import Finding

logger = logging.getLogger(__name__)
FILE = ".eval_results/solami.yaml"
_HEADING = "\n## Evaluation\n"
_LINK = f"\nAlso in [{FILE}]({FILE}), which the Hub lists with the data set.\n"


def write_eval_entries(folder: str | Path, dataset_id: str | None = None) -> list[EvalResultEntry]:
    """Writes the results in the head of `folder/README.md` as entries of the Hub, links them there, and returns them.
    An entry's task is the configuration and the metric, `chat_fid`; its notes say interval, count and split.
    `dataset_id` is that of the data of results that name none; they are left out without it."""
    path = Path(folder) / "README.md"
    card = ModelCard.load(path, ignore_metadata_errors=True) if path.is_file() else None
    results = (card.data.eval_results or []) if card else []
    entries = [_entry(result, found) for result in results if (found := hub_id(result.dataset_type) or dataset_id)]
    if len(entries) < len(results):
        left = len(results) - len(entries)
        logger.info("%d results name no data set of the Hub; --results_dataset OWNER/NAME lists them there", left)
    if entries:
        write_text(Path(folder) / FILE, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))
        if _LINK not in card.text:
            before, heading, after = card.text.partition(_HEADING)
            card.text = f"{before}{heading}{_LINK}{after}" if heading else f"{before.rstrip()}\n{_HEADING}{_LINK}"
            write_text(path, str(card))
    return entries


def _entry(result: EvalResult, dataset_id: str) -> EvalResultEntry:
    given = result.metric_args or {}
    notes = [f"95 % interval {given['low']:.4g} to {given['high']:.4g}"] if {"low", "high"} <= given.keys() else []
    notes += [f"n = {given['count']}"] if "count" in given else []
    notes += [f"split {result.dataset_split}"] if result.dataset_split else []
    return EvalResultEntry(
        dataset_id=dataset_id,
        task_id=_task(result),
        value=result.metric_value,
        dataset_revision=result.dataset_revision,
        source_url=result.source_url,
        source_name=result.source_name if result.source_url else None,
        notes="; ".join(notes) or None,
    )


def _task(result: EvalResult) -> str:
    return "_".join(filter(None, (result.dataset_config, result.metric_type)))


def check_eval_entries(folder: Path) -> Iterator[Finding]:
    """huggingface_hub reads the files of `.eval_results`, and ours holds what the card's head says and links it."""
    for path in sorted(folder.glob(".eval_results/*.yaml")):
        name, remedy = path.relative_to(folder).as_posix(), "`solami push` writes it anew from the card's results"
        try:
            entries = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            yield Finding(name, f"huggingface_hub does not read it ({type(error).__name__}: {error})", remedy)
            continue
        for entry in entries:
            if hub_id(str(entry.dataset_id)) is None:
                yield Finding(name, f"{entry.dataset_id!r} is no data set of the Hub", "name it as OWNER/NAME")
            if not isinstance(entry.value, Real):
                yield Finding(name, f"the value of {entry.task_id} is {entry.value!r}, no number", remedy)
        if name == FILE:
            card = ModelCard.load(folder / "README.md", ignore_metadata_errors=True)
            said = {(_task(result), result.metric_value) for result in card.data.eval_results or []}
            if gone := {(entry.task_id, entry.value) for entry in entries} - said:
                yield Finding(name, f"{min(gone)[0]} is not what the card's head says", remedy)
            if FILE not in card.text:
                yield Finding("README.md", f"does not link {FILE}", remedy)
