"""Rows of a data set in shuffled order, epoch after epoch, with every place of the order at hand at once.

A list is shuffled as a whole. Parquet files are shuffled by row groups: their order, then the rows of some of them at
a time, so that a data set of any size is read through with a few row groups in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

WINDOW = 8
"""Row groups whose rows are mixed with one another."""


class RowOrder:
    """An endless order of the rows 0..N-1: every row once, then every row once again in another order, and so on.

    Args:
        group_sizes: numbers of rows that lie together; one number means that all rows do.
        key: integers that the order is a function of.
        window: groups that are mixed with one another.
    """

    def __init__(self, group_sizes: Sequence[int], key: Sequence[int], window: int = WINDOW):
        self.sizes, self.key, self.window = np.asarray(group_sizes, dtype=np.int64), list(key), window
        self.first_rows = np.cumsum(self.sizes) - self.sizes
        self.num_rows = int(self.sizes.sum())
        if self.num_rows == 0 or window < 1:
            raise ValueError(f"an order needs rows and a window of at least 1, got {self.num_rows} rows, {window}")
        self._epoch = self._window = None

    def __getitem__(self, place: int) -> int:
        """The row at `place`, counted from 0 through all epochs."""
        epoch, within = divmod(place, self.num_rows)
        if self._epoch != epoch:
            self._groups = self._rng(epoch, 0).permutation(len(self.sizes))
            ends = np.cumsum(self.sizes[self._groups])
            last = np.arange(self.window - 1, len(ends) + self.window - 1, self.window)
            self._ends = ends[last.clip(max=len(ends) - 1)]
            self._epoch, self._window = epoch, None
        window = int(np.searchsorted(self._ends, within, side="right"))
        if self._window != window:
            groups = self._groups[window * self.window : (window + 1) * self.window]
            rows = np.concatenate([self.first_rows[g] + np.arange(self.sizes[g]) for g in groups])
            self._rows, self._window = self._rng(epoch, window + 1).permutation(rows), window
        return int(self._rows[within - (self._ends[window - 1] if window else 0)])

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([*self.key, *numbers])


class ParquetRows(Sequence):
    """The rows of Parquet files, read when they are asked for; a few row groups are kept.

    Args:
        files: paths, or anything `fsspec` opens, such as `hf://datasets/org/name/sft/train-00000-of-00001.parquet`.
        columns: what is read, by default everything.
        window: row groups that are shuffled together and therefore kept.

    Raises:
        ValueError: no files, or no rows in them.
    """

    def __init__(self, files: Sequence[str | Path], columns: list[str] | None = None, window: int = WINDOW):
        self.files, self.columns, self.window = [str(file) for file in files], columns, window
        self._metadata = [self._open(file).metadata for file in self.files]
        self._groups = [(f, g) for f, m in enumerate(self._metadata) for g in range(m.num_row_groups)]
        self.group_sizes = [self._metadata[f].row_group(g).num_rows for f, g in self._groups]
        if not sum(self.group_sizes):
            raise ValueError(f"there are no rows in {len(self.files)} Parquet files; check the folder and the split")
        self._ends = np.cumsum(self.group_sizes)
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, row: int) -> dict:
        """A row as a dictionary; lists of numbers are arrays."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        group = int(np.searchsorted(self._ends, row, side="right"))
        if group not in self._kept:
            file, number = self._groups[group]
            parquet = self._open(self.files[file], self._metadata[file])
            # One chunk a column, so that a row is found without looking through them.
            self._kept[group] = parquet.read_row_group(number, self.columns).combine_chunks()
            if len(self._kept) > self.window:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        table = self._kept[group]
        place = row - int(self._ends[group]) + self.group_sizes[group]
        return {name: _value(table[name][place]) for name in table.column_names}

    def __getstate__(self) -> dict:
        """Without the rows at hand: worker processes read their own."""
        return {**self.__dict__, "_kept": OrderedDict()}

    @staticmethod
    def _open(file: str, metadata=None) -> pq.ParquetFile:
        if "://" not in file:
            return pq.ParquetFile(file, metadata=metadata, memory_map=True)
        import fsspec

        return pq.ParquetFile(fsspec.open(file).open(), metadata=metadata)


class ShuffledEpochs(torch.utils.data.Dataset):
    """The rows of a whole run over a data set, every epoch in an order of its own, without a break between them.

    So no batch is filled up or cut short at the end of an epoch, which ranks and accumulation would do differently.

    Args:
        rows: a map-style data set.
        num_rows: rows of the run: steps times the global batch.
        seed: what the orders are drawn from.
    """

    def __init__(self, rows, num_rows: int, seed: int):
        self.rows, self.num_rows = rows, num_rows
        self._order = RowOrder([len(rows)], [seed, 4])

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, number: int):
        """The row of that number, counted through all epochs."""
        if not 0 <= number < self.num_rows:
            raise IndexError(f"row {number} of {self.num_rows}")
        return self.rows[self._order[int(number)]]


def _value(scalar: pa.Scalar):
    """A list of numbers as an array, everything else as Python has it."""
    if isinstance(scalar, pa.ListScalar) and scalar.is_valid and pa.types.is_primitive(scalar.type.value_type):
        return scalar.values.to_numpy(zero_copy_only=False)
    return scalar.as_py()


__all__ = ["ParquetRows", "RowOrder", "ShuffledEpochs"]
