"""Writes a results folder batch by batch, so that a killed run goes on; files: `processing.datasets.results`.

A batch's lines are written together behind its media, so what a killed process leaves is whole batches and at most a
piece of one, which the next run cuts off and makes again.
"""

import fcntl
import json
import logging
import os
import re
from pathlib import Path

from datasets import DatasetInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData

from ..processing.datasets.results import FEATURES, RESULTS, RUN, VERSION, key_of, read_run, whole_rows
from ..processing.files.atomic_write import remove_partial_files
from ..processing.files.text_files import write_json, write_text

logger = logging.getLogger(__name__)


class ResultsWriter:
    """Appends batches of answers to a results folder, and knows those that an earlier run has left there: the rows
    `done`, by key.

        with ResultsWriter(folder, settings, batches) as writer:
            ...

    `folder` is made where it is missing; `settings` are what `run.json` says, and a folder of others is refused;
    `batches` the keys of each batch of the run, in their order, of which a later run may have more. Raises ValueError:
    the folder holds results of other settings or inputs, or another process is writing to it.
    """

    def __init__(self, folder: str | Path, settings: dict, batches: list[list[tuple]]):
        self.folder, self.settings, self.batches = Path(folder), settings, batches
        self.done: dict[tuple, dict] = {}
        self.next_batch = 0

    def __enter__(self) -> "ResultsWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.folder / RESULTS, "a+b")
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._file.close()
        if kind is None:
            self._write_run(finished=self.next_batch == len(self.batches))

    def _begin(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"another process is writing to {self.folder}; wait for it, or give another output"
            ) from None
        remove_partial_files(self.folder)
        if (self.folder / RUN).is_file():
            self._check_settings(read_run(self.folder))
        elif self._file.tell():
            raise ValueError(f"{self.folder} has {RESULTS} but no {RUN}; give another output, or remove it first")
        self._read_done()
        self._write_run(finished=False)
        write_text(self.folder / "README.md", _card(self.settings))

    def _check_settings(self, old: dict) -> None:
        new = json.loads(json.dumps(self.settings))
        shared = min(len(old.get("seeds", [])), len(new["seeds"]))
        for name, value in new.items():
            same = old.get(name)
            if name in ("checkpoint", "input", "left_out"):  # places; `model` and `inputs` say what was there
                continue
            if name == "seeds":  # a later run may add repetitions
                value, same = value[:shared], (same or [])[:shared]
            if same != value:
                raise ValueError(
                    f"{self.folder} holds results of another run: {name} was {same}, now it is {value}; give another "
                    "output, or the same settings to go on"
                )

    def _read_done(self) -> None:
        """Keeps whole batches, and cuts off what a killed process has left of the last one."""
        rows = whole_rows(self.folder / RESULTS)
        kept, at = 0, 0
        for keys in self.batches:
            found = rows[at : at + len(keys)]
            if [key_of(row) for row in found] != keys[: len(found)]:
                raise ValueError(
                    f"{self.folder} holds answers to other inputs (batch {self.next_batch}); give another output"
                )
            if len(found) < len(keys):
                break
            self.done.update(zip(keys, found, strict=True))
            at, self.next_batch = at + len(keys), self.next_batch + 1
        if self.next_batch == len(self.batches) and at < len(rows):
            raise ValueError(
                f"{self.folder} has {len(rows)} answers, more than the {at} of this run; give another output"
            )
        self._file.seek(0)
        for _ in range(at):
            kept += len(self._file.readline())
        self._file.truncate(kept)
        self._file.seek(0, os.SEEK_END)
        if self.done:
            logger.info("%s: %d answers are there already", self.folder, len(self.done))

    def append(self, rows: list[dict]) -> None:
        """Writes the rows of the next batch; when this returns they are on the disk."""
        keys = [key_of(row) for row in rows]
        if keys != self.batches[self.next_batch]:
            raise RuntimeError(f"batch {self.next_batch} consists of {self.batches[self.next_batch]}, got {keys}")
        self._file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done.update(zip(keys, rows, strict=True))
        self.next_batch += 1

    def media_path(self, row: dict, suffix: str) -> Path:
        """Path of a file of an answer, relative to the folder; different answers never share one."""
        name = re.sub(r"[^\w.-]|^\.", lambda match: f"%{ord(match[0]):02X}", row["id"])
        name += f".{row['round']}" if row["round"] else ""
        condition = "" if row["condition"] == "given" else row["condition"]
        return Path("media") / f"seed{row['seed']}" / condition / (name + suffix)

    def _write_run(self, finished: bool) -> None:
        run = {"version": VERSION, **self.settings, "finished": finished}
        write_json(self.folder / RUN, run, ensure_ascii=False)


def _card(settings: dict) -> str:
    files = {"config_name": "default", "data_files": [{"split": "train", "path": RESULTS}]}
    data = DatasetCardData(configs=[files], tags=["solami", "motion", "speech"])
    DatasetInfosDict({"default": DatasetInfo(features=FEATURES)}).to_dataset_card_data(data)
    told = {name: settings[name] for name in ("task", "split", "seeds", "conditions", "decoding", "items")}
    place = Path(settings["checkpoint"])  # where it lies on this machine is nobody's business
    told["checkpoint"] = place.resolve().name if place.exists() else settings["checkpoint"]
    lines = [f"- {name}: {value}" for name, value in told.items() if value is not None]
    text = (
        "# Answers of a SOLAMI model\n\nMade by `solami generate`; the columns are told in the docstring of "
        "`solami_hf.processing.datasets.results`, measured by `solami evaluate`. Codes mean nothing without the "
        "codecs that `run.json` names by their fingerprints.\n\n"
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}" + "\n".join(lines) + "\n"
