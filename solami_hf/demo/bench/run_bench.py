"""`solami bench run --benchmark FOLDER --output ENTRY`: a checkpoint's answers as an entry to `solami_bench`.

A run that was stopped goes on; each answer is drawn from its own seed, so pieces give the same as one run.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ...generation.pipeline import SolamiPipeline
from ...metrics.evaluation.bench.bench_entries import RATE, RESULTS, Benchmark, read_entry
from ...processing.audio.waveforms import read_audio, write_audio
from ...processing.files.output_folder import writing_to
from ...processing.files.text_files import write_json, write_text
from ...processing.motion.motion_io import write_motion
from ...processing.motion.smplx_motion import SmplxMotion

logger = logging.getLogger(__name__)
DONE = "runs.jsonl"
Answer = tuple[str, np.ndarray | None, SmplxMotion | None]
"""What is said, its sound (samples,) at 16 kHz, and the body's motion."""


def write_entry(
    output: str | Path, benchmark: str | Path, system: dict, answer: Callable[[dict], Answer], seed: int = 0
) -> Path:
    """Asks a system all runs of a benchmark, writes its entry and checks it; what is there already is kept. `system`
    has `name` and `description` of what answers; `answer` gives the answer to a row of `runs.jsonl`, where `audio`,
    `motion` and those of `history` are paths; `seed` goes into the header. Raises ValueError: a damaged benchmark, a
    folder with another system's runs, or answers that are no entry."""
    output, opened = Path(output), Benchmark(benchmark)
    with writing_to(output):
        header = {"benchmark": opened.header(), "system": system, "seed": seed}
        done = _done(output / DONE, header)
        with open(output / DONE, "a", encoding="utf-8") as file:
            for run in tqdm(opened.runs, desc=system["name"], unit="run", disable=None):
                if (run["id"], run["condition"]) not in done:
                    row = _written(output, run, answer(_with_paths(run, opened.folder)))
                    done[run["id"], run["condition"]] = row
                    file.write(json.dumps(row) + "\n")
                    file.flush()
        write_json(output / RESULTS, header | {"runs": list(done.values())})
    read_entry(output, opened)
    return output


def _done(path: Path, header: dict) -> dict[tuple[str, str], dict]:
    """Runs of an earlier start by id and condition; the first line is the header that they belong to."""
    text = path.read_text("utf-8") if path.is_file() else ""
    if not text.endswith("\n"):  # a killed run has left half a line
        text = text[: text.rfind("\n") + 1]
        write_text(path, text)
    lines = text.splitlines()
    if not lines:
        write_text(path, json.dumps(header) + "\n")
    elif json.loads(lines[0]) != header:
        raise ValueError(f"{path.parent} has runs of {lines[0]}; name another output, or remove it")
    rows = [json.loads(line) for line in lines[1:]]
    return {(row["id"], row["condition"]): row for row in rows}


def _with_paths(run: dict, folder: Path) -> dict:
    history = [turn | {"audio": str(folder / turn["audio"]) if turn["audio"] else ""} for turn in run["history"]]
    return run | {"audio": str(folder / run["audio"]), "motion": str(folder / run["motion"]), "history": history}


def _written(output: Path, run: dict, answer: Answer) -> dict:
    text, audio, motion = answer
    row, name = {key: run[key] for key in ("id", "condition")}, f"{run['id']}-{run['condition']}"
    if audio is not None:
        write_audio(output / f"{name}.wav", audio, RATE)
    if motion is not None:
        write_motion(output / f"{name}.npz", motion)
    files = {"audio": f"{name}.wav" if audio is not None else None, "motion": motion and f"{name}.npz"}
    return row | {"text": text, **files}


def pipeline_answers(pipeline: SolamiPipeline, seed: int = 0) -> Callable[[dict], Answer]:
    """What a pipeline answers to a row: it is given sound and body, and of earlier rounds the words. An answer is
    decoded where its sound or body is judged; a malformed one says nothing."""

    def answer(run: dict) -> Answer:
        torch.manual_seed(seed * 1_000_003 + sum(map(ord, run["id"] + run["condition"])))
        media = [{"type": kind, kind: run[kind]} for kind in ("audio", "motion")]
        messages = [{"role": "system", "content": run["system"]}]
        messages += [{"role": turn["role"], "content": turn["text"]} for turn in run["history"]]
        decode = run["condition"] == "given" or run["kind"] == "acting"
        (reply,) = pipeline.respond([[*messages, {"role": "user", "content": media}]], decode=decode)
        audio = reply.audio
        if audio is not None:
            audio = read_audio(audio, RATE, source_rate=reply.sampling_rate)
        return (reply.text if reply.valid else ""), audio, reply.motion

    return answer
