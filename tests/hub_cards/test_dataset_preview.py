"""Rows of a token dataset to listen to and look at, opened with `datasets` alone."""

import io

import numpy as np
import pytest
import soundfile
from datasets import Audio, load_dataset

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
