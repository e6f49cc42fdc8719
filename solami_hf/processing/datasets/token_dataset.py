"""Token datasets: their columns, cards, writing as `load_dataset`-able folders, loading, and pushing to the Hub.

A folder holds `<config>/<split>-00000-of-00001.parquet` and a `README.md` whose header names the configs and the
fingerprint of the codec that made the codes. Codes of another codec are plausible numbers without meaning, so loading
them for a processor with other codecs is refused. The card is written from the reports that lie beside the files,
`<config>/report.json`, so that it says the same whoever writes it last.
"""

import json
import logging
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, IterableDataset, List, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import DatasetCard, DatasetCardData, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from ...modeling.speech_codec.codec_interface import codec_fingerprint
from ..files.atomic_write import atomic_write
from ..files.folder_or_hub import check_source, hub_id, require_login
from ..files.text_files import write_json, write_text
from .manifests import SPLITS

logger = logging.getLogger(__name__)

_text, _codes = Value("string"), List(Value("int16"))
_motion = {"body": _codes, "hand": _codes, "trans": _codes}
_turn = {"role": _text, "text": _text, "motion_text": _text, **_motion, "speech": _codes}
# `talks`: (start, end) in seconds from the beginning of the row, when the person is heard
_person = {"person": _text, **_motion, "speech": _codes, "talks": List(List(Value("float32")))}
SCHEMAS = {
    "motion": Features(
        id=_text, text=List(_text), **_motion, partner_id=_text, num_frames=Value("int32"), source=_text
    ),
    "speech": Features(id=_text, turns=List({"text": _text, "speech": _codes, "speaker": _text}), source=_text),
    "chat": Features(id=_text, topic=_text, character=_text, turns=List(_turn), source=_text),
    "duplex": Features(id=_text, people=List(_person), source=_text),
}
TAGS = ["solami", "motion", "speech"]  # of cards
CODECS_OF = {
    "motion": ("motion",),
    "speech": ("speech",),
    "chat": ("motion", "speech"),
    "duplex": ("motion", "speech"),
}
_GROUP_ROWS = 500  # rows of a Parquet row group: what a streaming reader has in memory
# By the index the Hub's viewer reads a page alone; cut by content, rows that are there already are not sent again.
PARQUET_OPTIONS = {"write_page_index": True, "use_content_defined_chunking": True}


def schema(config: str, highest_speech_code: int = 0) -> Features:
    """The columns of a config; speech codes take 32 bits where a codec has more than 16 can count (X-Codec 2)."""
    if config == "motion" or highest_speech_code < 1 << 15:
        return SCHEMAS[config]
    items = "people" if config == "duplex" else "turns"
    wide = {**SCHEMAS[config][items].feature, "speech": List(Value("int32"))}
    return Features({**SCHEMAS[config], items: List(wide)})


def schema_for(config: str, processor) -> Features:
    """The columns of a config whose codes a processor makes."""
    if config == "motion":
        return SCHEMAS[config]
    codec = processor.speech_codec.config
    return schema(config, codec.lm_levels * codec.codebook_size - 1)


def fingerprints(processor, config: str) -> dict[str, str]:
    """Fingerprints of the codecs that the codes of a dataset config depend on."""
    return {name: codec_fingerprint(getattr(processor, f"{name}_codec")) for name in CODECS_OF[config]}


def codec_sources(processor, config: str) -> dict[str, dict[str, str]]:
    """Codec -> `{"id", "revision"}` as far as known: where the codecs of a dataset config were loaded from."""
    found = {}
    for name in CODECS_OF[config]:
        codec = getattr(processor, f"{name}_codec").config
        place = getattr(codec, "name_or_path", "")
        if place and Path(place).exists():  # a folder's place on this machine is nobody's business
            place = Path(place).resolve().name
        origin = {"id": place, "revision": getattr(codec, "_commit_hash", None)}
        if known := {key: str(value) for key, value in origin.items() if value}:
            found[name] = known
    return found


def write_token_dataset(
    folder: str | Path, config: str, splits: dict[str, list[dict]], prints: dict[str, str]
) -> None:
    """Writes one config (of `SCHEMAS`) of a token dataset folder, made when missing, from rows in memory, and its
    card; other configs are kept. `splits` are rows per split, in the columns of `SCHEMAS[config]`; `prints` codec
    fingerprints, see `fingerprints`. Raises ValueError: a row does not fit the schema, or the folder's other configs
    were made by other codecs."""
    folder = Path(folder)
    check_codecs(folder, prints)
    turns = [turn for rows in splits.values() for row in rows for turn in row.get("turns") or row.get("people") or ()]
    speech = [turn["speech"] for turn in turns if turn.get("speech") is not None]
    features = schema(config, max((int(np.max(codes, initial=0)) for codes in speech), default=0))
    for split, rows in splits.items():
        write_parquet(folder / config / f"{split}-00000-of-00001.parquet", rows, features)
    counts = {split: {"rows": len(rows), "shards": 1} for split, rows in splits.items()}
    write_json(folder / config / "report.json", {"splits": counts, "codecs": prints})
    write_card(folder)


def check_codecs(folder: Path, prints: dict[str, str]) -> None:
    """ValueError when a folder's configs were made by other codecs than those of these fingerprints."""
    known = card_codecs(Path(folder))
    clash = {name for name in prints if known.get(name, prints[name]) != prints[name]}
    if clash:
        raise ValueError(f"{folder} holds codes of another {' and '.join(sorted(clash))} codec; write to a new folder")


