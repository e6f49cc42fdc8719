"""One command at a time in a folder, told before work starts; a full disk in words, and nothing half written."""

import errno
import os
from types import SimpleNamespace

import pytest

from solami_hf.processing.files.atomic_write import atomic_write
from solami_hf.processing.files.output_folder import atomic_folder, writing_to


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_command_is_told_who_writes_there(tmp_path):
    with writing_to(tmp_path / "out"):
        assert f"pid {os.getpid()} on " in (tmp_path / "out" / ".lock").read_text()
        told = rf"another process \(pid {os.getpid()} on .*\) is writing to .*/out; wait for it, or give another"
        with pytest.raises(BlockingIOError, match=told), writing_to(tmp_path / "out"):
            pass
        with writing_to(tmp_path / "other"):  # another folder is another matter
            (tmp_path / "other" / "a").write_text("a")
    assert names(tmp_path) == ["other"] and names(tmp_path / "other") == ["a"], "an empty folder is removed again"
    with writing_to(tmp_path / "other"):
        pass


def test_a_killed_command_leaves_no_lock_though_a_child_of_it_lives_on(tmp_path):
    read, write = os.pipe()
    killed = os.fork()
    if not killed:
        with writing_to(tmp_path):
            if not os.fork():
                os.read(read, 1)  # waits for the test's end
                os._exit(0)
            os.kill(os.getpid(), 9)
    assert os.WTERMSIG(os.waitpid(killed, 0)[1]) == 9 and (tmp_path / ".lock").is_file()
    try:
        with writing_to(tmp_path):
            pass
        assert names(tmp_path) == []
    finally:
        os.write(write, b"x")


def test_of_several_ranks_the_first_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with writing_to(tmp_path), writing_to(tmp_path):
        assert names(tmp_path) == []
    monkeypatch.setenv("RANK", "0")
    with writing_to(tmp_path):
        assert names(tmp_path) == [".lock"]


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_written_is_told_before_the_block(tmp_path, monkeypatch, error):
    def refused(*args, **kwargs):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(OSError, match=rf"cannot write to .*/new/out \({os.strerror(error)}\); give another output"):
        with writing_to(tmp_path / "new" / "out"):
            raise AssertionError("the block was entered")
    assert names(tmp_path) == []


def test_what_lies_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "out", "/proc/self/out"):
        with pytest.raises(OSError, match=f"cannot write to {folder} "), writing_to(folder):
            pass
    for context in (writing_to, atomic_folder):
        with pytest.raises(ValueError, match="hf://a/b is no folder of this machine"), context("hf://a/b"):
            pass


def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def unsupported(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with writing_to(tmp_path):
        (tmp_path / "a").write_text("a")
    assert names(tmp_path) == ["a"]


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    told = r"disk full at .*/a.txt: more than 1.0 MB are needed, [\d.]+ MB are free; make space and run again"
    with pytest.raises(OSError, match=told), writing_to(tmp_path), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"x" * 2**20)
        raise error
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("error", [OSError("4096 requested and 0 written"), RuntimeError("file write failed")])
def test_an_error_that_does_not_say_why_is_a_full_disk_where_nothing_is_free(tmp_path, monkeypatch, error):
    with pytest.raises(type(error), match=str(error)), writing_to(tmp_path):
        raise error
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=f"disk full at {tmp_path}: 0.0 MB are free"), writing_to(tmp_path):
        raise error
    with pytest.raises(ValueError, match="bad"), writing_to(tmp_path):
        raise ValueError("bad")


def test_a_whole_folder_or_nothing(tmp_path):
    (tmp_path / ".out.4.tmp").mkdir()  # of a process that was killed
    (tmp_path / ".out.v2.4.tmp").mkdir()  # of one that writes another folder
    with pytest.raises(OSError, match="disk full at .*/out: "), atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        raise FULL[0]
    assert names(tmp_path) == [".out.v2.4.tmp"]
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        with pytest.raises(BlockingIOError, match="is writing to"), atomic_folder(tmp_path / "out"):
            pass
    assert names(tmp_path) == [".out.v2.4.tmp", "out"] and names(tmp_path / "out") == ["a"]
    with pytest.raises(FileExistsError, match="is there already"), atomic_folder(tmp_path / "out"):
        pass
