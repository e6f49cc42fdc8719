"""What pretraining and LoRA are worth: stage 3 of finished demo runs, trained anew without stage 2, and by LoRA.

    solami demo --seed 0 --out runs/demo0      # and 1, 2
    python benchmarks/stages.py runs/demo0 runs/demo1 runs/demo2 --output runs/stages

Every way has the recipe, the data and the steps of the demo's own stage 3, LoRA a learning rate of its own. What was
trained and measured before is not done again. Prints the mean of the runs and their range, then JSON.
"""

import argparse
import json
import logging
import statistics
from pathlib import Path

from transformers import set_seed

from solami_hf.demo.command import RECIPES, SFT_STEPS, Demo, DemoArguments
from solami_hf.demo.demo_evaluation import FIGURES, measure_chat
from solami_hf.processing.files.text_files import write_json
from solami_hf.training.sft import main as sft

SHOWN = (
    "round1_right_both", "round1_right_line", "round1_right_action", "later_right_line", "watching_right_line",
    "listening_points", "voice_wer_expected",
)  # fmt: skip
OWN = "full, after pretraining"  # the demo's


def ways(demo: Demo, args: argparse.Namespace) -> dict[str, tuple[Path, list[str]]]:
    """Name -> the folder that it starts from, and options beside the recipe's."""
    rank = ["--lora_r", str(args.lora_r), "--lora_alpha", str(args.lora_r), "--lora_dropout", "0"]
    rates = ["--learning_rate", str(args.lora_rate), "--embedding_learning_rate", str(args.beside_rate)]
    lora = ["--use_peft", "true", "--lora_target_modules", "all-linear", *rank, *rates]
    return {
        "full, without pretraining": (demo.base, []),
        "LoRA, after pretraining": (demo.out / "pretrained", lora),
    }


def train(demo: Demo, start: Path, options: list[str], output: Path) -> None:
    """Stage 3 as the demo does it, from another start or in another way."""
    recipe = ["--config", str(RECIPES / "sft_tiny.yaml"), "--max_steps", str(demo.steps(SFT_STEPS))]
    folders = ["--model", str(start), "--data", str(demo.data), "--output_dir", str(output)]
    sft([*recipe, "--seed", str(demo.seed), *folders, *options])


def measure(demo: Demo, checkpoint: Path, figures: Path) -> dict[str, float]:
    """The demo's figures of a checkpoint's conversations, kept in the file `figures`."""
    if not figures.is_file():
        set_seed(demo.seed)
        found = measure_chat(checkpoint, demo.corpus, demo.data, figures.with_name("answers"), demo.seed)["figures"]
        write_json(figures, found)
    return json.loads(figures.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> None:
    """Trains and measures what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("demos", nargs="+", help="folders of finished demo runs")
    parser.add_argument("--output", default="runs/stages", help="folder to train and measure in")
    parser.add_argument("--lora-rate", type=float, default=5e-3, help="learning rate of LoRA")
    parser.add_argument("--beside-rate", type=float, default=1.5e-3, help="of embedding and head beside it")
    parser.add_argument("--lora-r", type=int, default=64, help="rank of LoRA, and alpha")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results: dict[str, list[dict]] = {OWN: []}
    for folder in map(Path, args.demos):
        settings = json.loads((folder / "stages.json").read_text(encoding="utf-8"))["settings"]
        demo = Demo(DemoArguments(out=str(folder), **settings))
        results[OWN].append(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["figures"])
        for name, (start, options) in ways(demo, args).items():
            place = Path(args.output) / folder.name / name.replace(", ", "-").replace(" ", "-")
            train(demo, start, options, place)
            results.setdefault(name, []).append(measure(demo, place, place / "figures.json"))
    for figure in SHOWN:
        print(f"{FIGURES[figure]['name']} ({FIGURES[figure]['unit'].strip()})")
        for name, runs in results.items():
            values = [run[figure] for run in runs if figure in run]
            if values:
                print(f"  {name:<28} {statistics.mean(values):6.1f}  ({min(values):.1f} to {max(values):.1f})")
    print(json.dumps({name: [{k: run.get(k) for k in SHOWN} for run in runs] for name, runs in results.items()}))


if __name__ == "__main__":
    main()
