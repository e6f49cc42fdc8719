"""Inputs of `solami generate`: inputs of the six tasks and dialogues, with the references where the data has them.

A token dataset gives its codes, a folder of a layout that `solami prepare` knows is encoded first, and so are plain
files: lines of a .txt, rows of a .json or .jsonl with the input's `text`, `motion` or `audio` (and an `id`), a motion
or sound file, or a folder of them. One bad input costs no other: it becomes an `Item` with an error.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..processing.datasets.layouts.find_layout import find_layout, read_rows, root_of
from ..processing.datasets.layouts.motion_folders import left_out as left_out_of_motions
from ..processing.datasets.manifests import BadRow, json_lines
from ..processing.datasets.prepare_rows import Media, MediaFile, files_of, token_row
from ..processing.datasets.results import result_row
from ..processing.datasets.tasks import audio_block, motion_block, text_block
from ..processing.datasets.token_dataset import load_tokens, with_lists
from ..processing.files.folder_or_hub import hub_id
from ..processing.files.text_files import read_json, read_text
from ..processing.media_files import READ_SUFFIXES, SOUND_SUFFIXES, find_media, names_below, tell_left_out, way_out
from ..processing.rendering import TASKS

SHORT_TASKS = {
    "t2m": "text_to_motion",
    "m2t": "motion_to_text",
    "m2m": "motion_to_motion",
    "t2s": "text_to_speech",
    "s2t": "speech_to_text",
    "s2s": "speech_to_speech",
}
MOTION_SUFFIXES = tuple(suffix for suffix in READ_SUFFIXES if suffix != ".txt")


@dataclass
class Item:
    """One input of a task."""

    columns: dict  # what a row of the results says about it (`result_row`)
    source: dict | None = None  # content block, media as codes; None where it could not be read


@dataclass
class Dialogue:
    """A conversation to be answered turn by turn, as a `chat` token row; without turns where it could not be read."""

    id: str
    topic: str = ""
    character: str = ""
    turns: list[dict] = field(default_factory=list)
    files: list[dict] = field(default_factory=list)
    error: str = ""


def kinds_of(task: str) -> tuple[str, str, str]:
    """Types of source and target of a task (`text`, `motion`, `audio`), and the dataset config that holds its rows."""
    source, target = TASKS[SHORT_TASKS[task]]
    return source, target, "motion" if "motion" in (source, target) else "speech"


def read_items(task: str, source: str | Path, processor, split: str = "test", batch_size: int = 32) -> list[Item]:
    """The inputs of a task (one of `SHORT_TASKS`) in `source`: a token dataset (folder or Hub id), whose codes must be
    those of the processor's codecs, a folder of a known layout, or plain files.

    `split` is that of a token dataset or manifest; `batch_size` files are encoded together. Raises FileNotFoundError:
    nothing there; ValueError: codes of another codec, an unknown kind of file, an id that occurs twice, or no input at
    all.
    """
    kind, _, config = kinds_of(task)
    if hub_id(source) is not None or _has_tokens(source, config):
        rows = ((row, {}) for row in load_tokens(source, config, split, processor))
    elif (layout := _layout_of(source, config)) is not None:
        rows = _encoded_rows(config, source, layout, split, processor, batch_size)
    else:
        rows = None
        items = _plain_items(task, kind, Path(source), processor, batch_size)
    if rows is not None:
        items = list((_motion_items if config == "motion" else _speech_items)(task, rows))
    _check_ids([item.columns["id"] for item in items], f"{source} holds no input for {task} (split {split})")
    return items


def read_dialogues(source: str | Path, processor, split: str = "test", batch_size: int = 32) -> list[Dialogue]:
    """The dialogues of a token dataset, or of a manifest folder, whose files are encoded; see `read_items`."""
    if hub_id(source) is not None or _has_tokens(source, "chat"):
        rows = ((row, {}) for row in load_tokens(source, "chat", split, processor))
    else:
        layout = find_layout(source, "chat")
        rows = _encoded_rows("chat", source, layout, split, processor, batch_size)
    dialogues = []
    for row, plain in rows:
        if isinstance(row, BadRow):
            dialogues.append(Dialogue(row.id, error=row.reason))
        else:
            files = plain.get("turns") or [{}] * len(row["turns"])
            dialogues.append(Dialogue(row["id"], row["topic"], row["character"], row["turns"], files))
    _check_ids([dialogue.id for dialogue in dialogues], f"{source} holds no dialogue in its {split} split")
    return dialogues


def _check_ids(ids: list[str], nothing: str) -> None:
    if not ids:
        raise ValueError(nothing)
    (name, count), *_ = Counter(ids).most_common(1)
    if count > 1:
        raise ValueError(f"two inputs have the id {name!r}; ids must be unique")


def _has_tokens(source: str | Path, config: str) -> bool:
    return any((Path(source) / config).glob("*.parquet"))


def _layout_of(source: str | Path, config: str) -> str | None:
    """The known layout of a source, None for plain files; a list of inputs is told from a manifest by its name."""
    path = Path(source)
    if path.is_file() and path.name not in ("manifest.jsonl", "manifest.csv", "manifest.tsv"):
        return None
    try:
        return find_layout(path, config)
    except FileNotFoundError:
        if path.exists():
            return None
        raise FileNotFoundError(f"there is no input at {source}; give a folder, a file or a Hub id") from None


# ---- rows of manifests and token datasets


def _encoded_rows(config: str, source, layout: str, split: str, processor, batch_size: int) -> Iterator[tuple]:
    """`(token row or BadRow, manifest row)` of a source's split; all its files are encoded in batches."""
    rows = [
        row
        for row in read_rows(source, config, layout)
        if isinstance(row, BadRow) or (row.get("split") or split) == split
    ]
    media = Media(root_of(source), processor, batch_size, motion_tokens=source)
    files = [file for row in rows if isinstance(row, dict) for file in files_of(config, row)]
    codes = media.encode(files) | media.motions_by_id(files, split)
    for row in rows:
        if isinstance(row, BadRow):
            yield row, {}
            continue
        try:
            yield with_lists(token_row(config, row, codes)), row
        except (ValueError, TypeError, AttributeError) as error:
            yield BadRow(str(row.get("id")), str(error)), row


