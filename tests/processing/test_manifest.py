"""Manifests: every kind of bad line is named with its place."""

import pytest

from solami_hf.processing.datasets.manifests import read_manifest


def test_rows_and_their_split(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "text": "x"}\n\n{"id": "b", "split": "test"}\n')
    assert read_manifest(tmp_path) == [{"id": "a", "text": "x", "split": "train"}, {"id": "b", "split": "test"}]
    with pytest.raises(FileNotFoundError, match="needs one"):
        read_manifest(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("{not json}\n", "is not JSON"),
        ('{"text": "x"}\n', "string id"),
        ("[1]\n", "string id"),
        ('{"id": "a"}\n{"id": "a"}\n', "occurs twice"),
        ('{"id": "a", "split": "dev"}', "split is 'dev'"),
    ],
)
def test_bad_manifests(tmp_path, text, message):
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)
