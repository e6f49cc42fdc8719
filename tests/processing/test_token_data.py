"""Token datasets: columns, cards, loading whole and as a stream, refusing codes of another codec."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import load_dataset
from huggingface_hub import DatasetCard

from solami_hf.processing.datasets.token_dataset import (
    fingerprints,
    load_tokens,
    schema_for,
    split_names,
    write_parquet,
    write_token_dataset,
)
from solami_hf.processing.files.folder_or_hub import hub_id
from solami_hf.processing.files.text_files import write_json


def clip(name: str, **more) -> dict:
    codes = {"body": np.array([1, 2]), "hand": np.array([3, 4]), "trans": np.array([0])}
    return {"id": name, "text": ["waves"], **codes, "partner_id": None, "num_frames": 9, "source": "me", **more}


@pytest.fixture
def folder(tmp_path):
    splits = {"train": [clip("a"), clip("b")], "test": [clip("c")]}
    write_token_dataset(tmp_path / "data", "motion", splits, {"motion": "x"})
    return tmp_path / "data"


def test_a_folder_loads_whole_and_as_a_stream(folder, tmp_path):
    whole = load_tokens(folder, "motion", "train")
    stream = load_tokens(folder, "motion", "train", streaming=True)
    assert list(stream) == whole.to_list() and stream.features == whole.features
    assert whole.features["body"].feature.dtype == "int16" and whole[0]["body"] == [1, 2]
    hub = load_dataset(str(folder), "motion", cache_dir=str(tmp_path / "cache"))
    assert hub["train"].to_list() == whole.to_list() and hub["test"]["id"] == ["c"]
    assert split_names(folder, "motion") == ["train", "test"] and split_names(folder, "chat") == []


def test_many_shards_are_one_split(folder):
    features = load_tokens(folder, "motion", "train").features
    (folder / "motion/train-00000-of-00001.parquet").unlink()
    for i in range(12):
        write_parquet(folder / f"motion/train-{i:05d}-of-00012.parquet", [clip(f"r{i}")] if i != 5 else [], features)
    ids = [f"r{i}" for i in range(12) if i != 5]
    assert load_tokens(folder, "motion", "train")["id"] == ids
    assert [row["id"] for row in load_tokens(folder, "motion", "train", streaming=True)] == ids


@pytest.mark.parametrize("streaming", [False, True])
def test_another_codec_is_refused(tiny_processor, tmp_path, streaming):
    prints = fingerprints(tiny_processor, "motion")
    write_token_dataset(tmp_path, "motion", {"train": [clip("a")]}, prints)
    assert len(list(load_tokens(tmp_path, "motion", "train", tiny_processor, streaming=streaming))) == 1
    weight = next(tiny_processor.motion_codec.parameters())
    with torch.no_grad():
        weight.add_(1)
    try:
        with pytest.raises(ValueError, match="made by the motion codec .* use the processor that made it"):
            load_tokens(tmp_path, "motion", "train", tiny_processor, streaming=streaming)
    finally:
        with torch.no_grad():
            weight.sub_(1)
    (tmp_path / "README.md").unlink()
    with pytest.raises(ValueError, match="made by the motion codec None"):
        load_tokens(tmp_path, "motion", "train", tiny_processor, streaming=streaming)


def test_the_card_has_codecs_counts_hours_and_licence(folder):
    report = {"splits": {"train": {"rows": 7, "shards": 1, "speech_hours": 1.25}}, "codecs": {"speech": "y"}}
    report |= {"codec_sources": {"speech": {"id": "org/codec", "revision": "abc"}}, "license": "cc0-1.0"}
    report |= {"split_by": "source", "test_share": 0.1, "validation_share": 0.0, "rejected": 3, "orphans": 0}
    write_json(folder / "speech/report.json", report | {"layout": "commonvoice"})
    write_token_dataset(folder, "motion", {"train": [clip("a")]}, {"motion": "x"})
    card = DatasetCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["codecs"] == {"motion": "x", "speech": "y"} and data["license"] == "cc0-1.0"
    assert [c["config_name"] for c in data["configs"]] == ["motion", "speech"]
    assert "| speech | y | org/codec | abc |" in card.text and "| speech | train | 7 |  | 1.250 |" in card.text
    assert "split by source id (test 0.1" in card.text and "3 rows rejected" in card.text
    with pytest.raises(ValueError, match="another speech codec; write to a new folder"):
        write_token_dataset(folder, "speech", {"train": []}, {"speech": "z"})


def test_numbers_that_do_not_fit_are_refused(folder):
    features = load_tokens(folder, "motion", "train").features
    with pytest.raises(ValueError, match="40000"):
        write_parquet(folder / "x.parquet", [clip("a", body=np.array([40000]))], features)
    assert not (folder / "x.parquet").exists()


def test_codes_above_16_bits_get_32_by_the_codec_not_by_the_data():
    def speech_type(codebook_size, levels):
        config = SimpleNamespace(codebook_size=codebook_size, lm_levels=levels)
        processor = SimpleNamespace(speech_codec=SimpleNamespace(config=config))
        return schema_for("chat", processor)["turns"].feature["speech"].feature.dtype

    assert speech_type(1024, 8) == "int16" and speech_type(32768, 1) == "int16"
    assert speech_type(65536, 1) == "int32" and speech_type(4096, 9) == "int32"


def test_local_folders_and_hub_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    local = (tmp_path, "./org/name", "/a/b", "name", "a/b/c", "runs/tokens", "")
    assert not any(map(hub_id, local)) and hub_id("org/name") == "org/name"
    with pytest.raises(ValueError, match="split is 'dev'"):
        load_tokens(tmp_path, "motion", "dev")


def test_rows_are_mapped_from_disk_not_read_into_memory(folder):
    """All shards, also of a data set whose name another one had before."""
    features = load_tokens(folder, "motion", "train").features
    before = pa.total_allocated_bytes()
    write_parquet(folder / "motion/train-00001-of-00002.parquet", [clip("c", body=np.zeros(100_000, int))], features)
    rows = load_tokens(folder, "motion", "train")
    assert rows["id"] == ["a", "b", "c"] and [file["filename"][-6:] for file in rows.cache_files] == [".arrow"]
    assert len(rows[2]["body"]) == 100_000 and pa.total_allocated_bytes() - before < 100_000
    again = load_tokens(folder, "motion", "train")  # what another process would map
    assert again.cache_files == rows.cache_files


def test_a_damaged_file_is_named(folder):
    (folder / "motion/train-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    for streaming in (False, True):
        with pytest.raises(ValueError, match="train-00000-of-00001.parquet"):
            load_tokens(folder, "motion", "train", streaming=streaming)


def test_a_split_without_rows(folder):
    write_token_dataset(folder, "motion", {"train": []}, {"motion": "x"})
    assert len(load_tokens(folder, "motion", "train")) == 0
