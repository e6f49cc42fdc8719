"""Rows of a pretraining run: every sample once, the same on any number of ranks and after a restart, few in memory."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solami_hf.training.language_model.mixture import CHUNK
from solami_hf.training.language_model.packed_mixture import KeepFirstRows, PackedMixture, best_fit

QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=50)
SIZE = 64


class Tokens(list):
    """Samples whose ids tell the source and the row; counts what is read."""

    reads = 0

    def __init__(self, source, count, lengths):
        super().__init__(self.sample(source, i, lengths[i % len(lengths)]) for i in range(count))

    @staticmethod
    def sample(source, i, length):
        return {"input_ids": np.full(length, 1000 * source + i), "labels": np.full(length, -i)}

    def __getitem__(self, i):
        Tokens.reads += 1
        return super().__getitem__(i)


MOTION = {"m2t": Tokens(1, 30, (5, 9, 20)), "t2m": Tokens(2, 7, (12,))}
SPEECH = {"asr": Tokens(3, 200, (30, 41, 17, 60)), "tts": Tokens(4, 3, (33,))}


def rows_of(num_rows=900, **more):
    return PackedMixture(MOTION, SPEECH, num_rows, SIZE, **{"seed": 0} | more)


def plain(row):
    return {name: list(map(int, values)) for name, values in row.items()}


def sources(rows):
    """The source of every sample, in order."""
    starts = [np.cumsum([0, *row["seq_lengths"][:-1]]) for row in rows]
    return [int(row["input_ids"][start]) // 1000 for row, ends in zip(rows, starts, strict=True) for start in ends]


def test_rows_are_full_and_nothing_is_lost():
    rows = rows_of(4000)
    chunks = [rows[i] for i in range(4000)][: rows.first_rows[3]]
    assert max(len(row["input_ids"]) for row in chunks) <= SIZE
    assert sum(len(row["input_ids"]) for row in chunks) / (SIZE * len(chunks)) > 0.75  # 41 and 60 leave gaps
    drawn = [rows.mixture[i] for i in range(3 * CHUNK)]
    packed = [plain(row) for row in chunks]
    assert sum(len(row["seq_lengths"]) for row in packed) == len(drawn)
    ids = sorted(i for row in packed for i in row["input_ids"])
    assert ids == sorted(int(i) for sample in drawn for i in sample["input_ids"])
    for row in packed:
        assert len(row["input_ids"]) == len(row["labels"]) == sum(row["seq_lengths"])
        assert [i % 1000 for i in row["input_ids"]] == [-label for label in row["labels"]]


@pytest.mark.parametrize(("num_rows", "seeds", "tolerance"), [(100, 40, 0.05), (6000, 1, 0.03)])
def test_motion_share_follows_the_rows(num_rows, seeds, tolerance):
    """A quarter through the run half of the final share, also where all rows come from one chunk.

    Rows of one chunk are mixed, so there it is the mean over the samples of the run.
    """
    runs = [rows_of(num_rows, seed=seed) for seed in range(seeds)]

    def share(first, last):
        drawn = sources([rows[i] for rows in runs for i in range(first, last)])
        return np.mean([source <= 2 for source in drawn])

    if num_rows > CHUNK:
        assert share(num_rows // 2, num_rows) == pytest.approx(0.4, abs=tolerance)
        assert share(num_rows * 3 // 16, num_rows * 5 // 16) == pytest.approx(0.2, abs=tolerance)
    else:
        # The samples that the rows take if packed in order
        drawn = [rows.mixture.locate(i)[0] in MOTION for rows in runs for i in range(150)]
        assert 0.15 < np.mean(drawn) < 0.35


def test_weights_hold_within_a_modality():
    drawn = sources(
        [row for rows in [rows_of(3000, weights={"asr": 4, "t2m": 0})] for row in map(rows.__getitem__, range(3000))]
    )
    assert 2 not in drawn and drawn.count(3) / (drawn.count(3) + drawn.count(4)) == pytest.approx(0.8, abs=0.02)


def test_any_order_of_reading_gives_the_same_rows():
    """Ranks read every second row, or batches of them; each computes the chunks for itself."""
    whole = [plain(rows_of()[i]) for i in range(0, 900, 100)]
    rows = rows_of()
    assert [plain(rows[i]) for i in range(0, 900, 100)] == whole
    ranks = [rows_of() for _ in range(2)]
    assert [plain(ranks[i // 100 % 2][i]) for i in range(0, 900, 100)] == whole
    assert [plain(rows_of(seed=1)[i]) for i in range(0, 900, 100)] != whole
    with pytest.raises(IndexError, match="row 900 of 900"):
        rows[900]


def test_a_checkpoint_spares_packing_again(tmp_path, caplog):
    first = rows_of(3000)
    wanted = plain(first[2500]), plain(first[2501])
    (tmp_path / "checkpoint-7").mkdir()
    state = SimpleNamespace(global_step=7, is_world_process_zero=True)
    KeepFirstRows(first).on_save(SimpleNamespace(output_dir=tmp_path), state, None)
    again = rows_of(3000)
    again.load(tmp_path / "checkpoint-7")
    Tokens.reads = 0
    assert (plain(again[2500]), plain(again[2501])) == wanted
    assert Tokens.reads <= 2 * CHUNK
    assert plain(again[3]) == plain(first[3])
    # Without it, and where it is of another run, the same rows come all the same
    other = rows_of(3000)
    other.load(tmp_path)
    assert plain(other[2500]) == wanted[0] and not caplog.records
    longer = rows_of(3001)
    longer.load(tmp_path / "checkpoint-7")
    assert "num_rows differ" in caplog.text and longer.first_rows == [0]


def test_memory_does_not_grow_with_the_run():
    def peak(num_rows):
        rows = rows_of(num_rows)
        tracemalloc.start()
        for i in range(num_rows):
            rows[i]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(100)
    short, long = peak(1500), peak(12_000)
    assert long < 1.5 * short


def test_unpacked_rows_are_samples():
    rows = rows_of(2500, packing=False)
    late = plain(rows[2400])
    assert late == {**plain(rows.mixture[2400]), "seq_lengths": [len(late["input_ids"])]}
    early, late = (
        np.mean([s <= 2 for s in sources([rows[i] for i in part])]) for part in (range(125), range(1250, 2500))
    )
    assert early < 0.1 and late == pytest.approx(0.4, abs=0.04)


def test_bad_input():
    with pytest.raises(ValueError, match="num_rows must be at least 1, got 0"):
        rows_of(0)
    with pytest.raises(ValueError, match="nothing to train on"):
        PackedMixture({}, {}, 10, SIZE, 0)


@QUICK
@given(lengths=st.lists(st.integers(1, 10), max_size=60))
def test_best_fit(lengths):
    packs = best_fit(lengths, 10)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    fills = [sum(lengths[i] for i in pack) for pack in packs]
    assert all(fill <= 10 for fill in fills)
    # Two that would fit together are never left apart
    assert all(a + b > 10 for n, a in enumerate(fills) for b in fills[:n])


def test_best_fit_is_the_one_of_trl():
    from datasets import Dataset
    from trl import pack_dataset

    lengths = np.random.default_rng(0).integers(1, 65, 500).tolist()
    theirs = pack_dataset(Dataset.from_dict({"input_ids": [[0] * n for n in lengths]}), 64, "bfd")
    ours = best_fit(lengths, 64)
    found = sorted(sorted(lengths[i] for i in pack) for pack in ours)
    assert found == sorted(sorted(pack) for pack in theirs["seq_lengths"])
