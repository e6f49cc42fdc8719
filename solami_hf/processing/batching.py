"""Items of different length in batches: like lengths together, shorter ones padded."""

from collections.abc import Callable

import torch

MOTION_BATCH_FRAMES = 4096
"""Frames of motion that are encoded or decoded together, whatever the lengths of the clips."""


def map_in_batches(
    items: list, length: Callable, batch_size: int, function: Callable, progress=iter, most_steps: int | None = None
) -> list:
    """`function` (a list of items -> as many results) of batches of items of like `length`, its results in the order
    of `items`. At most `batch_size` items are handed over together; and `most_steps` items times the longest of a
    batch, so that long items take no more memory than short ones and neither leave the caches (one item alone may be
    longer). `progress` wraps the list of batches, e.g. a tqdm bar."""
    lengths = [length(item) for item in items]
    batches: list[list[int]] = []
    for i in sorted(range(len(items)), key=lengths.__getitem__):  # shortest first, so the last one is the longest
        full = not batches or len(batches[-1]) == batch_size
        if full or (most_steps is not None and (len(batches[-1]) + 1) * lengths[i] > most_steps):
            batches.append([])
        batches[-1].append(i)
    results: list = [None] * len(items)
    for chosen in progress(batches):
        for i, result in zip(chosen, function([items[i] for i in chosen]), strict=True):
            results[i] = result
    return results


def pad_right(values: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """`(B, T, ...)` of tensors `(t, ...)`, zeros behind the shorter ones, and the mask `(B, T)`, True = real."""
    batch = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
    return batch, torch.arange(batch.shape[1])[None] < torch.tensor([len(v) for v in values])[:, None]


def pad_left(rows: dict[str, list[list[int]]], pad_token_id: int) -> dict[str, list[list[int]]]:
    """Columns of id lists brought to one length from the left: `input_ids` by `pad_token_id`, the others by 0."""
    return pad_to(max(map(len, rows["input_ids"])), rows, pad_token_id)


def pad_to(width: int, rows: dict[str, list[list[int]]], pad_token_id: int, side: str = "left") -> dict:
    """`pad_left` to a given width, which longer rows keep; `side` is "left" or "right"."""
    padded = {}
    for name, column in rows.items():
        fill = [pad_token_id if name == "input_ids" else 0]
        added = [fill * (width - len(row)) for row in column]
        padded[name] = [a + row if side == "left" else row + a for a, row in zip(added, column, strict=True)]
    return padded
