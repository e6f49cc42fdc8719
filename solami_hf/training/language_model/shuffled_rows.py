"""Rows of a data set in shuffled order, epoch after epoch, with every place of the order at hand at once."""

from collections.abc import Sequence

import numpy as np
import torch


class RowOrder:
    """An endless order of the rows 0..`num_rows` - 1: every row once, then every row once again in another order,
    and so on. `key` are the integers that the order is a function of."""

    def __init__(self, num_rows: int, key: Sequence[int]):
        if num_rows < 1:
            raise ValueError(f"an order needs rows, got {num_rows}")
        self.num_rows, self.key, self._epoch = num_rows, list(key), None

    def __getitem__(self, place: int) -> int:
        """The row at `place`, counted from 0 through all epochs."""
        epoch, within = divmod(place, self.num_rows)
        if self._epoch != epoch:
            self._rows = np.random.default_rng([*self.key, epoch, 1]).permutation(self.num_rows)
            self._epoch = epoch
        return int(self._rows[within])


class ShuffledEpochs(torch.utils.data.Dataset):
    """The rows of a run over a map-style data set, every epoch in an order of its own (drawn from `seed`), without
    a break between them: so no batch is filled up or cut short at the end of an epoch, which ranks and accumulation
    would do differently. `num_rows` is steps times the global batch."""

    def __init__(self, rows, num_rows: int, seed: int):
        self.rows, self.num_rows = rows, num_rows
        self._order = RowOrder(len(rows), [seed, 4])

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, number: int):
        """The row of that number, counted through all epochs."""
        if not 0 <= number < self.num_rows:
            raise IndexError(f"row {number} of {self.num_rows}")
        return self.rows[self._order[int(number)]]
