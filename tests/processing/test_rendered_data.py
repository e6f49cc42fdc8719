"""Rendered data sets on disk: whole files in row groups, named in the card, and read by `load_dataset`."""

import itertools
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import load_dataset
from huggingface_hub import DatasetCard

from solami_hf.processing.datasets import rendered_data
from solami_hf.processing.datasets.rendered_data import RENDERED, render_chat_dataset, write_rendered
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.prepare import prepare


def samples(count, task="chat"):
    return [{"input_ids": [i, i + 1], "labels": [-100, i + 1], "task": task, "id": str(i)} for i in range(count)]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(rendered_data, "ROWS_PER_GROUP", 4)


def sample_tables(rows, size):
    """Rows as tables of `size` rows; as many at a time are held."""
    rows = iter(rows)
    while some := list(itertools.islice(rows, size)):
        yield pa.table({name: [row[name] for row in some] for name in RENDERED}, schema=RENDERED.arrow_schema)


def write(folder, count, config="sft", split="train", step=3, **more):
    return write_rendered(folder, config, split, sample_tables(iter(samples(count)), step), **more)


def test_rows_come_back_in_order_as_table_and_as_stream(tmp_path):
    assert write(tmp_path / "out", 23, rows_per_file=8) == 23
    files = sorted((tmp_path / "out" / "sft").iterdir())
    assert [f.name for f in files] == [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    sizes = [[m.row_group(g).num_rows for g in range(m.num_row_groups)] for m in map(pq.read_metadata, files)]
    assert sizes == [[4, 4], [4, 4], [4, 3]]
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    assert load_dataset(str(tmp_path / "out"), "sft", **options).to_list() == samples(23)
    assert list(load_dataset(str(tmp_path / "out"), "sft", streaming=True, **options)) == samples(23)


def test_other_splits_and_configs_stay_and_old_files_go(tmp_path):
    write(tmp_path, 5, "pretrain", codecs={"motion": "abc"})
    write(tmp_path, 9, split="test", rows_per_file=4)
    write(tmp_path, 20, rows_per_file=4)
    write(tmp_path, 3)
    assert sorted(f.name for f in (tmp_path / "sft").iterdir()) == [
        *(f"test-{i:05d}-of-00003.parquet" for i in range(3)),
        "train-00000-of-00001.parquet",
    ]
    header = DatasetCard.load(tmp_path / "README.md").data.to_dict()
    assert [c["config_name"] for c in header["configs"]] == ["pretrain", "sft"] and header["codecs"] == {
        "motion": "abc"
    }
    assert [f["split"] for f in header["configs"][1]["data_files"]] == ["train", "test"]


def test_what_fails_leaves_the_old_files(tmp_path):
    write(tmp_path, 3)
    before = (tmp_path / "sft" / "train-00000-of-00001.parquet").read_bytes()

    def broken():
        yield from sample_tables(samples(9), 9)
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        write_rendered(tmp_path, "sft", "train", broken())
    with pytest.raises(ValueError, match="nothing to write"):
        write_rendered(tmp_path, "sft", "train", [])
    assert [f.name for f in (tmp_path / "sft").iterdir()] == ["train-00000-of-00001.parquet"]
    assert (tmp_path / "sft" / "train-00000-of-00001.parquet").read_bytes() == before
    with pytest.raises(ValueError, match="one of"):
        write_rendered(tmp_path, "chat", "train", [])


def test_nothing_is_drawn_ahead(tmp_path):
    """Memory stays flat: while a group is written, the samples of later ones do not exist yet."""
    drawn, written = 0, []
    writer = pq.ParquetWriter.write_table

    def count():
        nonlocal drawn
        for sample in samples(40):
            drawn += 1
            yield sample

    def write_table(self, table, **kwargs):
        written.append((drawn, len(table)))
        writer(self, table, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", write_table)
        write_rendered(tmp_path, "sft", "train", sample_tables(count(), 4))
    assert [n for n, _ in written] == list(range(4, 41, 4)) and all(rows == 4 for _, rows in written)


def test_from_prepared_dialogues_to_samples(tmp_path, tiny_processor, small_motion, small_sound, caplog):
    source = tmp_path / "source"
    source.mkdir()
    write_motion(source / "a.npz", small_motion)
    soundfile.write(source / "a.wav", small_sound, 16000)
    media = {"audio": "a.wav", "motion": "a.npz"}
    user, answer = ({"role": role, "text": "hi", **media} for role in ("user", "assistant"))
    turns = {"good": [user, answer], "silent": [user], "bad": [user, {**answer, "text": "<eos>"}]}
    rows = [{"id": name, "topic": "", "character": "ada", "turns": value} for name, value in turns.items()]
    (source / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare("chat", source, tiny_processor, tmp_path / "tokens")
    with caplog.at_level(logging.INFO):
        report = render_chat_dataset(tmp_path / "tokens", tiny_processor, tmp_path / "out", interleaved=True)
    counts = report["train"]
    assert (counts.rendered, counts.without_answer, counts.rejected) == (1, 1, 1)
    assert "1 rendered" in caplog.text and "left out bad: a text holds reserved" in caplog.text
    (sample,) = load_dataset(str(tmp_path / "out"), "sft", split="train", cache_dir=str(tmp_path / "cache"))
    text = tiny_processor.tokenizer.decode(sample["input_ids"])
    assert text.startswith("You are Ada.\n[Human]: <🔀") and text.endswith("<eos>")
    codes = tiny_processor.encode_motion([source / "a.npz"])[0]
    begun = "".join(f"<🕺{code}>" for code in codes["body"][:3])
    assert f"[MMGPT]: hi<eot><sobo>{begun}<soha>" in text
    header = DatasetCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert set(header["codecs"]) == {"motion", "speech"}
    with pytest.raises(ValueError, match="nothing to write"):
        render_chat_dataset(tmp_path / "tokens", tiny_processor, tmp_path / "out", max_length=5)


def test_what_is_held_out_is_not_rendered_for_training(tmp_path, tiny_processor, caplog):
    codes = {"body": [1, 2], "hand": [1, 2], "trans": [0], "speech": [1, 2, 3]}
    turns = [{"role": role, "text": "hi", "motion_text": None, **codes} for role in ("user", "assistant")]
    rows = [{"id": name, "topic": "", "character": "ada", "turns": turns, "source": ""} for name in ("a", "b", "c")]
    write_token_dataset(
        tmp_path / "tokens", "chat", {"train": rows, "test": rows[1:2]}, fingerprints(tiny_processor, "chat")
    )
    report = render_chat_dataset(tmp_path / "tokens", tiny_processor, tmp_path / "out", splits=("train", "test"))
    assert (report["train"].rendered, report["test"].rendered) == (2, 1)
    samples = load_dataset(str(tmp_path / "out"), "sft", split="train", cache_dir=str(tmp_path / "cache"))
    assert samples["id"] == ["a", "c"] and "1 training rows are left out" in caplog.text
