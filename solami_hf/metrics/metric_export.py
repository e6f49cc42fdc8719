"""A metric as one folder that works without this package, for the Hub.

`evaluate.load("org/motion_fid")` downloads the module and those siblings that it names in relative imports, nothing
else. The folders here share their maths through `from solami_hf.metrics.motion_math import ...`; the export copies
what is shared, and what that takes of the rooms below, beside the module and makes these imports relative.
"""

import ast
import logging
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from ..metrics import folder_of
from ..processing.files.text_files import write_text

logger = logging.getLogger(__name__)

SHARED = Path(__file__).parent
_SHARED_IMPORT = re.compile(r"^from solami_hf\.metrics\.(\w+) import ", re.MULTILINE)
_BELOW = ("processing.audio", "modeling.motion_evaluator")
_BELOW_IMPORT = re.compile(rf"^from \.\.(?:{'|'.join(map(re.escape, _BELOW))})\.(\w+) import ", re.MULTILINE)
# A Space cannot install it (see speaker.py), and does without it.
_NOT_REQUIRED = {"resemblyzer"}


def self_contained(name: str, folder: str | Path) -> Path:
    """Writes one of `solami_hf.metrics.NAMES` as a folder that `evaluate.load` takes from the Hub without `solami_hf`
    being installed.

    A module that uses more of the package than shared modules of `solami_hf.metrics` stays as it is, with a warning:
    `evaluate.load` then asks its users to install `solami_hf`. The last part of `folder`, made when it is not there,
    has to be `name`: `evaluate.load` looks for `<folder>/<its last part>.py`, and on the Hub for `<repository>/<its
    name>.py`. Returns `folder`, holding `README.md`, `app.py`, `requirements.txt`, `<name>.py` and the shared modules
    that it needs. Raises ValueError: there is no such metric, or `folder` is named otherwise.
    """
    source, folder = Path(folder_of(name)), Path(folder)
    if folder.name != name:
        raise ValueError(
            f"`folder` is {folder}, expected its last part to be {name!r}, which is what `evaluate.load` looks for"
        )
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(source.iterdir()) if path.is_file()}
    try:
        texts |= _flat(f"{name}.py", texts)
    except _NeedsThePackage as reason:
        logger.warning("%s is exported with the package as a requirement: %s", name, reason)
    texts["requirements.txt"] = "".join(f"{line}\n" for line in _requirements(texts))
    for file, text in texts.items():
        write_text(folder / file, text)
    return folder


class _NeedsThePackage(Exception):
    """The module cannot be had without the package."""


def _flat(module: str, texts: dict[str, str]) -> dict[str, str]:
    """The module and the app with flat imports, and the shared modules that they need, by file name."""
    shared: dict[str, str] = {}
    for first in _SHARED_IMPORT.findall(texts[module] + texts["app.py"]):
        _add_with_siblings(first, shared)
    own = {name for name in shared if name in _SHARED_IMPORT.findall(texts["app.py"])}
    flat = {f"{name}.py": text for name, text in shared.items()}
    flat[module] = _name_siblings(_SHARED_IMPORT.sub(r"from .\1 import ", texts[module]), set(shared) - own)
    flat["app.py"] = _SHARED_IMPORT.sub(r"from \1 import ", texts["app.py"])  # a script: it is in no package
    for file, text in flat.items():
        _check_imports(file, text)
    return flat


def _add_with_siblings(name: str, shared: dict[str, str]) -> None:
    """Adds the text of a shared module and of all those that it imports, by name."""
    if name in shared:
        return
    folders = [SHARED, *(SHARED.parent.joinpath(*room.split(".")) for room in _BELOW)]
    path = next(path for folder in folders if (path := folder / f"{name}.py").is_file())
    shared[name] = _BELOW_IMPORT.sub(r"from .\1 import ", path.read_text(encoding="utf-8"))
    for level, module, _ in _imports(shared[name]):
        if level == 1 and module:
            _add_with_siblings(module, shared)


def _imports(text: str) -> list[tuple[int, str, int]]:
    """Level (0 without leading dots), module and line of all imports, also within functions."""
    nodes = list(ast.walk(ast.parse(text)))
    found = [(0, alias.name, node.lineno) for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return found + [(n.level, n.module or "", n.lineno) for n in nodes if isinstance(n, ast.ImportFrom)]


def _name_siblings(module: str, siblings: set[str]) -> str:
    """Adds an import of each sibling that the text does not import itself, for `evaluate` to download it."""
    missing = sorted(name for name in siblings if f"\nfrom .{name} import " not in module)
    # Without a comment: `evaluate` takes what stands behind a `#` for the place to load it from
    lines = [f"from .{name} import __name__ as _{name}\n" for name in missing]
    note = ["\n# Needed by what is imported above; only what a metric names is downloaded.\n"] if missing else []
    return "".join([module, *note, *lines])


def _check_imports(file: str, text: str) -> None:
    """Raises _NeedsThePackage when the text still imports from the package, or reads a file beside itself."""
    for level, module, line in _imports(text):
        if level > 1 or (level == 1 and not module) or module.split(".")[0] == "solami_hf":
            raise _NeedsThePackage(f"{file}, line {line} imports {'.' * level}{module}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and node.id == "__file__" and file != "app.py":
            raise _NeedsThePackage(f"{file}, line {node.lineno} reads a file, which would not be downloaded")


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Which distributions bring a module; it takes half a second to ask."""
    return packages_distributions()


def _requirements(texts: dict[str, str]) -> list[str]:
    """Distributions that the files import, also within functions, for the Space that shows the metric."""
    own = {file.removesuffix(".py") for file in texts}
    modules = [text for file, text in texts.items() if file.endswith(".py")]
    imported = {module.split(".")[0] for text in modules for level, module, _ in _imports(text) if level == 0}
    known = _distributions()
    wanted = {"gradio", *imported} - own - sys.stdlib_module_names - _NOT_REQUIRED
    return sorted({known.get(module, [module])[0] for module in wanted}, key=str.lower)
