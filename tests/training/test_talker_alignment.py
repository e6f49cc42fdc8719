"""Frames of characters, found again where it is known which they are."""

import numpy as np
import pytest
import torch

from solami_hf.training.speech.talker_alignment import align, can_align, frames_of_path, train_reader

CHARACTERS = 5


def spoken(count, seed=0):
    """Clips whose character c has codes 2 c - 2 and 2 c - 1 alone, and the truth: codes, ids, frames."""
    rng, clips = np.random.default_rng(seed), []
    for _ in range(count):
        ids = rng.integers(1, CHARACTERS + 1, rng.integers(3, 9))
        ids = ids[np.append(True, ids[1:] != ids[:-1])]
        frames = rng.integers(1, 6, len(ids))
        codes = np.repeat(2 * ids - 2, frames) + rng.integers(0, 2, frames.sum())
        clips.append((codes, ids.tolist(), frames))
    return [list(column) for column in zip(*clips, strict=True)]


def test_finds_the_frames_that_are_known():
    codes, ids, frames = spoken(40)
    reader = train_reader(codes, ids, 2 * CHARACTERS, CHARACTERS, steps=60, learning_rate=1e-2, size=24)
    codes, ids, frames = spoken(40, seed=1)
    found = align(reader, codes, ids)
    assert [part.sum() for part in found] == [len(clip) for clip in codes]
    borders = [np.cumsum(part)[:-1] for part in frames]
    wrong = np.concatenate([np.cumsum(part)[:-1] - known for part, known in zip(found, borders, strict=True)])
    assert np.abs(wrong).mean() < 0.2  # of a frame; without training it is 3.6


def test_equal_characters_beside_each_other_have_frames_both():
    torch.manual_seed(0)
    codes, ids = [np.array([0, 0, 0, 2, 2])], [[1, 1, 2]]
    found = align(train_reader(codes, ids, 10, CHARACTERS, steps=1, size=8), codes, ids)[0]
    assert found.sum() == 5 and (found >= 1).all() and len(found) == 3


def test_training_is_the_same_for_the_same_seed():
    codes, ids, _ = spoken(10)
    one, same, other = (train_reader(codes, ids, 10, CHARACTERS, 2, seed=seed, size=8) for seed in (0, 0, 1))
    assert torch.equal(one.head.weight, same.head.weight) and not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize(
    ("path", "ids", "frames"),
    [
        ([1, 1, 2, 2, 2], [1, 2], [2, 3]),
        ([0, 1, 0, 1, 2], [1, 1, 2], [3, 1, 1]),
        ([0, 0, 3, 0, 0], [3], [5]),
        ([2, 0, 0, 1], [2, 1], [3, 1]),
    ],
)
def test_blanks_go_to_the_character_before(path, ids, frames):
    assert frames_of_path(np.array(path), ids).tolist() == frames


def test_what_cannot_be_aligned():
    codes = np.zeros(3, dtype=np.int16)
    assert can_align(codes, [1, 2, 1]) and can_align(codes, [1, 1])
    assert not can_align(codes, [1, 1, 2]) and not can_align(codes, [1, 2, 3, 4]) and not can_align(codes, [])
