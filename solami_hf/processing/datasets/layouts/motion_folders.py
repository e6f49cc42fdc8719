"""Motion data sets as folders: BEAT2, Inter-X, InterHuman, HumanML3D, and any folder of motion files.

BEAT2: people who talk, their motion, voice and words. https://huggingface.co/datasets/H-Liu1997/BEAT2

    smplxflame_30/2_scott_0_1_1.npz   textgrid/2_scott_0_1_1.TextGrid   wave16k/2_scott_0_1_1.wav
    train_test_split.csv              columns id and type: train, val, test or additional, if there

The source is a language's folder, or the repository with `beat_english_v2.0.0`, `beat_chinese_v2.0.0`, ... in it. Its
fork `m-hamza-mughal/beat2-additional-annotations` is laid out alike, with motion of 25 frames a second in
`smplxflame_25` and words in `whisper_transcription/ID.TextGrid`.

As speech, a row is a recording and its words. As motion, the caption tells what is said, as there is no other; without
a transcript there is none. Words come from the TextGrid's tier `words`, or from `text/ID.txt`. The first two parts of
an id are the speaker.

Inter-X: a folder an interaction with a file for each of two people. https://github.com/liangxuy/Inter-X

    motions/G001T000A000R000/P1.npz, P2.npz     (or .bvh)
    texts/G001T000A000R000.txt                  one caption a line
    splits/train.txt, val.txt, test.txt         one id a line, if there

Both people become rows, `ID_P1` and `ID_P2`, each the other's partner, with the interaction as source id and all its
captions; of those in `texts_processed`, tokens behind `#` are dropped. Where one of the two files is missing, the
other is an orphan.

InterHuman: the same in other folders. https://github.com/tr3e/InterGen

    motions_processed/person1/12.npy, person2/12.npy     see `processing/motion/formats/interhuman.py`
    annots/12.txt                                        one caption a line
    split/train.txt, val.txt, test.txt, ignore_list.txt  one id a line, if there; or without the folder

HumanML3D: captions, and splits of one id a line. https://github.com/EricGuo5513/HumanML3D

    texts/000021.txt            a man walks.#a/DET man/NOUN walk/VERB#0.0#0.0
    new_joint_vecs/000021.npy   or motions/000021.npz, .bvh or .npy
    train.txt, val.txt, test.txt

A line is `caption#tokens#start#end`; times in seconds say which piece of the clip the caption is about, 0 to 0 is all
of it. Captions of a piece become a row of their own, `ID@start-end`. Clips whose id begins with `M` are mirrored
copies, so the source id of both is the number. `new_joint_vecs` know less than `.npz` files: see
`processing/motion/formats/humanml3d.py`.

Any folder of `.bvh` and `.npz` files, also in folders below it: a caption a line in a `.txt` beside a file
(`walk/01.bvh`, `walk/01.txt`); without one the file's name is the caption, `sit_down-slowly` read as "sit down
slowly". The id is the path without its suffix. As many things are `.npz`, a folder without `.bvh` is recognised only
where captions lie beside them.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ...files.text_files import read_text
from ...media_files import Found, files_below, find_media, names_below, tell_left_out, way_out
from ..manifests import BadRow, table_rows

_SUFFIXES = (".bvh", ".npz")
_SPLITS = {"train": "train", "val": "validation", "test": "test"}  # as the data sets call them


def is_motion_folder(source: Path) -> bool:
    """True if a folder has this layout."""
    return any(
        path.suffix.lower() == ".bvh" or (path.suffix.lower() == ".npz" and path.with_suffix(".txt").is_file())
        for path in files_below(source)
    )


def read_motion_folder(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, sorted by path."""
    found = find_media(source, "motion", _SUFFIXES)
    tell_left_out(_neither(found), source, "neither motion nor captions")
    for path in found.files:
        captions, place = path.with_suffix(".txt"), path.relative_to(source)
        try:
            text = text_lines(captions) if captions.is_file() else [re.sub(r"[\W_]+", " ", path.stem).strip()]
        except ValueError as error:
            yield BadRow(place.with_suffix("").as_posix(), str(error))
        else:
            yield {"id": place.with_suffix("").as_posix(), "motion": place.as_posix(), "text": text}
    for path in found.unread:
        yield BadRow(path.relative_to(source).as_posix(), f"cannot be read; {way_out(path)}")


