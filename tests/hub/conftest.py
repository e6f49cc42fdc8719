"""A test Hub, processes that talk to it, and a Python that has never heard of solami_hf."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
# What a user of the remote code has: transformers, torch, and what reading sound and motion needs.
INSTALLED = ("transformers", "torch", "torchaudio", "soundfile", "scipy", "jinja2")


def load_hub_server():
    """The module `tests/hub_server.py`, which is in no package."""
    if "hub_server" not in sys.modules:
        spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).parents[1] / "hub_server.py")
        module = sys.modules["hub_server"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["hub_server"]


@pytest.fixture(scope="module")
def hub_of_module():
    """The Hub of a module's tests, for what outlives one of them."""
    with load_hub_server().hub_server() as server:
        yield server


@pytest.fixture
def hub(hub_of_module):
    """An empty Hub."""
    for state in (hub_of_module.repos, hub_of_module.objects, hub_of_module.requests, hub_of_module.faults):
        state.clear()
    return hub_of_module


@pytest.fixture
def fault(hub):
    """`fault("PUT /lfs", status=503, times=2)`: what goes wrong next."""
    return lambda *arguments, **named: hub.faults.append(load_hub_server().Fault(*arguments, **named))


@pytest.fixture
def in_process(hub, tmp_path):
    """`in_process(script, *words)`: runs Python code as a user of the Hub; what it wrote as its last line, as JSON."""

    def run(script, *words, python=sys.executable, token="x", fails=False, **more):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= hub.environment(tmp_path / "home", token) | {"CUDA_VISIBLE_DEVICES": "", **more}
        done = subprocess.run(
            [str(python), "-c", script, *map(str, words)],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, (done.stdout + done.stderr)[-4000:]
        if fails:
            return done.stderr
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None

    return run


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """Python of a fresh virtual environment with `INSTALLED` and what they require, and nothing else.

    They are those of this environment, by links, as tests install nothing. SOLAMI_BARE_PYTHON names another one:

        python -m venv bare && bare/bin/pip install transformers torch torchaudio soundfile scipy jinja2
    """
    if given := os.environ.get("SOLAMI_BARE_PYTHON"):
        return Path(given)
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in _with_requirements(INSTALLED):
        distribution = importlib.metadata.distribution(name)
        for first in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            source, link = Path(distribution.locate_file(first)), site / first
            if source.exists() and not link.exists():
                link.symlink_to(source)
    python = folder / "bin" / "python"
    there = subprocess.run([python, "-E", "-c", "import solami_hf"], capture_output=True, cwd=folder)
    assert there.returncode != 0
    return python


def _with_requirements(names) -> set[str]:
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            requires = importlib.metadata.distribution(name).requires or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        needed = [Requirement(text) for text in requires]
        waiting += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def checkpoint(tmp_path, tiny_model, tiny_processor):
    """A whole tiny checkpoint."""
    tiny_model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"
