"""The rows of a pretraining run: samples of the mixture, drawn and packed when they are asked for.

Row n is a function of the seed and of n alone, so any number of ranks sees the same rows at the same global batch, and
a resumed run goes on with the row that it stopped at. CHUNK samples are drawn and packed at a time, longest first, and
the rows that come out are mixed; only these are in memory. How many rows a chunk gives is known once it was packed:
[`KeepFirstRows`] saves these numbers in each checkpoint, and without them earlier chunks are packed once more.
"""

import json
import logging
import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import TrainerCallback

from ...processing.files.text_files import read_json, write_json
from ...processing.rendering import IGNORE
from .mixture import CHUNK, Mixture

logger = logging.getLogger(__name__)

FILE = "mixture.json"
_PROBE = 64


class PackedMixture(torch.utils.data.Dataset):
    """The rows of a run, each with one or several samples of a [`Mixture`]; the motion share follows the rows.
    Arguments are those of [`Mixture`], whose samples are dicts with `input_ids` and `labels`, arrays of equal length;
    `num_rows` of the whole run (steps times the global batch), `max_length` tokens of a row, which no sample may
    exceed, and whether rows are filled with several samples (`packing`). Raises ValueError: as [`Mixture`], or no
    rows."""

    def __init__(
        self,
        motion: Mapping[str, Sequence],
        speech: Mapping[str, Sequence],
        num_rows: int,
        max_length: int,
        seed: int,
        final: float = 0.4,
        weights: dict[str, float] | None = None,
        transform=None,
        packing: bool = True,
    ):
        if num_rows < 1:
            raise ValueError(f"num_rows must be at least 1, got {num_rows}")
        draw = {"final": final, "weights": weights, "transform": transform}
        self.mixture = Mixture(motion, speech, sys.maxsize, seed, progress=self._progress, **draw)
        self.num_rows, self.max_length, self.seed, self.packing = num_rows, max_length, seed, packing
        probe = Mixture(motion, speech, _PROBE, seed, **draw)
        mean_length = sum(len(probe[i]["input_ids"]) for i in range(_PROBE)) / _PROBE
        self._first_rate = mean_length / max_length if packing else 1.0
        self.first_rows = [0]  # of each chunk that was packed, and of the next one
        self._packed: tuple[int, list[dict]] = (-1, [])

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, number: int) -> dict:
        """`{"input_ids", "labels", "seq_lengths"}` of a row, for `PackedRowsCollator`."""
        number = int(number)
        if not 0 <= number < self.num_rows:
            raise IndexError(f"row {number} of {self.num_rows}")
        while self.first_rows[-1] <= number:
            chunk = len(self.first_rows) - 1
            self.first_rows.append(self.first_rows[-1] + (len(self._rows(chunk)) if self.packing else CHUNK))
        chunk = bisect_right(self.first_rows, number) - 1
        return self._rows(chunk)[number - self.first_rows[chunk]] if self.packing else _row([self.mixture[number]])

    def _rows(self, chunk: int) -> list[dict]:
        """The rows of a chunk, mixed."""
        if self._packed[0] != chunk:
            samples = [self.mixture[number] for number in range(chunk * CHUNK, (chunk + 1) * CHUNK)]
            packs = best_fit([len(sample["input_ids"]) for sample in samples], self.max_length)
            order = np.random.default_rng([self.seed, 3, chunk]).permutation(len(packs))
            self._packed = (chunk, [_row([samples[i] for i in packs[place]]) for place in order])
        return self._packed[1]

    def _progress(self, numbers: np.ndarray) -> np.ndarray:
        """Progress with the samples of a chunk, supposing that they take as many rows as those before."""
        chunk = int(numbers[0]) // CHUNK
        first = self.first_rows[chunk]
        rate = (first - self.first_rows[chunk - 1]) / CHUNK if chunk else self._first_rate
        return np.minimum(1.0, (first + (numbers - numbers[0]) * rate) / self.num_rows)

    def identity(self) -> dict:
        """Fingerprint of the rows; equal for equal rows."""
        ours = {"num_rows": self.num_rows, "max_length": self.max_length, "packing": self.packing}
        return {**self.mixture.identity(), **ours}

    def save(self, folder: str | Path) -> None:
        """Writes what [`load`](self.load) needs to go on without packing what was packed."""
        write_json(Path(folder) / FILE, {"mixture": self.identity(), "first_rows": self.first_rows}, indent=None)

    def load(self, folder: str | Path) -> None:
        """Takes over what a checkpoint has of the same rows; a warning when it has those of others."""
        path = Path(folder) / FILE
        if not path.is_file():
            return
        state, ours = read_json(path), json.loads(json.dumps(self.identity()))
        changed = ", ".join(name for name in ours if state["mixture"].get(name) != ours[name])
        if not changed:
            self.first_rows = state["first_rows"]
            return
        told = "%s was drawn otherwise (%s differ): the run goes on with other samples than it would have seen"
        logger.warning(told, folder, changed)


