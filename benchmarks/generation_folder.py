"""Answers to a folder of 64 dialogues, one by one and in batches, by the runner of `solami generate --task chat`.

    python benchmarks/generation_folder.py

Dialogues of one or two rounds of random codes, a Llama of 110M random weights in float32, greedy answers within the
grammar, histories as given. One by one an eighth of the dialogues is answered, which takes long enough; both ways
count answers a second, with everything that a run does but the decoding to motion and sound. The last line is one
JSON object.
"""

import argparse
import json
import logging
import random
import tempfile
import time

import timing

from solami_hf.generation.folder.folder_run import run_folder
from solami_hf.generation.folder.jobs import dialogue_jobs, in_batches
from solami_hf.generation.inputs import Dialogue
from solami_hf.generation.results_writer import ResultsWriter
from solami_hf.generation.settings import Decoding
from solami_hf.processing.datasets.results import key_of

DIALOGUES, BATCH, EVERY = 64, 32, 8
SECONDS = 1.2  # of each answer
SETTINGS = dict.fromkeys(("task", "checkpoint", "split", "conditions", "decoding", "items"), "benchmark") | {
    "seeds": [0]
}

logger = logging.getLogger(__name__)


def make_dialogues(count: int) -> list[Dialogue]:
    """Dialogues whose last turn is to be answered; each turn lasts one or two seconds."""
    draw = random.Random(0)

    def turn(role: str) -> dict:
        seconds = draw.choice((1.2, 2.0))
        motion, speech = int(7.5 * seconds), int(50 * seconds)
        codes = {name: [draw.randrange(512) for _ in range(motion)] for name in ("body", "hand")}
        codes |= {"trans": [draw.randrange(256)], "speech": [draw.randrange(1024) for _ in range(speech)]}
        return {"role": role, "text": "", "motion_text": None, **codes}

    dialogues = []
    for number in range(count):
        history = [turn(role) for _ in range(number % 2) for role in ("user", "assistant")]
        dialogues.append(Dialogue(f"{number:02d}", turns=[*history, turn("user")], files=[{}] * (len(history) + 1)))
    return dialogues


def answers_a_second(pipeline, dialogues: list[Dialogue], batch_size: int, longest: int) -> float:
    """The last turn of each dialogue answered by a folder run."""
    (stage,) = dialogue_jobs(pipeline, dialogues, [0], ["given"], longest)
    last = {job.columns["id"]: job for job in stage}  # rounds come in order
    batches = in_batches(iter([list(last.values())]), batch_size)
    with tempfile.TemporaryDirectory() as folder:
        keys = [[key_of(job.columns) for job in batch] for batch in batches]
        with ResultsWriter(folder, SETTINGS, keys) as writer:
            begin = time.perf_counter()
            counts = run_folder(pipeline, batches, writer, Decoding(longest, batching="padded"), media=False)
            seconds = time.perf_counter() - begin
    if counts["valid"] != len(dialogues):
        raise RuntimeError(f"{counts['valid']} of {len(dialogues)} answers are valid")
    return len(dialogues) / seconds


def folder_throughput(pipeline, longest: int = 600) -> float:
    """Answers a second in batches over those one by one; logs both."""
    dialogues = make_dialogues(DIALOGUES)
    answers_a_second(pipeline, dialogues[:1], 1, longest)  # warm
    alone = answers_a_second(pipeline, dialogues[: DIALOGUES // EVERY], 1, longest)  # of all lengths alike
    logger.info("folder of %d dialogues, one by one: %.3f answers a second", DIALOGUES, alone)
    together = answers_a_second(pipeline, dialogues, BATCH, longest)
    logger.info("in batches of %d: %.3f answers a second, %.2f times as many", BATCH, together, together / alone)
    return together / alone


def main(argv: list[str] | None = None) -> None:
    """Runs both ways."""
    from generation import make_pipeline

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each answer")
    args = parser.parse_args(argv)
    timing.show_results(logger)
    ratio = folder_throughput(make_pipeline(args.seconds))
    print(json.dumps({"folder_throughput": float(f"{ratio:.4g}")}))


if __name__ == "__main__":
    main()
