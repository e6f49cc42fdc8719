"""Seamless Interaction, from small files made to its documented format, and turns by voice activity."""

import json
import logging

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from solami_hf.processing.audio.waveforms import write_audio
from solami_hf.processing.datasets.layouts.find_layout import find_layout, read_rows
from solami_hf.processing.datasets.layouts.turn_taking import (
    Participant,
    Turn,
    conversation_rows,
    heard_spans,
    turns_of,
)
from solami_hf.processing.datasets.manifests import BadRow
from solami_hf.processing.datasets.token_dataset import load_tokens
from solami_hf.processing.motion.body import standing_height
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.processing.prepare import prepare

FIRST, SECOND = "V00_S0809_I00000582_P0947", "V00_S0809_I00000582_P0948"


def arrays(frames: int = 300, **changes) -> dict:
    """The root is turned upside down in the camera's picture, 40 m away."""
    poses = 0.1 * np.random.default_rng(0).standard_normal((frames, 51, 3)).astype(np.float32)
    root = Rotation.from_rotvec([np.pi, 0, 0]).as_rotvec()[None].repeat(frames, 0).astype(np.float32)
    made = {
        "smplh:global_orient": root, "smplh:body_pose": poses[:, :21], "smplh:left_hand_pose": poses[:, 21:36],
        "smplh:right_hand_pose": poses[:, 36:], "smplh:is_valid": np.ones((frames, 1), dtype=bool),
        "smplh:translation": np.tile(np.float32([0.1, 0.3, 40.0]), (frames, 1)),
        "movement:expression": np.zeros((frames, 128), np.float32),
    }  # fmt: skip
    return made | changes


