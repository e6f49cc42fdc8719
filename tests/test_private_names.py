"""Nothing here reads, imports or replaces private names of other packages, beside those listed with a reason."""

import ast
import importlib
import pkgutil
import sys
from functools import cache
from inspect import isclass
from pathlib import Path

import pytest

import solami_hf

ROOT = Path(__file__).parents[1]
SCRIPTS = ("benchmarks", "docs", "examples", "research", "tests")
OF_MODELS = "transformers' documented way for authors of models; it is read from classes by this name alone"
OF_METRICS = "the methods that `evaluate` documents for authors of metrics"
ALLOWED = {
    "_init_weights": OF_MODELS,
    "_no_split_modules": OF_MODELS,
    "_supports_sdpa": OF_MODELS,
    "_can_record_outputs": OF_MODELS,
    "_keep_in_fp32_modules_strict": OF_MODELS,
    "_input_embed_layer": OF_MODELS,
    "_attn_implementation": "as in transformers' guide to attention interfaces: it has a setter, and no other getter",
    "_commit_hash": "the only place where transformers keeps the revision that a model was loaded from",
    "_apply": "torch has no other place where a module learns that it is cast, as Float32Buffers has to",
    "_info": OF_METRICS,
    "_compute": OF_METRICS,
    "_infer_feature_from_batch": "evaluate has no other way to let a prediction be missing",
    "_infer_feature_from_example": "as _infer_feature_from_batch",
    "_enforce_nested_string_type": "as _infer_feature_from_batch",
}
ALLOWED_IN_TESTS = ALLOWED | {
    "_subclasses": "fake tensors, by which a machine without a GPU is tested for one",
    "_exit": "a forked process has to end without what Python does at its end",
    "_reset_state": "accelerate's own tests use it: a process cannot change its accelerator otherwise",
    "_n_gpu": "Trainer's number of GPUs, told to be another one",
    "_option_string_actions": "argparse has no list of its options",
}
# Python gives these to classes itself.
OF_PYTHON = {"_abc_impl", "_is_protocol", "_backward_cls"}


def is_private(name: str) -> bool:
    return name.startswith("_") and name.strip("_") != "" and not name.startswith("__")


@cache
def names_in(folder: str) -> dict[Path, tuple[set[str], dict[str, int]]]:
    """What is `defined` and what is `used` in each file; the trees themselves would be kept as millions of objects."""
    paths = [path for path in (ROOT / folder).rglob("*.py") if "fixtures" not in path.parts]
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)
    return {path: (defined(tree), used(tree)) for path, tree in trees}


def given_in(folder: str) -> set[str]:
    """Names that the files of a folder give to something."""
    return set().union(*(names for names, _ in names_in(folder).values()))


def defined(tree: ast.Module) -> set[str]:
    """Names that a module gives to something: functions, classes, variables, attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def used(tree: ast.Module) -> dict[str, int]:
    """Private names that a module reads of something else, with a line of each."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.setdefault(node.attr, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            for name in [*(node.module or "").split("."), *(alias.name for alias in node.names)]:
                found.setdefault(name, node.lineno)
        elif isinstance(node, ast.Import):
            for name in (part for alias in node.names for part in alias.name.split(".")):
                found.setdefault(name, node.lineno)
        elif isinstance(node, ast.Call):
            names = [word.arg or "" for word in node.keywords]
            if getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
                names += [str(argument.value) for argument in node.args[1:2] if isinstance(argument, ast.Constant)]
            for name in names:
                found.setdefault(name, node.lineno)
    return {name: line for name, line in found.items() if is_private(name)}


@pytest.fixture(scope="module")
def inherited() -> dict[str, str]:
    """Private names that classes of other packages have, whose children ours are -> one of these classes."""
    for module in pkgutil.walk_packages(solami_hf.__path__, "solami_hf."):
        if not module.name.endswith(("__main__", ".app", "vllm_grammar")):
            importlib.import_module(module.name)
    ours = {thing for name in list(sys.modules) if name.startswith("solami_hf") for thing in classes_of(name)}
    bases = {base for each in ours for base in each.__mro__ if not base.__module__.startswith("solami_hf")}
    return {name: base.__qualname__ for base in bases for name in vars(base) if is_private(name)}


def classes_of(module: str) -> list[type]:
    values = vars(sys.modules[module]).values()
    return [value for value in values if isclass(value) and value.__module__.startswith("solami_hf")]


@cache
def everywhere() -> tuple[set[str], set[str]]:
    """Names that the package and all beside it give to something, and private names that they read."""
    files = [names for each in ("solami_hf", *SCRIPTS) for names in names_in(each).values()]
    return set().union(*(given for given, _ in files)), set().union(*(read for _, read in files))


def foreign(files: dict, own: set[str], inherited: dict[str, str], allowed) -> list[str]:
    found = []
    for path, (_, read) in files.items():
        names = {name: line for name, line in read.items() if name not in own or name in inherited}
        found += [f"{path.relative_to(ROOT)}:{line}: {name}" for name, line in names.items() if name not in allowed]
    return sorted(found)


def test_the_package_uses_no_private_names_of_others(inherited):
    assert foreign(names_in("solami_hf"), given_in("solami_hf"), inherited, ALLOWED) == []


def test_the_package_replaces_no_private_names_of_others(inherited):
    ours = {each for name in list(sys.modules) if name.startswith("solami_hf") for each in classes_of(name)}
    # transformers keeps answers of its own on a class once it has been asked
    own = given_in("solami_hf")
    replaced = {
        f"{each.__qualname__}.{name} of {inherited[name]}"
        for each in ours
        for name in vars(each).keys() & inherited.keys() & own - OF_PYTHON - ALLOWED.keys()
    }
    assert replaced == set()


@pytest.mark.parametrize("folder", SCRIPTS)
def test_scripts_and_tests_use_none_either(folder):
    own, _ = everywhere()
    assert foreign(names_in(folder), own, {}, ALLOWED_IN_TESTS) == []


def test_every_exception_is_used():
    assert ALLOWED_IN_TESTS.keys() - set().union(*everywhere()) == set()


@pytest.mark.parametrize(
    "code",
    [
        "from torch._inductor import config",
        "import torch._dynamo",
        "cached_file(path, _raise_exceptions_for_missing_entries=False)",
        "getattr(config, '_name_or_path')",
        "class A(Trainer):\n    def save(self):\n        super()._save_rng_state(1)",
    ],
)
def test_what_counts_as_used(code):
    tree = ast.parse(code)
    assert foreign({ROOT / "x.py": (defined(tree), used(tree))}, defined(tree), {}, ALLOWED)
