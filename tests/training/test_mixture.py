"""The warm-up of the motion share, and the weights of tasks as the command takes them."""

import numpy as np
import pytest

from solami_hf.training.language_model.mixture import motion_share
from solami_hf.training.pretrain import parse_task_weights


@pytest.mark.parametrize(("progress", "share"), [(0, 0), (0.25, 0.2), (0.5, 0.4), (1, 0.4)])
def test_share_is_warmed_up_over_the_first_half(progress, share):
    assert motion_share(progress) == pytest.approx(share)
    assert motion_share(np.array([progress, 1]), 0.4, 0) == pytest.approx([0.4, 0.4])


def test_task_weights():
    assert parse_task_weights("speech_to_text=4, text_to_speech=0") == {"speech_to_text": 4, "text_to_speech": 0}
    assert parse_task_weights("") == {}


@pytest.mark.parametrize("text", ["juggling=1", "speech_to_text=often", "speech_to_text"])
def test_bad_task_weights(text):
    with pytest.raises(ValueError, match="task_weights"):
        parse_task_weights(text)
