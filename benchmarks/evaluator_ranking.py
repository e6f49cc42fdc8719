"""Two text-motion evaluators, trained from two seeds, and the order in which each puts five systems.

    python -m benchmarks.evaluator_ranking --data MOTIONS --evaluators runs/evaluator_0 runs/evaluator_1

The systems answer the held-out captions of MOTIONS (a folder with manifest.jsonl): the real motion through the
packaged motion codec and back, the real motion with 5 cm of noise, the training motion whose caption is nearest (by
the first evaluator's sentence encoder alone), half of the real motions under others' captions, and all of them.
Figures are those of `motion_retrieval` and `frechet_gesture`; the last line is JSON with Kendall's tau of each.
"""

import argparse
import json
import sys
from itertools import combinations

import numpy as np
from scipy.stats import kendalltau

from solami_hf.character.packaged_character import packaged_motion_codec
from solami_hf.metrics import frechet_gesture, motion_retrieval
from solami_hf.metrics.evaluator_features import load_evaluator
from solami_hf.modeling.motion_evaluator.evaluator_scores import shuffled_order
from solami_hf.training.train_evaluator import Pairs

FIGURES = ("r_precision_1", "mm_dist", "fid", "fgd")


def systems(data: str, split: str, evaluator) -> tuple[dict, Pairs]:
    """Answers (N, of (T, 55, 3)) by name, and the held-out pairs."""
    held_out, train = Pairs.read(data, split, "action", packaged_motion_codec()), Pairs.read(data, "train", "action")
    real, rng = [joints.numpy() for joints in held_out.joints], np.random.default_rng(0)
    asked = sentences(evaluator, [captions[0] for captions in held_out.captions])
    known = sentences(evaluator, [captions[0] for captions in train.captions])
    order = shuffled_order(held_out.labels)
    half = [real[order[i]] if i % 2 else motion for i, motion in enumerate(real)]
    return {
        "round trip": [joints.numpy() for joints in held_out.round_trip],
        "noise of 5 cm": [motion + rng.normal(size=motion.shape) * 0.05 for motion in real],
        "nearest caption": [train.joints[i].numpy() for i in (asked @ known.T).argmax(axis=1)],
        "half shuffled": half,
        "shuffled": [real[i] for i in order],
    }, held_out


def sentences(evaluator, texts: list[str]) -> np.ndarray:
    """What the sentence encoder alone makes of texts, (N, its width)."""
    import torch

    rows = []
    with torch.no_grad():
        for text in texts:
            tokens = evaluator.tokenizer([text], return_tensors="pt")
            rows.append(evaluator.model.encode_sentence(tokens["input_ids"], tokens["attention_mask"])[0].numpy())
    return np.stack(rows)


def main(argv: list[str] | None = None) -> None:
    """Prints the table of each evaluator and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--evaluators", nargs="+", required=True)
    parser.add_argument("--split", default="test")
    args = parser.parse_args(argv)
    answers, held_out = systems(args.data, args.split, load_evaluator(args.evaluators[0]))
    real, texts = [joints.numpy() for joints in held_out.joints], [captions[0] for captions in held_out.captions]
    tables = []
    for name in args.evaluators:
        table = {}
        for system, made in answers.items():
            found = motion_retrieval(made, real, texts, evaluator=name, labels=held_out.labels)
            fgd = frechet_gesture(made, real, evaluator=name)
            table[system] = found | {"fgd": fgd["fgd"]}
            figures = " ".join(f"{key} {table[system][key]:.3f}" for key in FIGURES)
            sys.stdout.write(f"{name} {system}: {figures} ({found['low']:.3f} to {found['high']:.3f})\n")
        truth = ("reference_r_precision_1", "shuffled_r_precision_1", "reference_mm_dist")
        sys.stdout.write(f"{name}: " + " ".join(f"{key} {found[key]:.3f}" for key in truth))
        sys.stdout.write(f" reference_halves {fgd['reference_halves']:.3f}\n")
        tables.append(table)
    taus = {}
    for figure in FIGURES:
        ranked = [[table[system][figure] for system in answers] for table in tables]
        taus[figure] = (
            min(float(kendalltau(a, b).statistic) for a, b in combinations(ranked, 2)) if len(ranked) > 1 else 1.0
        )
    sys.stdout.write(json.dumps({"kendall_tau": taus, "systems": len(answers), "motions": len(real)}) + "\n")


if __name__ == "__main__":
    main()
