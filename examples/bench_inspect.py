"""`solami_bench` as a task of inspect-ai: a text model answers it, or an entry is replayed, under every control.

    inspect eval examples/bench_inspect.py -T benchmark=runs/bench --model hf/HuggingFaceTB/SmolLM2-135M-Instruct
    inspect eval examples/bench_inspect.py -T benchmark=runs/bench -T entry=runs/entry --model mockllm/model

The model reads the persona, the earlier rounds and the transcript; of the user's body it is told nothing. Answers are
judged as the benchmark judges words; sound and body are `solami evaluate bench`'s. Needs `pip install inspect-ai`.
"""

import importlib.util
import json
import sys
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, ModelOutput
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Target, accuracy, grouped, scorer, stderr
from inspect_ai.solver import Generate, TaskState, generate, solver

ROLES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


def code_of(benchmark: str, name: str):
    """A module of those that lie in the benchmark's folder."""
    if benchmark not in sys.path:
        sys.path.insert(0, benchmark)
    spec = importlib.util.spec_from_file_location(name, Path(benchmark) / f"{name}.py")
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


@task
def solami_bench(benchmark: str, entry: str | None = None) -> Task:
    """The turns that words answer: persona, seeing and memory, each as it is given and under its control.

    Args:
        benchmark: its folder.
        entry: a folder whose answers are replayed; without it the model answers.
    """
    opened = code_of(benchmark, "bench_entries").Benchmark(benchmark)
    runs = [run for run in opened.runs if run["kind"] in ("persona", "seeing", "memory")]
    samples = [
        Sample(messages(run), run["right"], id=f"{run['id']}-{run['condition']}", metadata=told(run)) for run in runs
    ]
    answers = None
    if entry:
        found = code_of(benchmark, "bench_entries").read_entry(entry, opened)
        answers = {f"{key[0]}-{key[1]}": made["text"] for key, made in found.runs.items()}
    return Task(MemoryDataset(samples), solver=replay(answers) if answers else generate(), scorer=names_it(benchmark))


def messages(run: dict) -> list:
    """The run as a chat."""
    turns = [{"role": "system", "text": run["system"]}, *run["history"], {"role": "user", "text": run["text"]}]
    return [ROLES[turn["role"]](content=turn["text"]) for turn in turns]


def told(run: dict) -> dict:
    """What the scorer and the tables need of a run."""
    return {
        "part": f"{run['kind']}_{run['condition']}",
        "run": json.dumps({key: run[key] for key in ("right", "wrong")}),
    }


@solver
def replay(answers: dict[str, str]):
    """Says what an entry says."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.output = ModelOutput.from_content("replay", answers[str(state.sample_id)])
        return state

    return solve


@scorer(metrics=[grouped(accuracy(), "part"), stderr()])
def names_it(benchmark: str):
    """The benchmark's own judgement of words."""
    judge = code_of(benchmark, "bench_score").names_it

    async def score(state: TaskState, target: Target) -> Score:
        run = json.loads(state.metadata["run"]) | {"made": {"text": state.output.completion}}
        return Score(value=CORRECT if judge(run) else INCORRECT, answer=state.output.completion)

    return score
