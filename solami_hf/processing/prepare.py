"""`solami prepare motion|speech|chat SRC --processor DIR --output DIR`: a manifest folder becomes token Parquet.

`SRC/manifest.jsonl` has one row a line, paths relative to `SRC`, `split` is `train` unless given:

- motion: `{"id", "motion", "text": [str], "partner_id"?, "split"?, "source"?}`
- speech: `{"id", "turns": [{"text", "audio", "speaker"}], "split"?, "source"?}`
- chat: `{"id", "topic", "character", "turns": [{"role", "text", "audio"?, "motion"?, "motion_text"?}], "split"?}`

Every distinct file is read and encoded once, in batches. A row whose files cannot be used is left out and written to
`OUTPUT/<config>/rejected.jsonl` with the reason; the rest is kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from .audio import read_audio
from .manifest import read_manifest
from .motion_files import read_motion
from .token_data import fingerprints, write_token_dataset

logger = logging.getLogger(__name__)
KINDS = ("motion", "speech", "chat")


@dataclass
class PrepareArguments:
    """What `solami prepare` reads and writes."""

    source: str = field(metadata={"help": "Folder with manifest.jsonl (also accepted as the word after the kind)."})
    processor: str = field(metadata={"help": "Folder or hub id of a SolamiProcessor, whose codecs make the codes."})
    output: str = field(metadata={"help": "Dataset folder to write; other configs in it are kept."})
    batch_size: int = field(default=32, metadata={"help": "Files encoded together."})


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    from trl import TrlParser

    argv = list(sys.argv[1:] if argv is None else argv)
    kind = argv.pop(0) if argv and not argv[0].startswith("-") else None
    if argv and not argv[0].startswith("-"):
        argv[:1] = ["--source", argv[0]]
    parser = TrlParser(
        dataclass_types=[PrepareArguments],
        prog="solami prepare {motion,speech,chat} SRC",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if kind not in KINDS and not {"-h", "--help"} & set(argv):
        raise ValueError(f"say what to prepare: {', '.join(KINDS)}; got {kind!r}")
    (args,) = parser.parse_args_and_config(argv)
    from .processing_solami import SolamiProcessor

    if not Path(args.processor).is_dir() and args.processor.startswith(("/", ".")):
        raise FileNotFoundError(f"no such processor folder: {args.processor}")
    report = prepare(kind, args.source, SolamiProcessor.from_pretrained(args.processor), args.output, args.batch_size)
    logger.info("wrote %s to %s", ", ".join(f"{n} {k}" for k, n in report.items()), Path(args.output) / kind)
    return 0


def prepare(
    kind: str, source: str | Path, processor, output: str | Path, batch_size: int = 32, known: dict | None = None
) -> dict[str, int]:
    """Encodes a manifest folder and writes its token dataset.

    Args:
        kind: `motion`, `speech` or `chat`.
        source: folder with `manifest.jsonl`.
        processor: a `SolamiProcessor` with the codecs that the kind needs.
        output: the dataset folder.
        batch_size: files encoded together.
        known: codes of files that another call with the same processor has encoded; new ones are added to it.

    Returns:
        row counts per split, and `rejected`.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: an unreadable manifest, an id twice or in two splits, or no usable row at all.
    """
    rows = read_manifest(source)
    media = _Media(Path(source), processor, batch_size, {} if known is None else known)
    media.encode({path for row in rows for path in _files(kind, row)})
    splits: dict[str, list[dict]] = {}
    rejected = []
    for row in rows:
        try:
            splits.setdefault(row["split"], []).append(_token_row(kind, row, media))
        except (KeyError, ValueError, TypeError) as error:
            reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
            rejected.append({"id": row.get("id"), "reason": reason})
    splits = {split: kept for split, kept in splits.items() if kept}
    if not splits:
        raise ValueError(f"no row of {source}/manifest.jsonl could be used; the first reason: {rejected[0]['reason']}")
    write_token_dataset(output, kind, splits, fingerprints(processor, kind))
    lines = "".join(json.dumps(r) + "\n" for r in rejected)
    (Path(output) / kind / "rejected.jsonl").write_text(lines, encoding="utf-8")
    for row in rejected[:5]:
        logger.warning("left out %s: %s", row["id"], row["reason"])
    return {**{split: len(kept) for split, kept in splits.items()}, "rejected": len(rejected)}


def _files(kind: str, row: dict):
    if kind == "motion":
        yield ("motion", row.get("motion"))
    for turn in row.get("turns") or []:
        yield from ((key, turn[key]) for key in ("motion", "audio") if turn.get(key))


class _Media:
    """Codes of the files of a source folder, each encoded once."""

    def __init__(self, folder: Path, processor, batch_size: int, known: dict):
        self.folder, self.processor, self.batch_size = folder, processor, batch_size
        self.known = known  # (kind, real path) -> codes
        self.errors: dict[tuple[str, str], str] = {}

    def encode(self, files: set) -> None:
        """Reads and encodes all files, a few batches at a time, with a progress bar."""
        files = sorted(f for f in files if f[1] and self._key(*f) not in self.known)
        with tqdm(total=len(files), desc="encode", unit="file", disable=None) as bar:
            for key, read, encode in (
                ("motion", read_motion, self._encode_motion),
                ("audio", self._read_audio, self.processor.encode_speech),
            ):
                wanted = [f for f in files if f[0] == key]
                for start in range(0, len(wanted), 16 * self.batch_size):
                    self._encode_some(wanted[start : start + 16 * self.batch_size], read, encode, bar)

    def _read_audio(self, path):
        return read_audio(path, sampling_rate=self.processor.speech_codec.config.sampling_rate)

    def _encode_motion(self, motions, batch_size=1):
        codes = self.processor.encode_motion(motions, batch_size=batch_size)
        return [{**c, "num_frames": m.num_frames} for c, m in zip(codes, motions, strict=True)]

    def _encode_some(self, files, read, encode, bar) -> None:
        loaded = {}
        for file in files:
            try:
                loaded[file] = read(self._inside(file[1]))
            except (ValueError, OSError) as error:
                self.errors[file] = str(error)
        if not loaded:
            bar.update(len(files))
            return
        try:
            codes = encode(list(loaded.values()), batch_size=self.batch_size)
            self.known.update((self._key(*file), c) for file, c in zip(loaded, codes, strict=True))
        except ValueError:  # one bad file must not cost the batch: find it
            for file, value in loaded.items():
                try:
                    self.known[self._key(*file)] = encode([value])[0]
                except ValueError as error:
                    self.errors[file] = str(error)
        bar.update(len(files))

    def _inside(self, name: str) -> Path:
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise ValueError(f"{name} lies outside {self.folder}; paths in a manifest are relative to its folder")
        return self.folder / name

    def get(self, key: str, name: str):
        """Codes of a file; ValueError with the reason when it could not be used."""
        if (key, name) in self.errors:
            raise ValueError(self.errors[key, name])
        return self.known[self._key(key, name)]

    def _key(self, key: str, name: str) -> tuple[str, str]:
        return key, os.path.realpath(self.folder / str(name))


def _token_row(kind: str, row: dict, media: _Media) -> dict:
    base = {"id": row["id"], "source": row.get("source", "")}
    if kind == "motion":
        text = [row["text"]] if isinstance(row["text"], str) else list(row["text"])
        return {**base, "text": text, **media.get("motion", row["motion"]), "partner_id": row.get("partner_id")}
    if not row["turns"]:
        raise ValueError("no turns")
    if kind == "speech":
        turns = [
            {"text": t["text"], "speech": media.get("audio", t["audio"]), "speaker": t.get("speaker", "")}
            for t in row["turns"]
        ]
        return {**base, "turns": turns}
    turns = []
    for t in row["turns"]:
        if t["role"] not in ("system", "user", "assistant"):
            raise ValueError(f"role must be system, user or assistant, got {t['role']!r}")
        motion = media.get("motion", t["motion"]) if t.get("motion") else {}
        motion = {name: motion.get(name) for name in ("body", "hand", "trans")}
        speech = media.get("audio", t["audio"]) if t.get("audio") else None
        turns.append(
            {"role": t["role"], "text": t["text"], "motion_text": t.get("motion_text"), **motion, "speech": speech}
        )
    return {**base, "topic": row.get("topic", ""), "character": row["character"], "turns": turns}
