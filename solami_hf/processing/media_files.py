"""Which names mean sound and which motion, and the files of a folder: one rule for all commands."""

import heapq
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from .audio.sound_files import SOUND_SUFFIXES, UNREAD_SOUND, sound_way_out

logger = logging.getLogger(__name__)

READ_SUFFIXES = (".npz", ".npy", ".txt", ".bvh")
"""Of motion files; most .txt files are none."""

_UNREAD_MOTION = frozenset(
    ".fbx .pkl .pickle .pt .pth .c3d .glb .gltf .vrm .vrma .vmd .amc .asf .dae .usd .usda .usdc .usdz .blend .trc "
    ".anim .bip".split()
)
_PICTURES = frozenset(".jpg .jpeg .png .gif .webp .bmp .tif .tiff .heic .avif .svg".split())
_MOST_NAMED = 10


def kind_of(name: str | Path) -> str | None:
    """`audio`, `motion` or `picture` by the end of a file's name, whether it can be read or not; else None."""
    suffix = Path(name).suffix.lower()
    if suffix in SOUND_SUFFIXES or suffix in UNREAD_SOUND:
        return "audio"
    if suffix in READ_SUFFIXES or suffix in _UNREAD_MOTION:
        return "motion"
    return "picture" if suffix in _PICTURES else None


def way_out(name: str | Path) -> str:
    """Advice for a file that cannot be read: formats that can, and how to convert it."""
    path = Path(name)
    if kind_of(path) == "motion":
        remedy = "export it as .bvh, e.g. from Blender"
        if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth"):  # could run code
            remedy = "save its arrays trans, poses and mocap_frame_rate with numpy.savez"
        return f"expected a suffix of {', '.join(READ_SUFFIXES)}; {remedy}"
    if path.suffix.lower() in UNREAD_SOUND:
        return sound_way_out(path)
    return f"{sound_way_out(path)} or motion ({', '.join(READ_SUFFIXES)})"


def named_media(text: str, in_sentence: bool = False) -> str | None:
    """`audio` or `motion` when `text` is the name of a file, None when it is words. It is a name where such a file
    is there, or where it ends like sound, video or motion: "memo.m4a" is never said. `in_sentence` says that other
    words stand beside it. Raises FileNotFoundError: there is no file of this name; ValueError: it is a folder, or a
    file that cannot be read."""
    name = text.strip()
    bare = name if in_sentence or len(name.split()) > 1 else name.rstrip(".,;:!?\"')]")
    if not os.path.isfile(name):
        if os.sep in name and os.path.isdir(name):
            raise ValueError(f"{name} is a folder; name a sound or motion file in it")
        if kind_of(bare) is None:
            return None
        raise FileNotFoundError(f"no such file: {name}" + (f"; there is {bare}" if os.path.isfile(bare) else ""))
    if Path(name).suffix.lower() in SOUND_SUFFIXES + READ_SUFFIXES:
        return kind_of(name)
    if in_sentence and not Path(name).suffix and os.sep not in name:
        return None
    raise ValueError(f"{name} is no sound or motion file that can be read, {way_out(name)}")


class Found(NamedTuple):
    """The files of a folder."""

    files: list[Path]  # those that can be read
    unread: list[Path]  # media of the same kind that cannot, and of whose name is no other file
    others: list[Path]  # all others


def find_media(folder: str | Path, kind: str, suffixes: Collection[str]) -> Found:
    """The files below a folder, each sorted by path; `suffixes` are those that are read of a kind, `audio` or
    `motion`."""
    paths = files_below(folder)
    files = [path for path in paths if path.suffix.lower() in suffixes]
    known = {path.with_suffix("") for path in files}
    unknown = UNREAD_SOUND if kind == "audio" else _UNREAD_MOTION
    unread = [path for path in paths if path.suffix.lower() in unknown and path.with_suffix("") not in known]
    left = {*files, *unread}
    return Found(files, unread, [path for path in paths if path not in left])


def names_below(paths: list[Path], folder: str | Path) -> list[str]:
    """The names of files relative to a folder, in characters that every file can hold."""
    names = (path.relative_to(folder).as_posix() for path in paths)
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def tell_left_out(paths: list[Path], folder: str | Path, why: str) -> None:
    """Logs how many files of a folder are left out, the first of their names, and why."""
    if paths:
        names = names_below(paths, folder)
        more = ["..."] if len(names) > _MOST_NAMED else []
        logger.warning("%s: %d left out, %s: %s", folder, len(names), why, ", ".join(names[:_MOST_NAMED] + more))


def files_below(folder: str | Path, hidden: bool = False) -> list[Path]:
    """All files below a folder, sorted by path, those with a dot before their name if `hidden`; links are followed.
    Every folder is read once, by the name with the fewest links in it, so loops end. A link that leads nowhere is
    among the files, for the reader to complain about. Raises OSError: `folder` cannot be read; of a folder inside that
    cannot, a warning tells."""
    found, seen, waiting = [], set(), [(0, os.fspath(folder))]
    while waiting:
        links, place = heapq.heappop(waiting)
        if (real := os.path.realpath(place)) in seen:
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            if place == os.fspath(folder):
                raise
            logger.warning("%s is left out: %s", place, error)
            continue
        for entry in entries:
            if os.path.isdir(entry.path):
                heapq.heappush(waiting, (links + entry.is_symlink(), entry.path))
            elif (hidden or entry.name[0] != ".") and (os.path.isfile(entry.path) or entry.is_symlink()):
                found.append(Path(entry.path))
    return sorted(found)
