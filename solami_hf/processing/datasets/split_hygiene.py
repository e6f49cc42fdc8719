"""Keeps held-out data out of training: what test and validation splits hold is looked up when training data is loaded.

A training row leaks when

- its id is held out,
- its partner is held out, or a held-out row names it as its partner, or
- it is a dialogue or recording of the same source id as a held-out one and says the same: all its words, or one line
  of four words or more, whatever case and punctuation. Without a source id this cannot be told.

Captions are shared by nature ("a person walks"), so equal captions are no leak, nor are short lines ("how are you?").
`solami prepare --split_by source` divides so that none of this happens; splits that others made may not.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets import Dataset, IterableDataset

from .token_dataset import load_tokens, split_names

logger = logging.getLogger(__name__)
_LINE_WORDS = 4
_COLUMNS = ("id", "partner_id", "source", "turns")


def normalised(text: str) -> str:
    """Text without case, punctuation and double spaces, so that two spellings of one sentence are equal."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("\u2019", "")
    return " ".join(re.findall(r"\w+", text))


def held_out_rows(folder_or_repo: str | Path, config: str) -> Iterator[dict]:
    """The rows of all splits but `train` of a token dataset, with the columns that tell leaks, as a stream."""
    for split in split_names(folder_or_repo, config):
        if split != "train":
            yield from _telling(load_tokens(folder_or_repo, config, split, streaming=True))


def _telling(rows: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Rows with the columns alone that tell leaks."""
    return rows.select_columns([name for name in _COLUMNS if name in rows.column_names])


class HeldOut:
    """Held-out material (rows of all held-out splits of a config), which training must not see: called with a training
    row, whether that may be trained on. What leaks is counted in `found` by its reason, and told the first time."""

    def __init__(self, rows: Iterable[dict]):
        self.ids: set[str] = set()
        self.partners: set[str | None] = set()
        self.words: set[tuple[str, str]] = set()
        self.found: Counter = Counter()
        for row in rows:
            self.ids.add(row["id"])
            self.partners.add(row.get("partner_id"))
            self.words.update(_words(row))

    def __call__(self, row: dict) -> bool:
        if row["id"] in self.ids:
            reason = "its id is held out"
        elif row.get("partner_id") in self.ids or row["id"] in self.partners:
            reason = "its partner is held out"
        elif self.words and any(words in self.words for words in _words(row)):
            reason = "it says what a held-out row of its source says"
        else:
            return True
        if not self.found[reason]:
            logger.warning("left out of training: %s, as %s (more such rows are only counted)", row["id"], reason)
        self.found[reason] += 1
        return False


def without_leaks(train: Dataset | IterableDataset, held_out: Iterable[dict]) -> Dataset | IterableDataset:
    """Rows of a `train` split without those that would leak from rows of the other splits of the same config, see
    `held_out_rows`: in their order, `train` itself when nothing leaks; of a stream, a stream."""
    held = HeldOut(held_out)
    if isinstance(train, IterableDataset):
        return train.filter(held)
    kept = [i for i, row in enumerate(_telling(train)) if held(row)]
    if len(kept) == len(train):
        return train
    logger.warning("%d of %d training rows are left out: %s", len(train) - len(kept), len(train), dict(held.found))
    return train.select(kept)


def leaking_ids(folder_or_repo: str | Path, config: str) -> set[str]:
    """The ids of training rows of a token dataset that would leak, for those who read its columns in batches."""
    held = HeldOut(held_out_rows(folder_or_repo, config))
    if not held.ids:
        return set()
    train = _telling(load_tokens(folder_or_repo, config, "train", streaming=True))
    return {row["id"] for row in train if not held(row)}


def _words(row: dict) -> Iterator[tuple[str, str]]:
    """`(source id, words)` of a row of speech or dialogue: all of it, and each line that is long enough to tell."""
    if not row.get("source") or not row.get("turns"):
        return
    lines = [normalised(turn["text"] or "") for turn in row["turns"] if turn.get("role") != "system"]
    whole = " / ".join(lines)
    if any(lines):
        yield row["source"], whole
    yield from ((row["source"], line) for line in lines if line.count(" ") >= _LINE_WORDS - 1)
