"""Files and folders that are written whole or not at all, with the rights that the umask gives a new file."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, and moves what was written there into place when the block succeeds.

        with whole_file("a.bvh") as temporary:
            temporary.write_text(text)

    A missing folder is made. When the block fails, `path` stays as it was and nothing else is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        follow_umask(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Gives an empty folder beside `path`, and moves it into place when the block succeeds; else nothing is left.

    Raises:
        FileExistsError: there is something at `path` already, other than an empty folder.
        ValueError: `hf://...`, which is no folder.
    """
    if str(path).startswith("hf:/"):
        raise ValueError(f"{path} is no folder of this machine; write into one, then send it with `solami push`")
    path = Path(os.path.abspath(path))
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path} is there already; name another output, or remove it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        follow_umask(temporary)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_model(folder: str | Path) -> Iterator[Path]:
    """Gives an empty folder in `folder`, and moves each file that was written there into it when the block succeeds.

    The configuration comes last, so that a folder with one is whole. When the block fails, nothing has changed.
    """
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

    safetensors makes its files so, as `tempfile` does: others could not read what the umask allows them to.
    """
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
