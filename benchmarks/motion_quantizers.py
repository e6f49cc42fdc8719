"""Ways to turn motion into codes, compared after equal training time on real mocap: error against rate.

    python benchmarks/motion_quantizers.py --corpus runs/demo/corpus/motion --minutes 1.5 --seeds 3

Every way has the tiny recipe's networks, loss, data and learning rate, and as many codes for the language model (7.5 a
second of body and hand each); only what stands between encoder and decoder differs, and whether convolutions look
ahead. The ways called `linear` have the recipe `motion_vq_levels_tiny.yaml` instead. Minutes are the processor's: a
busy machine takes longer and measures the same. The schedule ends when the time is up: a step is timed first. Ways
with several levels are measured from level 0 alone, with levels from a filler that is trained for `--filler_minutes`,
and with the true levels. Prints a table for each set of clips (means over `--seeds`) and, last, one JSON object.

Sets: `held_out`, the corpus' test split (authored gestures, and takes of DeepMimic recordings: other cuts, paces,
mirrorings and hands of recordings that also gave training takes); `mocap`, these takes alone; `cmu`, CMU captures as
BVH, of people that training never saw. With `--evaluator` (of `solami train-evaluator`) the clips with captions tell
how often the caption of a reconstruction finds it, R@1 of 32, and the same of the motions themselves.
"""

import argparse
import copy
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

import solami_hf
from solami_hf.command_line import parse_arguments
from solami_hf.demo.corpus.build_corpus import write_motion_corpus
from solami_hf.metrics import motion_fid, motion_retrieval
from solami_hf.metrics.motion_math import acceleration_error, foot_steps, position_error, procrustes_error
from solami_hf.modeling.solami.backbones import cpu_has_fast_bf16
from solami_hf.processing.datasets.manifests import read_manifest
from solami_hf.processing.motion.features import features_to_joints, motion_to_features
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.training.motion_vq.motion_vq_data import MotionClip, padded_batches, read_clips
from solami_hf.training.motion_vq.motion_vq_evaluation import reconstruct
from solami_hf.training.motion_vq.train_motion_vq import (
    MotionVQArguments,
    codebooks,
    codebooks_started,
    make_trainer,
)
from solami_hf.training.soundstorm.train_soundstorm import SoundStormArguments
from solami_hf.training.soundstorm.train_soundstorm import make_trainer as make_filler_trainer

RECIPE = Path(solami_hf.__file__).parent / "training" / "recipes" / "motion_vq_tiny.yaml"
CMU = Path("/usr/share/assimp/models/BVH")  # Debian's assimp-testmodels
CMU_FILES, CMU_SECONDS = "[0-9][0-9]_[0-9][0-9].bvh", 3.0
FILLER = RECIPE.with_name("motion_filler_tiny.yaml")
LEVELS = RECIPE.with_name("motion_vq_levels_tiny.yaml")
PAPER = {
    "warmup_share": 0.0, "kmeans_steps": 0, "random_restart": False, "codebook_decay": 0.99,
    "dead_code_threshold": 1.0,
}  # fmt: skip
OPTIONS = {
    "paper": PAPER,
    "ema": {},
    "fsq": {"quantizer": "fsq"},
    "causal": {"causal": True},
    "residual2": {"num_levels": 2},
    "residual4": {"num_levels": 4},
    "residual6": {"num_levels": 6},
    "shared4": {"num_levels": 4, "shared_levels": True},
    "fsq4": {"num_levels": 4, "quantizer": "fsq"},
    "causal4": {"num_levels": 4, "causal": True},
    "linear1": {"config": LEVELS, "num_levels": 1},
    "linear4": {"config": LEVELS, "num_levels": 4},
    "linear8": {"config": LEVELS},
    "linear8sixty": {"config": LEVELS, "fps": 60, "down_t": 3, "window": 192},
    "linear8causal": {"config": LEVELS, "causal": True, "candidates": 1},
}
COLUMNS = {
    "bits": "bits/s",
    "tokens": "LM tokens/s",
    "mpjpe": "MPJPE mm",
    "pa_mpjpe": "PA mm",
    "aligned": "aligned mm",
    "drift": "drift mm/s",
    "accel": "accel mm/f2",
    "feet": "feet mm/s",
    "fid": "FID",
    "found": "R@1",
    "real": "of real",
}
JOINTS = [*range(22), *range(25, 55)]  # jaw and eyes follow the head
TIMED_STEPS, NO_START = 12, {"warmup_share": 0.0, "kmeans_steps": 0}


