"""The shards of a `solami prepare`: the rows of a source in splits and files, each encoded by itself, for good.

The rows of a source go into a temporary SQLite file, so memory does not grow with the corpus. Which file holds which
rows depends on the source and the options alone: every process and every restart makes the same plan.

Until all shards are there, they lie in `OUTPUT/<config>/.shards/`, each with a note: what went into it, what was
rejected, how long it is. A shard whose note fits the source, the codecs and the files' sizes and times is not encoded
again. Nothing in a shard depends on the others, so a run that was killed, or shared among processes, gives the same
bytes. A dataset that was in the folder before stays until all new shards are ready.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..files.text_files import read_json, write_json, write_json_lines
from .duplex import DuplexFormat, cut_to_ticks
from .manifests import SPLITS, BadRow, row_fault
from .prepare_rows import Media, MediaFile, files_of, token_row
from .token_dataset import schema_for, write_card, write_parquet

logger = logging.getLogger(__name__)
_MOST_REASONS = 50
FORMAT = 1  # of the shards; another number makes those of earlier versions anew
_CACHE_KB = 32 * 1024


class Shard(NamedTuple):
    """A file of a split: the rows whose numbers lie in [`start`, `stop`)."""

    split: str
    name: str
    start: int
    stop: int


class Plan:
    """Rows of a source, in its order, as `find_layout.read_rows` gives them. They are split by `given`, as the source
    says, `train` where it says nothing; or `source`: by a hash of the source id, so that all rows of a source, and
    partners with everything of theirs, are in one split; `test_share` and `validation_share` are shares of the sources
    then. A shard has `shard_rows` rows, before any is rejected. Raises ValueError: an option out of its range."""

    def __init__(
        self,
        rows: Iterable[dict | BadRow],
        split_by: str = "given",
        test_share: float = 0.05,
        validation_share: float = 0.0,
        shard_rows: int = 5000,
    ):
        if split_by not in ("given", "source"):
            raise ValueError(f"split_by is {split_by!r}, expected given or source")
        shares = (test_share, validation_share)
        if not all(0 <= share < 1 for share in shares) or sum(shares) >= 1:
            raise ValueError(f"test_share and validation_share are {shares}, expected 0 to 1 and less than 1 together")
        if shard_rows < 1:
            raise ValueError(f"shard_rows is {shard_rows}, expected at least 1")
        self.shares, self.shard_rows = shares, shard_rows
        self._db = sqlite3.connect("", isolation_level=None)  # a file without a name: it is gone when the process is
        self._db.execute(f"PRAGMA cache_size=-{_CACHE_KB}")
        self._db.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, id UNIQUE, split, source, partner, row)")
        self._db.execute("CREATE TABLE bad (id, reason)")
        self._db.execute("BEGIN")
        for row in rows:
            self._add(row)
        if split_by == "source":
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

        def split_of(source: str) -> str:
            place = int.from_bytes(hashlib.sha256(first_of(source).encode()).digest()[:8], "big") / 2**64
            return "test" if place < self.shares[0] else "validation" if place < sum(self.shares) else "train"

        self._db.create_function("split_of", 1, split_of)
        self._db.execute("UPDATE rows SET split = split_of(source)")

    def shards(self) -> list[Shard]:
        """All shards, in the order train, validation, test; splits without rows have none."""
        found = []
        query = "SELECT number, row_number() OVER (ORDER BY number) AS place FROM rows WHERE split = ?"
        query = f"SELECT number FROM ({query}) WHERE (place - 1) % ? = 0 ORDER BY number"
        for split in SPLITS:
            starts = [number for (number,) in self._db.execute(query, (split, self.shard_rows))]
            for i, span in enumerate(zip(starts, [*starts[1:], sys.maxsize], strict=False)):
                found.append(Shard(split, f"{split}-{i:05d}-of-{len(starts):05d}.parquet", *span))
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


def _talk(rows: list[dict]) -> dict[str, float]:
    """How people talk in dialogues whose turns say when: turns, back-channels, and how long both talk at once."""
    found = {"turns": 0, "back_channels": 0, "overlap_seconds": 0.0}
    for row in rows:
        timed = [turn for turn in row["turns"] if turn.get("end") is not None]
        spans = [(float(turn.get("start") or 0.0), float(turn["end"])) for turn in timed]
        found["turns"] += len(timed)
        found["back_channels"] += sum(len(turn.get("back_channels", ())) for turn in timed)
        pairs = zip(spans, spans[1:], strict=False)
        found["overlap_seconds"] += sum(max(0.0, min(one[1], two[1]) - max(one[0], two[0])) for one, two in pairs)
    return found


class ShardWriter:
    """Encodes shards of a plan into a dataset folder; the codes of all files are added to `keep`, by `Media.key`."""

    def __init__(self, kind: str, plan: Plan, media: Media, folder: Path, prints: dict, keep: dict | None):
        self.kind, self.plan, self.media, self.prints, self.keep = kind, plan, media, prints, keep
        self.features = schema_for(kind, media.processor)
        self.duplex = DuplexFormat.of(media.processor) if kind == "duplex" else None
        self.folder = folder / kind
        self.work = self.folder / ".shards"

    def write(self, shards: list[Shard], bar: tqdm) -> None:
        """Encodes those of `shards` that are not there yet, and tells how quickly."""
        start, encoded, files_done, seconds = time.monotonic(), 0, 0, 0.0

        def done(files: int, length: float) -> None:
            nonlocal files_done, seconds
            files_done, seconds = files_done + files, seconds + length
            bar.update(files)
            bar.set_postfix_str(f"{seconds / (time.monotonic() - start):.1f} h/h", refresh=False)

        for shard in shards:
            rows = self.plan.rows(shard)
            files = list(dict.fromkeys(file for row in rows for file in files_of(self.kind, row)))
            by_id = self.media.motions_by_id(files, shard.split)
            key = self._key(rows, files, by_id)
            if self._is_finished(shard, key):
                continue
            codes = self.media.encode(files, done)
            if self.keep is not None:
                usable = {file: found for file, found in codes.items() if not isinstance(found, ValueError)}
                self.keep |= {self.media.key(file): found for file, found in usable.items()}
            self._write_one(shard, key, rows, codes | by_id)
            encoded += 1
        passed = time.monotonic() - start
        logger.info(
            "%s: %d of %d shards encoded, %d were there; %d files, %.2f h in %.1f s: %.1f files/s, %.1f hours/hour",
            *(self.kind, encoded, len(shards), len(shards) - encoded, files_done, seconds / 3600, passed),
            *(files_done / passed, seconds / passed),
        )

    def _note(self, shard: Shard) -> Path:
        return self.work / f"{shard.name}.json"

    def _key(self, rows: list[dict], files: list[MediaFile], by_id: dict) -> str:
        """Fingerprint of a shard: rows, codecs, columns, size and time of the files, motions that rows name by id."""
        stats = []
        for file in files:
            if file.kind != "motion_id":
                try:
                    stat = os.stat(self.media.path(file))
                    stats.append([stat.st_size, stat.st_mtime_ns])
                except (OSError, ValueError):
                    stats.append(None)
        whole = [FORMAT, self.kind, self.prints, str(self.features), self.media.batch_size, rows, stats]
        return hashlib.sha256(json.dumps(whole + list(map(str, by_id.values()))).encode()).hexdigest()

    def _is_finished(self, shard: Shard, key: str) -> bool:
        """True if the shard was made from this; then it lies in `.shards`, or was moved to its place since."""
        note = self._note(shard)
        if not note.is_file() or read_json(note)["key"] != key:
            return False
        return (self.work / shard.name).is_file() or (self.folder / shard.name).is_file()

    def _write_one(self, shard: Shard, key: str, rows: list[dict], codes: dict) -> None:
        kept, rejected = [], []
        for row in rows:
            try:
                made = token_row(self.kind, row, codes)
                kept.append(cut_to_ticks(made, self.duplex.sizes) if self.duplex else made)
            except ValueError as error:
                rejected.append({"id": row["id"], "reason": str(error)})
        self._note(shard).unlink(missing_ok=True)
        for left in self.work.glob(f".{shard.name}*.tmp"):  # of a run that was killed
            left.unlink()
        write_parquet(self.work / shard.name, kept, self.features)
        lengths = dict(zip(("motion_seconds", "speech_seconds"), self._seconds(kept), strict=True))
        left_out = {row["id"] for row in rejected}
        lengths |= _talk([row for row in rows if row["id"] not in left_out]) if self.kind == "chat" else {}
        write_json(self._note(shard), {"key": key, "rows": len(kept), **lengths, "rejected": rejected})

    def _seconds(self, rows: list[dict]) -> tuple[float, float]:
        """Seconds of motion and of speech."""
        if self.kind == "motion":
            return sum(row["num_frames"] for row in rows) / self.media.processor.motion_codec.config.fps, 0.0
        turns = [turn for row in rows for turn in row["people" if self.duplex else "turns"]]
        codec = self.media.processor.speech_codec.config
        speech = sum(len(t["speech"]) for t in turns if t.get("speech") is not None)
        bodies = [t["body"] for t in turns if t.get("body") is not None]
        motion = sum(map(len, bodies)) / self.media.processor.motion_codec.config.frame_rate if bodies else 0.0
        return motion, speech / (codec.frame_rate * codec.lm_levels)

    # ---- when all shards are there

    def finish(self, shards: list[Shard], facts: dict) -> dict:
        """Puts all shards of the plan in their place and writes the reports and the card. Returns the report, which
        begins with `facts` and is also in `<config>/report.json`. Raises ValueError: no row at all could be used;
        nothing is left behind then."""
        notes = [(shard.split, read_json(self._note(shard))) for shard in shards]
        splits: dict[str, dict] = {}
        for split in dict.fromkeys(split for split, _ in notes):
            mine = [note for its, note in notes if its == split]
            counts = {"rows": sum(note["rows"] for note in mine), "shards": len(mine)}
            for what in ("motion", "speech"):
                if seconds := sum(note[f"{what}_seconds"] for note in mine):
                    counts[f"{what}_hours"] = round(seconds / 3600, 6)
            talk = ("turns", "back_channels", "overlap_seconds")
            if any(note.get("turns") for note in mine):
                counts |= {what: round(sum(note.get(what, 0) for note in mine), 3) for what in talk}
            if counts["rows"]:
                splits[split] = counts
        if not splits:
            reason = next(self._rejected(notes), {"reason": "there are no rows"})["reason"]
            self._take_away(shards)
            raise ValueError(f"no row of {facts['source']} could be used; the first reason: {reason}")
        for shard in shards:
            if (self.work / shard.name).is_file():
                os.replace(self.work / shard.name, self.folder / shard.name)
        published = {shard.name for shard in shards if shard.split in splits}
        known = {note.name for note in map(self._note, shards)}
        for path in [*self.folder.glob("*.parquet"), *self.work.iterdir()]:
            if path.name not in (published if path.parent == self.folder else known):
                path.unlink()
        rejected = write_json_lines(self.folder / "rejected.jsonl", self._rejected(notes))
        names = (row["id"] for _, note in notes for row in note["rejected"])
        orphans = write_json_lines(self.folder / "orphans.jsonl", self.plan.orphans(names))
        report = {"config": self.kind, **facts, "splits": splits, "rejected": rejected, "orphans": orphans}
        reasons = Counter(re.sub(r"\S*\d\S*", "...", row["reason"]) for row in self._rejected(notes))
        report["reasons"] = dict(reasons.most_common(_MOST_REASONS))
        report |= {"partners_in_two_splits": self.plan.straddling_partners(), "codecs": self.prints}
        write_json(self.folder / "report.json", report)
        write_card(self.folder.parent)
        return report

    def _rejected(self, notes: list[tuple[str, dict]]) -> Iterator[dict]:
        yield from self.plan.rejected()
        for _, note in notes:
            yield from note["rejected"]

    def _take_away(self, shards: list[Shard]) -> None:
        """Removes what this run wrote, and folders that are empty then."""
        for shard in shards:
            (self.work / shard.name).unlink(missing_ok=True)
            self._note(shard).unlink(missing_ok=True)
        for folder in (self.work, self.folder, self.folder.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                shutil.rmtree(folder)