def left_out(source: Path) -> list[str]:
    """The files that are neither motions nor captions of one."""
    return names_below(_neither(find_media(source, "motion", _SUFFIXES)), source)


def _neither(found: Found) -> list[Path]:
    captions = {path.with_suffix(".txt") for path in found.files}
    return [path for path in found.others if path not in captions]


def names_in(folder: Path, suffix: str) -> list[str]:
    """Sorted names, without their suffix, of a folder's files; of a large source nothing else is held in memory."""
    with os.scandir(folder) as entries:
        names = (e.name for e in entries if e.name.lower().endswith(suffix) and e.name[0] != ".")
        return sorted(name[: len(name) - len(suffix)] for name in names)


def _rows_of(names: list[str], read: Callable[[str], Iterator]) -> Iterator[dict | BadRow]:
    """The rows of each name; a ValueError of `read` becomes a `BadRow`."""
    for name in names:
        try:
            yield from read(name)
        except ValueError as error:
            yield BadRow(name, str(error))


def listed_splits(folder: Path, where: str = "", ending: str = "") -> Callable[[str], dict]:
    """Id -> `{"split"}` by `train.txt`, `val.txt` and `test.txt`, one id a line; `{}` where there is no file."""
    files = {folder / f"{where}{name}{ending}.txt": split for name, split in _SPLITS.items()}
    splits = {name: split for file, split in files.items() if file.is_file() for name in text_lines(file)}

    def split_of(name: str) -> dict:
        if splits and name not in splits:
            raise ValueError(f"is in none of {where}train{ending}.txt, val{ending}.txt and test{ending}.txt")
        return {"split": splits[name]} if splits else {}

    return split_of


def text_lines(path: Path) -> list[str]:
    """The lines of a small text file that are not empty; ValueError where it is no text that can be read."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


_MOTIONS, _VOICES, _TYPES = ("smplxflame_30", "smplxflame_25"), "wave16k", "train_test_split.csv"
_LANGUAGES = "beat_*_v*"


def is_beat2(source: Path) -> bool:
    """True if a folder has this layout."""
    return any((part / name).is_dir() for part in [source, *source.glob(_LANGUAGES)] for name in _MOTIONS)


def read_beat2(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion or speech, sorted by language and id."""
    if not (languages := sorted(path for path in source.glob(_LANGUAGES) if path.is_dir())):
        yield from _read_language(source, kind, "")
    for language in languages:
        for row in _read_language(language, kind, f"{language.name}/"):
            yield BadRow(f"{language.name}/{row.id}", row.reason) if isinstance(row, BadRow) else row


def _read_language(source: Path, kind: str, place: str) -> Iterator[dict | BadRow]:
    motions = next((name for name in _MOTIONS if (source / name).is_dir()), _MOTIONS[0])
    folder, suffix = (motions, ".npz") if kind == "motion" else (_VOICES, ".wav")
    if not (source / folder).is_dir():
        yield BadRow(folder, f"{source} has no folder {folder}, which holds the {kind} of BEAT2")
        return
    types, split_of = None, {"train": "train", "additional": "train", **_SPLITS}
    if (source / _TYPES).is_file():
        listed = (row for _, row in table_rows(source / _TYPES, ",") if not isinstance(row, BadRow))
        types = {row.get("id"): row.get("type") for row in listed}

    def read(name: str) -> Iterator[dict]:
        row = {"id": name, "source": name}
        if types is not None:
            if types.get(name) not in split_of:
                raise ValueError(f"is of type {types.get(name)!r} in {_TYPES}, expected {', '.join(split_of)}")
            row["split"] = split_of[types[name]]
        words, file = _words(source, name), f"{place}{folder}/{name}{suffix}"
        if kind == "motion":
            yield {**row, "motion": file, "text": [f"a person talks: {words}"] if words else []}
        elif words is None:
            raise ValueError(f"has no words; expected textgrid/{name}.TextGrid or text/{name}.txt")
        else:
            yield {**row, "turns": [{"text": words, "audio": file, "speaker": "_".join(name.split("_")[:2])}]}

    yield from _rows_of(names_in(source / folder, suffix), read)


