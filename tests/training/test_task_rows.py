"""The six tasks read from token rows in Arrow, against their pairs written row by row."""

import numpy as np
import pytest
from datasets import Dataset

from solami_hf.processing.datasets.tasks import audio_block, motion_block, phrasings
from solami_hf.processing.datasets.token_dataset import SCHEMAS
from solami_hf.processing.rendering import TASKS, TokenRenderer, text_block
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


def motion_pairs(rows):
    """Every caption both ways, and each row with its partner."""
    by_id = {row["id"]: row for row in rows}
    for row in by_id.values():
        for caption in row["text"]:
            yield "motion_to_text", row["id"], motion_block(row), text_block(caption)
            yield "text_to_motion", row["id"], text_block(caption), motion_block(row)
        if row["partner_id"] in by_id:
            yield "motion_to_motion", row["id"], motion_block(row), motion_block(by_id[row["partner_id"]])


def speech_pairs(rows):
    """Every turn both ways, and each turn with the one that follows."""
    for row in rows:
        for turn in row["turns"]:
            yield "text_to_speech", row["id"], text_block(turn["text"]), audio_block(turn)
            yield "speech_to_text", row["id"], audio_block(turn), text_block(turn["text"])
        for turn, answer in zip(row["turns"], row["turns"][1:], strict=False):
            yield "speech_to_speech", row["id"], audio_block(turn), audio_block(answer)


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
