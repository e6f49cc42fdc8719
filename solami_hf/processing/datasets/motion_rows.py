"""Motions that dialogues name by the id of a token row instead of a file."""

from __future__ import annotations

import functools
from pathlib import Path

from .manifests import SPLITS
from .token_loading import load_tokens


class MotionRows:
    """The `motion` rows of a token dataset, by id; they are read when the first is asked for.

    Args:
        data: folder or Hub id of the token dataset.
        processor: a `SolamiProcessor`; its motion codec has to be the one that made the codes.
    """

    def __init__(self, data: str | Path, processor):
        self.data, self.processor = data, processor

    def codes(self, row_id: str, split: str) -> dict[str, list[int]]:
        """`body`, `hand` and `trans` of a row, for a dialogue of a split.

        Raises:
            ValueError: no such row, motions of another codec, or a held-out motion for a dialogue to train on.
        """
        if row_id not in self._places:
            raise ValueError(
                f"motion_id {row_id!r} is no motion of {self.data}; run `solami prepare motion` into it first, or say "
                "with --motion_tokens where it is"
            )
        found, number = self._places[row_id]
        if split == "train" and found != "train":
            raise ValueError(f"motion_id {row_id!r} is of the {found} split, which no dialogue to train on may use")
        row = self._tables[found][number]
        return {name: row[name] for name in ("body", "hand", "trans")}

    @functools.cached_property
    def _tables(self) -> dict:
        tables = {}
        for split in SPLITS:
            try:
                tables[split] = load_tokens(self.data, "motion", split, self.processor)
            except FileNotFoundError:
                continue
        return tables

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        ids = {split: table.data.column("id").to_pylist() for split, table in self._tables.items()}
        return {row_id: (split, number) for split, names in ids.items() for number, row_id in enumerate(names)}
