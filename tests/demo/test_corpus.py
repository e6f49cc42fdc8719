import json
from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.demo.action_recognizer import ActionRecognizer
from solami_hf.demo.corpus import build_corpus as corpus
from solami_hf.demo.corpus.build_corpus import PARTNERS, make_clip, place_for_dialogue, write_motion_corpus
from solami_hf.demo.corpus.captions import ACTIONS, action_of_caption
from solami_hf.demo.corpus.gestures import GESTURES, make_gesture
from solami_hf.processing.motion.features import canonicalize, relative_transform
from solami_hf.processing.motion.motion_io import read_motion

SOME = ("wave", "bow", "nod", "point", "thumbs_up", "offer_hand")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A corpus of a few gestures: (folder, rows by id)."""
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "ACTIONS", SOME)
        patch.setattr(corpus, "GESTURE_CLIPS", (6, 2))
        write_motion_corpus(folder, seed=3, progress=False)
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return folder, {row["id"]: row for row in rows}


def test_all_actions_and_enough_gesture_clips():
    assert len(GESTURES) * sum(corpus.GESTURE_CLIPS) >= 400
    for train, test in (corpus.GESTURE_CLIPS, corpus.MOCAP_CLIPS):
        assert test / (train + test) == pytest.approx(0.2, abs=0.02)


def test_manifest_rows_and_files(small):
    folder, rows = small
    assert len(rows) == len(SOME) * 8
    assert {path.name for path in folder.iterdir()} == {"clips", "manifest.jsonl"}
    assert len(list((folder / "clips").iterdir())) == len(rows)
    for row in rows.values():
        assert row["split"] == row["id"].split("-")[1] and row["action"] in SOME
        assert len(set(row["text"])) == 4 and {action_of_caption(text) for text in row["text"]} == {row["action"]}
        assert not Path(row["motion"]).is_absolute() and read_motion(folder / row["motion"]).fps == 30
        assert (row["side"] is None) == (row["action"] in ("bow", "nod"))


def test_partners_answer_and_face_each_other(small):
    folder, rows = small
    both = PARTNERS | {answer: action for action, answer in PARTNERS.items()}
    paired = [row for row in rows.values() if row["partner_id"]]
    assert {row["action"] for row in paired} == set(SOME) - {"thumbs_up"}  # its partner is not in this corpus
    for row in paired:
        partner = rows[row["partner_id"]]
        assert partner["partner_id"] == row["id"] and partner["split"] == row["split"]
        assert partner["action"] == both[row["action"]]
        ours, theirs = (torch.from_numpy(read_motion(folder / r["motion"]).to_params())[0] for r in (row, partner))
        x, z = relative_transform(theirs, ours)[[2, 4]].tolist()
        assert 0.95 < np.hypot(x, z) < 2.25 and z > 0.5  # the partner is in front


def test_every_action_answers_one():
    answers = list(PARTNERS) + [b for a, b in PARTNERS.items() if a != b]
    assert len(answers) == len(set(answers)) and set(answers) <= set(ACTIONS)


def test_same_seed_same_corpus_and_other_seed_another(small, tmp_path, monkeypatch):
    folder, rows = small
    monkeypatch.setattr(corpus, "ACTIONS", SOME[:1])
    monkeypatch.setattr(corpus, "GESTURE_CLIPS", (6, 2))
    for seed in (3, 4):
        write_motion_corpus(tmp_path / str(seed), seed=seed, progress=False)
    wave, again, other = (read_motion(f / "clips/wave-train-00.npz") for f in (folder, tmp_path / "3", tmp_path / "4"))
    np.testing.assert_array_equal(wave.poses[:, 1:], again.poses[:, 1:])
    assert wave.num_frames != other.num_frames or not np.allclose(wave.poses, other.poses, atol=0.01)


def test_more_training_clips_change_no_others(small, tmp_path, monkeypatch):
    folder, rows = small
    monkeypatch.setattr(corpus, "ACTIONS", SOME)
    monkeypatch.setattr(corpus, "GESTURE_CLIPS", (6, 2))
    manifest = write_motion_corpus(tmp_path, seed=3, progress=False, times=3)
    more = {row["id"]: row for row in map(json.loads, manifest.read_text(encoding="utf-8").splitlines())}
    assert {key: more[key] for key in rows} == rows and len(more) == len(SOME) * 20
    new = [row for key, row in more.items() if key not in rows]
    assert {row["split"] for row in new} == {"train"} and {row["partner_id"] for row in new} == {None}
    for name in ("wave-train-00", "wave-test-01"):
        same = [read_motion(place / f"clips/{name}.npz") for place in (folder, tmp_path)]
        np.testing.assert_array_equal(same[0].poses, same[1].poses)


def recognised(folder: Path, rows: dict) -> float:
    """Share of held-out clips whose nearest training clip shows the same action."""
    train, test = ([r for r in rows.values() if r["split"] == split] for split in ("train", "test"))
    recognizer = ActionRecognizer([read_motion(folder / r["motion"]) for r in train], [r["action"] for r in train])
    return float(np.mean([recognizer(read_motion(folder / r["motion"])) == r["action"] for r in test]))


def test_held_out_clips_are_near_their_action(small):
    assert recognised(*small) >= 0.75  # by six training clips an action


@pytest.mark.slow
def test_whole_corpus_is_recognised(tmp_path):
    manifest = write_motion_corpus(tmp_path, progress=False)
    rows = {row["id"]: row for row in map(json.loads, manifest.read_text(encoding="utf-8").splitlines())}
    assert len(rows) == 630
    assert recognised(tmp_path, rows) >= 0.95


def test_user_stands_before_the_character_and_faces_it():
    straight, clip = 0, make_gesture("wave", np.random.default_rng(0))[0]
    for seed in range(40):
        motion = place_for_dialogue(clip, np.random.default_rng(seed))
        x, _, z = motion.transl[0].astype(float)
        assert 0.99 < np.hypot(x, z) < 2.21 and abs(np.degrees(np.arctan2(x, z))) < 25.1
        params = torch.from_numpy(motion.to_params()).double()
        own_front = _front(params)
        to_character = -np.array([x, z]) / np.hypot(x, z)
        assert np.degrees(np.arccos(np.clip(own_front @ to_character, -1, 1))) < 25.5
        straight += bool(abs(x) < 1e-6 and own_front[1] < -0.9999)
    assert 1 <= straight <= 15


def _front(params: torch.Tensor) -> np.ndarray:
    """(x, z) of where a motion faces in its first frame: what turns into +z when it is canonicalised."""
    from scipy.spatial.transform import Rotation

    before, after = (Rotation.from_rotvec(p[0, 3:6].numpy()) for p in (params, canonicalize(params)))
    return (before * after.inv()).apply([0.0, 0.0, 1.0])[[0, 2]]


def test_unknown_action_is_refused():
    with pytest.raises(ValueError, match="`action` is 'fly'"):
        make_clip("fly", np.random.default_rng(0))
