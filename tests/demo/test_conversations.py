"""Conversations for training and for the held-out splits never share a recording, a clip or an unseen phrasing."""

import json

import pytest

from solami_hf.demo.corpus.conversations import write_chat_corpus
from solami_hf.demo.corpus.dialogues import load_dialogues, nodes
from solami_hf.processing.motion.motion_io import write_motion


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    import numpy as np

    from solami_hf.demo.corpus.captions import ACTIONS
    from solami_hf.processing.motion.smplx_motion import SmplxMotion

    root = tmp_path_factory.mktemp("corpus")
    (root / "motion").mkdir()
    clip = SmplxMotion(np.full((9, 3), 0.5), np.zeros((9, 55, 3)))
    manifest = []
    for action in ACTIONS:
        for split in ("train", "train", "train", "test"):
            row_id = f"{action}-{split}-{len(manifest)}"
            write_motion(root / "motion" / f"{row_id}.npz", clip)
            row = {"id": row_id, "motion": f"{row_id}.npz", "text": [action], "split": split, "action": action}
            manifest.append(row)
    (root / "motion" / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in manifest))
    write_chat_corpus(root / "chat", root / "motion", load_dialogues()[:1], 40, seed=0)
    return root / "chat", [json.loads(line) for line in (root / "chat" / "manifest.jsonl").read_text().splitlines()]


def user_turns(rows, split):
    return [t for r in rows if r["split"] == split for t in r["turns"][1::2]]


def test_splits_share_no_user_material(rows):
    folder, rows = rows
    train, test = user_turns(rows, "train"), user_turns(rows, "test")
    for key in ("audio", "motion"):
        assert not {t[key] for t in train} & {t[key] for t in test}
    assert all((folder / t["motion"]).is_file() for t in train + test)


def test_unseen_phrasings_are_only_in_their_kind(rows):
    unseen = {node.unseen for d in load_dialogues()[0].dialogues for node in nodes(d)}
    for row in rows[1]:
        texts = {t["text"] for t in row["turns"][1::2]}
        assert (texts <= unseen) == (row["source"] == "phrasings")


def test_ids_are_unique_and_answers_expected(rows):
    assert len({r["id"] for r in rows[1]}) == len(rows[1])
    for row in rows[1]:
        assert row["turns"][0]["role"] == "system"
        assert [t["role"] for t in row["turns"][1:]] == ["user", "assistant"] * (len(row["turns"]) // 2)