def _words(source: Path, name: str) -> str | None:
    grids = [source / folder / f"{name}.TextGrid" for folder in ("textgrid", "whisper_transcription")]
    grid, text = next(filter(Path.is_file, grids), None), source / "text" / f"{name}.txt"
    if grid is not None:
        try:
            return textgrid_words(read_text(grid)) or None
        except ValueError as error:
            raise ValueError(f"{grid} has no words that can be read: {error}") from None
    return " ".join(text_lines(text)) or None if text.is_file() else None


def textgrid_words(text: str) -> str:
    """The words of a Praat TextGrid, long or short: of the tier `words`, or of the only or first tier. Both forms have
    the same strings and numbers in the same order; all else is for people to read. Raises ValueError: it is none, or
    fewer tiers or marks are there than it says."""
    if '"TextGrid"' not in text[:200]:
        raise ValueError(f"it begins with {text[:30]!r}, expected a TextGrid in text form")
    tiers: list[tuple[list[str], list[float]]] = [([], [])]  # strings and numbers, first those before all tiers
    for word, number in re.findall(r'"((?:[^"]|"")*)"|(?<!\S)(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?!\S)', text):
        if word in ("IntervalTier", "TextTier"):
            tiers.append(([], []))
        elif number:
            tiers[-1][1].append(float(number))
        else:
            tiers[-1][0].append(word.replace('""', '"').strip())
    if text.count('"') % 2:
        raise ValueError("it is cut short: its last string does not end")
    (_, numbers), *tiers = tiers
    # a tier's numbers are its beginning, its end, and how many marks follow
    told = [("tiers", numbers, len(tiers)), *((f"marks in tier {t[:1]}", n, len(t) - 1) for t, n in tiers)]
    for what, numbers, count in told:
        if len(numbers) > 2 and numbers[2] > count:
            raise ValueError(f"it is cut short: {count} {what}, but it tells of {numbers[2]:g}")
    words = next((t for t, _ in tiers if t[:1] == ["words"]), tiers[0][0] if tiers else [])
    return " ".join(word for word in words[1:] if word)


_PEOPLE, _PERSON_SUFFIXES = ("P1", "P2"), (".npz", ".bvh")


def is_inter_x(source: Path) -> bool:
    """True if a folder has this layout."""
    folders = (path for path in (source / "motions").glob("*") if path.is_dir())
    return any(_file(folder, person) for folder in folders for person in _PEOPLE)


