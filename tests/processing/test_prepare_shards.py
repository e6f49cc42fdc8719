"""The plan: rows in order, cut into shards; splits by source; partners that are missing or in another split."""

import random

import pytest

from solami_hf.processing.datasets.manifests import BadRow
from solami_hf.processing.datasets.prepare_shards import Plan

BY_SOURCE = {"split_by": "source", "test_share": 0.3, "validation_share": 0.2}


def row(name: str, **more) -> dict:
    return {"id": name, **more}


def test_rows_keep_their_order_and_shards_have_a_fixed_number_of_them():
    given = [row(f"r{i}", split="test" if i % 3 == 0 else "train") for i in (5, 1, 4, 0, 2, 9, 7)]
    plan = Plan(given, shard_rows=2)
    assert [shard.name for shard in plan.shards()] == [
        "train-00000-of-00003.parquet",
        "train-00001-of-00003.parquet",
        "train-00002-of-00003.parquet",
        "test-00000-of-00001.parquet",
    ]
    ids = [[r["id"] for r in plan.rows(shard)] for shard in plan.shards()]
    assert ids == [["r5", "r1"], ["r4", "r2"], ["r7"], ["r0", "r9"]]
    assert list(plan.rejected()) == []
    assert Plan([]).shards() == []


def test_bad_rows_are_told_and_the_rest_is_kept():
    rows = [row("a"), BadRow("x:2", "is not JSON"), row("a"), {}, row("b", split="dev"), row("c", partner_id=3)]
    plan = Plan([*rows, row("\ud800"), row("d", split=None)])
    assert [r["id"] for r in plan.rows(plan.shards()[0])] == ["a", "d"]
    rejected = list(plan.rejected())
    assert [r["id"] for r in rejected] == ["x:2", "a", "None", "b", "c", r"\ud800"]
    reasons = ["is not JSON", "occurred before", "string id", "split is 'dev'", "partner_id is 3", "no valid Unicode"]
    assert all(reason in r["reason"] for reason, r in zip(reasons, rejected, strict=True))


def splits(plan: Plan) -> dict[str, str]:
    return {r["id"]: shard.split for shard in plan.shards() for r in plan.rows(shard)}


def test_a_source_and_partners_are_never_in_two_splits():
    rng = random.Random(0)
    sources = {f"r{i}": f"s{rng.randrange(80)}" if i % 2 else None for i in range(600)}
    partners = {name: f"r{rng.randrange(700)}" for name in rng.sample(list(sources), 150)}  # some are orphans
    rows = [row(name, source=sources[name], partner_id=partners.get(name)) for name in sources]
    found = splits(Plan(rows, **BY_SOURCE))
    assert set(found.values()) == {"train", "validation", "test"}
    for name, source in sources.items():
        assert partners.get(name) not in found or found[partners[name]] == found[name]
        assert source is None or len({found[n] for n, s in sources.items() if s == source}) == 1
    rng.shuffle(rows)
    assert splits(Plan(rows, **BY_SOURCE)) == found, "the order of the source must not matter"
    assert Plan(rows, **BY_SOURCE).straddling_partners() == 0


def test_shares_are_those_asked_for_and_do_not_depend_on_the_rest():
    found = splits(Plan([row(f"r{i}") for i in range(4000)], **BY_SOURCE))
    shares = {split: list(found.values()).count(split) / 4000 for split in ("test", "validation", "train")}
    assert shares == pytest.approx({"test": 0.3, "validation": 0.2, "train": 0.5}, abs=0.03)
    fewer = splits(Plan([row(f"r{i}") for i in range(0, 4000, 7)], **BY_SOURCE))
    assert all(found[name] == split for name, split in fewer.items())


def test_orphans():
    rows = [row("a", partner_id="b"), row("b", partner_id="a"), row("c", partner_id="gone"), row("d", partner_id="e")]
    plan = Plan([*rows, row("e", split="test", partner_id="f"), row("f")])
    assert list(plan.orphans([])) == [{"id": "c", "partner_id": "gone", "reason": "the partner is not in the source"}]
    assert [(o["id"], o["reason"]) for o in plan.orphans(["b", "f"])] == [
        ("a", "the partner was rejected"),
        ("c", "the partner is not in the source"),
        ("e", "the partner was rejected"),
    ]
    assert plan.straddling_partners() == 2


def test_wrong_options():
    with pytest.raises(ValueError, match="split_by is 'speaker'"):
        Plan([], "speaker")
    with pytest.raises(ValueError, match="less than 1 together"):
        Plan([], "source", 0.6, 0.4)
    with pytest.raises(ValueError, match="shard_rows is 0"):
        Plan([], shard_rows=0)