def _motion_items(task: str, rows: Iterable[tuple]) -> Iterator[Item]:
    rows = list(rows)
    by_id = {row["id"]: (row, plain) for row, plain in rows if not isinstance(row, BadRow)}
    for row, plain in rows:
        if isinstance(row, BadRow):
            yield _bad(task, row)
            continue
        caption = row["text"][0] if row["text"] else None
        columns = {"user_text": caption}
        if task != "t2m":
            columns |= _codes("user", row, ("body", "hand")) | {"user_motion": plain.get("motion")}
        if task == "m2t":
            yield _item(task, row["id"], motion_block(row), **columns, reference_text=list(row["text"]))
        elif task == "t2m" and caption:
            columns |= _codes("reference", row, ("body", "hand")) | {"reference_motion": plain.get("motion")}
            yield _item(task, row["id"], text_block(caption), **columns)
        elif task == "m2m" and row["partner_id"] in by_id:
            partner, its = by_id[row["partner_id"]]
            columns |= _codes("reference", partner, ("body", "hand")) | {"reference_motion": its.get("motion")}
            yield _item(task, row["id"], motion_block(row), **columns)


def _speech_items(task: str, rows: Iterable[tuple]) -> Iterator[Item]:
    for row, plain in rows:
        if isinstance(row, BadRow):
            yield _bad(task, row)
            continue
        turns, files = row["turns"], plain.get("turns") or [{}] * len(row["turns"])
        for i, turn in enumerate(turns[:-1] if task == "s2s" else turns):
            columns, answer = {"user_text": turn["text"]}, i + 1 if task == "s2s" else i
            columns["reference_text"] = [turns[answer]["text"]]
            if task != "t2s":
                columns |= _codes("user", turn, ("speech",)) | {"user_audio": files[i].get("audio")}
            if task != "s2t":
                columns |= _codes("reference", turns[answer], ("speech",))
                columns["reference_audio"] = files[answer].get("audio")
            source = text_block(turn["text"]) if task == "t2s" else audio_block(turn)
            yield _item(task, f"{row['id']}#{i}", source, **columns)


def _codes(whose: str, row: dict, names: tuple[str, ...]) -> dict:
    return {f"{whose}_{name}": row[name] for name in names}


def _item(task: str, name: str, source: dict, **columns) -> Item:
    return Item(result_row(task=task, id=name, condition="given", **columns), source)


def _bad(task: str, row: BadRow, **columns) -> Item:
    return Item(result_row(task=task, id=row.id, condition="given", error=row.reason, **columns))


# ---- plain files


