"""The rooms of the package: few files in each, and one name once, since the code of saved folders is flat."""

from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "solami_hf"
REPEATED = {"__init__", "__main__", "app", "command"}
PUBLIC_PATHS = {"motion_features.py", "motion_files.py", "smplx_body.py", "manifest.py", "find.py", "convert.py"}
"""Thin modules that keep import paths of the first version."""


def modules() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if p.stem not in REPEATED and p.name not in PUBLIC_PATHS]


def test_no_two_modules_share_a_name():
    assert [name for name, count in Counter(path.stem for path in modules()).items() if count > 1] == []


def test_no_room_is_crowded():
    flat = Counter(path.parent for path in modules())
    assert {str(room.relative_to(PACKAGE)): count for room, count in flat.items() if count > 14} == {}


def test_public_paths_are_thin():
    for path in PACKAGE.rglob("*.py"):
        if path.name in PUBLIC_PATHS:
            assert len(path.read_text(encoding="utf-8").splitlines()) < 25, path
