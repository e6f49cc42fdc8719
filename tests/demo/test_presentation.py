"""The demo's page: which conversations are shown, and rounds without a decodable answer."""

import numpy as np
import pytest

from solami_hf.demo.presentation import _conversation, _row, chosen_conversations
from solami_hf.processing.audio.waveforms import write_audio
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.training.run_page import curves_of_log

NAMES = {"ada": {"name": "Captain Ada", "system": "You are Captain Ada."}}


def chat_row(row_id, character, rounds, depends_on="words", source="rates"):
    turns = [{"role": "system"}] + [{"role": "user", "depends_on": depends_on}, {"role": "assistant"}] * rounds
    return {"id": row_id, "character": character, "turns": turns, "split": "test", "source": source}


def test_each_character_is_shown_with_its_longest_conversation():
    rows = [
        chat_row("a1", "ada", 1),
        chat_row("a3", "ada", 3),
        chat_row("b2", "bruno", 2),
        chat_row("u", "bruno", 3, source="phrasings"),
        chat_row("w", "ada", 1, depends_on="motion"),
    ]
    assert {row["id"] for row in chosen_conversations(rows)} == {"a3", "b2", "w"}


@pytest.fixture
def entry(tmp_path, small_motion, small_sound):
    write_motion(tmp_path / "m.npz", small_motion)
    write_audio(tmp_path / "a.wav", small_sound, 16000)
    media = {f"{who}_{what}": str(tmp_path / f"{what[0]}.{end}") for who in ("user", "character")
             for what, end in (("motion", "npz"), ("audio", "wav"))}  # fmt: skip
    return media | {
        "character": "ada", "topic": "joining", "round": 1, "user_text": "Hello!", "user_action": "wave",
        "text": "Welcome!", "expected": "Welcome!", "action": "hand_on_heart", "valid": True,
    }  # fmt: skip


def test_scenes_carry_what_was_said_and_done(entry):
    conversation = _conversation([entry], NAMES)
    scene = conversation.scenes[0]
    assert conversation.title == "Captain Ada: joining"
    assert scene.character.action == "hand on heart" and scene.is_correct
    assert scene.user.joints.shape == (40, 55, 3) and np.isfinite(scene.user.joints).all()


def test_a_malformed_answer_stands_still_and_says_so(entry):
    entry |= {"valid": False, "character_motion": None, "character_audio": None, "text": "", "action": None}
    scene = _conversation([entry], NAMES).scenes[0]
    assert not scene.valid and scene.character.audio is None and scene.character.joints.shape == (1, 55, 3)


def test_rows_and_curves():
    row = _row("motion_to_text", 91.26)
    assert (row.value, row.target, row.ok) == ("91.3%", "at least 90%", True)
    assert _row("listening_points", 72.2, [65.74, 79.6]).value == "72.2 points (65.7 to 79.6)"
    log = [{"step": 1, "loss": "2.5"}, {"step": 2, "loss": 2.0}, {"train_runtime": 3}]
    (curve,) = curves_of_log(log, {"t": ("loss", "loss")})
    assert curve.series == {"loss": [(1.0, 2.5), (2.0, 2.0)]}
