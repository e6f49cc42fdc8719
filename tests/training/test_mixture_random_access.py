"""The mixture by number: shares and weights, at random access and in order."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from solami_hf.processing.rendering import IGNORE, TASKS, TokenRenderer
from solami_hf.training.language_model.mixture import CHUNK, Mixture, PairRenderer

MOTION = {name: [f"{name}-{i}" for i in range(n)] for name, n in (("m2t", 30), ("t2m", 7))}
SPEECH = {name: [f"{name}-{i}" for i in range(n)] for name, n in (("tts", 40), ("asr", 3))}


def mixture(num_samples=300, seed=0, **more):
    return Mixture(MOTION, SPEECH, num_samples, seed, **more)


def test_four_to_six_after_the_warmup():
    rows = list(mixture(20_000))
    share = [sum(row[:3] in ("m2t", "t2m") for row in part) / len(part) for part in (rows[10_000:], rows[:2000])]
    assert share == [pytest.approx(0.4, abs=0.02), pytest.approx(0.04, abs=0.02)]
    early = list(mixture(20_000, final=0.8, warmup=0))[:5000]
    assert sum(row[:3] in ("m2t", "t2m") for row in early) / 5000 == pytest.approx(0.8, abs=0.02)


def test_weights_hold_within_a_modality():
    rows = [row[:3] for row in mixture(20_000, weights={"asr": 4, "t2m": 0})]
    assert "t2m" not in rows and rows.count("asr") / (rows.count("asr") + rows.count("tts")) == pytest.approx(
        0.8, abs=0.02
    )


def test_every_row_once_before_any_comes_again():
    drawn = [row for row in mixture(9000) if row.startswith("tts")]
    for start in range(0, len(drawn) - 40, 40):
        assert len(set(drawn[start : start + 40])) == 40
    assert drawn[:40] != drawn[40:80]


def test_random_access_is_the_same_draw():
    draw = list(mixture(9000))
    fresh = mixture(9000)
    assert [fresh[i] for i in (8999, 5, 4095, 4096, 0)] == [draw[i] for i in (8999, 5, 4095, 4096, 0)]
    assert draw == list(mixture(9000)) and draw != list(mixture(9000, seed=1))
    with pytest.raises(IndexError):
        fresh[9000]


def test_progress_of_ones_own():
    """A share that falls, by chunks; each is asked for once all before it are known."""
    asked = []

    def progress(numbers):
        asked.append(int(numbers[0]))
        return 0.5 - numbers / 20_000

    rows = list(mixture(8000, progress=progress, warmup=0.5))
    share = [sum(row[:3] in ("m2t", "t2m") for row in part) / len(part) for part in (rows[:1000], rows[-1000:])]
    assert share == [pytest.approx(0.39, abs=0.05), pytest.approx(0.1, abs=0.04)]
    assert sorted(set(asked)) == list(range(0, 8000, CHUNK))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, {}, 10, 0), "nothing to train on"),
        (({"a": [1]}, {"a": [1]}, 10, 0), "both|name them apart"),
        (({"a": []}, {"b": [1]}, 10, 0), "a have no rows"),
        (({"a": [1]}, {}, 0, 0), "num_samples"),
        (({"a": [1]}, {}, 10, 0, 0.4, 0.5, {"c": 1}), "unknown sources"),
        (({"a": [1]}, {}, 10, 0, 0.4, 0.5, {"a": -1}), "at least 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixture(*arguments)


def test_rows_of_parquet(tmp_path):
    for name, count in (("a", 50), ("b", 20)):
        table = pa.table({"input_ids": [[i] for i in range(count)], "id": [f"{name}{i}" for i in range(count)]})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=8)
    a, b = (Dataset.from_parquet(str(tmp_path / f"{name}.parquet"), cache_dir=tmp_path) for name in "ab")
    whole = [row["id"] for row in Mixture({"a": a}, {"b": b}, 400, 3)]
    from_a = [name for name in whole if name[0] == "a"]
    assert sorted(from_a[:50]) == sorted(f"a{i}" for i in range(50))


def test_tasks_are_rendered_with_phrasings_drawn_anew(tiny_processor):
    blocks = {
        "text": {"type": "text", "text": "waves"},
        "motion": {"type": "motion", "motion": {"body": [1, 2], "hand": [3, 4]}},
        "audio": {"type": "audio", "audio": {"codes": [5, 6, 7]}},
    }
    pairs = {task: [(task, task, blocks[source], blocks[target])] for task, (source, target) in TASKS.items()}
    renderer = TokenRenderer(tiny_processor.tokenizer, tiny_processor)
    motion = {task: rows for task, rows in pairs.items() if "motion" in task}
    speech = {task: rows for task, rows in pairs.items() if task not in motion}
    draw = Mixture(motion, speech, 200, 0, transform=PairRenderer(renderer))
    samples = list(draw)
    assert {s["task"] for s in samples} == set(TASKS)
    prompts = {
        renderer.tokenizer.decode(s["input_ids"][s["labels"] == IGNORE]) for s in samples if s["task"] == s["id"]
    }
    assert len(prompts) > 40
    assert draw[17]["input_ids"].tolist() == samples[17]["input_ids"].tolist()
