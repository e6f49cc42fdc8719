"""Known layouts from files to codes: what a user gets from small real files of each."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from solami_hf.processing.datasets.token_dataset import load_tokens
from solami_hf.processing.motion.body import rest_joints
from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.prepare import prepare

CMU = Path(__file__).parents[1] / "data" / "cmu_01_01.bvh"


@pytest.fixture
def sound_file(tmp_path, small_sound):
    path = tmp_path / "sound.wav"
    soundfile.write(path, small_sound, 16000)
    return path


def report_of(out, kind):
    return json.loads((out / kind / "report.json").read_text())


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def standing_vectors(frames: int) -> np.ndarray:
    """HumanML3D's vectors (T, 263) of a body at rest: height, positions of 21 joints, nothing moves."""
    joints = rest_joints()[:22]
    joints = joints - joints[0] * [1, 0, 1] - [0, joints[:, 1].min(), 0]
    row = np.concatenate([[0, 0, 0, joints[0, 1]], joints[1:].reshape(-1), np.zeros(263 - 67)])
    return np.tile(row, (frames, 1)).astype(np.float32)


def test_a_humanml3d_clip_and_a_piece_of_it(tiny_processor, tmp_path):
    source = tmp_path / "HumanML3D"
    for folder in ("texts", "new_joint_vecs"):
        (source / folder).mkdir(parents=True)
    np.save(source / "new_joint_vecs/000001.npy", standing_vectors(60))  # 3 s at 20 fps
    np.save(source / "new_joint_vecs/000002.npy", np.zeros((60, 263), np.float32))
    captions = "a man stands.#a/DET man/NOUN#0.0#0.0\nhe waits.#he/PRON#1.0#2.0\nlate.#late/ADV#7.0#8.0\n"
    (source / "texts/000001.txt").write_text(captions)
    (source / "texts/000002.txt").write_text("nobody.#nobody/PRON#0.0#0.0\n")
    assert prepare("motion", source, tiny_processor, tmp_path / "out") == {"train": 2, "rejected": 2}
    whole, piece = load_tokens(tmp_path / "out", "motion", "train", tiny_processor)
    frames = read_motion(source / "new_joint_vecs/000001.npy").num_frames
    assert (whole["id"], whole["text"], whole["num_frames"]) == ("000001", ["a man stands."], frames)
    assert (piece["id"], piece["text"], piece["num_frames"]) == ("000001@1-2", ["he waits."], 30)
    assert len(piece["body"]) == (30 - 1) // 4
    reasons = {r["id"]: r["reason"] for r in lines_of(tmp_path / "out/motion/rejected.jsonl")}
    assert "begins at 7 s" in reasons["000001@7-8"] and "no body" in reasons["000002"]
    report = report_of(tmp_path / "out", "motion")
    assert report["layout"] == "humanml3d" and report["source"] == "HumanML3D"
    assert report["splits"]["train"]["motion_hours"] == pytest.approx((frames + 30) / 30 / 3600, abs=1e-6)


def test_an_inter_x_pair_and_an_orphan(tiny_processor, small_motion, tmp_path):
    arrays = {
        "root_orient": small_motion.poses[:, 0],
        "pose_body": small_motion.poses[:, 1:22],
        "pose_lhand": small_motion.poses[:, 25:40],
        "pose_rhand": small_motion.poses[:, 40:55],
        "trans": small_motion.transl,
    }
    for name, people in (("G001T000A000R000", "12"), ("G002T000A000R000", "12"), ("G003T000A000R000", "2")):
        folder = tmp_path / "x/motions" / name
        folder.mkdir(parents=True)
        for person in people:
            np.savez(folder / f"P{person}.npz", **arrays)
    (tmp_path / "x/motions/G002T000A000R000/P1.npz").write_bytes(b"broken")
    (tmp_path / "x/texts").mkdir()
    (tmp_path / "x/texts/G001T000A000R000.txt").write_text("Two people hug.\n")
    out = tmp_path / "out"
    options = {"split_by": "source", "test_share": 0.5}
    found = prepare("motion", tmp_path / "x", tiny_processor, out, **options)
    assert found["rejected"] == 1 and found["train"] + found["test"] == 4
    rows = {r["id"]: {**r, "split": s} for s in ("train", "test") for r in load_tokens(out, "motion", s)}
    one, two = (rows[f"G001T000A000R000_P{i}"] for i in (1, 2))
    assert one["partner_id"] == two["id"] and two["partner_id"] == one["id"] and one["split"] == two["split"]
    assert one["text"] == ["Two people hug."] and one["num_frames"] == 10, "120 frames a second became 30"
    orphans = {o["id"]: o["reason"] for o in lines_of(out / "motion/orphans.jsonl")}
    assert orphans == {
        "G002T000A000R000_P2": "the partner was rejected",
        "G003T000A000R000_P2": "the partner is not in the source",
    }
    assert report_of(out, "motion")["orphans"] == 2
    assert "2 without their partner" in (out / "README.md").read_text()


