"""A metric's folder as it goes to the Hub, and loaded where the package is not."""

import json
import os
import subprocess
import sys

import pytest
from evaluate.loading import get_imports

from solami_hf.metrics import NAMES
from solami_hf.metrics import metric_export as export

ALONE = sorted(set(NAMES) - {"dialogue_judge"})  # which asks for the package
HEAVY = ("motion_caption", "speech_wer", "speaker_similarity")  # what they import takes a while

# Loads exported folders, with the package out of reach, and says what came out.
SCRIPT = """
import json, pathlib, sys
import numpy as np
import evaluate

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "solami_hf":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocked())
rng = np.random.default_rng(0)
motions = [np.cumsum(rng.normal(size=(12, 55, 3)), axis=0) * 0.01 for _ in range(4)]
motions = [motion - motion[:, [10]] for motion in motions]
clicks = np.zeros(16000, np.float32)
clicks.reshape(8, 2000)[1:, :300] = 0.3

class Evaluator:
    ground_truth = {"beats_shuffled": True}

    def embed_motions(self, some, fps=30.0):
        rows = [np.asarray(m).mean(axis=0).ravel() for m in some]
        return np.stack([row / np.linalg.norm(row) for row in rows])

    def embed_texts(self, texts):
        return self.embed_motions([motions[int(text)] for text in texts])

texts = ["a person walks", "a man jumps high", "she waves", "he kicks"]
results = {}
for folder in map(pathlib.Path, sys.argv[2:]):
    name = folder.name
    options = {}
    if name in ("speaker_similarity", "lip_sync"):  # what they take needs more than this script has
        results[name] = [evaluate.load(str(folder)).name]
        continue
    text = name in ("speech_wer", "motion_caption")
    given = texts if text else [True] * 4 if name == "answer_validity" else motions
    if name in ("motion_retrieval", "frechet_gesture"):
        options = {"evaluator": Evaluator()}
    other = [clicks] * 4 if name == "beat_alignment" else given
    if name == "response_timing":
        given = other = [[(1.0, 1.5), (4.2, 6.0)]] * 4
    more = {"prompts": ["a", "a", "b", "b"]} if name == "motion_multimodality" else {}
    more |= {"texts": list("0123")} if name == "motion_retrieval" else {}
    more |= {"partners": [[(0.0, 4.0)]] * 4} if name == "response_timing" else {}
    metric = evaluate.load(str(folder), cache_dir=sys.argv[1])
    results[name] = metric.compute(predictions=given, references=other, **more, **options)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    return {name: export.self_contained(name, root / name) for name in NAMES}


@pytest.mark.parametrize("name", ALONE)
def test_the_module_names_all_that_it_needs(folders, name):
    files = {path.name for path in folders[name].iterdir()}
    assert {"README.md", "app.py", "requirements.txt", f"{name}.py", "metric_app.py", "metric_base.py"} <= files
    fetched = {item for kind, item, *_ in get_imports(str(folders[name] / f"{name}.py")) if kind == "internal"}
    assert {f"{item}.py" for item in fetched} | {"app.py", "metric_app.py", f"{name}.py"} == {
        file for file in files if file.endswith(".py")
    }
    for file in folders[name].glob("*.py"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.lstrip().startswith(("from solami_hf", "import solami_hf"))], file
    requirements = (folders[name] / "requirements.txt").read_text(encoding="utf-8").split()
    assert {"evaluate", "datasets", "gradio"} <= set(requirements) and "resemblyzer" not in requirements
    assert ("sacrebleu" in requirements) == (name == "motion_caption")


def test_what_a_shared_module_needs_is_named_too():
    module = '"""Doc."""\n\nfrom .a import x\n'
    assert export._name_siblings(module, {"a"}) == module
    assert export._name_siblings(module, {"a", "b"}).endswith("\nfrom .b import __name__ as _b\n")
    needed = {}
    export._add_with_siblings("speaker", needed)
    assert set(needed) == {"speaker", "asr", "recognition"}


def results_without_the_package(folders, tmp_path):
    """What the script of this file prints, in a process whose caches are empty."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cache"), *map(str, folders)]
    fresh = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(command, capture_output=True, text=True, env=fresh, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_exported_folders_work_without_the_package(folders, tmp_path):
    quick = [name for name in ALONE if name not in HEAVY]
    results = results_without_the_package([folders[name] for name in quick], tmp_path)
    assert set(results) == set(quick)
    assert results["motion_fid"]["fid"] == pytest.approx(0, abs=1e-3)
    assert results["motion_mpjpe"]["mpjpe"] == 0 and results["answer_validity"]["valid"] == 1
    assert results["motion_retrieval"]["r_precision_1"] == 1 and results["response_timing"]["backchannel_f1"] == 1
    assert results["frechet_gesture"]["fgd"] == pytest.approx(0, abs=1e-6) and results["beat_alignment"]["num_beats"]
    assert results["foot_skating"]["foot_skating"] > 0 and results["motion_multimodality"]["multimodality"] > 1


@pytest.mark.slow
def test_exported_folders_of_speech_and_text_work_without_the_package(folders, tmp_path):
    results = results_without_the_package([folders[name] for name in HEAVY], tmp_path)
    assert results["speech_wer"]["wer"] == 0 and results["motion_caption"]["rouge_l"] == 1
    assert results["speaker_similarity"] == ["speaker_similarity"]


def test_a_module_that_needs_the_package_says_so(folders, caplog, tmp_path):
    with caplog.at_level("WARNING"):
        folder = export.self_contained("dialogue_judge", tmp_path / "dialogue_judge")
    assert "dialogue_judge is exported with the package as a requirement" in caplog.text
    assert "solami_hf" in (folder / "requirements.txt").read_text(encoding="utf-8").split()
    assert not (folder / "metric_base.py").exists()


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="expected its last part to be 'motion_fid'"):
        export.self_contained("motion_fid", tmp_path / "fid")
    with pytest.raises(ValueError, match="`name` is 'fid'"):
        export.self_contained("fid", tmp_path / "fid")
