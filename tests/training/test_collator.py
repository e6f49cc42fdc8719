"""Packed rows on literal tensors, and packed loss equal to unpacked loss."""

import torch

from solami_hf.training.language_model.packed_mixture import PackedRowsCollator


def test_rows_positions_and_labels():
    batch = PackedRowsCollator(9)(
        [
            {"input_ids": [1, 2, 3, 4, 5], "labels": [1, -100, 3, 4, 5], "seq_lengths": [2, 3]},
            {"input_ids": [6, 7], "labels": [6, 7]},
        ]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 9, 9, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 1, 2]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 4, 5], [-100, 7, -100, -100, -100]]


def test_packed_loss_equals_unpacked_loss(tiny_model):
    documents = [torch.randint(0, 200, (n,)).tolist() for n in (7, 12, 5, 9)]
    rows = [{"input_ids": d, "labels": d} for d in documents]
    packed = [
        {"input_ids": a + b, "labels": a + b, "seq_lengths": [len(a), len(b)]}
        for a, b in (documents[:2], documents[2:])
    ]
    collate = PackedRowsCollator(0)
    with torch.no_grad():
        alone = [tiny_model(**collate([row])).loss * (len(row["labels"]) - 1) for row in rows]
        together = tiny_model(**collate(packed)).loss
        padded = tiny_model(**collate(rows)).loss
    expected = sum(alone) / sum(len(d) - 1 for d in documents)
    assert torch.allclose(together, expected, atol=1e-5)
    assert torch.allclose(padded, expected, atol=1e-5)