def test_a_folder_of_bvh_files(tiny_processor, tmp_path):
    (tmp_path / "bvh").mkdir()
    shutil.copy(CMU, tmp_path / "bvh/walk_forward.bvh")
    (tmp_path / "bvh/cut.bvh").write_text(CMU.read_text()[:9000])
    assert prepare("motion", tmp_path / "bvh", tiny_processor, tmp_path / "out") == {"train": 1, "rejected": 1}
    (row,) = load_tokens(tmp_path / "out", "motion", "train")
    expected = tiny_processor.encode_motion([read_motion(CMU)])[0]
    assert row["text"] == ["walk forward"] and row["body"] == expected["body"].tolist() and row["num_frames"] == 120


def test_common_voice_and_ljspeech(tiny_processor, sound_file, tmp_path):
    expected = tiny_processor.encode_speech([sound_file])[0].tolist()
    voices, book = tmp_path / "cv", tmp_path / "LJSpeech-1.1"
    (voices / "clips").mkdir(parents=True)
    (book / "wavs").mkdir(parents=True)
    shutil.copy(sound_file, voices / "clips/a.wav")
    (voices / "clips/b.wav").write_bytes(b"RIFF")
    table = "client_id\tpath\tsentence\nme\ta.wav\tHello.\nme\tb.wav\tBroken.\nyou\tc.wav\tMissing.\n"
    (voices / "train.tsv").write_text(table)
    assert prepare("speech", voices, tiny_processor, tmp_path / "1") == {"train": 1, "rejected": 2}
    (row,) = load_tokens(tmp_path / "1", "speech", "train", tiny_processor)
    assert row == {"id": "a", "source": "me", "turns": [{"text": "Hello.", "speech": expected, "speaker": "me"}]}
    assert report_of(tmp_path / "1", "speech")["splits"]["train"]["speech_hours"] == pytest.approx(
        0.6 / 3600, abs=1e-6
    )
    shutil.copy(sound_file, book / "wavs/LJ001-0001.wav")
    (book / "metadata.csv").write_text("LJ001-0001|1 line|one line\n")
    assert prepare("speech", book, tiny_processor, tmp_path / "2") == {"train": 1, "rejected": 0}
    (row,) = load_tokens(tmp_path / "2", "speech", "train")
    assert row["turns"] == [{"text": "one line", "speech": expected, "speaker": "LJSpeech-1.1"}]


def test_beat2_as_motion_and_as_speech(tiny_processor, small_motion, sound_file, tmp_path):
    for folder in ("smplxflame_30", "wave16k", "text"):
        (tmp_path / "beat" / folder).mkdir(parents=True)
    name = "2_scott_0_1_1"
    write_motion(tmp_path / f"beat/smplxflame_30/{name}.npz", small_motion)
    shutil.copy(sound_file, tmp_path / f"beat/wave16k/{name}.wav")
    (tmp_path / f"beat/text/{name}.txt").write_text("hello there\n")
    out = tmp_path / "out"
    assert prepare("motion", tmp_path / "beat", tiny_processor, out) == {"train": 1, "rejected": 0}
    assert prepare("speech", tmp_path / "beat", tiny_processor, out) == {"train": 1, "rejected": 0}
    assert load_tokens(out, "motion", "train")[0]["text"] == ["a person talks: hello there"]
    assert load_tokens(out, "speech", "train")[0]["turns"][0]["speaker"] == "2_scott"


def test_rows_of_wrong_types_are_told(tiny_processor, small_motion, sound_file, tmp_path):
    write_motion(tmp_path / "a.npz", small_motion)
    good = {"role": "user", "text": "hi", "audio": "sound.wav", "motion": "a.npz"}
    turns = {
        "fine": [good],
        "words": "hi",
        "none": [],
        "item": ["hi"],
        "role": [{**good, "role": "robot"}],
        "text": [{**good, "text": 3}],
        "unicode": [{**good, "text": "\ud800"}],
        "path": [{**good, "audio": 7}],
        "zero": [{**good, "motion": "a\0.npz"}],
    }
    rows = [{"id": name, "character": "ada", "turns": t} for name, t in turns.items()]
    rows += [{"id": "nobody", "turns": [good]}]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{half")
    found = prepare("chat", tmp_path, tiny_processor, tmp_path / "out")
    assert found == {"train": 1, "rejected": 10}
    reasons = {r["id"]: r["reason"] for r in lines_of(tmp_path / "out/chat/rejected.jsonl")}
    assert "no turns" in reasons["none"] and "list of objects" in reasons["words"] and "'robot'" in reasons["role"]
    assert "text is 3" in reasons["text"] and "Unicode" in reasons["unicode"] and "audio is 7" in reasons["path"]
    assert "missing 'character'" in reasons["nobody"] and "outside" in reasons["zero"]
    assert list(reasons)[0] == "manifest.jsonl:11", "what cannot be read comes first"


def test_a_name_outside_does_not_cost_the_row_that_names_the_file_well(tiny_processor, small_motion, tmp_path):
    source = tmp_path / "source"
    write_motion(source / "a.npz", small_motion)
    rows = [
        {"id": name, "motion": path, "text": "x"} for name, path in (("bad", "../source/a.npz"), ("good", "a.npz"))
    ]
    (source / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prepare("motion", source, tiny_processor, tmp_path / "out") == {"train": 1, "rejected": 1}
    assert load_tokens(tmp_path / "out", "motion", "train")["id"] == ["good"]
