"""The answers of a results folder (`solami generate`) as pairs: what the model made, and what was hoped for."""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ...processing.datasets.results import RESULTS, RUN, read_run, whole_rows
from ...processing.synthesize.writers import content_hash

COLUMNS = (
    "task", "id", "round", "seed", "condition", "text", "body", "hand", "speech", "valid", "reason", "error", "motion",
    "audio", "reference_text", "reference_motion", "reference_audio", "seconds",
)  # fmt: skip
PARTS = {"t2m": ("motion",), "m2m": ("motion",), "m2t": ("text",), "s2t": ("text",), "t2s": ("audio",),
         "s2s": ("audio",), "chat": ("motion", "audio", "text")}  # fmt: skip
"""Parts of an answer of each task."""
KINDS = ("motion", "audio")
NOISE = {"radians": 0.03, "metres": 0.01, "frames": 15, "decibels": -20.0}
"""The noise on jittered references: on every joint and the place, with so many frames from one value to the next; of
sound, below its own loudness."""


@dataclass(frozen=True)
class Medium:
    """A motion or a sound: a file, or the codes of one where no file was written."""

    kind: str  # "motion" or "audio"
    path: Path | None = None
    codes: tuple = ()  # without a path: body and hand codes (of a bound motion codec no hand's), or speech codes
    codec: str = ""  # folder or Hub id with the codecs that `codes` belong to, or that the answers were made with
    noise: int | None = None  # seed of the noise that is put on it (`media.load`), None for none
    round_trip: bool = False  # whether it goes through that codec and back

    @cached_property
    def identity(self) -> str:
        """A hash that changes when the content does; of a file, with its size and the time it was written."""
        if self.path is None:
            content = [self.codec, self.codes]
        else:
            status = self.path.stat()
            content = [str(self.path.resolve()), status.st_size, status.st_mtime_ns]
        through = [self.codec] if self.round_trip else []
        return content_hash([self.kind, content, self.noise if self.noise is None else [self.noise, NOISE], *through])

    @property
    def name(self) -> str:
        """For messages."""
        return f"the codes of a {self.kind}" if self.path is None else str(self.path)


@dataclass(frozen=True)
class Pair:
    """One answer and what was hoped for."""

    item: str  # the clip or dialogue that it belongs to; what a bootstrap draws
    round: int  # of a dialogue
    valid: bool  # whether the answer was well formed
    motion: Medium | None
    audio: Medium | None
    text: str | None  # what it says, in writing
    reference_motion: Medium | None
    reference_audio: Medium | None
    reference_texts: tuple[str, ...]
    row: dict = field(repr=False, compare=False)  # of `results.jsonl`

    @property
    def key(self) -> tuple[str, int]:
        """Key of an answer within its repetition and condition."""
        return self.row["id"], self.round

    @property
    def reference(self) -> "Pair":
        """The reference as if it were the answer."""
        text = self.reference_texts[0] if self.reference_texts else None
        return replace(self, valid=True, motion=self.reference_motion, audio=self.reference_audio, text=text)

    def against(self, other: "Pair") -> "Pair":
        """This answer measured against another's reference, under the other's name."""
        return replace(other, **{name: getattr(self, name) for name in ("valid", "motion", "audio", "text")})


class Results:
    """A results folder: `run` is what `run.json` says, `task` one of `PARTS`. `data` is the data's folder, where it
    is no longer where `run.json` says. Raises FileNotFoundError: there are no results; ValueError: another version,
    an unknown task, a damaged row, or no rows."""

    def __init__(self, folder: str | Path, data: str | Path | None = None):
        self.folder = Path(os.path.abspath(folder))  # media are read later, perhaps from elsewhere
        for name in (RUN, RESULTS):
            if not (self.folder / name).is_file():
                raise FileNotFoundError(
                    f"{self.folder} holds no results: there is no {name}; make some with `solami generate`"
                )
        self.run = read_run(self.folder)
        if self.run.get("task") not in PARTS:
            raise ValueError(
                f"{self.folder / RUN} tells of task {self.run.get('task')!r}, expected one of: {', '.join(PARTS)}"
            )
        self.task = self.run["task"]
        self.data = Path(os.path.abspath(data if data is not None else self.run.get("input") or ""))
        codec = str(self.run.get("checkpoint"))
        self._codec = os.path.abspath(codec) if os.path.isdir(codec) else codec
        self.rows = whole_rows(self.folder / RESULTS, COLUMNS)
        if not self.rows:
            raise ValueError(f"{self.folder / RESULTS} has no answers yet; let `solami generate` finish")

    @property
    def name(self) -> str:
        """Of the model: the folder of its checkpoint."""
        return Path(str(self.run.get("checkpoint") or self.folder)).name

    @property
    def conditions(self) -> list[str]:
        """Those that there are answers of, `given` first."""
        return sorted({row["condition"] for row in self.rows}, key=lambda name: (name != "given", name))

    def repetitions(self, condition: str) -> list[list[Pair]]:
        """The pairs of a condition, one list a seed, each by id and round."""
        seeds: dict[int, list[Pair]] = {}
        for row in self.rows:
            if row["condition"] == condition:
                seeds.setdefault(row["seed"], []).append(self._pair(row))
        return [sorted(seeds[seed], key=lambda pair: pair.key) for seed in sorted(seeds)]

    def _pair(self, row: dict) -> Pair:
        made = {kind: self._medium(row, "", kind, self.folder) if row["valid"] else None for kind in KINDS}
        references = {f"reference_{kind}": self._medium(row, "reference_", kind, self.data) for kind in KINDS}
        text = row["text"] if row["valid"] and (self.task in ("m2t", "s2t") or row["text"]) else None
        return Pair(
            item=row["id"].split("#")[0],
            round=row["round"],
            valid=row["valid"],
            text=text,
            reference_texts=tuple(row["reference_text"] or ()),
            row=row,
            **made,
            **references,
        )

    def _medium(self, row: dict, prefix: str, kind: str, folder: Path) -> Medium | None:
        """The file of an answer or reference, else its codes; None for what the task has no part in."""
        if kind not in PARTS[self.task]:
            return None
        if name := row[f"{prefix}{kind}"]:
            return Medium(kind, self._file(folder, name), codec=self._codec)
        body, hand, speech = (tuple(row[f"{prefix}{name}"] or ()) for name in ("body", "hand", "speech"))
        codes = speech if kind == "audio" else (body, hand) if body else ()
        return Medium(kind, codes=codes, codec=self._codec) if codes else None

    def _file(self, folder: Path, name: str) -> Path:
        path = folder / name  # an absolute name stays as it is
        if not path.is_file() and not Path(name).is_file():
            raise FileNotFoundError(
                f"{self.folder / RESULTS} names {path}, which is not there; --data names the data's folder"
            )
        return path if path.is_file() else Path(os.path.abspath(name))
