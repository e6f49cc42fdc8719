"""Descriptions find the motion whose caption fits, within the rules of similarity and repetition."""

import json
import random

import numpy as np
import pytest

from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.synthesize.motions import (
    HashedTfidf,
    Match,
    Motion,
    MotionMatcher,
    TextEncoder,
    bring_motion,
    read_motions,
)

CAPTIONS = {
    "wave": ("a person waves with the right hand", "someone is waving hello"),
    "bow": ("a person bows politely",),
    "point": ("the person points forward with one finger", "someone is pointing at something"),
    "jump": ("a person jumps up", "somebody hops on both feet"),
    "kick": ("a person kicks with the left leg",),
    "dance": ("someone dances happily in a circle",),
    "shrug": ("a person shrugs the shoulders",),
    "clap": ("a person claps both hands",),
}
MOTIONS = [Motion(name, captions) for name, captions in CAPTIONS.items()]


@pytest.mark.parametrize(
    ("described", "expected", "caption"),
    [
        ("she waved at her friend with her right hand", "wave", 0),
        ("he is waving", "wave", 1),
        ("bowing low", "bow", 0),
        ("a finger pointed at the door", "point", None),
        ("hopping around", "jump", 1),
        ("both shoulders are shrugged", "shrug", 0),
        ("dancing", "dance", 0),
        ("kicking a ball with the left leg", "kick", 0),
    ],
)
def test_the_right_motion_is_found_with_its_caption(described, expected, caption):
    match = MotionMatcher(MOTIONS).nearest([described])[described][0]
    assert match.motion.id == expected
    assert match.caption in CAPTIONS[expected]
    assert caption is None or match.caption == CAPTIONS[expected][caption]


def test_unlike_descriptions_find_nothing():
    matcher = MotionMatcher(MOTIONS)
    found = matcher.nearest(["sleeps quietly under blankets", "", "someone is waving hello"])
    assert found["sleeps quietly under blankets"] == [] and found[""] == []
    assert found["someone is waving hello"][0].similarity == pytest.approx(1, abs=1e-5)
    similarities = [match.similarity for match in found["someone is waving hello"]]
    assert similarities == sorted(similarities, reverse=True) and min(similarities) >= 0.3


def test_top_k_counts_motions_and_keeps_ties():
    clips = [Motion(f"bow{i}", ("a person bows",)) for i in range(5)] + [Motion("wave", ("a person waves",))]
    found = MotionMatcher(clips, top_k=2, min_similarity=0.0).nearest(["a person bows"])["a person bows"]
    assert sorted(match.motion.id for match in found) == [f"bow{i}" for i in range(5)]
    assert len(MotionMatcher(MOTIONS, top_k=3, min_similarity=-1).nearest(["waves"])["waves"]) >= 3


def test_equals_are_drawn_by_lot_and_repeats_are_limited():
    a, b = (Match(Motion(name, ("x",)), "x", similarity) for name, similarity in (("a", 0.9), ("b", 0.5)))
    matcher, rng = MotionMatcher(MOTIONS, max_repeats=2), random.Random(0)
    assert [matcher.choose([a, b], rng).motion.id for _ in range(6)] == ["a", "a", "b", "a", "a", "b"]
    matcher = MotionMatcher(MOTIONS, max_repeats=1)
    assert [m and m.motion.id for m in (matcher.choose([a], rng) for _ in range(4))] == ["a", None, "a", None]
    assert matcher.choose([], rng) is None
    equals = [Match(Motion(str(i), ("x",)), "x", 0.9 - i / 1000) for i in range(4)]
    matcher = MotionMatcher(MOTIONS)
    assert {matcher.choose(equals, rng).motion.id for _ in range(60)} == {"0", "1", "2", "3"}


def test_dense_vectors_of_any_function_do_as_well():
    places = {"up": [1.0, 0.0], "down": [0.0, 1.0], "rising": [0.8, 0.6], "left": [-1.0, 0.0]}
    matcher = MotionMatcher(
        [Motion("u", ("up",)), Motion("d", ("down",))], lambda texts: np.array([places[t] for t in texts])
    )
    found = matcher.nearest(["rising", "left"])
    assert [(m.motion.id, round(m.similarity, 3)) for m in found["rising"]] == [("u", 0.8), ("d", 0.6)]
    assert found["left"] == []


def test_tfidf_vectors_are_unit_and_rare_words_count_more():
    embed = HashedTfidf(["walks slowly", "runs slowly", "waves slowly"])
    vectors = embed(["walks slowly", "walking", "slowly", "the person is", ""])
    assert vectors.shape == (5, HashedTfidf.size)
    norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    np.testing.assert_allclose(norms, [1, 1, 1, 0, 0], atol=1e-6)
    near = (vectors[:1] @ vectors.T).toarray()[0]
    assert near[1] > near[2] > 0.1 and near[3] == 0


def test_motions_of_a_manifest(tmp_path, caplog):
    (tmp_path / "a.npz").write_bytes(b"x")
    rows = [
        {"id": "a", "motion": "a.npz", "text": ["waves", "waves", " greets "]},
        {"id": "b", "motion": "a.npz", "text": "bows", "split": "test"},
        {"id": "gone", "motion": "gone.npz", "text": "?"},
        {"id": "outside", "motion": "../a.npz", "text": "?"},
        {"id": "silent", "motion": "a.npz", "text": []},
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_motions(tmp_path, "train") == [Motion("a", ("waves", "greets"), tmp_path / "a.npz")]
    assert "3 train motions" in caplog.text
    assert [motion.id for motion in read_motions(tmp_path, "test")] == ["b"]
    with pytest.raises(ValueError, match="no usable validation motion"):
        read_motions(tmp_path, "validation")


def test_a_piece_of_a_file_is_cut_out(tmp_path, small_motion):
    write_motion(tmp_path / "long.npz", small_motion)
    row = {"id": "p/1", "motion": "long.npz", "text": "waves", "start": 0.5, "end": 1.0}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    (motion,) = read_motions(tmp_path, "train")
    cut = read_motion(tmp_path / "out" / bring_motion(motion, tmp_path / "out"))
    assert cut.num_frames == 15
    np.testing.assert_allclose(cut.transl, small_motion.transl[15:30], atol=1e-6)
    whole = bring_motion(Motion("p/1", ("waves",), tmp_path / "long.npz"), tmp_path / "out")
    assert (tmp_path / "out" / whole).samefile(tmp_path / "long.npz")
    with pytest.raises(ValueError, match="begins at 9 s"):
        bring_motion(Motion("q", ("waves",), tmp_path / "long.npz", 9.0), tmp_path / "out")


def test_a_text_encoder_of_transformers(tmp_path):
    from transformers import BertConfig, BertModel, BertTokenizer

    words = sorted({word for captions in CAPTIONS.values() for caption in captions for word in caption.split()})
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words) + 5, **sizes)).save_pretrained(tmp_path / "bert")
    encoder = TextEncoder(str(tmp_path / "bert"), tmp_path / "cache", batch_size=2)
    texts = ["a person bows politely", "a person jumps up", "someone dances happily in a circle", "claps"]
    vectors = encoder(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encoder(["claps"])[0], vectors[3], atol=1e-5)  # padding does not count
    encoder.model = None  # the second time the vectors come from the file
    np.testing.assert_array_equal(encoder(texts), vectors)
    assert (
        MotionMatcher(MOTIONS, TextEncoder(str(tmp_path / "bert"))).nearest([texts[0]])[texts[0]][0].motion.id == "bow"
    )
