"""Shuffled orders with random access, and Parquet rows that are read a group at a time."""

import pickle

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solami_hf.training.language_model.shuffled_rows import ParquetRows, RowOrder, ShuffledEpochs


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=9), window=st.integers(1, 4), seed=st.integers(0, 9))
def test_every_epoch_is_a_permutation(sizes, window, seed):
    total = sum(sizes)
    if not total:
        return
    order = RowOrder(sizes, [seed], window)
    rows = [order[i] for i in range(3 * total)]
    assert all(sorted(rows[i : i + total]) == list(range(total)) for i in (0, total, 2 * total))
    fresh = RowOrder(sizes, [seed], window)
    places = np.random.default_rng(0).permutation(3 * total)
    assert [fresh[int(p)] for p in places] == [rows[p] for p in places]


def test_orders_differ_by_epoch_and_key_and_mix_within_windows():
    order = RowOrder([10] * 10, [0], window=2)
    epochs = [[order[i] for i in range(start, start + 100)] for start in (0, 100)]
    assert epochs[0] != epochs[1]
    assert [RowOrder([10] * 10, [1], 2)[i] for i in range(100)] != epochs[0]
    for start in range(0, 100, 20):  # two groups at a time, their rows mixed
        groups = [row // 10 for row in epochs[0][start : start + 20]]
        assert len(set(groups)) == 2 and groups != sorted(groups) and groups != sorted(groups, reverse=True)
    with pytest.raises(ValueError, match="needs rows"):
        RowOrder([0], [0])


@pytest.fixture
def files(tmp_path):
    paths = []
    for f in range(2):
        rows = range(f * 10, f * 10 + 10)
        table = pa.table({"input_ids": [[i] * (i % 3) for i in rows], "id": [str(i) for i in rows]})
        pq.write_table(table, tmp_path / f"{f}.parquet", row_group_size=4)
        paths.append(tmp_path / f"{f}.parquet")
    return paths


def test_parquet_rows(files, monkeypatch):
    rows = ParquetRows(files, window=2)
    assert len(rows) == 20 and rows.group_sizes == [4, 4, 2, 4, 4, 2]
    for i in (19, 0, 7, 12, 3):
        assert rows[i]["id"] == str(i) and rows[i]["input_ids"].tolist() == [i] * (i % 3)
        assert len(rows._kept) <= 2
    assert list(ParquetRows(files, columns=["id"])[5]) == ["id"]
    assert pickle.loads(pickle.dumps(rows))._kept == {}
    with pytest.raises(IndexError):
        rows[20]
    with pytest.raises(ValueError, match="no rows"):
        ParquetRows([])
    # In shuffled order each group is read once an epoch.
    reads = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: reads.append(a[1]) or read(*a, **k))
    rows, order = ParquetRows(files, window=2), RowOrder([4, 4, 2, 4, 4, 2], [0], 2)
    assert sorted(int(rows[order[i]]["id"]) for i in range(20)) == list(range(20)) and len(reads) == 6


def test_remote_files(files):
    with fsspec.open("memory://rows/a.parquet", "wb") as file:
        file.write(files[0].read_bytes())
    assert [ParquetRows(["memory://rows/a.parquet"])[i]["id"] for i in range(10)] == [str(i) for i in range(10)]


def test_epochs_follow_one_another_without_a_break():
    rows = ShuffledEpochs(list("abcdefghij"), 25, seed=0)
    drawn = [rows[i] for i in range(25)]
    assert "".join(sorted(drawn[:10])) == "".join(sorted(drawn[10:20])) == "abcdefghij" and drawn[:10] != drawn[10:20]
    assert len(rows) == 25 and [ShuffledEpochs(list("abcdefghij"), 30, seed=0)[i] for i in range(25)] == drawn
    with pytest.raises(IndexError, match="row 25 of 25"):
        rows[25]
