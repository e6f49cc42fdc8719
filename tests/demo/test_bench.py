"""The benchmark that others can enter: its folder, what it refuses, and that its controls control."""

import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml

from solami_hf import cli
from solami_hf.demo.bench.build_bench import build_benchmark
from solami_hf.demo.bench.run_bench import pipeline_answers, write_entry
from solami_hf.metrics.evaluation.bench import bench_report, bench_score
from solami_hf.metrics.evaluation.bench.bench_entries import CONTROL_OF, Benchmark, digest_of, read_entry
from solami_hf.metrics.metric_export import self_contained
from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.motion_io import read_motion

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULES = ("beat_alignment", "gesture_diversity")
# The scorer of the benchmark's folder, with the package out of reach.
STRANGER = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "solami_hf":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocked())
sys.argv, script = sys.argv[1:], sys.argv[1]
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
"""


def babble(voice, text, seed):
    """In place of a voice: syllables of noise, as long as the text asks for."""
    rng = np.random.default_rng([seed, len(text), sum(map(ord, text + voice))])
    loud = np.repeat(rng.uniform(0, 0.3, len(text) // 2 + 1) > 0.12, 1600)
    return (0.2 * rng.normal(size=len(loud)) * loud).clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    (root / "recordings").mkdir()
    for name in ("0880", "0890", "0930"):
        soundfile.write(root / "recordings" / f"book-{name}.wav", babble("book", name * 4, 0), 16000)
    digest = build_benchmark(root / "bench", babble, root / "recordings")
    return root, digest


@pytest.fixture(scope="module")
def benchmark(built):
    return built[0] / "bench"


@pytest.fixture(scope="module")
def oracle(benchmark, tmp_path_factory):
    """What is hoped for in answer to what is given; without history it has nothing to say."""
    given = {run["id"]: run for run in Benchmark(benchmark).runs if run["condition"] == "given"}

    def answer(run):
        hoped = given[run["swapped"] or run["id"]]
        text = "I do not know." if run["condition"] == "no_history" else hoped["references"][0]
        return text, None, read_motion(benchmark / hoped["reference_motion"])

    system = {"name": "oracle", "description": "the references"}
    return write_entry(tmp_path_factory.mktemp("oracle") / "entry", benchmark, system, answer)


@pytest.fixture(scope="module")
def parrot(benchmark, tmp_path_factory):
    """The entry of `examples/bench_entry.py`, which imports nothing of ours, checked by what lies in the folder."""
    folder = tmp_path_factory.mktemp("parrot") / "entry"
    for arguments in (
        [EXAMPLES / "bench_entry.py", benchmark, folder],
        [benchmark / "bench_entries.py", folder],
    ):
        done = subprocess.run([sys.executable, "-c", STRANGER, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "96 runs of parrot: complete\n"
    return folder


def load(name):
    """Modules that need no model."""
    if name not in MODULES:
        raise FileNotFoundError(name)
    return importlib.import_module("evaluate").load(bench_report.folder_of(name))


def embed(texts):
    """In place of a sentence encoder: which words a text has."""
    rows = np.zeros((len(texts), 512), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.casefold().split():
            row[sum(map(ord, word)) % 512] = 1
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def test_the_folder_is_a_dataset_and_the_same_again(built, benchmark, tmp_path):
    from datasets import Audio, load_dataset

    root, digest = built
    assert build_benchmark(tmp_path / "again", babble, root / "recordings") == digest == Benchmark(benchmark).sha256
    runs = Benchmark(benchmark).runs
    assert len(runs) == 96 and len({(run["id"], run["condition"]) for run in runs}) == 96
    for kind, control in CONTROL_OF.items():
        for split, condition in (("test", "given"), ("controls", control)):
            rows = load_dataset(str(benchmark), kind, split=split, cache_dir=str(tmp_path / "cache"))
            rows = rows.cast_column("audio", Audio(decode=False))
            assert {row["condition"] for row in rows} == {condition} and {row["kind"] for row in rows} == {kind}
            assert all(row["audio"]["bytes"][:4] == b"fLaC" for row in rows)
    told = yaml.safe_load((benchmark / "eval.yaml").read_text("utf-8"))
    for one in told["tasks"]:
        assert {one["field_spec"]["input"], one["field_spec"]["target"]} <= rows.features.keys()
    assert [one["config"] for one in told["tasks"]] == ["persona", "seeing", "memory"]


def test_controls_change_one_thing(benchmark):
    runs = {(run["id"], run["condition"]): run for run in Benchmark(benchmark).runs}
    changed = {"other_audio": {"audio", "text"}, "other_body": {"motion"}, "no_history": {"history"}}
    for (name, condition), run in runs.items():
        if condition != "given":
            given = runs[name, "given"]
            differ = {key for key in run if run[key] != given[key]} - {"condition", "swapped", "prompt"}
            assert differ == changed[condition], (name, condition)


def test_joints_are_the_packages(benchmark):
    path = benchmark / "motion" / "user-bow.npz"
    assert np.allclose(Benchmark(benchmark).joints(path), joint_positions(read_motion(path)), atol=1e-5)


def test_no_action_is_named_by_two(benchmark):
    for run in Benchmark(benchmark).runs:
        for text in run["references"] if run["kind"] == "seeing" else ():
            assert bench_score.names_it(run | {"made": {"text": text}}), text


@pytest.mark.parametrize(
    "text, right",
    [("You WAVED, I think.", True), ("You wave.", True), ("You wave and bow.", False), ("Brainwave!", False)],
)
def test_names(text, right):
    assert bench_score.names_it({"right": ["wave"], "wrong": ["bow"], "made": {"text": text}}) is right


def test_a_changed_benchmark_is_refused(benchmark, tmp_path):
    copy = shutil.copytree(benchmark, tmp_path / "bench")
    (copy / "runs.jsonl").write_text((copy / "runs.jsonl").read_text().replace("Selma", "Thelma"))
    with pytest.raises(ValueError, match="runs.jsonl was changed"):
        Benchmark(copy)
    (copy / "runs.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="runs.jsonl is missing"):
        Benchmark(copy)
    with pytest.raises(FileNotFoundError, match="is no benchmark"):
        Benchmark(tmp_path)


def _drop(told, folder):
    told["runs"].pop()


def _twice(told, folder):
    told["runs"].append(told["runs"][0])


def _unknown(told, folder):
    told["runs"].append(told["runs"][0] | {"id": "seeing-99"})


def _other_benchmark(told, folder):
    told["benchmark"]["sha256"] = "0" * 64


def _nameless(told, folder):
    told["system"] = {"name": "x"}


def _no_text(told, folder):
    told["runs"][0]["text"] = None


def _outside(told, folder):
    soundfile.write(folder.parent / "out.wav", np.zeros(16000), 16000)
    told["runs"][0]["audio"] = "../out.wav"


def _slow_sound(told, folder):
    soundfile.write(folder / told["runs"][0]["audio"], np.zeros(8000), 8000)


def _gone(told, folder):
    (folder / told["runs"][0]["motion"]).unlink()


def _objects(told, folder):
    np.savez(folder / told["runs"][0]["motion"], poses=np.array([{}] * 20), trans=np.zeros((20, 3)))


def _misshapen(told, folder):
    motion = {"poses": np.zeros((20, 66)), "trans": np.zeros((20, 3)), "mocap_frame_rate": 30.0}
    np.savez(folder / told["runs"][0]["motion"], **motion)


def _not_finite(told, folder):
    motion = {"poses": np.full((20, 165), np.nan), "trans": np.zeros((20, 3)), "mocap_frame_rate": 30.0}
    np.savez(folder / told["runs"][0]["motion"], **motion)


def _pickle(told, folder):
    (folder / "cache.pkl").write_bytes(b"x")


@pytest.mark.parametrize(
    "damage, told",
    [
        (_drop, r"talk-07 \(other_audio\) is missing"),
        (_twice, r"persona-00 \(given\) is there 2 times"),
        (_unknown, r"seeing-99 \(given\) is no run of the benchmark"),
        (_other_benchmark, "`benchmark` is .*expected"),
        (_nameless, "`system` lacks `name` or `description`"),
        (_no_text, r"persona-00 \(given\): `text` is None"),
        (_outside, "expected the name of a file in the entry's folder"),
        (_slow_sound, "1 channel.* at 8000 Hz, expected 1 at 16000"),
        (_gone, "there is no such file"),
        (_objects, "no npz file of plain numbers"),
        (_misshapen, r"`poses` has shape \(20, 66\)"),
        (_not_finite, "NaN, infinite numbers"),
        (_pickle, "cache.pkl may hold pickled code"),
    ],
)
def test_what_is_no_entry(parrot, benchmark, tmp_path, damage, told):
    folder = shutil.copytree(parrot, tmp_path / "entry")
    results = json.loads((folder / "results.json").read_text())
    damage(results, folder)
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=told):
        read_entry(folder, Benchmark(benchmark))


def test_all_faults_are_told_at_once(parrot, benchmark, tmp_path, capsys):
    folder = shutil.copytree(parrot, tmp_path / "entry")
    results = json.loads((folder / "results.json").read_text())
    results["runs"] = results["runs"][20:]
    (folder / "results.json").write_text(json.dumps(results))
    assert cli.main(["bench", "check", str(folder), "--benchmark", str(benchmark)]) == 2
    told = capsys.readouterr().err
    assert "persona-00 (given) is missing" in told and "and 8 more" in told
    (folder / "results.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_entry(folder, Benchmark(benchmark))


def test_controls_control(oracle, parrot, benchmark):
    found = bench_score.score(oracle, benchmark, load, embed)
    again = bench_score.score(oracle, benchmark, load, embed)
    assert found == again
    figures = {name: figure["mean"] for name, figure in found["figures"].items()}
    for kind in ("persona", "seeing", "memory", "acting"):
        assert (figures[kind], figures[f"{kind}_points"]) == (1, 1), kind
    assert figures["talk"] == pytest.approx(1) and figures["talk_points"] > 0.4
    assert figures["similarity"] == pytest.approx(1) and figures["similarity_shuffled"] < 0.5
    assert (figures["spoken"], figures["moved"]) == (0, 1) and "voice" in found["left_out"]
    bound = found["figures"]["similarity_shuffled"]
    assert bound["low"] < bound["mean"] < bound["high"] and bound["count"] == 48
    same = bench_score.score(parrot, benchmark, load)["figures"]
    assert same["acting_points"]["mean"] == 0 and same["acting"]["mean"] <= 1 / 8 and "talk" not in same


def test_a_strangers_figures_are_ours(parrot, benchmark, tmp_path):
    for name in MODULES:
        self_contained(name, tmp_path / "metrics" / name)
    command = [sys.executable, "-c", STRANGER, str(benchmark / "bench_score.py"), str(parrot)]
    fresh = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [*command, "--metrics", str(tmp_path / "metrics")], capture_output=True, text=True, env=fresh, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    theirs, ours = json.loads(done.stdout), bench_score.score(parrot, benchmark, load)
    assert theirs["figures"] == ours["figures"] and len(ours["figures"]) > 15
    assert {"beat_alignment", "gesture_diversity", "acting"} <= ours["figures"].keys()


def test_the_command_writes_a_table_and_a_card(oracle, parrot, benchmark, tmp_path, monkeypatch):
    from huggingface_hub import ModelCard, parse_eval_result_entries

    monkeypatch.setattr(bench_report, "sentence_encoder", lambda name: embed)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n\n# Model\n")
    words = ["--benchmark", str(benchmark), "--output", str(tmp_path / "out"), "--text_encoder", "any"]
    card = ["--card", str(tmp_path / "model"), "--results_dataset", "org/solami_bench"]
    assert cli.main(["evaluate", "bench", str(oracle), *words, *card]) == 0
    assert "| sees ↑ | 100 (100 to 100) |" in (tmp_path / "out" / "bench.md").read_text("utf-8")
    (found,) = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert found["benchmark"] == Benchmark(benchmark).header()
    results = {
        one.metric_type: one.metric_value for one in ModelCard.load(tmp_path / "model/README.md").data.eval_results
    }
    assert results.keys() == CONTROL_OF.keys() and results["seeing"] == 1
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / "model/.eval_results/solami.yaml").read_text()))
    assert {(one.dataset_id, one.task_id) for one in entries} == {("org/solami_bench", kind) for kind in CONTROL_OF}
    assert cli.main(["evaluate", "bench", str(oracle)]) == 2  # which benchmark?


def test_a_run_goes_on_and_a_pipelines_answers_are_an_entry(benchmark, tmp_path):
    asked = []

    def respond(conversations, decode):
        asked.append(conversations[0])
        if len(asked) == 6:
            raise KeyboardInterrupt
        sound = np.full(8000, 0.1, np.float32)
        motion = read_motion(benchmark / "motion" / "user-nod.npz")
        made = {"audio": sound, "motion": motion} if decode else {"audio": None, "motion": None}
        return [SimpleNamespace(text="Yes.", valid=len(asked) != 3, sampling_rate=16000, **made)]

    answer = pipeline_answers(SimpleNamespace(respond=respond))
    system = {"name": "yes", "description": "says yes"}
    with pytest.raises(KeyboardInterrupt):
        write_entry(tmp_path / "entry", benchmark, system, answer)
    with open(tmp_path / "entry" / "runs.jsonl", "a", encoding="utf-8") as file:
        file.write('{"id": "pers')  # killed while it wrote
    write_entry(tmp_path / "entry", benchmark, system, answer)
    assert len(asked) == 97
    roles = [[message["role"] for message in messages] for messages in asked]
    assert sorted(map(len, roles))[-1] == 4 and roles[0] == ["system", "user"]
    entry = read_entry(tmp_path / "entry", Benchmark(benchmark))
    assert [made["text"] for made in entry.runs.values()].count("") == 1
    assert entry.runs["acting-00", "other_audio"]["motion"] and not entry.runs["memory-00", "no_history"]["motion"]
    with pytest.raises(ValueError, match="name another output"):
        write_entry(tmp_path / "entry", benchmark, system | {"name": "no"}, answer)


def test_inspect_replays_an_entry(oracle, benchmark, tmp_path):
    inspect_ai = pytest.importorskip("inspect_ai")
    task = runpy.run_path(str(EXAMPLES / "bench_inspect.py"))["solami_bench"]
    options = {"log_dir": str(tmp_path), "display": "none", "model": "mockllm/model"}
    (log,) = inspect_ai.eval(task(benchmark=str(benchmark), entry=str(oracle)), **options)
    assert log.status == "success", log.error
    found = {name: one.value for score in log.results.scores for name, one in score.metrics.items()}
    assert found["seeing_given"] == found["persona_given"] == found["memory_given"] == 1
    assert found["seeing_other_body"] == found["persona_other_audio"] == found["memory_no_history"] == 0
    # A model that says one name. Its usage is told: inspect-ai would count it by a vocabulary of the network.
    output = inspect_ai.model.ModelOutput.from_content("mockllm", "My name is Selma.")
    output.usage = inspect_ai.model.ModelUsage()
    options["model"] = inspect_ai.model.get_model("mockllm/model", custom_outputs=lambda *_: output)
    (log,) = inspect_ai.eval(task(benchmark=str(benchmark)), limit=4, **options)
    assert log.status == "success", log.error
    (score,) = (score for score in log.results.scores if "persona_given" in score.metrics)
    assert score.metrics["persona_given"].value == 1 / 4


def test_the_digest_is_of_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert digest_of(tmp_path / "a").startswith("e3b0c442")
