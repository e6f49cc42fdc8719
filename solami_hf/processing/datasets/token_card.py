"""The card of a token dataset folder: where `load_dataset` finds the files, which codecs made the codes, counts.

It is written from the reports that lie beside the files, `<config>/report.json`, so that it says the same whoever
writes it last.
"""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from ..files.atomic_write import atomic_write
from .token_schema import COLUMNS, SCHEMAS


def read_report(folder: Path, config: str) -> dict | None:
    """`folder/<config>/report.json`, None when the config is not there.

    Raises:
        ValueError: the file is no JSON.
    """
    path = Path(folder) / config / "report.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no report of `solami prepare` ({error}); prepare {config} again") from None


def write_card(folder: Path) -> None:
    """Writes `folder/README.md` from the reports of its configs."""
    reports = {config: report for config in SCHEMAS if (report := read_report(folder, config))}
    codecs, sources = {}, {}
    for report in reports.values():
        codecs |= report["codecs"]
        sources |= report.get("codec_sources", {})
    licences = sorted({report["license"] for report in reports.values() if report.get("license")})
    data = DatasetCardData(
        configs=[
            {
                "config_name": config,
                "data_files": [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in report["splits"]],
            }
            for config, report in reports.items()
        ],
        codecs=codecs,
        codec_sources=sources or None,
        license=licences[0] if len(licences) == 1 else (licences or None),
        tags=["solami", "motion", "speech"],
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(f"---\n{data.to_yaml()}\n---\n\n{_text(reports, codecs, sources)}", encoding="utf-8")


def card_data(source: str | Path) -> dict:
    """The header of a card file, or of the card of a Hub repository."""
    if isinstance(source, Path):
        return DatasetCard.load(source).data.to_dict()
    return DatasetCard.load(source, repo_type="dataset").data.to_dict()


def _text(reports: dict, codecs: dict, sources: dict) -> str:
    lines = [
        "# Token sequences for SOLAMI",
        "",
        "Motion and speech as codes, made by `solami prepare`. They mean nothing without the codecs below:",
        "`solami_hf.processing.datasets.token_data.load_tokens(..., processor=...)` refuses any other.",
        "",
        *("| codec | fingerprint | id | revision |", "|---|---|---|---|"),
    ]
    for name, fingerprint in codecs.items():
        origin = sources.get(name, {})
        lines.append(f"| {name} | {fingerprint} | {origin.get('id', '')} | {origin.get('revision', '')} |")
    lines += ["", "| config | split | rows | hours of motion | hours of speech |", "|---|---|---|---|---|"]
    for config, report in reports.items():
        for split, counts in report["splits"].items():
            hours = [f"{counts[name]:.3f}" if name in counts else "" for name in ("motion_hours", "speech_hours")]
            lines.append(f"| {config} | {split} | {counts['rows']} | {hours[0]} | {hours[1]} |")
    lines += ["", *(f"- `{config}`: `id`, `source`, {COLUMNS[config]}" for config in reports), ""]
    lines += [f"- {config}: {_told(report)}" for config, report in reports.items() if "split_by" in report]
    return "\n".join(lines).rstrip() + "\n"


def _told(report: dict) -> str:
    if report["split_by"] == "source":
        shares = f"test {report['test_share']:g}, validation {report['validation_share']:g} of the sources"
        told = f"split by source id ({shares}): no source and no pair of partners is in two splits"
    else:
        told = f"split as the source ({report['layout']}) says"
    return f"{told}; {report['rejected']} rows rejected, {report['orphans']} without their partner"
