"""The six tasks read from token rows in Arrow, against the pairs of `processing.tasks`."""

import numpy as np
import pytest
from datasets import Dataset

from solami_hf.processing.datasets.tasks import motion_pairs, phrasings, speech_pairs
from solami_hf.processing.datasets.token_dataset import SCHEMAS
from solami_hf.processing.rendering import TASKS, TokenRenderer
from solami_hf.training.language_model.task_rows import task_sources


def motion(i, captions, partner=None, length=3):
    codes = {"body": [i] * length, "hand": [i + 1] * length, "trans": [i]}
    return {"id": f"m{i}", "text": captions, **codes, "partner_id": partner, "num_frames": 4, "source": "s"}


def speech(i, *lengths):
    turns = [{"text": f"line {n}", "speech": [i + n] * length, "speaker": "a"} for n, length in enumerate(lengths)]
    return {"id": f"s{i}", "turns": turns, "source": "s"}


MOTION = [motion(1, ["waves", "a man waves"], "m3"), motion(2, []), motion(3, ["bows"], "m9")]
SPEECH = [speech(1, 4, 2, 3), speech(2), speech(3, 5), speech(4, 1, 300)]


@pytest.fixture
def rows():
    """Token rows as `load_tokens` gives them, those of speech with some that leak taken out."""
    leaking = [speech(9, 2), *SPEECH, speech(8, 1)]
    tables = Dataset.from_list(MOTION, SCHEMAS["motion"]), Dataset.from_list(leaking, SCHEMAS["speech"])
    return {"motion": tables[0], "speech": tables[1].select(range(1, 1 + len(SPEECH)))}


@pytest.fixture
def renderer(tiny_processor):
    return TokenRenderer(tiny_processor.tokenizer, tiny_processor)


def plain(value):
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return list(map(plain, value)) if isinstance(value, list | tuple | np.ndarray) else value


def test_pairs_are_those_of_the_tasks(rows, renderer):
    sources = task_sources(rows, renderer, 1024)
    found = sorted((plain(pair) for pairs in sources.values() for pair in pairs), key=str)
    wanted = sorted((plain(pair) for pair in [*motion_pairs(MOTION), *speech_pairs(SPEECH)]), key=str)
    assert found == wanted and len(wanted) == 3 + 3 + 1 + 6 + 6 + 3
    assert all(pair[0] == task for task, pairs in sources.items() for pair in pairs) and set(sources) == set(TASKS)


def test_what_is_too_long_is_left_out(rows, renderer):
    sources = task_sources(rows, renderer, 128)
    assert "s4" in {pair[1] for pair in sources["text_to_speech"]}  # its short turn
    assert len(sources["text_to_speech"]) == 5 and len(sources["speech_to_speech"]) == 2
    for task, pairs in task_sources(rows, renderer, 70).items():
        longest = max(phrasings(task), key=lambda phrasing: len(renderer.text(phrasing)))
        assert all(len(renderer.task(longest, *pair[2:])["input_ids"]) <= 70 for pair in pairs)
    with pytest.raises(ValueError, match="no sample fits into max_length=8; raise it"):
        task_sources(rows, renderer, 8)


def test_the_limit_is_exact(rows, renderer):
    """A pair that fits exactly is kept, by rendering it where the bound on its text is not enough."""
    longest = max(phrasings("motion_to_text"), key=lambda phrasing: len(renderer.text(phrasing)))
    pair = list(motion_pairs(MOTION))[2]
    exact = len(renderer.task(longest, *pair[2:])["input_ids"])
    kept, dropped = (task_sources({"motion": rows["motion"]}, renderer, size) for size in (exact, exact - 1))
    assert "a man waves" in {p[3]["text"] for p in kept["motion_to_text"]}
    assert "a man waves" not in {p[3]["text"] for p in dropped["motion_to_text"]}


def test_one_config_alone_or_none(rows, renderer):
    assert set(task_sources({"speech": rows["speech"]}, renderer, 512)) == {t for t in TASKS if "motion" not in t}
    assert task_sources({}, renderer, 512) == {}
    assert task_sources({"speech": rows["speech"].select([])}, renderer, 512) == {}
