"""Distances between the motions that a model makes for one and the same prompt."""

import collections

import datasets
import numpy as np
from solami_hf.metrics.metric_base import JOINTS, DirectMetric
from solami_hf.metrics.motion_math import (
    FPS,
    check_corrected,
    check_counts,
    check_fps,
    checked_motions,
    counts,
    diversity,
    kinetic_set,
    standardize,
)

CITATION = """\
@inproceedings{guo2022generating,
  title = {Generating Diverse and Natural 3D Human Motions from Text},
  author = {Guo, Chuan and others},
  booktitle = {CVPR},
  year = {2022}
}
"""

INPUTS = """\
predictions: list of joint positions, each (T, 55, 3) in metres, y up, SMPL-X joint order; None where there is none.
references: a real motion for each, in the same form; their features' mean and deviation are the scale.
prompts: list of strings; predictions of the same prompt are compared with each other.
"""


class MotionMultimodality(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> random = numpy.random.default_rng(0)
    >>> walk, wave, jump, spin = [numpy.cumsum(random.normal(size=(20, 55, 3)), axis=0) * 0.01 for _ in range(4)]
    >>> real, prompts = [walk, wave, jump, spin], ["walk", "walk", "jump", "jump"]
    >>> metric = evaluate.load(folder_of("motion_multimodality"))
    >>> result = metric.compute(predictions=[walk, walk, jump, jump], references=real, prompts=prompts)
    >>> result["multimodality"], result["num_prompts"]
    (0.0, 2)
    >>> metric.compute(predictions=real, references=real, prompts=prompts)["multimodality"] > 10
    True
    """

    description = "Mean distance of kinetic features of motions for the same prompt. Higher is more varied."
    citation = CITATION
    inputs = INPUTS
    columns = {"predictions": JOINTS, "references": JOINTS, "prompts": datasets.Value("string")}

    def _compute(self, predictions, references, prompts, mode="corrected", fps=FPS, reference_fps=None):
        check_corrected(mode)
        fps = check_fps(fps, reference_fps)
        check_counts(predictions, references)
        for i, prompt in enumerate(prompts):
            if not isinstance(prompt, str):
                raise ValueError(f"`prompts[{i}]` is {type(prompt).__name__}, expected a string")
        real = kinetic_set(checked_motions(references, "references"), fps)
        if len(real) < 2:
            raise ValueError("got 1 reference, expected at least 2 for a deviation")
        made = standardize(kinetic_set(checked_motions(predictions, "predictions", missing=True), fps), real)
        groups = collections.defaultdict(list)
        present = (prompt for prompt, motion in zip(prompts, predictions, strict=True) if motion is not None)
        for prompt, features in zip(present, made, strict=True):
            groups[prompt].append(features)
        distances = [diversity(np.stack(group)) for group in groups.values() if len(group) > 1]
        if not distances:
            raise ValueError(
                f"none of the {len(set(prompts))} `prompts` has two motions, expected several predictions for a prompt"
            )
        return {"multimodality": float(np.mean(distances)), "num_prompts": len(distances), **counts(predictions, mode)}
