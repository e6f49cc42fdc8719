"""Batches of like length on literal values."""

import torch

from solami_hf.processing.batching import map_in_batches, pad_left, pad_right


def test_results_come_in_the_order_of_the_items():
    seen = []

    def shout(batch):
        seen.append(batch)
        return [text.upper() for text in batch]

    assert map_in_batches(["ccc", "a", "bb"], len, 2, shout) == ["CCC", "A", "BB"]
    assert seen == [["a", "bb"], ["ccc"]]
    assert map_in_batches([], len, 2, shout) == []


def test_padding_right():
    batch, mask = pad_right([torch.tensor([1.0]), torch.tensor([2.0, 3.0])])
    assert batch.tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert mask.tolist() == [[True, False], [True, True]]


def test_padding_left():
    rows = {"input_ids": [[1], [2, 3]], "attention_mask": [[1], [1, 1]]}
    assert pad_left(rows, 9) == {"input_ids": [[9, 1], [2, 3]], "attention_mask": [[0, 1], [1, 1]]}


def test_long_items_come_in_smaller_batches():
    sizes, seen = [3, 9, 1, 4, 2, 30], []

    def function(batch):
        seen.append(batch)
        return batch

    assert map_in_batches(sizes, lambda n: n, 3, function, most_steps=10) == sizes
    assert seen == [[1, 2, 3], [4], [9], [30]]
