"""`solami prepare`: manifests to Parquet, bad rows kept out with their reasons, foreign codecs refused."""

import json

import numpy as np
import pytest
import soundfile
import torch
from datasets import load_dataset

from solami_hf.processing.datasets.token_dataset import card_codecs, codec_fingerprint, load_tokens
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.prepare import main, prepare


def write_rows(folder, rows):
    folder.mkdir(exist_ok=True)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def source(tmp_path, small_motion, small_sound):
    folder = tmp_path / "source"
    folder.mkdir()
    write_motion(folder / "a.npz", small_motion)
    soundfile.write(folder / "a.wav", small_sound, 16000)
    (folder / "broken.npz").write_bytes(b"not a zip")
    soundfile.write(folder / "empty.wav", np.zeros(0), 16000)
    return folder


def test_motion(source, tiny_processor, tmp_path):
    rows = [
        {"id": "a", "motion": "a.npz", "text": ["waves", "greets"], "partner_id": "b"},
        {"id": "b", "motion": "a.npz", "text": "bows", "split": "test", "source": "me"},
        {"id": "c", "motion": "broken.npz", "text": "?"},
        {"id": "d", "motion": "missing.npz", "text": "?"},
        {"id": "e", "motion": "../a.npz", "text": "?"},
        {"id": "f", "text": "?"},
    ]
    write_rows(source, rows)
    report = prepare("motion", source, tiny_processor, tmp_path / "out")
    assert report == {"train": 1, "test": 1, "rejected": 4}
    rejected = [json.loads(line) for line in (tmp_path / "out/motion/rejected.jsonl").read_text().splitlines()]
    assert [r["id"] for r in rejected] == ["c", "d", "e", "f"]
    assert "outside" in rejected[2]["reason"] and "missing 'motion'" in rejected[3]["reason"]
    train = load_dataset(str(tmp_path / "out"), "motion", split="train", cache_dir=str(tmp_path / "cache"))[0]
    codes = tiny_processor.encode_motion([source / "a.npz"])[0]
    assert train["text"] == ["waves", "greets"] and train["partner_id"] == "b" and train["num_frames"] == 40
    assert train["body"] == codes["body"].tolist() and train["trans"] == codes["trans"].tolist()
    test = load_tokens(tmp_path / "out", "motion", "test", tiny_processor)[0]
    assert test["text"] == ["bows"] and test["source"] == "me"


def test_speech_and_chat_share_a_folder(source, tiny_processor, tmp_path):
    out = tmp_path / "out"
    write_rows(source, [{"id": "s", "turns": [{"text": "hi", "audio": "a.wav", "speaker": "me"}]}])
    prepare("speech", source, tiny_processor, out)
    turns = [
        {"role": "system", "text": "You are Ada."},
        {"role": "user", "text": "hi", "audio": "a.wav", "motion": "a.npz"},
        {"role": "assistant", "text": "ho", "audio": "a.wav", "motion": "a.npz", "motion_text": "waves"},
    ]
    bad = turns[:2] + [{"role": "assistant", "text": "ho", "audio": "empty.wav"}]
    write_rows(
        source,
        [
            {"id": "good", "topic": "t", "character": "ada", "turns": turns},
            {"id": "bad", "topic": "t", "character": "ada", "turns": bad},
        ],
    )
    assert prepare("chat", source, tiny_processor, out) == {"train": 1, "rejected": 1}
    chat = load_tokens(out, "chat", "train", tiny_processor)[0]
    assert chat["turns"][0]["speech"] is None and chat["turns"][2]["motion_text"] == "waves"
    assert len(chat["turns"][1]["speech"]) == 30 and len(chat["turns"][1]["body"]) == 9
    assert load_tokens(out, "speech", "train", tiny_processor)[0]["turns"][0]["speaker"] == "me"
    assert set(card_codecs(out)) == {"motion", "speech"}


