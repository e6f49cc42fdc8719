"""Loads token datasets, from a folder or the Hub, by memory mapping or as a stream; refuses codes of another codec."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError

from ..files.folder_or_hub import check_source, hub_id
from .manifests import SPLITS
from .token_card import card_data
from .token_schema import fingerprints


def is_local(folder_or_repo: str | Path) -> bool:
    """Whether a name means a path of this machine, there or not, see `folder_or_hub`."""
    return hub_id(folder_or_repo) is None


def card_codecs(folder_or_repo: str | Path) -> dict[str, str]:
    """The codec fingerprints that a dataset's card names; empty for a local folder without a card."""
    return dict(_card(folder_or_repo).get("codecs") or {})


def split_names(folder_or_repo: str | Path, config: str) -> list[str]:
    """The splits that a config of a token dataset has, by its files or, on the Hub, its card; empty without any."""
    if is_local(folder_or_repo):
        files = [path.name for path in Path(folder_or_repo, config).expanduser().glob("*.parquet")]
        return [split for split in SPLITS if any(name.startswith(f"{split}-") for name in files)]
    configs = _card(folder_or_repo).get("configs") or []
    files = next((entry["data_files"] for entry in configs if entry["config_name"] == config), [])
    return [entry["split"] for entry in files]


def _card(folder_or_repo: str | Path) -> dict:
    if (repo := hub_id(folder_or_repo)) is not None:
        return card_data(repo)
    path = Path(folder_or_repo, "README.md").expanduser()
    return card_data(path) if path.is_file() else {}


def load_tokens(
    folder_or_repo: str | Path, config: str, split: str, processor=None, streaming: bool = False
) -> Dataset | IterableDataset:
    """A split of a token dataset folder or Hub repository.

    Rows stay on disk, in the cache of `datasets` (`HF_DATASETS_CACHE`), from which all processes map them into memory:
    it neither grows with the data nor with the number of processes.

    Args:
        folder_or_repo: a folder that `solami prepare` wrote, or the id of a dataset on the Hub, see `folder_or_hub`.
        config: `motion`, `speech` or `chat`.
        split: `train`, `validation` or `test`.
        processor (*optional*): its codecs must be those that made the codes.
        streaming: rows are read from the files as they are iterated over, without a copy in the cache.

    Raises:
        FileNotFoundError: the folder does not have the config or the split.
        ValueError: an unknown split, a damaged file, or the codes were made by another codec.
        OSError: the cache cannot be written.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    repo = hub_id(folder_or_repo)
    files = _local_files(folder_or_repo, config, split) if repo is None else None
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
        return load_dataset(repo, config, split=split, streaming=streaming)
    metadata = [_metadata(path) for path in files]
    features = Features.from_arrow_schema(metadata[0].schema.to_arrow_schema())
    if streaming:
        return load_dataset("parquet", data_files=files, split="train", streaming=True, features=features)
    if not any(found.num_rows for found in metadata):
        return Dataset(features.arrow_schema.empty_table())
    # By its files, whose names and times the cache knows: of folders it looks at the last name only.
    try:
        return Dataset.from_parquet(files, features=features)
    except DatasetGenerationError as error:
        cause = error.__cause__ or error
        raise (cause if isinstance(cause, OSError) else ValueError(f"{files[0]} or one beside it: {cause}")) from error


def _metadata(path: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}); prepare it again") from None


def _local_files(folder: str | Path, config: str, split: str) -> list[str]:
    check_source("token dataset", folder)
    files = sorted(map(str, Path(folder, config).expanduser().glob(f"{split}-*.parquet")))
    if not files:
        raise FileNotFoundError(f"{folder} has no {split} {config} tokens; run `solami prepare {config}`")
    return files
