import sys

import numpy as np
import pytest

from solami_hf.metrics.speaker import SpeakerEmbedder


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    with pytest.raises(ImportError, match="pip install --no-deps resemblyzer==0.1.4"):
        SpeakerEmbedder()


def test_embeddings():
    embed = SpeakerEmbedder()
    time = np.arange(24000) / 16000
    low, high = (
        sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12)).astype(np.float32) / 4
        for pitch in (110.0, 230.0)
    )
    rows = embed([low, high, low[:20000], 40 * low, np.zeros(8000, np.float32), low[:100]])
    assert rows.shape == (6, 256) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 1, 1, 0, 1], atol=1e-5)
    assert rows[0] @ rows[2] > rows[0] @ rows[1] + 0.1
    assert rows[0] @ rows[3] > 0.95  # loudness is no part of a voice
    assert embed([]).shape == (0, 256)
    with pytest.raises(ValueError, match=r"audio\[0\]. holds NaN"):
        embed([np.full(100, np.nan, np.float32)])
