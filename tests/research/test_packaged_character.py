"""The packaged character's data: captions that name their action, dialogues that tell the truth, its stages."""

import json
import random

import numpy as np
import pytest

from research.packaged_character.captions import CUT_FRAMES, draw_caption, write_motions
from research.packaged_character.dialogues import PERSONAS, TOLD, characters, tell, write_dialogues
from research.packaged_character.sentences import example_sentences
from solami_hf.demo.corpus import build_corpus
from solami_hf.demo.corpus.captions import ACTIONS, action_of_caption
from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.synthesize.scripts import read_characters, read_topics


@pytest.mark.parametrize("action", ACTIONS)
def test_captions_name_their_action_and_kept_back_ones_are_others(action):
    drawn = [{draw_caption(action, random.Random(seed), kept) for seed in range(200)} for kept in (False, True)]
    assert all(action_of_caption(text) == action for texts in drawn for text in texts)
    assert not drawn[0] & drawn[1] and len(drawn[0]) > 100


def test_cuts_are_parts_of_training_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(build_corpus, "ACTIONS", ("wave", "bow"))
    monkeypatch.setattr(build_corpus, "GESTURE_CLIPS", (2, 1))
    write_motions(tmp_path, seed=0, times=2, cuts=True)
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "manifest.jsonl").read_text().splitlines())}
    cuts = {key: row for key, row in rows.items() if key.endswith("-cut")}
    assert len(cuts) == 8 and len(rows) == 18 and {row["split"] for row in cuts.values()} == {"train"}
    for key, row in cuts.items():
        whole = rows[key.removesuffix("-cut")]
        assert row["text"] == whole["text"] and row["partner_id"] is None
        part, of = read_motion(tmp_path / row["motion"]), read_motion(tmp_path / whole["motion"])
        places = [i for i in range(of.num_frames) if np.allclose(of.poses[i], part.poses[0], atol=1e-5)]
        assert part.num_frames <= CUT_FRAMES[1] and any(
            np.allclose(of.transl[i : i + part.num_frames], part.transl, atol=1e-5) for i in places
        )


@pytest.fixture
def corpora(tmp_path, small_motion):
    """A clip of each action, and one dialogue that the base wrote."""
    motions, written = tmp_path / "motion", tmp_path / "written"
    write_motion(motions / "clip.npz", small_motion)
    rows = [{"id": a, "motion": "clip.npz", "text": [f"does {a}"], "split": "train", "action": a} for a in ACTIONS]
    rows.append({**rows[0], "id": "held out", "split": "test"})
    written.mkdir()
    turns = [{"role": "system", "text": "You are Ada."}, {"role": "user", "text": "Hello?"},
             {"role": "assistant", "text": "Hello to you.", "motion_id": "wave"}]  # fmt: skip
    told = {"id": "w", "split": "train", "source": "s", "topic": "t", "character": "ada", "turns": turns}
    for folder, lines in ((motions, rows), (written, [told])):
        (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return motions, written


def test_dialogues_tell_who_they_are_and_what_they_see(corpora, tmp_path):
    counts = {"persona_rows": 40, "seeing_rows": 40, "task_rows": 10}
    write_dialogues(tmp_path / "chat", *corpora, counts, seed=0)
    rows = [json.loads(line) for line in (tmp_path / "chat/manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 91 and len({row["id"] for row in rows}) == 91
    for row in rows:
        for turn in row["turns"]:
            assert "motion" not in turn or (tmp_path / "chat" / turn["motion"]).is_file()
        rounds = list(zip(row["turns"][1::2], row["turns"][2::2], strict=True)) if row["character"] else []
        if row["id"].startswith("seeing"):
            for user, answer in rounds:
                action = user["motion_text"].removeprefix("does ")
                assert f"ou {TOLD['seeing']['do'][action]}" in answer["text"]
                assert user["text"] not in TOLD["seeing"]["kept_back"]
        if row["id"].startswith("persona") and row["character"]:
            persona = PERSONAS[row["character"]]
            for _, answer in rounds:
                assert any(persona[fact] in answer["text"] for fact in ("name", "trade", "place"))
        if row["id"].startswith("task"):
            user, answer = row["turns"]
            assert ("motion" in user) != ("motion" in answer) and (
                answer["text"] or "This is input: does" in user["text"]
            )


def test_personas_and_topics_are_read_as_those_of_the_command(tmp_path):
    (tmp_path / "characters.json").write_text(json.dumps(characters()))
    assert len(read_characters(tmp_path / "characters.json")) == 12
    assert len(read_topics("research/packaged_character/topics.txt")) >= 300
    assert tell("I am {name}, a {trade}.", PERSONAS["iris"]) == "I am Iris, an astronomer."
    asked = {line for told in [*TOLD["persona"].values(), TOLD["seeing"]] for line in told["ask"]}
    kept = {line for told in [*TOLD["persona"].values(), TOLD["seeing"]] for line in told["kept_back"]}
    assert not asked & kept


def test_examples_of_wordnet_become_sentences(tmp_path):
    (tmp_path / "data.noun").write_text(
        "  1 a licence\n"
        '0001 03 n 01 x 0 000 | what it is; "the boat drifted on the water"; "do you see the light"; "short one"\n'
        '0002 03 n 01 y 0 000 | in 1984; "he was born in 1984 in Leeds"\n'
    )
    assert list(example_sentences(tmp_path)) == ["The boat drifted on the water.", "Do you see the light?"]
