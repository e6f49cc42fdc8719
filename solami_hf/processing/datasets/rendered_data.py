"""Rendered data sets (`pretrain`, `sft`): ids and labels in Parquet, ready for any trainer.

    render_chat_dataset("my_tokens", processor, "my_rendered", max_length=4096)
    load_dataset("my_rendered", "sft", split="train", streaming=True)

Rows are read, rendered and written as they come, a row group at a time, so memory does not grow with the data set.
"""

import itertools
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Features, List, Value
from huggingface_hub import DatasetCard

from ..files.atomic_write import atomic_write
from ..files.text_files import write_text
from ..rendering import TokenRenderer
from .batch_rendering import RenderingCounts, render_chats
from .split_hygiene import leaking_ids
from .token_dataset import PARQUET_OPTIONS, TAGS, card_text, config_entry, fingerprints, load_tokens

logger = logging.getLogger(__name__)
RENDERED = Features(
    input_ids=List(Value("int32")), labels=List(Value("int32")), task=Value("string"), id=Value("string")
)
RENDERED_CONFIGS = ("pretrain", "sft")
ROWS_PER_GROUP = 256
"""Rows that are read together; 4 MB where samples have 2,000 tokens."""
ROWS_PER_FILE = 100_000


def render_chat_dataset(
    data: str | Path,
    processor,
    output: str | Path,
    splits: Iterable[str] = ("train",),
    answer_format: str | None = None,
    interleaved: bool | None = None,
    max_length: int | None = 4096,
) -> dict[str, RenderingCounts]:
    """Writes the dialogues of a token dataset as `sft` samples; of `train`, without what a held-out split holds.
    Returns split -> what became of its dialogues; it is logged too.

    `data` is the folder or hub id of a token dataset with `chat`; the processor has the codecs that made the codes,
    and its characters' prompts stand in for missing ones; `output` is another folder than `data`. `answer_format` and
    `interleaved` (answers in chunks of equal time) are by default the processor's. Dialogues longer than `max_length`
    lose whole rounds from the front. Raises FileNotFoundError: no such data or split; ValueError: codes of another
    codec, or nothing could be rendered.
    """
    renderer = TokenRenderer(processor.tokenizer, processor, interleaved)
    systems = {name: character["system"] for name, character in processor.characters.items()}
    prints, report = fingerprints(processor, "chat"), {}
    for split in splits:
        counts = report[split] = RenderingCounts()
        rows = load_tokens(data, "chat", split, processor, streaming=True).with_format("arrow").iter(ROWS_PER_GROUP)
        if split == "train" and (leaking := leaking_ids(data, "chat")):
            logger.warning("%s: %d training rows are left out, as they would leak", data, len(leaking))
            names = pa.array(sorted(leaking))
            rows = (table.filter(pc.invert(pc.is_in(table["id"], names))) for table in rows)
        answer_format = answer_format or processor.answer_format
        tables = render_chats(rows, renderer, counts, answer_format, max_length, systems)
        try:
            write_rendered(output, "sft", split, tables, codecs=prints)
        finally:
            counts.log(f"{data}, {split}")
    return report


def write_rendered(
    folder: str | Path,
    config: str,
    split: str,
    tables: Iterable[pa.Table],
    rows_per_file: int = ROWS_PER_FILE,
    codecs: dict[str, str] | None = None,
) -> int:
    """Writes `folder/<config>/<split>-*.parquet` and names them in the card; returns the number of rows.

    The files of the split are exchanged when all new ones are complete; other splits and configs stay. `folder`, made
    when missing, is not one of `solami prepare`, which writes its card anew. `config` is `pretrain` or `sft`, `split`
    `train`, `test`, ...; `tables` have the columns of `RENDERED` and any lengths; a new file begins after
    `rows_per_file`; `codecs` are fingerprints of the codecs behind the ids, for the card. Raises ValueError: an
    unknown config, or no rows at all.
    """
    if config not in RENDERED_CONFIGS:
        raise ValueError(f"rendered data is one of {RENDERED_CONFIGS}, got {config!r}")
    folder = Path(folder)
    (folder / config).mkdir(parents=True, exist_ok=True)
    new = folder / config / f".{split}.{os.getpid()}.tmp"
    try:
        sizes = [_write_file(new / f"{i:05d}", part) for i, part in enumerate(_parts(tables, rows_per_file))]
        if not sizes:
            raise ValueError(f"there is nothing to write to {folder / config}: no {split} row was rendered")
        for old in (folder / config).glob(f"{split}-*.parquet"):
            old.unlink()
        for i in range(len(sizes)):
            os.replace(new / f"{i:05d}", folder / config / f"{split}-{i:05d}-of-{len(sizes):05d}.parquet")
    finally:
        shutil.rmtree(new, ignore_errors=True)
    name_in_card(folder, config, codecs or {})
    logger.info("%d %s rows of %s in %d files in %s", sum(sizes), split, config, len(sizes), folder)
    return sum(sizes)


def _parts(tables: Iterable[pa.Table], rows_per_file: int) -> Iterator[Iterator[pa.Table]]:
    """The tables in row groups, and these by files. A file must be used up before the next is asked for."""
    groups, per_file = _groups(tables), max(1, rows_per_file // ROWS_PER_GROUP)
    for first in groups:
        yield itertools.chain([first], itertools.islice(groups, per_file - 1))


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of `ROWS_PER_GROUP` rows each, the last one shorter."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table.select(list(RENDERED)).cast(RENDERED.arrow_schema))
        if sum(map(len, waiting)) >= ROWS_PER_GROUP:
            whole = pa.concat_tables(waiting)
            full = len(whole) // ROWS_PER_GROUP * ROWS_PER_GROUP
            yield from (whole.slice(i, ROWS_PER_GROUP) for i in range(0, full, ROWS_PER_GROUP))
            waiting = [whole.slice(full)] if full < len(whole) else []
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)


def _write_file(path: Path, groups: Iterator[pa.Table]) -> int:
    rows = 0
    schema = RENDERED.arrow_schema
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema, **PARQUET_OPTIONS) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=ROWS_PER_GROUP)
            rows += len(group)
    return rows


def name_in_card(folder: Path, config: str, codecs: dict[str, str]) -> None:
    """Adds the config and its splits to the header of the folder's card, which is made when there is none."""
    path = folder / "README.md"
    card = DatasetCard.load(path) if path.is_file() else DatasetCard(card_text(_CARD, tags=TAGS))
    splits = sorted({p.name.split("-")[0] for p in (folder / config).glob("*.parquet")}, reverse=True)
    others = [known for known in card.data.get("configs") or [] if known["config_name"] != config]
    card.data.configs = sorted([*others, config_entry(config, splits)], key=lambda entry: entry["config_name"])
    if codecs:
        card.data.codecs = {**(card.data.get("codecs") or {}), **codecs}
    write_text(path, str(card))


_CARD = """# Rendered samples for SOLAMI

`input_ids` and `labels` (-100 where nothing is learnt) for one tokenizer, made from token sequences. They mean \
nothing with another tokenizer.
"""
