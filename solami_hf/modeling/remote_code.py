"""Writes the code that a saved model or processor brings along, so that it loads with `trust_remote_code` elsewhere.

Modules in a Hub repository may import their neighbours and installed packages, nothing else. So all that a class
needs is written side by side, and `from ..solami.vocabulary import x` becomes `from .vocabulary import x`. Loaded from
such a folder, this module finds its neighbours flat and writes them as they are: a folder saved again is complete.
"""

import ast
import os
from pathlib import Path


def remote_modules(first: str | os.PathLike) -> dict[str, str]:
    """File name -> text of a module and of all that it imports relatively, in functions too, as one flat folder.
    Raises ValueError: an import that has no flat form, or two modules of one name."""
    found, waiting = {}, [Path(first).resolve()]
    while waiting:
        path = waiting.pop()
        known = found.get(path.name)
        if known is not None and known[0] != path:
            raise ValueError(f"{path} and {known[0]} cannot lie in one folder; rename one of them")
        if known is None:
            text, needed = _flat(path)
            found[path.name] = (path, text)
            waiting += needed
    return {name: text for name, (_, text) in sorted(found.items())}


def _flat(path: Path) -> tuple[str, list[Path]]:
    """The text of a module whose relative imports name neighbours, and the files that they mean."""
    text = path.read_text(encoding="utf-8")
    lines, needed = text.splitlines(keepends=True), []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        if node.module is None:
            raise ValueError(f"{path}, line {node.lineno}: import names from a module, `from . import` cannot be flat")
        written = f"{'.' * node.level}{node.module}"
        *packages, name = node.module.split(".")
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line.replace(f"from {written} ", f"from .{name} ", 1)
        needed.append(path.parents[node.level - 1].joinpath(*packages, f"{name}.py"))
    return "".join(lines), needed


def write_remote_code(folder: str | os.PathLike, first: str | os.PathLike) -> None:
    """Writes a module (`first`, its `__file__`), and those that it needs, into the folder of a saved model or
    processor; files that hold the same text already are left alone."""
    for name, text in remote_modules(first).items():
        path = Path(folder) / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
            try:
                temporary.write_text(text, encoding="utf-8")
                os.replace(temporary, path)
            finally:  # also on a full disk
                temporary.unlink(missing_ok=True)


class CarriesItsCode:
    """A base, before that of transformers, for models whose saved folders load by `trust_remote_code`; `code_file`
    is `__file__` of the module that defines the model."""

    code_file: str

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """As in transformers, with the code that loads the folder."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            write_remote_code(save_directory, self.code_file)
