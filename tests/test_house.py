"""The rooms of the package: few files in each, and one name once, since remote code is flattened."""

from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "solami_hf"
REPEATED = {"__init__", "__main__", "app", "command"}


def test_no_two_modules_share_a_name():
    names = Counter(path.stem for path in PACKAGE.rglob("*.py") if path.stem not in REPEATED)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_room_is_crowded():
    flat = Counter(path.parent for path in PACKAGE.rglob("*.py") if path.stem not in REPEATED)
    assert {str(room.relative_to(PACKAGE)): count for room, count in flat.items() if count > 14} == {}
