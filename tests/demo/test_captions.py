import numpy as np
import pytest

from solami_hf.demo.corpus.captions import CAPTIONS, action_of_caption, caption, captions_for
from solami_hf.demo.corpus.gestures import GESTURES
from solami_hf.demo.corpus.mocap import SOURCES


def test_every_action_has_at_least_six_different_captions():
    assert list(CAPTIONS) == [*GESTURES, *SOURCES] and len(CAPTIONS) == 29
    assert min(len(set(bank)) for bank in CAPTIONS.values()) >= 6


@pytest.mark.parametrize("action", CAPTIONS)
def test_every_caption_names_its_action_and_no_other(action):
    for template in CAPTIONS[action]:
        for side in (None, "left", "right"):
            for speed in (None, 0.8, 1.0, 1.3):
                text = caption(template, side, speed)
                assert action_of_caption(text) == action, text
                assert action_of_caption(text.upper()) == action
                assert "{" not in text and "  " not in text and text == text.strip()


def test_no_two_actions_share_a_caption():
    texts = [caption(template) for bank in CAPTIONS.values() for template in bank]
    assert len(texts) == len(set(texts))


def test_side_and_pace_are_told():
    assert caption("a person waves {hand} {pace}", "left", 0.8) == "a person waves with the left hand slowly"
    assert caption("a {pace} wave of the hand", None, 1.2) == "a quick wave of the hand"
    assert caption("a {pace} wave of the hand") == "a wave of the hand"


def test_unknown_or_ambiguous_text_has_no_action():
    assert action_of_caption("") is None
    assert action_of_caption("a person thinks about lunch") is None
    assert action_of_caption("a person waves and then bows") is None
    assert action_of_caption("a rainbow over the new heartland") is None  # parts of words do not count


def test_spinning_kick_is_neither_spin_nor_kick():
    assert action_of_caption("someone jumps and does a spinning kick") == "spinkick"
    assert action_of_caption("someone does a spin") == "spin"


def test_captions_for_draws_different_ones_and_depends_on_the_seed_alone():
    drawn = captions_for("wave", np.random.default_rng(3), "right", 0.8, count=6)
    assert len(set(drawn)) == 6 and drawn == captions_for("wave", np.random.default_rng(3), "right", 0.8, count=6)
    assert any("right hand" in text for text in drawn) and any("slow" in text for text in drawn)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`action` is 'fly'"):
        captions_for("fly", np.random.default_rng(0))
    with pytest.raises(ValueError, match="`count` is 7, expected 1 to 6"):
        captions_for("wave", np.random.default_rng(0), count=7)