class KeepFirstRows(TrainerCallback):
    """Saves in each checkpoint how far the mixture was packed."""

    def __init__(self, rows: PackedMixture):
        self.rows = rows

    def on_save(self, args, state, control, **kwargs):
        """Called when the checkpoint is there; it is whole without this file too."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            try:
                self.rows.save(folder)
            except OSError as error:  # a full disk, say; what comes next on it will tell
                logger.warning("%s is whole, but resuming it will take longer: %s", folder, error)


def best_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """The numbers of what lies in each pack of at most `size` (no length is above it), longest first, each put where
    the least space is left over. TRL's `pack_dataset` packs so, but whole data sets only."""
    packs: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (space left, pack), in order
    for number in np.argsort(lengths, kind="stable")[::-1].tolist():
        place = bisect_left(spaces, (lengths[number], -1))
        if place == len(spaces):
            space, pack = size, len(packs)
            packs.append([])
        else:
            space, pack = spaces.pop(place)
        packs[pack].append(number)
        insort(spaces, (space - lengths[number], pack))
    return packs


def _row(samples: list[dict]) -> dict:
    whole = {name: np.concatenate([sample[name] for sample in samples]) for name in ("input_ids", "labels")}
    return whole | {"seq_lengths": [len(sample["input_ids"]) for sample in samples]}


@dataclass
class PackedRowsCollator:
    """Stacks packed blocks as rows; positions begin anew with every document. From the positions transformers builds
    the mask of eager, sdpa and flex attention, where padding at the end of a row is a document of its own. Flash
    attention takes no mask: with `padding_free` it gets all documents end to end in one row, and where they end. (For
    the others that row would cost as many times as much as the blocks apart.)"""

    pad_token_id: int
    padding_free: bool = False

    def __call__(self, rows: list[dict]) -> dict:
        """`{"input_ids", "labels", "position_ids"}` of shape (B, T), or (1, all tokens), from rows of `input_ids`,
        `labels` and, when they are packed, `seq_lengths`. The first token of a document is never predicted.
        `use_cache` is off, as with a cache transformers would not look for packed documents."""
        lengths = [list(row.get("seq_lengths") or [len(row["input_ids"])]) for row in rows]
        batch = {name: [torch.tensor(row[name]) for row in rows] for name in ("input_ids", "labels")}
        if self.padding_free:
            documents = [n for of_row in lengths for n in of_row]
            batch = {name: torch.cat(parts)[None] for name, parts in batch.items()}
            ends = torch.tensor([0, *documents]).cumsum(0).to(torch.int32)
            batch |= {f"cu_seq_lens_{side}": ends for side in "qk"}
            batch |= {f"max_length_{side}": max(documents) for side in "qk"}
            lengths = [documents]
        else:
            fill = {"input_ids": self.pad_token_id, "labels": IGNORE}
            batch = {name: pad_sequence(parts, True, fill[name]) for name, parts in batch.items()}
        width = batch["labels"].shape[1]
        positions = [[i for n in (*of_row, width - sum(of_row)) for i in range(n)] for of_row in lengths]
        position_ids = torch.tensor(positions)
        batch["labels"][position_ids == 0] = IGNORE
        return {**batch, "position_ids": position_ids, "use_cache": False}
