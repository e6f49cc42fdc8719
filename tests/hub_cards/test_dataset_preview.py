"""Rows of a token dataset to listen to and look at, opened with `datasets` alone."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Audio, load_dataset

from solami_hf.hub_cards import doctor
from solami_hf.hub_cards.croissant import FILE, write_croissant
from solami_hf.hub_cards.dataset_preview import write_preview
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset


@pytest.fixture
def tokens(tmp_path, tiny_processor):
    """Twelve motions and three dialogues of two turns."""
    tiny_processor.motion_codec.set_statistics(0.0, 0.1, 0.0, 1.0)
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    rng, folder = np.random.default_rng(0), tmp_path / "tokens"
    codes = lambda count, size: rng.integers(size, size=count).tolist()  # noqa: E731
    motions = [
        {"id": f"m{i}", "text": ["a person waves", "waves"], "body": codes(6, 16), "hand": codes(6, 16), "trans": [1],
         "partner_id": None, "num_frames": 24, "source": None}
        for i in range(12)
    ]  # fmt: skip
    turn = {"motion_text": None, "body": None, "hand": None, "trans": None}
    chats = [
        {"id": f"c{i}", "topic": "t", "character": "ada", "source": None, "turns": [
            {**turn, "role": "user", "text": "hello there", "speech": codes(25, 32)},
            {**turn, "role": "assistant", "text": "hi", "speech": codes(25, 32), "body": codes(5, 16),
             "hand": codes(5, 16), "trans": [1]},
        ]}
        for i in range(3)
    ]  # fmt: skip
    for config, rows in (("motion", motions), ("chat", chats)):
        write_token_dataset(folder, config, {"train": rows}, fingerprints(tiny_processor, config))
    return folder, tmp_path / "checkpoint"


def test_ten_rows_sound_and_move(tokens, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    folder, checkpoint = tokens
    write_preview(folder, checkpoint)
    rows = load_dataset(str(folder), "preview", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 10 and rows.features["audio"].sampling_rate == 16000
    assert set(load_dataset(str(folder), "motion", cache_dir=str(tmp_path / "cache"))) == {"train"}  # as it was
    rows = rows.cast_column(
        "audio", Audio(decode=False)
    )  # torchcodec decodes it where FFmpeg is; here its file is read
    assert sum(row["mesh"] is not None for row in rows) == 7 and sum(row["audio"] is not None for row in rows) == 5
    assert {row["text"] for row in rows} == {"a person waves / waves", "hello there", "hi"}
    for row in rows:
        if row["audio"]:
            sound, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
            assert rate == 16000 and len(sound) == 25 * 320 and np.abs(sound).max() > 0
        if row["mesh"]:
            assert isinstance(row["mesh"], trimesh.Scene | trimesh.Trimesh)
            height = np.ptp(row["mesh"].bounds, axis=0)[1]
            assert 1.3 < height < 2.2


def test_other_codecs_and_no_tokens(tokens, tmp_path, tiny_processor):
    folder, _ = tokens
    tiny_processor.motion_codec.set_statistics(0.5, 0.2, 0.0, 1.0)
    tiny_processor.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="was made by the motion codec"):
        write_preview(folder, tmp_path / "other")
    assert not (folder / "preview").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no motion, speech or chat tokens to show"):
        write_preview(tmp_path / "empty", tmp_path / "other")


HEARD = """
import json, sys
import av  # brings FFmpeg's libraries, which torchcodec loads
from datasets import load_dataset
rows = load_dataset(sys.argv[1], "preview", split="train", cache_dir=sys.argv[2])
sounds = [row["audio"].get_all_samples() for row in rows if row["audio"]]
meshes = [row["mesh"].bounds.tolist() for row in rows if row["mesh"]]
print(json.dumps([[list(s.data.shape), s.sample_rate, float(s.data.abs().max())] for s in sounds]))
print(len(rows), len(meshes), "solami_hf" in sys.modules)
"""


def test_datasets_alone_decodes_the_sound(tokens, tmp_path):
    for name in ("torchcodec", "av", "trimesh"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    folder, checkpoint = tokens
    write_preview(folder, checkpoint)
    for path in Path(importlib.util.find_spec("av").origin).parents[1].glob("av.libs/lib*-*.so.*"):
        name, _, version = path.name.partition(".so.")
        link = tmp_path / "ffmpeg" / f"{name.rpartition('-')[0]}.so.{version.split('.')[0]}"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)
    done = subprocess.run(
        [sys.executable, "-c", HEARD, folder, tmp_path / "cache"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "ffmpeg")}, cwd=tmp_path, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    sounds, counts = done.stdout.splitlines()[-2:]
    assert counts == "10 7 False"
    sounds = json.loads(sounds)
    assert [(shape, rate) for shape, rate, _ in sounds] == [([1, 25 * 320], 16000)] * 5
    assert all(0 < loudest <= 1 for *_, loudest in sounds)


def problems(folder):
    return [str(found) for found in doctor.examine(folder, examine_code=False).problems]


def test_croissant_passes_and_gives_the_records(tokens):
    mlcroissant = pytest.importorskip("mlcroissant")
    folder, checkpoint = tokens
    write_preview(folder, checkpoint)
    write_croissant(folder, "org/tokens")
    data = mlcroissant.Dataset(str(folder / FILE))  # raises where its validator finds an error
    assert not data.metadata.ctx.issues.errors and data.metadata.url == "https://huggingface.co/datasets/org/tokens"
    row = next(iter(data.records("chat")))
    assert row["chat/id"] == b"c0" and [turn["chat/turns/text"] for turn in row["chat/turns"]] == [
        b"hello there",
        b"hi",
    ]
    assert len(row["chat/turns"][1]["chat/turns/speech"]) == 25
    shown = list(data.records("preview"))
    assert len(shown) == 10 and {row["preview/audio"][:4] for row in shown if row["preview/audio"]} == {b"RIFF"}
    assert problems(folder) == []


def test_the_doctor_looks_at_what_the_viewer_shows(tokens, tmp_path):
    folder, checkpoint = tokens
    write_preview(folder, checkpoint)
    write_croissant(folder, "org/tokens")
    files = sorted(folder.rglob("*.parquet"))
    assert len(files) == 3 and all(pq.read_metadata(path).row_group(0).column(0).has_offset_index for path in files)
    said = json.loads((folder / FILE).read_text())
    said["recordSet"][0]["field"].pop()
    (folder / FILE).write_text(json.dumps(said))
    (told,) = problems(folder)
    assert told.startswith("croissant.json: is not what the card and the files say; push the data set again")
    write_croissant(folder, "org/tokens")
    path = folder / "preview" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    heard, seen = (next(row for row in rows if row[name]) for name in ("audio", "mesh"))
    heard["audio"]["bytes"], seen["mesh"]["bytes"] = b"RIFF", seen["mesh"]["bytes"][:-7]
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    told = problems(folder)
    assert len(told) == 2 and f"the sound of {heard['id']} cannot be read" in "".join(told)
    assert any(f"the body of {seen['id']} is no whole glb file" in text for text in told)


def test_row_groups_that_the_viewer_cannot_read(tokens, monkeypatch):
    folder, _ = tokens
    monkeypatch.setattr("solami_hf.hub_cards.doctor_checks.GROUP_BYTES", 10)
    assert problems(folder) == []  # they have an index
    path = folder / "motion" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path), path, write_page_index=False)
    (told,) = problems(folder)
    assert told.startswith("motion/train-00000-of-00001.parquet: has 0 MB in a row group, and no page index")