def _plain_items(task: str, kind: str, path: Path, processor, batch_size: int) -> list[Item]:
    """Inputs of lines, of a list, or of media files."""
    if kind == "text":
        return [_text_item(task, row) for row in _listed(path, "text")]
    suffixes = MOTION_SUFFIXES if kind == "motion" else SOUND_SUFFIXES
    if path.suffix.lower() in (".json", ".jsonl"):
        rows, root = _listed(path, kind), path.parent
    else:
        root = path if path.is_dir() else path.parent
        names = [p.relative_to(root) for p in _media_at(path, kind, suffixes)]
        if not names:
            told = way_out(path) if path.is_file() else f"expected {', '.join(suffixes)}"
            raise ValueError(f"{path} holds no {kind} for {task}; {told}; or a list in .json or .jsonl")
        stems = [name.with_suffix("").as_posix() for name in names]
        unique = len(set(stems)) == len(stems)
        rows = [
            {"id": stem if unique else name.as_posix(), kind: name.as_posix()}
            if name.as_posix() == shown
            else BadRow(shown, "its name is no text in UTF-8; rename the file")
            for stem, name, shown in zip(stems, names, names_below(names, "."), strict=True)
        ]
    files = [MediaFile(kind, row[kind]) for row in rows if isinstance(row, dict)]
    codes = Media(root, processor, batch_size).encode(files)
    return [_media_item(task, kind, row, codes) for row in rows]


def _media_at(path: Path, kind: str, suffixes: tuple[str, ...]) -> list[Path]:
    """A file, or those of a folder, also media that cannot be read: they are told as such; others are logged."""
    if not path.is_dir():
        return [path] if path.suffix.lower() in suffixes else []
    found = find_media(path, kind, suffixes)
    tell_left_out(found.others, path, f"no {kind}")
    return sorted(found.files + found.unread)


def left_out(task: str, source: str | Path) -> list[str]:
    """The files of a folder that are no input of a task, and that no row of its results tells of."""
    kind, _, config = kinds_of(task)
    path = Path(source)
    if kind == "text" or not path.is_dir() or _has_tokens(source, config):
        return []
    layout = _layout_of(source, config)
    if layout is not None:
        return left_out_of_motions(path) if layout == "bvh" else []
    found = find_media(path, kind, MOTION_SUFFIXES if kind == "motion" else SOUND_SUFFIXES)
    return names_below(found.others, path)


def _text_item(task: str, row) -> Item:
    if isinstance(row, BadRow):
        return _bad(task, row)
    if not row["text"].strip():
        return _bad(task, BadRow(row["id"], "the text is empty"))
    return _item(task, row["id"], text_block(row["text"]), user_text=row["text"])


def _media_item(task: str, kind: str, row, codes: dict) -> Item:
    if isinstance(row, BadRow):
        return _bad(task, row)
    found, named = codes[MediaFile(kind, row[kind])], {f"user_{kind}": row[kind]}
    if isinstance(found, ValueError):
        return _bad(task, BadRow(row["id"], str(found)), **named)
    found = with_lists(found)
    if kind == "motion":
        return _item(task, row["id"], motion_block(found), **named, **_codes("user", found, ("body", "hand")))
    return _item(task, row["id"], audio_block({"speech": found}), **named, user_speech=found)


def _listed(path: Path, kind: str) -> list[dict | BadRow]:
    """`{"id", kind}` of the lines of a .txt, or of the rows of a .json or .jsonl; BadRow for what is none."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (".txt", ".json", ".jsonl") or (suffix == ".txt" and kind != "text"):
        raise ValueError(f"{path} is no list of {kind}; expected a .txt with a line each, .json or .jsonl")
    if suffix == ".txt":
        lines = read_text(path).split("\n")
        return [{"id": f"{path.name}:{n}", "text": line} for n, line in enumerate(lines, 1) if line.strip()]
    if suffix == ".jsonl":
        numbered: Iterable = json_lines(path)
    else:
        loaded = read_json(path)
        if not isinstance(loaded, list):
            raise ValueError(f"{path} holds a {type(loaded).__name__}, expected a list of strings or objects")
        numbered = enumerate(loaded, 1)
    rows: list[dict | BadRow] = []
    for number, row in numbered:
        name = f"{path.name}:{number}"
        row = {kind: row} if isinstance(row, str) else row
        if isinstance(row, BadRow):
            rows.append(row)
        elif not isinstance(row, dict) or not isinstance(row.get(kind), str):
            rows.append(BadRow(name, f"needs a string or an object with a string {kind!r}"))
        else:
            rows.append({"id": str(row.get("id", name)), kind: row[kind]})
    return rows
