"""How fast FID's features come out of many motions: the original's way and ours, on the same inputs in one run.

    python benchmarks/metrics.py [--motions 10000] [--frames 200] [--sample 10] [--repeats 3]

Theirs goes clip by clip, joint by joint and frame by frame, and averages each window anew (the shared facts of the
original and AIST++'s definition of the features, written anew here). It is timed on a sample of clips, since all would
take very long; a second row gives it every frame of a joint at once, as numpy can. Ours goes through all motions, each
made when it is asked for, into streamed mean and covariance. The last line is one JSON object of ratios: theirs over
ours per clip, above 1 is faster; and how many MB more the metric holds for all motions than for a tenth of them.
"""

import argparse
import json
import logging
import sys
import time
import tracemalloc
from collections.abc import Callable

import evaluate
import numpy as np
from timing import log_header, log_row, show_results, timed

from solami_hf.metrics import folder_of
from solami_hf.metrics.motion_math import (
    FPS,
    KINETIC_JOINTS,
    Moments,
    checked_motions,
    kinetic_batches,
    kinetic_set,
)

POOL = 32

logger = logging.getLogger(__name__)


class Motions:
    """A sequence of smooth random motions (T, 55, 3) float32 of different strength; only a few are held in memory."""

    def __init__(self, number: int, frames: int, seed: int):
        rng = np.random.default_rng(seed)
        time_ = np.arange(frames)[:, None, None] / FPS
        self.number = number
        self.pool = [
            sum(
                rng.normal(size=(55, 3)) * 0.1 * np.sin(2 * np.pi * (rate * time_ + rng.random((55, 3))))
                for rate in (0.3, 0.7, 1.1)
            ).astype(np.float32)
            for _ in range(POOL)
        ]
        self.strength = rng.uniform(0.5, 1.5, size=number).astype(np.float32)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> np.ndarray:
        if index >= self.number:
            raise IndexError(index)
        return self.pool[index % POOL] * self.strength[index]


def features_frame_by_frame(motion: np.ndarray) -> np.ndarray:
    """Kinetic features (96,) of one clip (T, 55, 3) by loops over joints, frames and windows."""
    motion = motion.astype(np.float64)
    features = []
    for joint in KINETIC_JOINTS:
        velocity = [(motion[i + 1, joint] - motion[i, joint]) * FPS for i in range(len(motion) - 1)]
        acceleration = [(velocity[i + 1] - velocity[i]) * FPS for i in range(len(velocity) - 1)]
        horizontal = vertical = effort = 0.0
        for i in range(len(velocity)):
            mean_velocity = np.mean(velocity[max(i - 2, 0) : i + 3], axis=0)
            mean_acceleration = np.mean(acceleration[max(i - 2, 0) : i + 3], axis=0)
            horizontal += mean_velocity[0] ** 2 + mean_velocity[2] ** 2
            vertical += mean_velocity[1] ** 2
            effort += np.linalg.norm(mean_acceleration)
        features += [horizontal / len(velocity), vertical / len(velocity), effort / len(velocity)]
    return np.array(features)


def features_joint_by_joint(motion: np.ndarray) -> np.ndarray:
    """Likewise with all frames of a joint at once."""
    motion = motion.astype(np.float64)
    features = []
    for joint in KINETIC_JOINTS:
        velocity = np.diff(motion[:, joint], axis=0) * FPS
        mean_velocity = _window_means(velocity, len(velocity))
        mean_acceleration = _window_means(np.diff(velocity, axis=0) * FPS, len(velocity))
        energy = (mean_velocity**2).mean(axis=0)
        features += [energy[0] + energy[2], energy[1], np.linalg.norm(mean_acceleration, axis=1).mean()]
    return np.array(features)


def _window_means(values: np.ndarray, centres: int) -> np.ndarray:
    """Means of rows over two neighbours to either side, cut at the ends."""
    ones, kernel = np.ones(len(values)), np.ones(5)
    shares = np.convolve(ones, kernel)[2 : 2 + centres]
    columns = [np.convolve(column, kernel)[2 : 2 + centres] for column in values.T]
    return np.stack(columns, axis=1) / shares[:, None]


def gather(motions: Motions) -> Moments:
    """Checked motions to features to streamed moments: what `motion_fid` does with a side."""
    return Moments(kinetic_batches(checked_motions(motions, "motions")))


def allocated_mb(function: Callable[[], object]) -> float:
    """The most memory that a call holds at once, beside what there was before it."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def per_clip(function: Callable[[], object], clips: int, repeats: int) -> list[float]:
    """Seconds a clip of each of several runs."""
    return [seconds / clips for seconds in timed(function, repeats)[0]]


def main(argv: list[str] | None = None) -> None:
    """Runs everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--motions", type=int, default=10_000, help="motions that ours goes through")
    parser.add_argument("--frames", type=int, default=200, help="of each motion")
    parser.add_argument("--sample", type=int, default=10, help="motions that theirs goes through")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way")
    args = parser.parse_args(argv)
    show_results(logger)
    real, made = Motions(args.motions, args.frames, 0), Motions(args.motions, args.frames, 1)
    sample = [real[i] for i in range(min(args.sample, args.motions))]
    ours_sample, theirs_sample = (
        kinetic_set(checked_motions(sample, "motions")),
        [*map(features_frame_by_frame, sample)],
    )
    difference = float(np.abs(ours_sample - theirs_sample).max() / np.abs(theirs_sample).max())

    fid = evaluate.load(folder_of("motion_fid"))
    start = time.perf_counter()
    whole = fid.compute(predictions=made, references=real)["fid"]
    seconds = time.perf_counter() - start
    few = [Motions(max(2, args.motions // 10), args.frames, seed) for seed in (1, 0)]
    memory = [
        allocated_mb(lambda pair=pair: fid.compute(predictions=pair[0], references=pair[1]))
        for pair in (few, (made, real))
    ]
    held = 2 * args.motions * real[0].nbytes / 2**20
    logger.info(
        "FID of %d and %d motions of %d frames: %.4f in %.1f s with %.1f MB, %.1f MB for a tenth; all hold %.0f MB",
        *(args.motions, args.motions, args.frames, whole, seconds, memory[1], memory[0], held),
    )
    logger.info("features of a clip; theirs from %d clips, ours from %d", len(sample), args.motions)
    log_header()
    ours = per_clip(lambda: gather(real), args.motions, args.repeats)
    ratios = {}
    for name, function in (("", features_frame_by_frame), ("_vectorised", features_joint_by_joint)):
        theirs = per_clip(lambda function=function: [function(motion) for motion in sample], len(sample), args.repeats)
        ratios[f"fid_features{name}"] = log_row(
            f"features, {'joint by joint' if name else 'frame by frame'}", theirs, ours
        )
    ratios |= {
        "more_memory_mb_for_10x_motions": memory[1] - memory[0],
        "largest_relative_difference": difference,
    }
    sys.stdout.write(json.dumps({name: float(f"{value:.4g}") for name, value in ratios.items()}) + "\n")


if __name__ == "__main__":
    main()