class Clock(TrainerCallback):
    """Times the steps, and ends training after `seconds` of the processor: others may be at work beside it."""

    def __init__(self, seconds: float):
        self.seconds, self.ends = seconds, []

    def on_train_begin(self, args, state, control, **kwargs):
        """Starts the clock."""
        self.ends = [time.process_time()]

    def on_step_end(self, args, state, control, **kwargs):
        """Asks the trainer to stop once the time is up."""
        self.ends.append(time.process_time())
        control.should_training_stop |= self.elapsed() >= self.seconds

    def elapsed(self) -> float:
        """Seconds from the start of training to the end of its last step."""
        return self.ends[-1] - self.ends[0]

    def step_seconds(self) -> float:
        """Median of the later half of the steps."""
        steps = [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]
        return statistics.median(steps[len(steps) // 2 :])


def flags_of(recipe: Path, options: dict) -> list[str]:
    """A recipe with other values, as a command line; nothing is saved or evaluated on the way."""
    flags = {"config": recipe, "output_dir": tempfile.mkdtemp(), "save_strategy": "no", "eval_strategy": "no"}
    flags |= {"disable_tqdm": True, "logging_steps": 100000, "bf16": cpu_has_fast_bf16()} | options
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def run(kind: type, make: Callable, recipe: Path, options: dict, clock: Clock):
    """A trainer that has trained for `max_steps`, or for as long as the clock says."""
    trainer = make(*parse_arguments([kind, TrainingArguments], flags_of(recipe, options)))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    trainer.train()
    return trainer


def in_time(kind: type, make: Callable, recipe: Path, options: dict, seconds: float, timed: dict):
    """A trainer that has trained for `seconds`, with a schedule as long, and {steps, planned_steps, seconds}."""
    clock = Clock(float("inf"))
    run(kind, make, recipe, options | timed | {"max_steps": TIMED_STEPS}, clock)
    # k-means and a machine that slows down take their share
    steps = max(2, int(0.95 * seconds / clock.step_seconds()))
    clock = Clock(seconds)
    trainer = run(kind, make, recipe, options | {"max_steps": steps}, clock)
    done = {"steps": trainer.state.global_step, "planned_steps": steps, "seconds": round(clock.elapsed(), 1)}
    return trainer, done


def trained(options: dict, corpus: Path, seconds: float, seed: int):
    """A model trained for `seconds`, and what `in_time` tells."""
    options = options | {"data": corpus, "seed": seed}
    trainer, done = in_time(MotionVQArguments, make_trainer, RECIPE, options, seconds, NO_START)
    for quantizer in codebooks(trainer.model).values():
        quantizer.bypass = False
    if not codebooks_started(trainer.model):
        raise ValueError(f"{seconds} s: training ended before the codebooks were made, allow more `--minutes`.")
    return trainer.model.eval(), done


def trained_filler(model, folder: Path, corpus: Path, seconds: float, seed: int):
    """A filler of the model's levels, saved in `folder`, trained for `seconds`; and what `in_time` tells."""
    model.save_pretrained(folder)
    options = {"data": corpus, "motion_codec": folder, "seed": seed, "averaging_decay": 0.98}
    trainer, done = in_time(SoundStormArguments, make_filler_trainer, FILLER, options, seconds, {})
    with trainer.kept_weights():
        return copy.deepcopy(trainer.model).eval(), done


def measured(
    model, clips: list[MotionClip], ways: dict[str, dict], evaluator=None, said: dict | None = None
) -> dict[str, dict[str, float]]:
    """Name of each way (`levels` or `filler` of `reconstruct`) -> means over the clips' frames, see `COLUMNS`; bits
    and tokens are those of what is stored or sent. `said`: id -> (caption, label), for the evaluator."""
    made, real = {name: [] for name in ways}, []
    with torch.no_grad():
        for values, mask in padded_batches(clips, 32):
            codes = model.encode(values, mask)
            for name, how in ways.items():
                result, known, _ = reconstruct(model, values, mask, **how, codes=codes)
                lengths = known.sum(-1).tolist()
                made[name] += [features_to_joints(x[:n].float()).numpy() for x, n in zip(result, lengths, strict=True)]
            real += [features_to_joints(x[:n]).numpy() for x, n in zip(values, lengths, strict=True)]
    names = [clip.id for clip in sorted(clips, key=lambda clip: len(clip.features))]  # as `padded_batches`
    judge = None
    if evaluator is not None and set(names) <= set(said or ()):
        texts, labels = (list(part) for part in zip(*(said[name] for name in names), strict=True))
        judge = {"references": real, "texts": texts, "labels": labels, "evaluator": evaluator}
    return {name: figures(model.config, made[name], real, judge, **ways[name]) for name in ways}


def figures(config, made: list, real: list, judge: dict | None, levels: int | None = None, filler=None) -> dict:
    """The figures of `measured` for one way."""
    errors = []
    for result, target in zip(made, real, strict=True):
        ours, theirs = result[:, JOINTS], target[:, JOINTS]
        errors.append([
            len(ours), position_error(ours, theirs, None).mean(), procrustes_error(ours, theirs).mean(),
            position_error(ours, theirs).mean(),
            np.linalg.norm((result - target)[-1, 0]) * config.fps / len(ours),
            acceleration_error(ours, theirs).mean(),
            feet_error(result, target, config.fps),
        ])  # fmt: skip
    frames, *columns = np.array(errors).T
    values = [1000 * float((column * frames).sum() / frames.sum()) for column in columns]
    levels = 1 if filler is not None else levels or config.num_levels
    bits = levels * config.frame_rate * sum(math.log2(config.modality_sizes[part]) for part in config.parts)
    found = {"bits": bits, "tokens": len(config.parts) * config.frame_rate}
    found |= dict(zip(("mpjpe", "pa_mpjpe", "aligned", "drift", "accel", "feet"), values, strict=True))
    found["fid"] = motion_fid(predictions=made, references=real)["fid"] if len(made) > 1 else float("nan")
    judged = motion_retrieval(made, **judge) if judge else {}
    told = {"found": "r_precision_1", "real": "reference_r_precision_1"}
    return found | {name: judged.get(key, float("nan")) for name, key in told.items()}


def feet_error(result: np.ndarray, target: np.ndarray, fps: float) -> float:
    """Mean error in m/s of the horizontal velocity of the target's feet that are on the floor, 0 where none is."""
    error, _ = foot_steps(result - target, fps, 0.0)
    _, touch = foot_steps(target, fps, 0.0)
    return float((error * touch).sum() / max(1, touch.sum()))


def cmu_clips(folder: Path, fps: float) -> list[MotionClip]:
    """The captures of a folder, cut into clips of 3 s; what is left over at the end is dropped."""
    clips = []
    for path in sorted(folder.glob(CMU_FILES)):
        params = torch.from_numpy(read_motion(path, fps=fps).to_params())
        length = round(CMU_SECONDS * fps) + 1  # the last frame only ends the last velocity
        for start in range(0, len(params) - length + 1, length - 1):
            piece = params[start : start + length]
            clips.append(MotionClip(f"{path.stem}-{start}", motion_to_features(piece), piece[0]))
    return clips


@lru_cache(maxsize=2)
def held_out_sets(corpus: Path, cmu: Path, fps: float) -> dict[str, list[MotionClip]]:
    """Clips by set; an empty set is left out, with a line that says so."""
    source = {row["id"]: row["source"] for row in read_manifest(corpus)}
    test = read_clips(corpus, "test", fps)
    sets = {
        "mocap": [clip for clip in test if source[clip.id].startswith("deepmimic")],
        "cmu": cmu_clips(cmu, fps),
        "held_out": test,
    }
    for name in [name for name, clips in sets.items() if not clips]:
        print(f"No clips of {name}: skipped ({cmu} comes with Debian's assimp-testmodels).")
        del sets[name]
    return sets


def captions(corpus: Path) -> dict[str, tuple[str, str]]:
    """Id of each clip that has captions -> its first one, and its action."""
    rows = [row for row in read_manifest(corpus) if row.get("text")]
    return {row["id"]: (row["text"][0], str(row.get("action", row["text"][0]))) for row in rows}


def print_table(name: str, clips: int, results: dict[str, dict]) -> None:
    """The figures of one set of clips."""
    print(f"\n{name}: {clips} clips")
    print(f"{'':18}" + "".join(f"{title:>13}" for title in COLUMNS.values()))
    for option, result in results.items():
        print(f"{option:18}" + "".join(f"{result[name][column]:13.4g}" for column in COLUMNS))


def ways(option: str, args: argparse.Namespace, seed: int) -> dict[str, dict]:
    """Name -> set -> figures of one option: its levels, and, of several, level 0 alone and filled."""
    model, done = trained(OPTIONS[option], args.corpus, 60 * args.minutes, seed)
    print(f"{option}: {done['steps']} of {done['planned_steps']} steps in {done['seconds']} s", flush=True)
    found = {option: {}}
    if model.config.num_levels > 1:
        found = {f"{option} level 0": {"levels": 1}, f"{option} true": {}}
        if args.filler_minutes:
            folder = (args.output or Path(tempfile.mkdtemp())) / f"{option}-{seed}"
            filler, done = trained_filler(model, folder / "codec", args.corpus, 60 * args.filler_minutes, seed)
            filler.save_pretrained(folder / "filler")
            print(f"  filler: {done['steps']} of {done['planned_steps']} steps in {done['seconds']} s", flush=True)
            found[f"{option} filled"] = {"filler": filler}
    said = captions(args.corpus) if args.evaluator else {}
    judges = {"held_out": args.evaluator}  # other sets have no captions, or too few clips to choose from
    sets = held_out_sets(args.corpus, args.cmu, model.config.fps)
    parts = {part: measured(model, clips, found, judges.get(part), said) for part, clips in sets.items()}
    figures_of = {name: {part: row[name] for part, row in parts.items()} for name in found}
    print(json.dumps({"seed": seed} | figures_of), flush=True)
    return figures_of


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("runs/demo/corpus/motion"), help="made if it is missing")
    parser.add_argument("--cmu", type=Path, default=CMU, help="folder of CMU captures, 01_01.bvh and so on")
    parser.add_argument("--minutes", type=float, default=1.0, help="training time of each option")
    parser.add_argument("--filler_minutes", type=float, default=1.0, help="of each filler; 0 for none")
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--evaluator", help="folder of a text-motion evaluator, for R@1; none when unset")
    parser.add_argument("--output", type=Path, help="folder for codecs and fillers, by default a temporary one")
    args = parser.parse_args()
    if not (args.corpus / "manifest.jsonl").is_file():
        write_motion_corpus(args.corpus)
    sets, results = held_out_sets(args.corpus, args.cmu, 30.0), {}
    for option in args.options:
        runs = [ways(option, args, seed) for seed in range(args.seeds)]
        for name in runs[0]:
            results[name] = {
                part: {column: statistics.mean(run[name][part][column] for run in runs) for column in COLUMNS}
                for part in sets
            }
    for name, clips in sets.items():
        print_table(name, len(clips), results)
    print(json.dumps({"minutes": args.minutes, "filler_minutes": args.filler_minutes, "seeds": args.seeds} | results))


if __name__ == "__main__":
    sys.exit(main())
