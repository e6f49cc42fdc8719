"""Batches of packed blocks: each row holds several documents that do not see one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...processing.rendering import IGNORE


@dataclass
class PackedRowsCollator:
    """Stacks packed blocks as rows, where TRL's own collator lays them end to end in one long row.

    Attention over one row of B blocks costs B times as much as over B rows wherever the kernel does not skip what the
    mask hides, as on CPUs. Positions begin anew with every document, from which transformers builds the mask; padding
    at the end of a row is a document of its own.

    Args:
        pad_token_id: fills the end of rows.
    """

    pad_token_id: int

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """`{"input_ids", "labels", "position_ids"}` of shape (B, T) from rows of `input_ids`, `labels` and, when they
        are packed, `seq_lengths`. The first token of a document is never predicted. `use_cache` is off, as with a
        cache transformers would not look for packed documents.
        """
        width = max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full((len(rows), width), self.pad_token_id)
        labels = torch.full((len(rows), width), IGNORE)
        position_ids = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            lengths = row.get("seq_lengths") or [len(row["input_ids"])]
            used = sum(lengths)
            input_ids[i, :used] = torch.tensor(row["input_ids"])
            labels[i, :used] = torch.tensor(row["labels"])
            position_ids[i, :used] = torch.cat([torch.arange(n) for n in lengths])
            position_ids[i, used:] = torch.arange(width - used)
        labels[position_ids == 0] = IGNORE
        return {"input_ids": input_ids, "labels": labels, "position_ids": position_ids, "use_cache": False}
