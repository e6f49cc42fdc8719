"""Which layout a source has, and its rows in the form of a manifest, whatever the layout.

A reader is a generator: it holds one row, and of a folder the names of its files. It yields dictionaries in the
columns of a manifest (see `solami prepare --help`), or a `BadRow` for what it cannot read.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..manifests import BadRow, manifest_file, manifest_rows
from .bones_seed import is_bones_seed, read_bones_seed
from .embody_captures import is_embody3d, read_embody3d_captures
from .motion_folders import (
    is_beat2,
    is_humanml3d,
    is_inter_x,
    is_interhuman,
    is_motion_folder,
    read_beat2,
    read_humanml3d_folder,
    read_inter_x,
    read_interhuman_pairs,
    read_motion_folder,
)
from .speech_tables import is_any_instruct, is_common_voice, read_any_instruct, read_common_voice, read_ljspeech
from .susu_lines import is_susu, read_susu_lines
from .two_people import is_seamless, read_seamless

logger = logging.getLogger(__name__)


class Layout(NamedTuple):
    """A known source: how it is recognised and read."""

    kinds: tuple[str, ...]
    matches: Callable[[Path], bool]
    read: Callable[[Path, str], Iterator[dict | BadRow]]
    told_by: str
    licence: str = ""


def _manifest_of(*suffixes: str) -> Callable[[Path], bool]:
    def matches(source: Path) -> bool:
        if source.is_file() and (is_any_instruct(source) or is_common_voice(source)):
            return False
        path = manifest_file(source)
        return path is not None and path.suffix.lower() in suffixes

    return matches


def _holds(*names: str) -> Callable[[Path], bool]:
    return lambda source: all((source / name).exists() for name in names)


_ALL, _MOTION, _SPEECH = ("motion", "speech", "chat", "duplex"), ("motion",), ("speech",)
# In the order in which they are tried; a folder of motion files is what is left.
LAYOUTS = {
    "manifest": Layout(_ALL, _manifest_of(".jsonl"), manifest_rows, "manifest.jsonl"),
    "csv": Layout(_ALL, _manifest_of(".csv", ".tsv"), manifest_rows, "manifest.csv or manifest.tsv"),
    "anyinstruct": Layout(_SPEECH, is_any_instruct, read_any_instruct, "metadata.jsonl with lists of turns"),
    "commonvoice": Layout(_SPEECH, is_common_voice, read_common_voice, "train.tsv or validated.tsv beside clips/"),
    "embody3d": Layout(
        ("motion", "chat", "duplex"),
        is_embody3d,
        read_embody3d_captures,
        "dataset.json beside CAPTURE/PERSON/smplx_mesh_transl/",
        "Embody 3D is under Meta's XRCIA licence, which its download page shows: read it before use.",
    ),
    "susu": Layout(
        ("motion", "speech"),
        is_susu,
        read_susu_lines,
        "text_data/motion2text.json beside motion_data/ or wav_data/",
        "SuSuInterActs is CC BY-NC 4.0: no commercial use, neither of it nor of what is made of it.",
    ),
    "seed": Layout(
        _MOTION,
        is_bones_seed,
        read_bones_seed,
        "metadata/seed_metadata*.csv",
        "BONES-SEED has a licence of its own (bones.studio/info/seed-license): for academic use and small companies, "
        "the motions are not passed on, and models of them name Bones Studio.",
    ),
    "interx": Layout(
        _MOTION,
        is_inter_x,
        read_inter_x,
        "motions/*/P1.npz",
        "Inter-X has terms of its own, in its LICENSE.md: read them before use.",
    ),
    "interhuman": Layout(
        _MOTION,
        is_interhuman,
        read_interhuman_pairs,
        "motions_processed/person1/ and annots/",
        "InterHuman is CC BY-NC-SA 4.0, and must not be passed on: no commercial use.",
    ),
    "humanml3d": Layout(
        _MOTION,
        is_humanml3d,
        read_humanml3d_folder,
        "texts/ and new_joint_vecs/ or motions/",
        "HumanML3D's motions are of AMASS and HumanAct12, whose terms hold: research only, no commercial use.",
    ),
    "beat2": Layout(
        ("motion", "speech"),
        is_beat2,
        read_beat2,
        "smplxflame_30/",
        "BEAT2's card says Apache-2.0, its project CC BY-NC 4.0: ask before commercial use.",
    ),
    "seamless": Layout(
        _ALL,
        is_seamless,
        read_seamless,
        "V*_S*_I*_P*.npz beside .json and .wav",
        "Seamless Interaction is CC BY-NC 4.0: no commercial use, neither of it nor of what is made of it.",
    ),
    "ljspeech": Layout(_SPEECH, _holds("metadata.csv", "wavs"), read_ljspeech, "metadata.csv and wavs/"),
    "bvh": Layout(
        _MOTION, is_motion_folder, read_motion_folder, ".bvh files, or .npz files with captions beside them in .txt"
    ),
}


def find_layout(source: str | Path, kind: str, name: str = "auto") -> str:
    """The name of the layout of a source, a folder, or a file that lists what is beside it. `kind` is `motion`,
    `speech`, `chat` or `duplex`; `name` one of `LAYOUTS`, or `auto` to recognise it. Raises FileNotFoundError: there
    is no such source, or it has no layout that is known for this kind; ValueError: an unknown name, or a layout that
    does not hold this kind."""
    source = Path(source)
    known = {layout: entry for layout, entry in LAYOUTS.items() if kind in entry.kinds}
    if name not in ("auto", *LAYOUTS):
        raise ValueError(f"layout is {name!r}, expected auto or one of {', '.join(LAYOUTS)}")
    if name not in ("auto", *known):
        raise ValueError(f"layout {name} holds no {kind} rows; for {kind}: {', '.join(known)}")
    if not source.exists():
        raise FileNotFoundError(f"there is no source at {source}; expected a folder or a manifest file")
    found = next((layout for layout in known if name in ("auto", layout) and known[layout].matches(source)), None)
    if found is None:
        looked_for = known[name].told_by if name != "auto" else "; ".join(entry.told_by for entry in known.values())
        raise FileNotFoundError(f"{source} holds no {kind} data of a known layout; looked for: {looked_for}")
    return found


def read_rows(source: str | Path, kind: str, layout: str) -> Iterator[dict | BadRow]:
    """The rows of a source as a manifest's, one at a time; `layout` as `find_layout` gives it. What the licence of a
    known data set does not allow is logged."""
    if LAYOUTS[layout].licence:
        logger.warning("Licence: %s", LAYOUTS[layout].licence)
    return LAYOUTS[layout].read(Path(source), kind)


def root_of(source: str | Path) -> Path:
    """The folder that paths of rows are relative to."""
    source = Path(source)
    return source.parent if source.is_file() else source
