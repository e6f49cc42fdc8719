"""Folders that one command at a time writes to: told before work starts when it cannot, or when another one does."""

import fcntl
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .atomic_write import follow_umask, full_disk_told
from .processes import is_first_process

logger = logging.getLogger(__name__)
LOCK = ".lock"
_held: set[int] = set()  # descriptors of locks
# A child that outlives a killed command, such as a worker that loads data, would keep its lock.
os.register_at_fork(after_in_child=lambda: [os.close(_held.pop()) for _ in range(len(_held))])


@contextmanager
def writing_to(folder: str | Path, beside: bool = False) -> Iterator[None]:
    """Within the block this process alone writes to a folder, the output of a command, which is made when missing.

    What is locked is the file `.lock` in it (with `beside`, `.<folder>.lock` beside it, and the folder is not made),
    which holds process id and host and is removed afterwards. The lock is of the operating system, so a killed process
    holds it no longer. Of several processes that share one piece of work the first has it. A folder that was made and
    is empty afterwards is removed again. Raises BlockingIOError: another process is writing to the folder; ValueError:
    `hf://...`, which is no folder; OSError: nothing can be written there, or the disk became full within the block.
    """
    folder = _absolute(folder)
    if not is_first_process():
        yield
        return
    lock = folder.with_name(f".{folder.name}{LOCK}") if beside else folder / LOCK
    made = [path for path in lock.parents if not os.path.exists(path)]
    try:
        descriptor = _locked(lock, folder)
        try:
            with full_disk_told(folder):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                yield
        finally:
            with suppress(OSError):
                lock.unlink()  # while it is held: nobody else's is removed
            _held.discard(descriptor)
            os.close(descriptor)
    finally:
        for path in made:
            with suppress(OSError):  # it is not empty
                path.rmdir()


def _absolute(folder: str | Path) -> Path:
    if str(folder).startswith("hf:/"):
        raise ValueError(f"{folder} is no folder of this machine; write into one, then send it with `solami push`")
    return Path(os.path.abspath(folder))


def _locked(lock: Path, folder: Path) -> int:
    """A descriptor that holds the lock of a folder, until it is closed."""
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OSError(f"cannot write to {folder} ({error.strerror}); give another output") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            told = f"another process ({owner or 'just started'}) is writing to {folder}"
            raise BlockingIOError(f"{told}; wait for it, or give another output") from None
        except OSError as error:  # some network file systems
            logger.debug("%s cannot be locked (%s): two commands that write to it are not told apart", folder, error)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                break
        os.close(descriptor)  # the one before removed it meanwhile
    _held.add(descriptor)
    return descriptor


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Gives an empty folder beside `path`, and moves it into place when the block succeeds; else nothing is left.
    Raises FileExistsError: there is something at `path` already, other than an empty folder; ValueError:
    `hf://...`, which is no folder; OSError: as `writing_to`."""
    path = _absolute(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path} is there already; name another output, or remove it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing_to(path, beside=True):
        for left in path.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(path.name)}\.\d+\.tmp", left.name):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        try:
            with full_disk_told(path, temporary):
                yield temporary
                follow_umask(temporary)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