def write_parquet(path: Path, rows: Iterable[dict], features: Features) -> int:
    """Writes rows as one Parquet file, whole or not at all; the same rows give the same bytes. Returns their number.
    Raises ValueError: a row does not fit the columns."""
    arrow = features.arrow_schema
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, arrow, **PARQUET_OPTIONS) as writer:
        rows, count = iter(rows), 0
        while group := [with_lists(row) for row in islice(rows, _GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(group, schema=arrow))
            count += len(group)
    return count


def with_lists(value):
    """A row with lists in place of arrays; Arrow then checks every number against its column's type."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: with_lists(entry) for key, entry in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict | np.ndarray):
        return [with_lists(entry) for entry in value]
    return value


def card_data(folder_or_repo: str | Path) -> dict:
    """The header of a data set's card; empty for a local folder without a card."""
    if (repo := hub_id(folder_or_repo)) is not None:
        return DatasetCard.load(repo, repo_type="dataset").data.to_dict()
    path = Path(folder_or_repo, "README.md").expanduser()
    return DatasetCard.load(path).data.to_dict() if path.is_file() else {}


def card_codecs(folder_or_repo: str | Path) -> dict[str, str]:
    """The codec fingerprints that a data set's card names."""
    return dict(card_data(folder_or_repo).get("codecs") or {})


def split_names(folder_or_repo: str | Path, config: str) -> list[str]:
    """The splits that a config of a token dataset has, by its files or, on the Hub, its card; empty without any."""
    if hub_id(folder_or_repo) is None:
        files = [path.name for path in Path(folder_or_repo, config).expanduser().glob("*.parquet")]
        return [split for split in SPLITS if any(name.startswith(f"{split}-") for name in files)]
    configs = card_data(folder_or_repo).get("configs") or []
    return [file["split"] for entry in configs if entry["config_name"] == config for file in entry["data_files"]]


def load_tokens(
    folder_or_repo: str | Path, config: str, split: str, processor=None, streaming: bool = False
) -> Dataset | IterableDataset:
    """A split (`train`, `validation` or `test`) of a config (of `SCHEMAS`) of a token dataset: a folder that `solami
    prepare` wrote, or the id of a dataset on the Hub, see `folder_or_hub`.

    Rows stay on disk, in the cache of `datasets` (`HF_DATASETS_CACHE`), from which all processes map them into memory:
    it neither grows with the data nor with the number of processes; `streaming` reads them from the files as they are
    iterated over, without a copy in the cache. The codecs of a `processor` must be those that made the codes. Raises
    FileNotFoundError: the folder does not have the config or the split; ValueError: an unknown split, a damaged file,
    or the codes were made by another codec; OSError: the cache cannot be written.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    repo, files = hub_id(folder_or_repo), []
    if repo is None:
        check_source("token dataset", folder_or_repo)
        files = sorted(map(str, Path(folder_or_repo, config).expanduser().glob(f"{split}-*.parquet")))
    if not files and (repo is None or split not in split_names(folder_or_repo, config)):
        raise FileNotFoundError(f"{folder_or_repo} has no {split} {config} tokens; run `solami prepare {config}`")
    if processor is not None:
        made_by = card_codecs(folder_or_repo)
        for name, fingerprint in fingerprints(processor, config).items():
            if made_by.get(name) != fingerprint:
                raise ValueError(
                    f"{folder_or_repo} was made by the {name} codec {made_by.get(name)}, but the processor has "
                    f"{fingerprint}; prepare the data again with this processor, or use the processor that made it"
                )
    if repo is not None:
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


def write_card(folder: Path) -> None:
    """Writes `folder/README.md` from the reports of its configs. Raises ValueError: a report is no JSON."""
    reports, codecs, sources = {}, {}, {}
    for config in SCHEMAS:
        path = folder / config / "report.json"
        if path.is_file():
            try:
                report = reports[config] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                told = f"{path} is no report of `solami prepare` ({error}); prepare {config} again"
                raise ValueError(told) from None
            codecs |= report["codecs"]
            sources |= report.get("codec_sources", {})
    licences = sorted({report["license"] for report in reports.values() if report.get("license")})
    data = DatasetCardData(
        configs=[config_entry(config, report["splits"]) for config, report in reports.items()],
        codecs=codecs,
        codec_sources=sources or None,
        license=licences[0] if len(licences) == 1 else (licences or None),
        tags=TAGS,
    )
    template = Path(__file__).with_name("token_dataset_card.md")
    card = DatasetCard.from_template(data, str(template), reports=reports, codecs=codecs, sources=sources)
    write_text(folder / "README.md", f"{card}\n")


def card_text(text: str, **header) -> str:
    """A data set's card with a header."""
    return f"---\n{DatasetCardData(**header).to_yaml()}\n---\n\n{text}"


def config_entry(config: str, splits: Iterable[str]) -> dict:
    """What the header of a card says about a config: its splits and their files."""
    files = [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in splits]
    return {"config_name": config, "data_files": files}


def begin_repo(repo_id: str, folder: Path) -> None:
    """Makes sure that pushing will be possible, and fetches the reports of configs that the repository has already.
    Raises ValueError: nobody is logged in."""
    api = HfApi()
    require_login(api, repo_id)
    try:
        names = ["README.md", *(f"{config}/report.json" for config in SCHEMAS)]
        wanted = [name for name in names if not (folder / name).exists()]
        api.snapshot_download(repo_id, repo_type="dataset", local_dir=folder, allow_patterns=wanted)
    except RepositoryNotFoundError:
        logger.info("%s is new on the Hub", repo_id)