def test_dialogues_name_prepared_motions_by_their_ids(source, tiny_processor, tmp_path):
    captures = [{"id": "w/1", "motion": "a.npz", "text": "waves"}]
    write_rows(source, [*captures, {"id": "held", "motion": "a.npz", "text": "waves", "split": "test"}])
    prepare("motion", source, tiny_processor, tmp_path / "motions")
    codes = load_tokens(tmp_path / "motions", "motion", "train", tiny_processor)[0]

    def row(name, motion_id, **more):
        turns = [{"role": "user", "text": "hi", "motion_id": motion_id}, {"role": "assistant", "text": "ho"}]
        return {"id": name, "topic": "t", "character": "ada", "turns": turns, **more}

    rows = [row("good", "w/1"), row("gone", "w/2"), row("leak", "held"), row("test", "held", split="test")]
    write_rows(source, rows)
    options = {"motion_tokens": tmp_path / "motions"}
    assert prepare("chat", source, tiny_processor, tmp_path / "out", **options) == {
        "train": 1,
        "test": 1,
        "rejected": 2,
    }
    turn = load_tokens(tmp_path / "out", "chat", "train", tiny_processor)[0]["turns"][0]
    assert {name: turn[name] for name in ("body", "hand", "trans")} == {n: codes[n] for n in ("body", "hand", "trans")}
    rejected = [json.loads(line) for line in (tmp_path / "out/chat/rejected.jsonl").read_text().splitlines()]
    assert "'w/2' is no motion of" in rejected[0]["reason"] and "of the test split" in rejected[1]["reason"]
    # by default the motions are those beside the dialogues
    prepare("chat", source, tiny_processor, tmp_path / "motions")
    again = load_tokens(tmp_path / "motions", "chat", "train", tiny_processor)[0]["turns"][0]
    assert again["body"] == codes["body"]


def test_codes_of_another_codec_are_refused(source, tiny_processor, tmp_path):
    write_rows(source, [{"id": "a", "motion": "a.npz", "text": "waves"}])
    prepare("motion", source, tiny_processor, tmp_path / "out")
    codec = tiny_processor.motion_codec
    before = codec_fingerprint(codec)
    weight = next(codec.parameters())
    with torch.no_grad():
        weight.add_(1)
    try:
        assert codec_fingerprint(codec) != before
        with pytest.raises(ValueError, match="made by the motion codec"):
            load_tokens(tmp_path / "out", "motion", "train", tiny_processor)
        with pytest.raises(ValueError, match="write to a new folder"):
            prepare("motion", source, tiny_processor, tmp_path / "out")
    finally:
        with torch.no_grad():
            weight.sub_(1)


def test_nothing_usable_is_an_error(source, tiny_processor, tmp_path):
    write_rows(source, [{"id": "c", "motion": "broken.npz", "text": "?"}])
    with pytest.raises(ValueError, match="no row of .* could be used"):
        prepare("motion", source, tiny_processor, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_help_says_what_a_manifest_holds(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "manifest.jsonl" in (text := capsys.readouterr().out) and "partner_id" in text and "--processor" in text


def test_a_split_that_nothing_fell_into_is_told(source, tiny_processor, tmp_path, caplog):
    write_rows(source, [{"id": "a", "motion": "a.npz", "text": "waves", "source": "me"}])
    shares = {"split_by": "source", "test_share": 0.0, "validation_share": 0.01}
    prepare("motion", source, tiny_processor, tmp_path / "out", **shares)
    assert [text for text in caplog.messages if "split" in text] == [
        "no source fell into the validation split: 0.01 of few sources may be none; raise validation_share"
    ]


def test_command(source, tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path / "processor")
    write_rows(source, [{"id": "a", "motion": "a.npz", "text": "waves"}])
    options = ["--processor", str(tmp_path / "processor"), "--output", str(tmp_path / "out")]
    assert main(["motion", str(source), *options]) == 0
    assert (tmp_path / "out/motion/train-00000-of-00001.parquet").is_file()
    with pytest.raises(ValueError, match="say what to prepare"):
        main(["dance", str(source), *options])
    with pytest.raises(FileNotFoundError, match="no such processor"):
        main(["motion", str(source), "--processor", str(tmp_path / "none"), "--output", "x"])
    with pytest.raises(FileNotFoundError, match="manifest.jsonl"):
        main(["motion", str(tmp_path), *options])
    with pytest.raises(FileNotFoundError, match="solami prepare chat"):
        load_tokens(tmp_path / "out", "chat", "train")
    with pytest.raises(FileNotFoundError, match="no such token dataset"):
        load_tokens(tmp_path / "nowhere", "chat", "train")
