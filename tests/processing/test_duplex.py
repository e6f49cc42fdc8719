"""Two people on one clock: prepared, cut to ticks, rendered from both sides, and read back."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from solami_hf.modeling.solami.vocabulary import build_layout
from solami_hf.processing.datasets.duplex import DuplexFormat, DuplexRenderer, cut_to_ticks, whole_ticks, windows
from solami_hf.processing.datasets.token_dataset import fingerprints, load_tokens, schema, write_token_dataset
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.processing.prepare import prepare

SIZES = {"speech": 32, "body": 16, "hand": 16, "trans": 8}


def layout(sizes=SIZES, **more):
    modalities, markers = build_layout(sizes, 10)
    return SimpleNamespace(modalities=modalities, markers=markers, **more)


def row(ticks=5, seed=0, extra=0, **changes):
    rng, people = np.random.default_rng(seed), []
    for name in ("ada", "ben"):
        codes = {
            part: rng.integers(SIZES[part], size=n * ticks) for part, n in (("body", 3), ("hand", 3), ("speech", 20))
        }
        codes["speech"] = np.append(codes["speech"], rng.integers(32, size=extra))
        people.append({"person": name, **codes, "trans": [1], "talks": [[0.0, 1.5]], **changes})
    return {"id": f"r{seed}", "people": people, "source": "s"}


def test_a_tick_of_the_papers_rates():
    duplex = DuplexFormat.of(layout())
    assert duplex.sizes == {"body": 3, "hand": 3, "speech": 20} and duplex.tokens == 54
    levels = layout({**SIZES, "speech": 64}, frame_rates={"speech": 100.0, "body": 7.5, "hand": 7.5}, speech_levels=2)
    assert DuplexFormat.of(levels).sizes["speech"] == 40
    bound = DuplexFormat.of(layout({**SIZES, "hand": 0}))
    assert bound.character == ("body", "speech") and bound.tokens == 48
    small = DuplexFormat.of(layout(), ["body"], ["speech", "body"])
    assert (small.character, small.partner, small.tokens) == (("body",), ("body", "speech"), 28)
    assert DuplexFormat.of(layout(duplex=small.to_dict())) == small  # as a checkpoint's config says it
    json.dumps(small.to_dict())


def test_other_rates_and_parts_are_refused():
    with pytest.raises(
        ValueError, match="a tick of 0.4 s has 4.8 of body, 4.8 of hand at the rates .*multiples of 2.5"
    ):
        DuplexFormat.of(layout(frame_rates={"speech": 50.0, "body": 12.0, "hand": 12.0}))
    with pytest.raises(ValueError, match=r"partner has parts \['trans'\], expected some of body, hand, speech"):
        DuplexFormat.of(layout(), partner=["trans"])


def test_streams_that_do_not_share_a_clock_are_refused():
    sizes = DuplexFormat.of(layout()).sizes
    made = row(ticks=5, extra=7)
    assert whole_ticks(made["people"], sizes) == 5
    cut = cut_to_ticks(made, sizes)
    assert [len(person["speech"]) for person in cut["people"]] == [100, 100] and cut["id"] == made["id"]
    made["people"][1]["body"] = made["people"][1]["body"][:11]
    with pytest.raises(ValueError, match="no two people on one clock; in ticks: .*body of person 1 3.7"):
        whole_ticks(made["people"], sizes)
    with pytest.raises(ValueError, match="no two people on one clock"):
        DuplexRenderer(layout()).streams(made)
    with pytest.raises(ValueError, match="on one clock; in ticks: .*hand of person 0 0.0"):
        whole_ticks(row(hand=None)["people"], sizes)
    with pytest.raises(ValueError, match="shorter than a tick"):
        whole_ticks(row(ticks=0)["people"], sizes)
    with pytest.raises(ValueError, match="two people, got 1"):
        whole_ticks(made["people"][:1], sizes)


def test_a_row_is_written_tick_by_tick():
    model = layout()
    renderer, made = DuplexRenderer(model), row(ticks=2)
    sample = renderer.write(*renderer.streams(made))
    first = {name: span["first_id"] for name, span in model.modalities.items()}
    parts, expected, labels = (("body", 3), ("hand", 3), ("speech", 20)), [], []
    for tick in range(2):
        for role, person in (("mmgpt", 0), ("human", 1)):
            codes = [
                first[name] + code
                for name, n in parts
                for code in made["people"][person][name][tick * n : tick * n + n]
            ]
            expected += [model.markers[role], *codes]
            labels += [-100, *(codes if person == 0 else [-100] * 26)]
    assert sample["input_ids"].tolist() == [*expected, model.markers["eos"]]
    assert sample["labels"].tolist() == [*labels, -100]
    both = renderer.write(*renderer.streams(made), learn="both")["labels"]
    assert (both != -100).sum() == 2 * (sample["labels"] != -100).sum() == 104
    with pytest.raises(ValueError, match="learn is 'all', expected one of character, both"):
        renderer.write(*renderer.streams(made), learn="all")
    made["people"][0]["body"][0] = 16
    with pytest.raises(ValueError, match="body codes must lie in 0..15"):
        renderer.streams(made)


def test_pieces_of_a_row_are_the_row():
    """What is written for a whole row at once equals its ticks written alone."""
    renderer, made = DuplexRenderer(layout()), row(ticks=7)
    samples = list(renderer.samples(made, max_length=3 * 54 + 1))
    assert [s["id"] for s in samples] == [f"r0#{person}@{start}" for person in (0, 1) for start in (0, 2, 4)]
    assert windows(7, 3) == [0, 2, 4] and windows(3, 3) == [0] and windows(4, 3) == [0, 1]
    for sample in samples:
        person, start = (int(n) for n in sample["id"][3:].split("@"))
        alone = {
            "people": [
                {
                    p: c[n * start : n * (start + 3)]
                    for p, c, n in ((p, who[p], renderer.format.sizes[p]) for p in who if p in SIZES and p != "trans")
                }
                for who in made["people"]
            ]
        }
        piece = renderer.write(*renderer.streams(alone, person))
        assert all(np.array_equal(sample[name], piece[name]) for name in ("input_ids", "labels"))
    with pytest.raises(ValueError, match="max_length is 54, but a tick has 54 tokens"):
        next(renderer.samples(made, max_length=54))


def test_ids_are_read_back_strictly():
    model = layout()
    renderer, made = DuplexRenderer(model), row(ticks=3)
    ids = renderer.write(*renderer.streams(made, 1))["input_ids"]
    for read in (renderer.parse([*ids, 5, 5]), renderer.parse(ids[:-1])):
        for person, codes in zip((1, 0), read, strict=True):
            assert all(np.array_equal(codes[part], made["people"][person][part]) for part in codes)
    with pytest.raises(ValueError, match="53 ids are no whole ticks of 54"):
        renderer.parse(ids[:53])
    ids[54 + 28] = model.markers["human"]
    with pytest.raises(ValueError, match="does not belong in place 28 of tick 1"):
        renderer.parse(ids)


def test_columns_hold_what_was_written(tmp_path):
    write_token_dataset(tmp_path, "duplex", {"train": [row()], "test": [row(seed=1)]}, {"motion": "x", "speech": "y"})
    read = load_tokens(tmp_path, "duplex", "train")[0]
    assert read["people"][1]["speech"] == row()["people"][1]["speech"].tolist()
    assert read["people"][0]["talks"] == [[0.0, 1.5]] and read["source"] == "s"
    assert "- `duplex`:" in (tmp_path / "README.md").read_text()
    assert schema("duplex", 1 << 15)["people"].feature["speech"].feature.dtype == "int32"


@pytest.fixture
def sessions(tmp_path, small_sound):
    """Three sessions of two people of 4 s, the second of which lacks half of a sound."""
    rng = np.random.default_rng(0)
    poses = (rng.normal(size=(121, 55, 3)) * 0.1).astype(np.float32)
    write_motion(tmp_path / "a.npz", SmplxMotion(np.tile([[0.0, 0.9, 0.0]], (121, 1)).astype(np.float32), poses))
    soundfile.write(tmp_path / "a.wav", np.resize(small_sound, 64000), 16000)
    soundfile.write(tmp_path / "short.wav", np.resize(small_sound, 32000), 16000)
    rows = []
    for i, sound in enumerate(("a.wav", "short.wav", "a.wav")):
        people = [{"person": p, "motion": "a.npz", "audio": s} for p, s in (("ada", "a.wav"), ("ben", sound))]
        people[0]["talks"] = [[0.5, 2.0]]
        rows.append({"id": f"s{i}", "people": people, "split": "test" if i == 2 else "train"})
    rows.append({"id": "s3", "people": people, "start": 1.0, "end": 3.0})
    rows.append({"id": "s4", "people": [{**people[0], "talks": "always"}, people[1]]})
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_prepare_duplex(sessions, tiny_processor, tmp_path):
    report = prepare("duplex", sessions, tiny_processor, tmp_path / "data")
    assert report == {"train": 2, "test": 1, "rejected": 2}
    first, piece = load_tokens(tmp_path / "data", "duplex", "train", tiny_processor)
    assert [len(first["people"][0][part]) for part in ("body", "hand", "speech")] == [30, 30, 200]
    assert [len(piece["people"][1][part]) for part in ("body", "hand", "speech")] == [12, 12, 80]
    assert [p["person"] for p in first["people"]] == ["ada", "ben"] and len(first["people"][0]["trans"]) == 1
    told = [json.loads(line) for line in (tmp_path / "data/duplex/rejected.jsonl").read_text().splitlines()]
    assert [r["id"] for r in told] == ["s1", "s4"] and "speech of person 1 5.0" in told[0]["reason"]
    assert "talks is 'always'" in told[1]["reason"]
    assert set(fingerprints(tiny_processor, "duplex")) == {"motion", "speech"}
    sample = next(DuplexRenderer(tiny_processor).samples(first, 256))
    assert len(sample["input_ids"]) == 4 * 54 + 1