def read_inter_x(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, pair by pair."""
    split_of = listed_splits(source, "splits/")

    def read(name: str) -> Iterator[dict]:
        split = split_of(name)
        files = {person: _file(source / "motions" / name, person) for person in _PEOPLE}
        if not any(files.values()):
            raise ValueError(f"motions/{name} has neither P1 nor P2 as .npz or .bvh")
        texts = (source / folder / f"{name}.txt" for folder in ("texts", "texts_processed"))
        yield from _pair(source, name, files, next(filter(Path.is_file, texts), None), split)

    folders = [name for name in names_in(source / "motions", "") if (source / "motions" / name).is_dir()]
    yield from _rows_of(folders, read)


def _pair(source: Path, name: str, files: dict, texts: Path | None, split: dict) -> Iterator[dict]:
    """A row for each of two people whose file is there, each the other's partner."""
    text = [line.split("#")[0].strip() for line in text_lines(texts)] if texts else []
    for person, partner in (_PEOPLE, _PEOPLE[::-1]):
        if files[person]:
            row = {"id": f"{name}_{person}", "motion": files[person].relative_to(source).as_posix(), "text": text}
            yield {**row, "partner_id": f"{name}_{partner}", "source": name, **split}


_PROCESSED, _CAPTIONS = "motions_processed", "annots"


def is_interhuman(source: Path) -> bool:
    """True if a folder has this layout."""
    return any((source / _PROCESSED / person).is_dir() for person in ("person1", "person2"))


def read_interhuman_pairs(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, pair by pair."""
    lists = "split/" if (source / "split").is_dir() else ""
    split_of, ignored = listed_splits(source, lists), source / lists / "ignore_list.txt"
    left_out = set(text_lines(ignored)) if ignored.is_file() else set()

    def read(name: str) -> Iterator[dict]:
        if name in left_out:
            raise ValueError(f"is in {lists}ignore_list.txt")
        split = split_of(name)
        found = {person: source / _PROCESSED / f"person{person[1]}" / f"{name}.npy" for person in _PEOPLE}
        texts = source / _CAPTIONS / f"{name}.txt"
        if not texts.is_file():
            raise ValueError(f"has no {_CAPTIONS}/{name}.txt")
        files = {person: path if path.is_file() else None for person, path in found.items()}
        yield from _pair(source, name, files, texts, split)

    folders = [source / _PROCESSED / f"person{number}" for number in "12"]
    yield from _rows_of(sorted({name for path in folders if path.is_dir() for name in names_in(path, ".npy")}), read)


def _file(folder: Path, person: str) -> Path | None:
    return next((p for suffix in _PERSON_SUFFIXES if (p := folder / f"{person}{suffix}").is_file()), None)


_PLACES = [("motions", ".npz"), ("motions", ".bvh"), ("motions", ".npy"), ("new_joint_vecs", ".npy")]


def is_humanml3d(source: Path) -> bool:
    """True if a folder has this layout."""
    return (source / "texts").is_dir() and any((source / folder).is_dir() for folder, _ in _PLACES)


def read_humanml3d_folder(source: Path, kind: str) -> Iterator[dict | BadRow]:
    """Rows of kind motion, sorted by id."""
    split_of = listed_splits(source)

    def read(name: str) -> Iterator[dict | BadRow]:
        split = split_of(name)
        motion = next((f"{f}/{name}{s}" for f, s in _PLACES if (source / f / f"{name}{s}").is_file()), None)
        if motion is None:
            places = f"new_joint_vecs/{name}.npy or motions/{name}.*"
            raise ValueError(f"texts/{name}.txt has no motion; expected {places}")
        pieces: dict[tuple[float, float], list[str]] = {}
        for number, line in enumerate(text_lines(source / "texts" / f"{name}.txt"), 1):
            try:
                text, piece = _caption(line)
            except ValueError as error:
                yield BadRow(f"{name}.txt:{number}", str(error))
            else:
                pieces.setdefault(piece, []).append(text)
        if not pieces:
            raise ValueError(f"texts/{name}.txt holds no caption")
        for (start, end), texts in sorted(pieces.items()):
            row = {"id": name, "motion": motion, "text": texts, "source": re.sub(r"^M(?=\d)", "", name)}
            if end:
                row |= {"id": f"{name}@{start:g}-{end:g}", "start": start, "end": end}
            yield row | split

    yield from _rows_of(names_in(source / "texts", ".txt"), read)


def _caption(line: str) -> tuple[str, tuple[float, float]]:
    parts = line.split("#")
    if len(parts) not in (1, 4) or not parts[0].strip():
        raise ValueError(f"is {line!r}, expected caption#tokens#start#end")
    try:
        start, end = (float(part) for part in parts[2:]) if len(parts) == 4 else (0.0, 0.0)
    except ValueError:
        raise ValueError(f"has times {parts[2]!r} and {parts[3]!r}, expected seconds") from None
    start, end = (0.0 if math.isnan(time) else time for time in (start, end))
    if (start or end) and not 0 <= start < end < math.inf:
        raise ValueError(f"has times from {start:g} to {end:g} s, expected the end behind the start")
    return parts[0].strip(), (start, end)
