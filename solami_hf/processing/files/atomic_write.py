"""Files and models that are written whole or not at all, with the rights of new files; a full disk in clear words."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("No space left on device", "Disk quota exceeded")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, and moves what was written there into place when the block succeeds.

        with atomic_write("a.bvh") as temporary:
            temporary.write_text(text)

    A missing folder is made. When the block fails, `path` stays as it was and nothing else is left. Raises OSError:
    the disk is full, with what had been written, and how much is free.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with full_disk_told(path, temporary):
            yield temporary
            follow_umask(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial_files(folder: str | Path) -> None:
    """Removes what `atomic_write` was writing anywhere in a folder when its process was killed. Call it where no other
    process writes to the folder: while its lock is held."""
    for left in Path(folder).rglob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.tmp", left.name) and left.is_file():
            left.unlink()


@contextmanager
def full_disk_told(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Says of a disk that became full within the block where that was: `path` was to be written, `temporary` is the
    file or folder that holds the part of it that was. Other errors pass as they are."""
    try:
        yield
    except Exception as error:
        if not is_full_disk(error, path):
            raise
        there = temporary is not None and temporary.exists()
        written = sum(file.stat().st_size for file in (temporary, *temporary.rglob("*"))) if there else 0
        needed = f"more than {written / 2**20:.1f} MB are needed, " if written else ""
        free = shutil.disk_usage(_there(path)).free / 2**20
        raise OSError(f"disk full at {path}: {needed}{free:.1f} MB are free; make space and run again") from error


def is_full_disk(error: Exception, path: Path) -> bool:
    """True if an error in writing to `path` means that its disk is full."""
    if isinstance(error, OSError) and error.errno is None and error.__cause__ is not None:  # told in words already
        return False
    if getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS):
        return True
    # NumPy, torch and libsndfile do not say why they could not write.
    silent = isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno is None)
    return silent and shutil.disk_usage(_there(path)).free < 2**14


def _there(path: Path) -> Path:
    """The next folder above that exists."""
    return next(folder for folder in Path(os.path.abspath(path)).parents if folder.is_dir())


@contextmanager
def atomic_model(folder: str | Path) -> Iterator[Path]:
    """Gives an empty folder in `folder`, and moves each file that was written there into it when the block succeeds.
    The configuration comes last, so that a folder with one is whole. When the block fails, nothing has changed."""
    staging = Path(folder) / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        follow_umask(staging)
        for path in sorted(staging.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, Path(folder) / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def follow_umask(path: str | Path) -> None:
    """Gives a file, or the weights in a folder, that were made for their owner alone the mode of a new file there.
    safetensors makes its files so, as `tempfile` does: others could not read what the umask allows them to."""
    path = Path(path)
    private = [file for file in (path.rglob("*.safetensors") if path.is_dir() else [path]) if _is_private(file)]
    if private:
        new = private[0].with_name(f".{private[0].name}.{os.getpid()}.new")
        new.touch()
        mode = stat.S_IMODE(new.stat().st_mode)
        new.unlink()
        for file in private:
            file.chmod(mode)


def _is_private(path: Path) -> bool:
    """A regular file of mode 0600, not one that has another name elsewhere."""
    found = os.lstat(path)
    return stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600 and found.st_nlink == 1
