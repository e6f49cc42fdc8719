"""Shards: killed, restarted, shared among processes or changed, the files come out as from one run in one go."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time

import pytest

from solami_hf.processing import prepare as command
from solami_hf.processing.datasets.token_dataset import load_tokens
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.processing.prepare import prepare

ROWS, SHARD = 14, 3  # 4 training shards, 1 test shard


@pytest.fixture
def source(tmp_path, small_motion):
    """Clips of several lengths, one of them broken; some rows share a clip."""
    folder = tmp_path / "source"
    rows = []
    for i in range(ROWS):
        motion = SmplxMotion(small_motion.transl[: 40 - 2 * i], small_motion.poses[: 40 - 2 * i] * (1 + i))
        write_motion(folder / f"{i}.npz", motion)
        rows.append({"id": f"r{i}", "motion": f"{i - i % 2}.npz" if i > 9 else f"{i}.npz", "text": f"clip {i}"})
        rows[-1] |= {"split": "test" if i % 7 == 3 else "train", "partner_id": f"r{i + 1}"}
    (folder / "4.npz").write_bytes(b"broken")
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def files_of(out) -> dict[str, str]:
    """Hash of every file that is published."""
    paths = [p for p in out.rglob("*") if p.is_file() and ".shards" not in p.parts]
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture
def count(tiny_processor, monkeypatch):
    """Number of clips encoded since, and what is done before each batch."""
    encode, told = tiny_processor.encode_motion, {"clips": 0, "before": lambda: None}

    def counting(motions, **options):
        told["before"]()
        told["clips"] += len(motions)
        return encode(motions, **options)

    monkeypatch.setattr(tiny_processor, "encode_motion", counting)
    return told


@pytest.fixture
def whole(source, tiny_processor, tmp_path):
    """The files of an uninterrupted run."""
    found = prepare("motion", source, tiny_processor, tmp_path / "whole", shard_rows=SHARD)
    assert found == {"train": 11, "test": 2, "rejected": 1}
    files = files_of(tmp_path / "whole")
    assert [name for name in sorted(files) if "train" in name] == [
        f"motion/train-{i:05d}-of-00004.parquet" for i in range(4)
    ]
    return files


def interrupted(*_):
    raise KeyboardInterrupt


def test_finished_shards_are_not_encoded_again(source, tiny_processor, count, whole, tmp_path):
    assert count["clips"] == 12, "a clip is encoded once in a shard"
    out, calls = tmp_path / "out", iter(range(99))
    count |= {"clips": 0, "before": lambda: interrupted() if next(calls) == 2 else None}
    with pytest.raises(KeyboardInterrupt):
        prepare("motion", source, tiny_processor, out, shard_rows=SHARD)
    first = count["clips"]
    assert 0 < first < 12 and not files_of(out), "nothing is published before all is there"
    count["before"] = lambda: None
    prepare("motion", source, tiny_processor, out, shard_rows=SHARD)
    assert count["clips"] == 12 and files_of(out) == whole
    prepare("motion", source, tiny_processor, out, shard_rows=SHARD)
    assert count["clips"] == 12 and files_of(out) == whole


def test_what_changed_is_encoded_again(source, tiny_processor, count, whole, small_motion, tmp_path):
    out = tmp_path / "whole"
    count["clips"] = 0
    write_motion(source / "4.npz", small_motion)  # mended
    assert prepare("motion", source, tiny_processor, out, shard_rows=SHARD)["rejected"] == 0
    assert count["clips"] == 3
    changed = {name for name, digest in files_of(out).items() if whole[name] != digest}
    assert changed == {
        "motion/train-00001-of-00004.parquet", "motion/rejected.jsonl", "motion/orphans.jsonl", "motion/report.json",
        "README.md",
    }  # fmt: skip


def test_a_dataset_stays_until_the_next_one_is_ready(source, tiny_processor, count, whole, tmp_path):
    out = tmp_path / "whole"
    count["before"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        prepare("motion", source, tiny_processor, out, shard_rows=SHARD + 1)
    assert files_of(out) == whole
    count["before"] = lambda: None
    prepare("motion", source, tiny_processor, out, shard_rows=100)
    names = sorted(path.name for path in (out / "motion").glob("*.parquet"))
    assert names == ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    assert len(load_tokens(out, "motion", "train")) == 11
    (source / "manifest.jsonl").write_text('{"id": "a", "motion": "4.npz", "text": "?"}\n')
    with pytest.raises(ValueError, match="no row of source could be used; the first reason: .*4.npz"):
        prepare("motion", source, tiny_processor, out)
    assert len(load_tokens(out, "motion", "train")) == 11


def test_two_ranks_write_what_one_does(source, tiny_processor, count, whole, tmp_path, monkeypatch):
    out, clips = tmp_path / "out", []
    for rank in (1, 0):
        count["clips"] = 0
        monkeypatch.setattr(command, "processes", lambda rank=rank: (rank, 2, lambda: None))
        found = prepare("motion", source, tiny_processor, out, shard_rows=SHARD)
        clips.append(count["clips"])
    assert files_of(out) == whole and sum(clips) == 12 and min(clips) > 0
    assert found == {"train": 11, "test": 2, "rejected": 1}


def test_sigkill_at_three_points_changes_no_byte(source, tiny_processor, count, whole, tmp_path):
    out, rng = tmp_path / "out", random.Random(0)
    count["before"] = lambda: time.sleep(0.08)
    fork, points, codes = multiprocessing.get_context("fork"), [], []
    for _ in range(3):
        run = fork.Process(target=prepare, args=("motion", source, tiny_processor, out), kwargs={"shard_rows": SHARD})
        run.start()
        time.sleep(rng.uniform(0.0, 0.2))
        os.kill(run.pid, signal.SIGKILL)
        run.join(10)
        codes.append(run.exitcode)
        points.append(sum(1 for _ in (out / "motion").rglob("*.json")) if out.exists() else 0)
    assert codes[0] == -signal.SIGKILL and not set(codes) - {0, -signal.SIGKILL}, f"{codes}, notes seen: {points}"
    prepare("motion", source, tiny_processor, out, shard_rows=SHARD)
    assert files_of(out) == whole, f"notes seen at the kills: {points}"
    assert sorted(p.suffix for p in (out / "motion/.shards").iterdir()) == [".json"] * 5, "nothing else is left"


def test_two_processes_write_what_one_does(source, tiny_processor, whole, two_ranks, tmp_path):
    tiny_processor.save_pretrained(tmp_path / "processor")
    words = ["motion", str(source), "--processor", str(tmp_path / "processor"), "--output", str(tmp_path / "out")]
    two_ranks(lambda rank: command.main([*words, "--shard_rows", str(SHARD)]))
    ours, theirs = files_of(tmp_path / "out"), whole
    origin = {"README.md", "motion/report.json"}  # tell the folder that the codecs came from
    assert {n: d for n, d in ours.items() if n not in origin} == {n: d for n, d in theirs.items() if n not in origin}
