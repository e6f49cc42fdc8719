"""The pretraining mixture: share of motion, warm-up, reproducibility, no repetition before all were drawn."""

import pytest

from solami_hf.processing.rendering import TASKS, TokenRenderer
from solami_hf.training.mixture import draw_pretraining, motion_share
from solami_hf.training.pretrain import parse_task_weights

MOTION = {"type": "motion", "motion": {"body": [1, 2], "hand": [3, 4]}}
SOUND = {"type": "audio", "audio": {"codes": [5, 6, 7]}}
TEXT = {"type": "text", "text": "waves"}
BLOCKS = {"text": TEXT, "motion": MOTION, "audio": SOUND}


def pairs(tasks=TASKS, copies=3):
    return [
        (task, f"{task}{i}", BLOCKS[TASKS[task][0]], BLOCKS[TASKS[task][1]]) for task in tasks for i in range(copies)
    ]


@pytest.fixture
def renderer(tiny_processor):
    return TokenRenderer(tiny_processor.tokenizer, tiny_processor)


@pytest.mark.parametrize(("progress", "share"), [(0, 0), (0.25, 0.2), (0.5, 0.4), (1, 0.4)])
def test_share_is_warmed_up_over_the_first_half(progress, share):
    assert motion_share(progress) == pytest.approx(share)


def test_four_to_six_after_the_warmup(renderer):
    samples = list(draw_pretraining(pairs(), renderer, 60_000, 1024, seed=0))
    is_motion = ["motion" in s["task"] for s in samples]
    half = len(samples) // 2
    assert sum(is_motion[half:]) / half == pytest.approx(0.4, abs=0.06)
    assert sum(is_motion[: half // 5]) / (half // 5) < 0.2
    assert set(s["task"] for s in samples) == set(TASKS)


def test_same_seed_same_order(renderer):
    def draw(seed):
        return [(s["id"], s["input_ids"].tolist()) for s in draw_pretraining(pairs(), renderer, 3000, 1024, seed)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_nothing_repeats_before_all_were_drawn(renderer):
    samples = draw_pretraining(pairs(["text_to_speech"], 20), renderer, 10_000, 1024, seed=0)
    first = [next(samples)["id"] for _ in range(20)]
    assert len(set(first)) == 20


def test_one_modality_alone_is_enough(renderer):
    tasks = {s["task"] for s in draw_pretraining(pairs(["motion_to_text"]), renderer, 500, 1024, seed=0)}
    assert tasks == {"motion_to_text"}


def test_task_weights(renderer):
    weights = parse_task_weights("speech_to_text=4, text_to_speech=0")
    samples = list(draw_pretraining(pairs(), renderer, 60_000, 1024, seed=0, weights=weights))
    speech = [s["task"] for s in samples if s["task"] in ("speech_to_text", "speech_to_speech")]
    assert "text_to_speech" not in {s["task"] for s in samples}
    assert speech.count("speech_to_text") / len(speech) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("text", ["juggling=1", "speech_to_text=often", "speech_to_text"])
def test_bad_task_weights(text):
    with pytest.raises(ValueError, match="task_weights"):
        parse_task_weights(text)


def test_nothing_to_draw(renderer):
    with pytest.raises(ValueError, match="nothing to train on"):
        list(draw_pretraining([], renderer, 10, 1024, seed=0))
    with pytest.raises(ValueError, match="max_length=3"):
        list(draw_pretraining(pairs(), renderer, 10, 3, seed=0))
