import pytest

from solami_hf.processing.whole_file import whole_file


def test_moves_what_was_written(tmp_path):
    with whole_file(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
        assert temporary.parent == tmp_path / "new" and not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("ha")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
