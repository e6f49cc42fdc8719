"""The shards of a `solami prepare`: one Parquet file each, encoded by itself and finished for good.

Until all shards are there, they lie in `OUTPUT/<config>/.shards/`, each with a note: what went into it, what was
rejected, how long it is. A shard whose note fits the source, the codecs and the files' sizes and times is not encoded
again. Nothing in a shard depends on the others, so a run that was killed, or shared among processes, gives the same
bytes. A dataset that was in the folder before stays until all new shards are ready.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from datasets import Features
from tqdm import tqdm

from .prepare_media import Media
from .prepare_plan import Plan, Shard
from .prepare_rows import MediaFile, files_of, token_row
from .token_dataset import write_card, write_json, write_json_lines, write_parquet

logger = logging.getLogger(__name__)
FORMAT = 1  # of the shards; another number makes those of earlier versions anew


class ShardWriter:
    """Encodes shards of a plan into a dataset folder.

    Args:
        kind: `motion`, `speech` or `chat`.
        plan: of the source.
        media: encodes its files.
        folder: the dataset folder.
        features: the columns, see `token_schema.schema_for`.
        prints: fingerprints of the codecs.
        keep: codes of all files are added to it, by `Media.key`, when it is given.
    """

    def __init__(
        self, kind: str, plan: Plan, media: Media, folder: Path, features: Features, prints: dict, keep: dict | None
    ):
        self.kind, self.plan, self.media, self.features = kind, plan, media, features
        self.prints, self.keep = prints, keep
        self.folder = Path(folder) / kind
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
            named = dict.fromkeys(file for row in rows for file in files_of(self.kind, row))
            files = [file for file in named if file.kind != "motion_id"]
            prepared = {file: self._prepared(file, shard.split) for file in named if file.kind == "motion_id"}
            key = self._key(rows, files, list(map(str, prepared.values())))
            if self._is_finished(shard, key):
                continue
            codes = self.media.encode(files, done)
            if self.keep is not None:
                self.keep.update((k, c) for k, c in codes.items() if not isinstance(c, ValueError))
            self._write_one(shard, key, rows, codes | prepared)
            encoded += 1
        passed = time.monotonic() - start
        logger.info(
            "%s: %d of %d shards encoded, %d were there; %d files, %.2f h in %.1f s: %.1f files/s, %.1f hours/hour",
            *(self.kind, encoded, len(shards), len(shards) - encoded, files_done, seconds / 3600, passed),
            *(files_done / passed, seconds / passed),
        )

    def _note(self, shard: Shard) -> Path:
        return self.work / f"{shard.name}.json"

    def _prepared(self, file: MediaFile, split: str) -> dict | ValueError:
        """Codes of a motion that is named by its id, or why there are none."""
        try:
            return self.media.motion_rows.codes(file.name, split)
        except ValueError as error:
            return error

    def _key(self, rows: list[dict], files, prepared: list[str]) -> str:
        """Fingerprint of a shard: rows, codecs, columns, size and time of the files, codes that were there."""
        stats = []
        for file in files:
            try:
                stat = os.stat(self.media.path(file))
                stats.append([stat.st_size, stat.st_mtime_ns])
            except (OSError, ValueError):
                stats.append(None)
        batch = self.media.batch_size
        whole = [FORMAT, self.kind, self.prints, str(self.features), batch, rows, stats, *prepared]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()

    def _is_finished(self, shard: Shard, key: str) -> bool:
        """True if the shard was made from this; then it lies in `.shards`, or was moved to its place since."""
        note = self._note(shard)
        if not note.is_file() or json.loads(note.read_text(encoding="utf-8"))["key"] != key:
            return False
        return (self.work / shard.name).is_file() or (self.folder / shard.name).is_file()

    def _write_one(self, shard: Shard, key: str, rows: list[dict], codes: dict) -> None:
        kept, rejected = [], []

        def codes_of(file: MediaFile):
            if file.kind != "motion_id":
                self.media.path(file)
            found = codes[file if file.kind == "motion_id" else self.media.key(file)]
            if isinstance(found, ValueError):
                raise found
            return found

        for row in rows:
            try:
                kept.append(token_row(self.kind, row, codes_of))
            except ValueError as error:
                rejected.append({"id": row["id"], "reason": str(error)})
        self._note(shard).unlink(missing_ok=True)
        for left in self.work.glob(f".{shard.name}*.tmp"):  # of a run that was killed
            left.unlink()
        write_parquet(self.work / shard.name, kept, self.features)
        lengths = dict(zip(("motion_seconds", "speech_seconds"), self._seconds(kept), strict=True))
        write_json(self._note(shard), {"key": key, "rows": len(kept), **lengths, "rejected": rejected})

    def _seconds(self, rows: list[dict]) -> tuple[float, float]:
        """Seconds of motion and of speech."""
        if self.kind == "motion":
            return sum(row["num_frames"] for row in rows) / self.media.processor.motion_codec.config.fps, 0.0
        turns = [turn for row in rows for turn in row["turns"]]
        codec = self.media.processor.speech_codec.config
        speech = sum(len(t["speech"]) for t in turns if t.get("speech") is not None)
        bodies = [t["body"] for t in turns if t.get("body") is not None]
        motion = sum(map(len, bodies)) / self.media.processor.motion_codec.config.frame_rate if bodies else 0.0
        return motion, speech / (codec.frame_rate * codec.lm_levels)

    # ---- when all shards are there

    def finish(self, shards: list[Shard], facts: dict) -> dict:
        """Puts all shards in their place and writes the reports and the card.

        Args:
            shards: all of the plan.
            facts: what else the report says.

        Returns:
            the report, which is also in `<config>/report.json`.

        Raises:
            ValueError: no row at all could be used; nothing is left behind then.
        """
        notes = [(shard, json.loads(self._note(shard).read_text(encoding="utf-8"))) for shard in shards]
        splits: dict[str, dict] = {}
        for shard, note in notes:
            counts = splits.setdefault(shard.split, dict.fromkeys(("rows", "shards", "motion", "speech"), 0))
            counts["rows"] += note["rows"]
            counts["shards"] += 1
            for what in ("motion", "speech"):
                counts[what] += note[f"{what}_seconds"]
        splits = {split: _hours(counts) for split, counts in splits.items() if counts["rows"]}
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
        report |= {"partners_in_two_splits": self.plan.straddling_partners(), "codecs": self.prints}
        write_json(self.folder / "report.json", report)
        write_card(self.folder.parent)
        return report

    def _rejected(self, notes: list[tuple[Shard, dict]]) -> Iterator[dict]:
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


def _hours(counts: dict) -> dict:
    found = {"rows": counts["rows"], "shards": counts["shards"]}
    return found | {f"{what}_hours": round(counts[what] / 3600, 6) for what in ("motion", "speech") if counts[what]}
