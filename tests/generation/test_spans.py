"""Body and hand spans of equal length from any model; everything else is left to the model."""

from types import SimpleNamespace

import pytest
import torch

from solami_hf.generation.spans import EqualMotionSpans
from solami_hf.modeling.vocabulary import build_layout

MODALITIES, MARKERS = build_layout({"speech": 4, "body": 4, "hand": 4, "trans": 2}, 5)
CONFIG = SimpleNamespace(modalities=MODALITIES, markers=MARKERS)
SIZE = 5 + len(MARKERS) + 14
BODY, HAND = MODALITIES["body"]["first_id"], MODALITIES["hand"]["first_id"]


def allowed(*ids, max_seconds=10.0):
    scores = EqualMotionSpans(CONFIG, max_seconds)(torch.tensor([ids]), torch.zeros(1, SIZE))
    return set(torch.isfinite(scores[0]).nonzero()[:, 0].tolist())


def test_the_hand_span_ends_with_the_body_spans_length():
    m = MARKERS
    body = [m["sobo"], BODY, BODY + 1, m["eobo"]]
    hands = set(range(HAND, HAND + 4))
    assert allowed(1, 2) == allowed(*body) == allowed(m["sobo"], BODY) == set(range(SIZE))
    assert allowed(*body, m["soha"]) == allowed(*body, m["soha"], HAND) == hands
    assert allowed(*body, m["soha"], HAND, HAND + 2) == {m["eoha"]}
    assert allowed(*body, m["soha"], HAND, HAND + 2, m["eoha"]) == set(range(SIZE))


def test_the_newest_motion_counts_not_the_history():
    m = MARKERS
    history = [m["sobo"], BODY, m["eobo"], m["soha"], HAND, m["eoha"], m["eos"]]
    now = [m["sobo"], BODY, BODY, BODY, m["eobo"], m["soha"], HAND]
    assert allowed(*history, *now) == set(range(HAND, HAND + 4))


def test_a_body_span_without_end_is_ended():
    m = MARKERS
    assert allowed(m["sobo"], *[BODY] * 6, max_seconds=1.0) == set(range(SIZE))
    assert allowed(m["sobo"], *[BODY] * 7, max_seconds=1.0) == {m["eobo"]}
    with pytest.raises(ValueError, match="max_seconds"):
        EqualMotionSpans(CONFIG, 0)


def test_rows_of_a_batch_do_not_touch():
    m = MARKERS
    rows = [[1, m["sobo"], BODY, m["eobo"], m["soha"]], [1, 1, 1, 1, 1]]
    scores = EqualMotionSpans(CONFIG)(torch.tensor(rows), torch.zeros(2, SIZE))
    assert torch.isfinite(scores[1]).all() and torch.isfinite(scores[0]).sum() == 4
