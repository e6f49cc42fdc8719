"""Token datasets: their columns, how they are written as a `load_dataset`-able folder, and how they are loaded safely.

A folder holds `<config>/<split>-00000-of-00001.parquet` and a `README.md` whose header names the configs and the
fingerprint of the codec that made the codes. Codes of another codec are plausible numbers without meaning, so loading
them for a processor with other codecs is refused.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value, concatenate_datasets, load_dataset
from huggingface_hub import DatasetCard, DatasetCardData

from .fingerprints import codec_fingerprint

_codes = List(Value("int16"))
_motion = {"body": _codes, "hand": _codes, "trans": _codes}
SCHEMAS = {
    "motion": Features(
        id=Value("string"),
        text=List(Value("string")),
        **_motion,
        partner_id=Value("string"),
        num_frames=Value("int32"),
        source=Value("string"),
    ),
    "speech": Features(
        id=Value("string"),
        turns=List({"text": Value("string"), "speech": _codes, "speaker": Value("string")}),
        source=Value("string"),
    ),
    "chat": Features(
        id=Value("string"),
        topic=Value("string"),
        character=Value("string"),
        turns=List(
            {
                "role": Value("string"),
                "text": Value("string"),
                "motion_text": Value("string"),
                **_motion,
                "speech": _codes,
            }
        ),
        source=Value("string"),
    ),
}
CODECS_OF = {"motion": ("motion",), "speech": ("speech",), "chat": ("motion", "speech")}


def fingerprints(processor, config: str) -> dict[str, str]:
    """Fingerprints of the codecs that the codes of a dataset config depend on."""
    return {name: codec_fingerprint(getattr(processor, f"{name}_codec")) for name in CODECS_OF[config]}


def write_token_dataset(
    folder: str | Path, config: str, splits: dict[str, list[dict]], prints: dict[str, str]
) -> None:
    """Writes one config of a token dataset folder and its card; other configs of the folder are kept.

    Args:
        folder: the dataset folder, made when missing.
        config: `motion`, `speech` or `chat`.
        splits: rows per split, in the columns of `SCHEMAS[config]`.
        prints: codec fingerprints, see `fingerprints`.

    Raises:
        ValueError: a row does not fit the schema, or the folder's other configs were made by other codecs.
    """
    folder = Path(folder)
    known = card_codecs(folder)
    clash = {name for name in prints if known.get(name, prints[name]) != prints[name]}
    if clash:
        raise ValueError(f"{folder} holds codes of another {' and '.join(sorted(clash))} codec; write to a new folder")
    (folder / config).mkdir(parents=True, exist_ok=True)
    features = _features(config, splits)
    for split, rows in splits.items():
        path = folder / config / f"{split}-00000-of-00001.parquet"
        Dataset.from_list(rows, features=features).to_parquet(f"{path}.tmp")
        os.replace(f"{path}.tmp", path)
    _write_card(folder, {**known, **prints})


def _features(config: str, splits: dict[str, list[dict]]) -> Features:
    """The schema of a config; speech codes take 32 bits where a codec has more than 16 can count (X-Codec 2)."""
    turns = [turn for rows in splits.values() for row in rows for turn in row.get("turns", ())]
    speech = [turn["speech"] for turn in turns if turn.get("speech") is not None]
    highest = max((np.max(codes, initial=0) for codes in speech), default=0)
    if highest < 1 << 15:
        return SCHEMAS[config]
    wide = {**SCHEMAS[config]["turns"].feature, "speech": List(Value("int32"))}
    return Features({**SCHEMAS[config], "turns": List(wide)})


def card_codecs(folder_or_repo: str | Path) -> dict[str, str]:
    """The codec fingerprints that a dataset's card names; empty for a local folder without a card."""
    source = Path(folder_or_repo) / "README.md"
    if not source.is_file():
        if _is_local(folder_or_repo):
            return {}
        source = str(folder_or_repo)
    return dict(DatasetCard.load(source).data.to_dict().get("codecs") or {})


def _is_local(folder_or_repo: str | Path) -> bool:
    """A path on this machine, whether it exists or not; everything else is a Hub id of the form `owner/name`."""
    text = str(folder_or_repo)
    return isinstance(folder_or_repo, Path) or Path(text).exists() or text[0] in "/.~" or text.count("/") != 1


def load_tokens(folder_or_repo: str | Path, config: str, split: str, processor=None) -> Dataset:
    """A split of a token dataset folder or Hub repository.

    Args:
        processor (*optional*): its codecs must be those that made the codes.

    Raises:
        FileNotFoundError: the folder does not have the config or the split.
        ValueError: the codes were made by another codec.
    """
    source = Path(folder_or_repo)
    if _is_local(folder_or_repo):
        if not source.is_dir():
            raise FileNotFoundError(f"no such token dataset folder: {source}")
        files = sorted((source / config).glob(f"{split}-*.parquet"))
        if not files:
            raise FileNotFoundError(f"{source} has no {split} {config} tokens; run `solami prepare {config}`")
    if processor is not None:
        made_by, ours = card_codecs(folder_or_repo), fingerprints(processor, config)
        for name, fingerprint in ours.items():
            if made_by.get(name) != fingerprint:
                raise ValueError(
                    f"{source} was made by the {name} codec {made_by.get(name)}, but the processor has {fingerprint}; "
                    f"prepare the data again with this processor, or use the processor that made it"
                )
    if _is_local(folder_or_repo):
        # Not load_dataset: its cache takes two local folders of one name for the same data set.
        return concatenate_datasets([Dataset(pq.read_table(path)) for path in files])
    return load_dataset(str(folder_or_repo), config, split=split)


def _write_card(folder: Path, codecs: dict[str, str]) -> None:
    configs, counts = [], []
    for config in (c for c in SCHEMAS if (folder / c).is_dir()):
        files = sorted((folder / config).glob("*.parquet"))
        splits = sorted({path.name.split("-")[0] for path in files}, reverse=True)
        data_files = [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in splits]
        configs.append({"config_name": config, "data_files": data_files})
        for split in splits:
            rows = sum(pq.read_metadata(p).num_rows for p in files if p.name.startswith(f"{split}-"))
            counts.append(f"| {config} | {split} | {rows} |")
    data = DatasetCardData(configs=configs, codecs=codecs, tags=["solami", "motion", "speech"])
    text = (
        f"---\n{data.to_yaml()}\n---\n\n# Token sequences for SOLAMI\n\n"
        "Codes of body, hand and transform (7.5 a second, one transform per motion) and of speech, made "
        "by `solami prepare`. They mean nothing without the codecs whose fingerprints stand in the header.\n\n"
        "| config | split | rows |\n|---|---|---|\n" + "\n".join(counts) + "\n"
    )
    path = folder / "README.md"
    (folder / "README.md.tmp").write_text(text, encoding="utf-8")
    os.replace(folder / "README.md.tmp", path)


__all__ = ["SCHEMAS", "codec_fingerprint", "fingerprints", "write_token_dataset", "load_tokens", "card_codecs"]
