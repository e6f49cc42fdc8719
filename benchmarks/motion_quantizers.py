"""Ways to turn motion into codes, compared at equal code rate and equal training time on real mocap.

    python benchmarks/motion_quantizers.py --corpus runs/demo/corpus/motion --seconds 60

Every way has the tiny recipe's networks, loss, data and learning rate, and as many codes (7.5 a second of body and
hand each); only what stands between encoder and decoder differs, and whether convolutions look ahead. The schedule
ends when the time is up: a step is timed first. Prints a table for each set of clips and, last, one JSON object.

Sets: `mocap`, the corpus' held-out takes of DeepMimic recordings (other cuts, paces, mirrorings and hands of
recordings that also gave training takes); `cmu`, CMU captures as BVH, of people that training never saw; `gestures`,
the corpus' held-out authored clips; `real`, mocap and cmu together.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

import solami_hf
from solami_hf.command_line import parse_arguments
from solami_hf.demo.corpus.build_corpus import write_motion_corpus
from solami_hf.processing.datasets.manifests import read_manifest
from solami_hf.processing.motion.features import motion_to_features
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.training.motion_vq.motion_vq_data import MotionClip, read_clips
from solami_hf.training.motion_vq.motion_vq_evaluation import evaluate_motion_vq
from solami_hf.training.motion_vq.train_motion_vq import (
    MotionVQArguments,
    MotionVQTrainer,
    codebooks,
    codebooks_started,
    make_trainer,
)

RECIPE = Path(solami_hf.__file__).parent / "training" / "recipes" / "motion_vq_tiny.yaml"
CMU = Path("/usr/share/assimp/models/BVH")  # Debian's assimp-testmodels
CMU_FILES, CMU_SECONDS = "[0-9][0-9]_[0-9][0-9].bvh", 3.0
OPTIONS = {
    "paper": {
        "warmup_share": 0.0, "kmeans_steps": 0, "random_restart": False, "codebook_decay": 0.99,
        "dead_code_threshold": 1.0,
    },
    "ema": {},
    "fsq": {"quantizer": "fsq"},
    "causal": {"causal": True},
    "causal+fsq": {"causal": True, "quantizer": "fsq"},
}  # fmt: skip
COLUMNS = {
    "mpjpe": "MPJPE mm",
    "body_mpjpe": "body mm",
    "root_mpjpe": "aligned mm",
    "hand_mpjpe": "hand mm",
    "accel": "accel mm/f2",
    "body_perplexity": "body ppl",
    "hand_perplexity": "hand ppl",
    "body_codes_used": "body used",
    "hand_codes_used": "hand used",
}
TIMED_STEPS, NO_START = 12, {"warmup_share": 0.0, "kmeans_steps": 0}


class Clock(TrainerCallback):
    """Times the steps, and ends training after `seconds`."""

    def __init__(self, seconds: float):
        self.seconds, self.ends = seconds, []

    def on_train_begin(self, args, state, control, **kwargs):
        """Starts the clock."""
        self.ends = [time.monotonic()]

    def on_step_end(self, args, state, control, **kwargs):
        """Asks the trainer to stop once the time is up."""
        self.ends.append(time.monotonic())
        control.should_training_stop |= self.elapsed() >= self.seconds

    def elapsed(self) -> float:
        """Seconds from the start of training to the end of its last step."""
        return self.ends[-1] - self.ends[0]

    def step_seconds(self) -> float:
        """Median of the later half of the steps."""
        steps = [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]
        return statistics.median(steps[len(steps) // 2 :])


def arguments(options: dict, corpus: Path, steps: int, seed: int) -> tuple[MotionVQArguments, TrainingArguments]:
    """The tiny recipe with the fields of an option; nothing is saved or evaluated on the way."""
    flags = {"config": RECIPE, "data": corpus, "output_dir": tempfile.mkdtemp(), "max_steps": steps, "seed": seed}
    flags |= {"eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 100000} | options
    argv = [part for k, v in flags.items() for part in (f"--{k}", str(v))]
    return parse_arguments([MotionVQArguments, TrainingArguments], argv)


def run(options: dict, corpus: Path, steps: int, seed: int, clock: Clock) -> MotionVQTrainer:
    """A trainer that has trained for `steps`, or for as long as the clock says."""
    trainer = make_trainer(*arguments(options, corpus, steps, seed))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    trainer.train()
    return trainer


def trained(options: dict, corpus: Path, seconds: float, seed: int):
    """A model trained for `seconds`, and {steps, step_ms, seconds}."""
    clock = Clock(float("inf"))
    run(options | NO_START, corpus, TIMED_STEPS, seed, clock)
    # k-means and a machine that slows down take their share
    steps = max(2, int(0.95 * seconds / clock.step_seconds()))
    clock = Clock(seconds)
    trainer = run(options, corpus, steps, seed, clock)
    for quantizer in codebooks(trainer.model).values():
        quantizer.bypass = False
    if not codebooks_started(trainer.model):
        raise ValueError(f"`--seconds` is {seconds}: training ended before the codebooks were made, allow more.")
    done = {"steps": trainer.state.global_step, "planned_steps": steps, "seconds": round(clock.elapsed(), 1)}
    return trainer.model.eval(), done


def cmu_clips(folder: Path) -> list[MotionClip]:
    """The captures of a folder, cut into clips of 3 s; what is left over at the end is dropped."""
    clips = []
    for path in sorted(folder.glob(CMU_FILES)):
        params = torch.from_numpy(read_motion(path, fps=30.0).to_params())
        length = round(CMU_SECONDS * 30) + 1  # the last frame only ends the last velocity
        for start in range(0, len(params) - length + 1, length - 1):
            piece = params[start : start + length]
            clips.append(MotionClip(f"{path.stem}-{start}", motion_to_features(piece), piece[0]))
    return clips


def held_out_sets(corpus: Path, cmu: Path) -> dict[str, list[MotionClip]]:
    """Clips by set; an empty set is left out, with a line that says so."""
    source = {row["id"]: row["source"] for row in read_manifest(corpus)}
    test = read_clips(corpus, "test")
    sets = {
        "mocap": [clip for clip in test if source[clip.id].startswith("deepmimic")],
        "cmu": cmu_clips(cmu),
        "gestures": [clip for clip in test if source[clip.id] == "authored"],
    }
    sets["real"] = sets["mocap"] + sets["cmu"]
    for name in [name for name, clips in sets.items() if not clips]:
        print(f"No clips of {name}: skipped ({cmu} comes with Debian's assimp-testmodels).")
        del sets[name]
    return sets


def print_table(name: str, clips: int, results: dict[str, dict]) -> None:
    """The figures of one set of clips."""
    print(f"\n{name}: {clips} clips")
    print(f"{'':12}" + "".join(f"{title:>13}" for title in COLUMNS.values()) + f"{'steps':>8}")
    for option, result in results.items():
        row = "".join(f"{result[name][column]:13.3g}" for column in COLUMNS)
        print(f"{option:12}{row}{result['steps']:8d}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("runs/demo/corpus/motion"), help="made if it is missing")
    parser.add_argument("--cmu", type=Path, default=CMU, help="folder of CMU captures, 01_01.bvh and so on")
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of each option")
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not (args.corpus / "manifest.jsonl").is_file():
        write_motion_corpus(args.corpus)
    sets, results = held_out_sets(args.corpus, args.cmu), {}
    for option in args.options:
        model, done = trained(OPTIONS[option], args.corpus, args.seconds, args.seed)
        results[option] = done | {name: evaluate_motion_vq(model, clips) for name, clips in sets.items()}
        print(f"{option}: {done['steps']} of {done['planned_steps']} steps in {done['seconds']} s", flush=True)
    for name, clips in sets.items():
        print_table(name, len(clips), results)
    summary = {"seconds": args.seconds, "seed": args.seed, "options": results}
    if "paper" in results:
        for figure in ("mpjpe", "root_mpjpe"):
            summary[f"{figure}_of_paper_over_option"] = {
                option: {name: round(results["paper"][name][figure] / result[name][figure], 3) for name in sets}
                for option, result in results.items()
            }
    print(json.dumps(summary))


if __name__ == "__main__":
    sys.exit(main())