def participant(folder, name, said, frames=300, **changes):
    """`said`: (start, end, words); words are spread evenly."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}.npz", **arrays(frames, **changes))
    segments = []
    for start, end, text in said:
        times = np.linspace(start, end, len(text.split()) + 1)
        words = [{"word": w, "start": a, "end": b, "score": 0.9} for w, a, b in zip(text.split(), times, times[1:])]  # noqa: B905
        segments.append({"start": start, "end": end, "transcript": text, "words": words})
    told = {"id": name, "metadata:vad": [{"start": s, "end": e} for s, e, _ in said], "metadata:transcript": segments}
    (folder / f"{name}.json").write_text(json.dumps(told))
    write_audio(folder / f"{name}.wav", 0.1 * np.sin(np.arange(frames * 160) / 9).astype(np.float32), 4800)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "seamless" / "improvised" / "dev" / "0000" / "0023"
    participant(folder, FIRST, [(0.5, 2.0, "hello there"), (2.2, 3.0, "my friend"), (6.0, 8.0, "so do I")])
    participant(folder, SECOND, [(1.0, 1.4, "mhm"), (3.2, 5.0, "I like it here"), (8.5, 9.5, "good")])
    participant(folder, "V00_S0809_I00000583_P0947", [(0.0, 1.0, "anyone")])
    return tmp_path / "seamless"


def read(source, kind):
    assert find_layout(source, kind) == "seamless"
    rows = list(read_rows(source, kind, "seamless"))
    bad = {row.id: row.reason for row in rows if isinstance(row, BadRow)}
    return [row for row in rows if not isinstance(row, BadRow)], bad


def test_turns_by_voice_activity():
    voices = [[(0.0, 2.0), (2.3, 4.0), (9.0, 10.0)], [(1.0, 1.5), (3.5, 8.0)]]
    assert turns_of(voices) == [Turn(0, 0.0, 4.0, [(1.0, 1.5)]), Turn(1, 3.5, 8.0), Turn(0, 9.0, 10.0)]
    assert turns_of(voices, back_channel=0.2) == [Turn(0, 0.0, 4.0), Turn(1, 1.0, 8.0), Turn(0, 9.0, 10.0)]
    assert turns_of([[(0.0, 1.0), (1.4, 2.0)], []], min_pause=0.3) == [Turn(0, 0.0, 2.0)]  # nobody took over
    assert turns_of([[(0.0, 1.0)], [(0.0, 1.0)]]) == [Turn(0, 0.0, 1.0), Turn(1, 0.0, 1.0)]  # both at once
    assert turns_of([[], []]) == []


def test_turns_among_three_and_by_sound():
    voices = [[(0.0, 2.0), (6.0, 7.0)], [(2.1, 4.0), (8.0, 9.0)], [(1.0, 1.3), (4.5, 5.5)]]
    turns = turns_of(voices)
    assert [(t.person, t.start) for t in turns] == [(0, 0.0), (1, 2.1), (2, 4.5), (0, 6.0), (1, 8.0)]
    assert turns[0].back_channels == [(1.0, 1.3)]
    people = [
        Participant(c, c, f"{c}.npy", f"{c}.wav", v, None, np.ones(300, bool), 30)
        for c, v in zip("abc", voices, strict=True)
    ]
    rows = list(conversation_rows("chat", "x", people))
    assert [(row["id"], [t["start"] for t in row["turns"]]) for row in rows] == [
        ("a#0", [4.5, 6.0]), ("b#0", [0.0, 2.1]), ("b#1", [6.0, 8.0]), ("c#0", [2.1, 4.5])
    ]  # fmt: skip
    assert rows[0]["turns"][0] == {
        "role": "user", "text": "", "audio": "c.wav", "motion": "c.npy", "start": 4.5, "end": 5.5
    }  # fmt: skip
    pieces = list(conversation_rows("motion", "x", people))
    assert [(row["id"][0], row["partner_id"][0]) for row in pieces[:6]] == [*map(tuple, ("ab", "ba", "ca"))] + [
        *map(tuple, ("ab", "ba", "cb"))
    ]
    sound = np.zeros(16000 * 3)
    sound[8000:24000] = 0.2 * np.sin(np.arange(16000) / 4)
    sound[40000:40100] = 0.2  # a click
    assert heard_spans(sound, 16000) == [(0.5, 1.5)] and heard_spans(0 * sound, 16000) == []


def test_the_camera_looks_at_a_standing_person(tmp_path):
    valid = np.ones(300, dtype=bool)
    valid[[0, 1, 50, 51, 52, 299]] = False
    moved = arrays(**{"smplh:is_valid": valid})
    moved["smplh:body_pose"][50:53] = 9.0
    np.savez(tmp_path / "a.npz", **moved)
    motion = read_motion(tmp_path / "a.npz")
    assert motion.num_frames == 300 and motion.fps == 30
    np.testing.assert_allclose(motion.pelvis[:, 1], standing_height(), atol=1e-5)
    np.testing.assert_allclose(np.abs(motion.poses[:, 0]), 0, atol=1e-5)  # upright, facing the camera
    np.testing.assert_allclose(motion.poses[2:50, 1:22], moved["smplh:body_pose"][2:50], atol=1e-5)
    assert np.abs(motion.poses[50:53, 1:22]).max() < 1 and np.array_equal(motion.poses[0], motion.poses[2])
    assert np.array_equal(motion.poses[299], motion.poses[298])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"smplh:is_valid": np.zeros(300, bool)}, "0 of its 300 frames are valid"),
        ({"smplh:body_pose": np.zeros((299, 21, 3), np.float32)}, "'pose_body': 299"),
        ({"smplh:translation": np.full((300, 3), np.nan, np.float32)}, "NaN"),
        ({"smplh:global_orient": np.array(["x"] * 300)}, "expected numbers"),
    ],
)
def test_broken_motion_is_named(tmp_path, changes, told):
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=told):
        read_motion(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **{k: v for k, v in arrays().items() if k != "smplh:translation"})
    with pytest.raises(ValueError, match="it lacks smplh:translation"):
        read_motion(tmp_path / "b.npz")


def test_motion_rows_are_pairs_of_who_talks_and_who_listens(source, caplog):
    with caplog.at_level(logging.WARNING):
        rows, bad = read(source, "motion")
    assert "CC BY-NC 4.0" in caplog.text
    assert bad == {"V00_S0809_I00000583": "has 1 participants, expected two"}
    assert len(rows) == 8 and rows[0] == {
        "id": f"{FIRST}@0.50-3.00", "motion": f"improvised/dev/0000/0023/{FIRST}.npz", "start": 0.5, "end": 3.0,
        "text": ["a person talks: hello there my friend"], "partner_id": f"{SECOND}@0.50-3.00",
        "source": "V00_S0809", "split": "validation",
    }  # fmt: skip
    assert rows[1]["text"] == ["a person listens"] and rows[1]["partner_id"] == rows[0]["id"]


def test_chat_rows_of_both_characters(source):
    rows, bad = read(source, "chat")
    assert [row["id"] for row in rows] == [f"{FIRST}#0", f"{SECOND}#0"]
    first, second = rows
    assert [(t["role"], t["text"]) for t in first["turns"]] == [("user", "I like it here"), ("assistant", "so do I")]
    assert [t["role"] for t in second["turns"]] == ["user", "assistant", "user", "assistant"]
    assert second["turns"][0]["back_channels"] == [(1.0, 1.4)] and second["character"] == "P0948"
    assert second["turns"][0]["audio"].endswith(f"{FIRST}.wav") and second["turns"][0]["end"] == 3.0
    assert bad[f"{FIRST}@0.50-3.00"] == "has no turn of the other beside it"
    assert bad[f"{FIRST}@8.50-9.50"] == "is not answered"


def test_what_is_dropped_is_told(source):
    folder = source / "improvised/dev/0000/0023"
    valid = np.ones(300, bool)
    valid[96:150] = False  # of 3.2 to 5 s
    np.savez(folder / f"{SECOND}.npz", **arrays(**{"smplh:is_valid": valid}))
    rows, bad = read(source, "chat")
    assert "less than 50 % valid frames of V00_S0809_I00000582_P0948" in bad["V00_S0809_I00000582@3.20-5.00"]
    assert [[t["text"] for t in row["turns"]] for row in rows] == [["so do I", "good"]]  # not over the gap
    told = json.loads((folder / f"{FIRST}.json").read_text())
    (folder / f"{FIRST}.json").write_text(json.dumps(told | {"metadata:transcript": None}))
    assert "has no words" in read(source, "speech")[1]["V00_S0809_I00000582@0.50-3.00"]
    for broken, reason in (("[", "is not JSON"), ("{}", "no list metadata:vad"),
                           ('{"metadata:vad": [{"start": 2}]}', "entry without start, end"),
                           ('{"metadata:vad": [{"start": 2, "end": 1}]}', "end before they start")):  # fmt: skip
        (folder / f"{FIRST}.json").write_text(broken)
        assert reason in read(source, "speech")[1]["V00_S0809_I00000582"]


def test_it_becomes_tokens_piece_by_piece(source, tmp_path, tiny_processor):
    out, second = tmp_path / "tokens", source / f"improvised/dev/0000/0023/{SECOND}.json"
    told = json.loads(second.read_text())
    told["metadata:vad"][1]["start"] = 2.8  # before the other has ended
    second.write_text(json.dumps(told))
    assert prepare("chat", source, tiny_processor, out) == {"validation": 2, "rejected": 3}
    rows = load_tokens(out, "chat", "validation", tiny_processor)
    turn = rows[1]["turns"][0]
    assert len(turn["body"]) == (75 - 1) // 4 and len(turn["trans"]) == 1  # 0.5 to 3 s
    assert len(turn["speech"]) == 125 and turn["text"] == "hello there my friend"
    assert prepare("motion", source, tiny_processor, out)["validation"] == 8
    assert prepare("speech", source, tiny_processor, out)["validation"] == 1
    assert (out / "chat" / "rejected.jsonl").read_text().count("\n") == 3
    report = json.loads((out / "chat" / "report.json").read_text())
    counts = report["splits"]["validation"]
    assert (counts["turns"], counts["back_channels"], counts["overlap_seconds"]) == (6, 1, 0.2)
    assert report["reasons"] == {
        "has ... participants, expected two": 1, "has no turn of the other beside it": 1, "is not answered": 1,
    }  # fmt: skip
    assert "CC BY-NC 4.0" in report["terms"]


def test_two_people_on_one_clock(source, tiny_processor, tmp_path, caplog):
    rows, bad = read(source, "duplex")
    (row,) = rows
    assert (row["id"], row["start"], row["end"]) == ("V00_S0809_I00000582@0.00-10.00", 0.0, 10.0)
    assert [person["person"] for person in row["people"]] == ["P0947", "P0948"] and row["source"] == "V00_S0809"
    assert row["people"][1]["talks"] == [(1.0, 1.4), (3.2, 5.0), (8.5, 9.5)] and row["split"] == "validation"
    assert bad == {"V00_S0809_I00000583": "has 1 participants, expected two"}
    assert prepare("duplex", source, tiny_processor, tmp_path / "data") == {"validation": 1, "rejected": 1}
    (made,) = load_tokens(tmp_path / "data", "duplex", "validation", tiny_processor)
    assert {len(person["body"]) for person in made["people"]} == {72} and "CC BY-NC" in caplog.text
