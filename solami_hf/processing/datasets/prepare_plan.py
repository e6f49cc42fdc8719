"""The plan of a `solami prepare`: which rows there are, which split each belongs to, and how they are cut into shards.

The rows of a source go into a temporary SQLite file, so memory does not grow with the corpus. The plan depends on the
source and the options alone: every process and every restart makes the same one, without talking to the others.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .manifests import SPLITS, BadRow, row_fault

_CACHE_KB = 32 * 1024


@dataclass(frozen=True)
class SplitOptions:
    """Options of splits.

    Args:
        split_by: `given`, as the source says, `train` where it says nothing; or `source`: by a hash of the source id,
            so that all rows of a source, and partners with everything of theirs, are in one split.
        test_share, validation_share: share of the sources, for `source`.
    """

    split_by: str = "given"
    test_share: float = 0.05
    validation_share: float = 0.0

    def __post_init__(self):
        if self.split_by not in ("given", "source"):
            raise ValueError(f"split_by is {self.split_by!r}, expected given or source")
        shares = (self.test_share, self.validation_share)
        if not all(0 <= share < 1 for share in shares) or sum(shares) >= 1:
            raise ValueError(f"test_share and validation_share are {shares}, expected 0 to 1 and less than 1 together")

    def split_of(self, source_id: str) -> str:
        """The split of a source."""
        place = int.from_bytes(hashlib.sha256(source_id.encode()).digest()[:8], "big") / 2**64
        if place < self.test_share:
            return "test"
        return "validation" if place < self.test_share + self.validation_share else "train"


@dataclass(frozen=True)
class Shard:
    """A file of a split: the rows whose numbers lie in [`start`, `stop`)."""

    split: str
    index: int
    count: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}.parquet"


class Plan:
    """Rows of a source, in its order.

    Args:
        rows: as `layouts.find.read_rows` gives them.
        options: how they are divided.
        shard_rows: rows of a shard, before any is rejected.

    Raises:
        ValueError: `shard_rows` is below 1.
    """

    def __init__(self, rows: Iterable[dict | BadRow], options: SplitOptions | None = None, shard_rows: int = 5000):
        if shard_rows < 1:
            raise ValueError(f"shard_rows is {shard_rows}, expected at least 1")
        self.options, self.shard_rows = options or SplitOptions(), shard_rows
        self._db = sqlite3.connect("", isolation_level=None)  # a file without a name: it is gone when the process is
        self._db.execute(f"PRAGMA cache_size=-{_CACHE_KB}")
        self._db.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, id UNIQUE, split, source, partner, row)")
        self._db.execute("CREATE TABLE bad (id, reason)")
        self._db.execute("BEGIN")
        for row in rows:
            self._add(row)
        if self.options.split_by == "source":
            self._split_by_source()
        self._db.execute("CREATE INDEX by_split ON rows (split, number)")
        self._db.execute("COMMIT")

    def _add(self, row: dict | BadRow) -> None:
        fault = row.reason if isinstance(row, BadRow) else row_fault(row)
        if fault is None:
            source, partner = row.get("source") or None, row.get("partner_id") or None
            source = source or min(row["id"], partner or row["id"])
            values = (row["id"], row.get("split") or "train", source, partner, json.dumps(row))
            insert = "INSERT OR IGNORE INTO rows (id, split, source, partner, row) VALUES (?, ?, ?, ?, ?)"
            if self._db.execute(insert, values).rowcount:
                return
            fault = "this id occurred before; ids must be unique over all splits"
        name = row.id if isinstance(row, BadRow) else str(row.get("id"))
        told = [text.encode("utf-8", "backslashreplace").decode() for text in (name, fault)]
        self._db.execute("INSERT INTO bad VALUES (?, ?)", told)

    def _split_by_source(self) -> None:
        links = self._db.execute(
            "SELECT DISTINCT a.source, b.source FROM rows a JOIN rows b ON a.partner = b.id WHERE a.source != b.source"
        )
        parents: dict[str, str] = {}  # of the few sources whose people have partners in others

        def first_of(source: str) -> str:
            while parents.get(source, source) != source:
                source = parents[source]
            return source

        for pair in links.fetchall():
            low, high = sorted(map(first_of, pair))
            parents[high] = low
        self._db.create_function("split_of", 1, lambda source: self.options.split_of(first_of(source)))
        self._db.execute("UPDATE rows SET split = split_of(source)")

    @property
    def num_rows(self) -> int:
        """Rows that can be read."""
        return self._db.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def shards(self) -> list[Shard]:
        """All shards, in the order train, validation, test; splits without rows have none."""
        found = []
        for split in SPLITS:
            starts, last = [], None
            for place, (number,) in enumerate(
                self._db.execute("SELECT number FROM rows WHERE split = ? ORDER BY number", (split,))
            ):
                if place % self.shard_rows == 0:
                    starts.append(number)
                last = number
            stops = [*starts[1:], (last or 0) + 1]
            spans = enumerate(zip(starts, stops, strict=bool(starts)))
            found += [Shard(split, i, len(starts), start, stop) for i, (start, stop) in spans]
        return found

    def rows(self, shard: Shard) -> list[dict]:
        """The rows of a shard, in the order of the source."""
        query = "SELECT row FROM rows WHERE split = ? AND number >= ? AND number < ? ORDER BY number"
        return [json.loads(row) for (row,) in self._db.execute(query, (shard.split, shard.start, shard.stop))]

    def rejected(self) -> Iterator[dict]:
        """Rows that could not be read: `{"id", "reason"}`, in the order of the source."""
        for name, reason in self._db.execute("SELECT id, reason FROM bad ORDER BY rowid"):
            yield {"id": name, "reason": reason}

    def orphans(self, rejected: Iterable[str]) -> Iterator[dict]:
        """Rows whose partner is not in the source or among the `rejected` ids: `{"id", "partner_id", "reason"}`."""
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS gone (id UNIQUE)")
        self._db.execute("DELETE FROM gone")
        self._db.executemany("INSERT OR IGNORE INTO gone VALUES (?)", ((name,) for name in rejected))
        query = (
            "SELECT a.id, a.partner, b.id IS NULL FROM rows a LEFT JOIN rows b ON a.partner = b.id "
            "WHERE a.partner IS NOT NULL AND (b.id IS NULL OR b.id IN (SELECT id FROM gone)) "
            "AND a.id NOT IN (SELECT id FROM gone) ORDER BY a.number"
        )
        for name, partner, missing in self._db.execute(query):
            reason = "the partner is not in the source" if missing else "the partner was rejected"
            yield {"id": name, "partner_id": partner, "reason": reason}

    def straddling_partners(self) -> int:
        """Rows whose partner is in another split, which only splits that were given can have."""
        query = "SELECT COUNT(*) FROM rows a JOIN rows b ON a.partner = b.id WHERE a.split != b.split"
        return self._db.execute(query).fetchone()[0]
