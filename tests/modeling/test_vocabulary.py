"""Where the codes of a speech codec of several levels stand among the language model's speech codes."""

import numpy as np
import pytest

from solami_hf.modeling.solami.vocabulary import flatten_levels, split_levels


def test_levels_are_written_frame_by_frame_in_ranges_of_their_own():
    codes = np.array([[1, 2], [3, 4], [0, 7]])
    flat = flatten_levels(codes, 8)
    assert flat.tolist() == [1, 8 + 3, 16 + 0, 2, 8 + 4, 16 + 7]
    assert np.array_equal(split_levels(flat, 3, 8), codes)
    assert np.array_equal(split_levels([5, 0, 7], 1, 8), [[5, 0, 7]])
    for bad, message in (
        ([], "at least one code"),
        ([1, 11], "no whole frames of 3 levels"),
        ([11, 1, 16], "0 to 7 in level 0 and 8 higher"),
        ([1, 11, 24], "run from 1 to 24"),
        ([1.0, 2.0, 3.0], "float64"),
    ):
        with pytest.raises(ValueError, match=message):
            split_levels(bad, 3, 8)
    with pytest.raises(ValueError, match="must be 0 to 7;"):
        split_levels([-1], 1, 8)
