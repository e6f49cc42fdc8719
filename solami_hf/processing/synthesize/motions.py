"""The captioned motions that dialogues may use, and how their files come into the manifest folder."""

from __future__ import annotations

import logging
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ..files.atomic_write import atomic_write
from .plans import content_hash

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Motion:
    """A motion that dialogues may use.

    Args:
        captions: what it shows.
        path: its file; None when it is known by its tokens only.
        start, end: seconds of the piece of the file; `end` None is the end of the file.
    """

    id: str
    captions: tuple[str, ...]
    path: Path | None = None
    start: float = 0.0
    end: float | None = None


def read_motions(source: str | Path, split: str) -> list[Motion]:
    """The motions of a split: of a folder that `solami prepare motion` reads, or of a prepared token dataset.

    Motions without caption, or whose file is missing or outside the folder, are passed over with a warning.

    Args:
        source: a folder or manifest file; or a folder with `motion/*.parquet`, or a Hub id.

    Raises:
        FileNotFoundError: no such folder, config or split.
        ValueError: no usable motion of the split.
    """
    if Path(source).exists() and not any(Path(source).glob("motion/*.parquet")):
        motions = _motions_of_files(Path(source), split)
        usable = [motion for motion in motions if motion.captions and motion.path is not None]
    else:
        from ..datasets.token_dataset import load_tokens

        rows = load_tokens(source, "motion", split).select_columns(["id", "text"])
        motions = [Motion(row["id"], _captions(row)) for row in rows]
        usable = [motion for motion in motions if motion.captions]
    if len(usable) < len(motions):
        count = len(motions) - len(usable)
        logger.warning("%d %s motions of %s have no caption or no file; they are not used", count, split, source)
    if not usable:
        raise ValueError(f"{source} has no usable {split} motion; each needs a caption and a file in the folder")
    return usable


def _motions_of_files(source: Path, split: str) -> list[Motion]:
    from ..datasets.layouts.find_layout import find_layout, read_rows, root_of

    motions, root = [], root_of(source)
    for row in read_rows(source, "motion", find_layout(source, "motion")):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or (row.get("split") or "train") != split:
            continue
        start, end = row.get("start") or 0.0, row.get("end")
        try:
            piece = float(start), None if end is None else float(end)
        except (TypeError, ValueError):
            continue
        motions.append(Motion(row["id"], _captions(row), _inside(root, row.get("motion")), *piece))
    return motions


def _captions(row: dict) -> tuple[str, ...]:
    text = row.get("text") or ()
    text = [text] if isinstance(text, str) else text
    return tuple(dict.fromkeys(" ".join(t.split()) for t in text if isinstance(t, str) and t.strip()))


def _inside(folder: Path, name) -> Path | None:
    if not isinstance(name, str) or not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    return folder / name if (folder / name).is_file() else None


def bring_motion(motion: Motion, folder: Path) -> str:
    """Links (or copies) a motion's file into the manifest folder, or writes the piece that it is.

    Returns:
        the path relative to the folder.

    Raises:
        ValueError: a piece of a file that cannot be read, or that begins behind its end.
    """
    slug = re.sub(r"[^A-Za-z0-9-]+", "_", motion.id)[:60]
    name = f"motion/{slug}-{content_hash(motion.id)[:8]}"
    if motion.start or motion.end is not None:
        return _cut(motion, folder, f"{name}.npz")
    path = f"{name}{motion.path.suffix.lower()}"
    with atomic_write(folder / path) as temporary:
        try:
            os.link(motion.path.resolve(), temporary)
        except OSError:  # another file system
            shutil.copyfile(motion.path, temporary)
    return path


def _cut(motion: Motion, folder: Path, path: str) -> str:
    from ..motion.motion_io import read_motion, write_motion

    whole = read_motion(motion.path)
    start, end = (None if t is None else round(t * whole.fps) for t in (motion.start, motion.end))
    if start >= whole.num_frames:
        raise ValueError(f"{motion.path} lasts {whole.duration:.2f} s, but {motion.id} begins at {motion.start:g} s")
    write_motion(folder / path, replace(whole, transl=whole.transl[start:end], poses=whole.poses[start:end]))
    return path
