"""Interleaved answers: chunks of equal time, read back exactly, and refused where they deviate."""

from types import SimpleNamespace

import numpy as np
import pytest

from solami_hf.modeling.solami.vocabulary import build_layout
from solami_hf.processing.answers import Chunks, parse_interleaved
from solami_hf.processing.rendering import TokenRenderer

MODALITIES, MARKERS = build_layout({"speech": 64, "body": 32, "hand": 32, "trans": 2}, 10)
CONFIG = SimpleNamespace(modalities=MODALITIES, markers=MARKERS, answer_format="motion_speech", speech_levels=1)


def render(body, hand, speech, config=CONFIG, interleaved=True):
    """An answer as it is trained on, without the character's role marker."""
    renderer = TokenRenderer(None, config, interleaved)
    blocks = [
        {"type": "motion", "motion": {"body": body, "hand": hand}},
        {"type": "audio", "audio": {"codes": speech}},
    ]
    return renderer.chat([{"role": "assistant", "content": blocks}])["input_ids"][1:].tolist()


def written(ids):
    """Readable tokens: marker names, and the first letter of a modality with the code."""
    names = {i: name for name, i in MARKERS.items()}
    for name, span in MODALITIES.items():
        names |= {span["first_id"] + code: f"{name[0]}{code}" for code in range(span["size"])}
    return " ".join(names[i] for i in ids)


def test_body_hand_and_speech_advance_together():
    ids = render([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], list(range(42)))
    first, second = (" ".join(f"s{i}" for i in part) for part in (range(20), range(20, 40)))
    assert written(ids) == (
        f"sobo b1 b2 b3 soha h6 h7 h8 sosp {first} b4 b5 eobo h9 h10 eoha {second} s40 s41 eosp eos"
    )


def test_a_span_that_fills_its_chunk_ends_there():
    assert written(render([1, 2, 3], [4, 5, 6], [7])) == "sobo b1 b2 b3 eobo soha h4 h5 h6 eoha sosp s7 eosp eos"


def test_motion_may_outlast_speech():
    ids = render([1] * 4, [2] * 4, [3])
    assert written(ids) == "sobo b1 b1 b1 soha h2 h2 h2 sosp s3 eosp b1 eobo h2 eoha eos"


@pytest.mark.parametrize(("motion", "speech"), [(1, 1), (3, 20), (4, 21), (22, 150), (30, 7)])
def test_what_is_written_is_read(motion, speech):
    rng = np.random.default_rng(motion)
    body, hand, sounds = rng.integers(32, size=motion), rng.integers(32, size=motion), rng.integers(64, size=speech)
    answer = parse_interleaved(render(body, hand, sounds) + [10, 10], CONFIG)
    assert answer.valid, answer.reason
    assert np.array_equal(answer.body, body) and np.array_equal(answer.hand, hand)
    assert np.array_equal(answer.speech, sounds)


def test_transcripts_come_first():
    ids = [1, 2, MARKERS["eot"], *render([1] * 5, [2] * 5, [3] * 30)]
    answer = parse_interleaved(ids, CONFIG, answer_format="text_motion_speech")
    assert answer.valid and answer.text_ids == [1, 2]
    assert not parse_interleaved(ids, CONFIG).valid
    missing = parse_interleaved(ids[3:], CONFIG, answer_format="text_motion_speech")
    assert not missing.valid and "no <eot>" in missing.reason


def test_other_orders_and_broken_answers_are_invalid():
    spans = [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], list(range(30))
    good, in_a_row = render(*spans), render(*spans, interleaved=False)
    assert "not in chunks" in parse_interleaved(in_a_row, CONFIG).reason
    for place in range(len(good)):
        assert not parse_interleaved(good[:place] + good[place + 1 :], CONFIG).valid or good[place] in range(22, 86)
    moved = good.copy()
    moved[3], moved[4] = moved[4], moved[3]  # the third code of the body behind <soha>
    assert "not in chunks" in parse_interleaved(moved, CONFIG).reason
    assert "no <eos>" in parse_interleaved(good[:-1], CONFIG).reason
    assert not parse_interleaved([1, *good], CONFIG).valid
    assert not parse_interleaved([], CONFIG).valid


def test_levels_of_a_frame_stay_together():
    config = SimpleNamespace(
        **vars(CONFIG) | {"speech_levels": 2, "frame_rates": {"speech": 25, "body": 7.5, "hand": 7.5}}
    )
    chunks = Chunks.of(config)  # 12.5 frames a second of 2 levels: 5 frames a chunk
    assert chunks.of_codes("speech", np.arange(12)).tolist() == [0] * 10 + [1] * 2
    speech = [0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37]
    ids = render([1] * 4, [2] * 4, speech, config)
    answer = parse_interleaved(ids, config)
    assert answer.valid and answer.speech.tolist() == speech


def test_rates_without_whole_codes_take_turns():
    chunks = Chunks({"speech": 86.0, "body": 7.5, "hand": 7.5}, seconds=0.5)
    per_chunk = np.bincount(chunks.of_codes("body", np.arange(15)))
    assert per_chunk.tolist() == [3, 4, 4, 4] and chunks.of_codes("speech", np.array([42, 43])).tolist() == [0, 1]
    assert chunks.of_span("body", 4).tolist() == [0, 0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="above 0"):
        Chunks({"speech": 50.0}, seconds=0.4)
    with pytest.raises(ValueError, match="above 0"):
        Chunks({"speech": 50.0, "body": 7.5, "hand": 7.5}, seconds=0)
