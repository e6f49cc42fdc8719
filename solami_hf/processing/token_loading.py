"""Loads token datasets, from a folder or the Hub, whole or as a stream, and refuses codes of another codec."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, Features, IterableDataset, concatenate_datasets, load_dataset

from .manifest import SPLITS
from .token_card import card_data
from .token_schema import fingerprints


def is_local(folder_or_repo: str | Path) -> bool:
    """A path on this machine, whether it exists or not; everything else is a Hub id of the form `owner/name`."""
    text = str(folder_or_repo)
    if isinstance(folder_or_repo, Path) or Path(text).exists() or text[:1] in "/.~" or text.count("/") != 1:
        return True
    return Path(text).parent.is_dir()


def card_codecs(folder_or_repo: str | Path) -> dict[str, str]:
    """The codec fingerprints that a dataset's card names; empty for a local folder without a card."""
    return dict(_card(folder_or_repo).get("codecs") or {})


def split_names(folder_or_repo: str | Path, config: str) -> list[str]:
    """The splits that a config of a token dataset has, by its card; empty when it is not there."""
    configs = _card(folder_or_repo).get("configs") or []
    files = next((entry["data_files"] for entry in configs if entry["config_name"] == config), [])
    return [entry["split"] for entry in files]


def _card(folder_or_repo: str | Path) -> dict:
    if not is_local(folder_or_repo):
        return card_data(str(folder_or_repo))
    path = Path(folder_or_repo) / "README.md"
    return card_data(path) if path.is_file() else {}


def load_tokens(
    folder_or_repo: str | Path, config: str, split: str, processor=None, streaming: bool = False
) -> Dataset | IterableDataset:
    """A split of a token dataset folder or Hub repository.

    Args:
        folder_or_repo: a folder that `solami prepare` wrote, or the id of a dataset on the Hub.
        config: `motion`, `speech` or `chat`.
        split: `train`, `validation` or `test`.
        processor (*optional*): its codecs must be those that made the codes.
        streaming: rows are read as they are iterated over, so memory does not grow with the data.

    Raises:
        FileNotFoundError: the folder does not have the config or the split.
        ValueError: an unknown split, or the codes were made by another codec.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    files = _local_files(Path(folder_or_repo), config, split) if is_local(folder_or_repo) else None
    if processor is not None:
        made_by, ours = card_codecs(folder_or_repo), fingerprints(processor, config)
        for name, fingerprint in ours.items():
            if made_by.get(name) != fingerprint:
                raise ValueError(
                    f"{folder_or_repo} was made by the {name} codec {made_by.get(name)}, but the processor has "
                    f"{fingerprint}; prepare the data again with this processor, or use the processor that made it"
                )
    if files is None:
        if split not in split_names(folder_or_repo, config):
            raise FileNotFoundError(f"{folder_or_repo} has no {split} {config} tokens; run `solami prepare {config}`")
        return load_dataset(str(folder_or_repo), config, split=split, streaming=streaming)
    if streaming:
        features = Features.from_arrow_schema(pq.read_schema(files[0]))
        return load_dataset(
            "parquet", data_files=list(map(str, files)), split="train", streaming=True, features=features
        )
    # Not load_dataset: its cache takes two local folders of one name for the same data set.
    return concatenate_datasets([Dataset(pq.read_table(path)) for path in files])


def _local_files(folder: Path, config: str, split: str) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no such token dataset folder: {folder}")
    files = sorted((folder / config).glob(f"{split}-*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} has no {split} {config} tokens; run `solami prepare {config}`")
    return files
