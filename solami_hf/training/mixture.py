"""Stage 2's mixture: motion and speech tasks drawn 4 : 6, the motion share warmed up over the first half."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from ..processing.tasks import MOTION_TASKS, phrasings


def motion_share(progress: float, final: float = 0.4, warmup: float = 0.5) -> float:
    """Share of motion samples at `progress` in 0..1: linear from 0 to `final` over the first `warmup` of the run."""
    return final * min(1.0, progress / warmup) if warmup > 0 else final


def draw_pretraining(
    pairs, renderer, num_tokens: int, max_length: int, seed: int, final: float = 0.4, weights: dict | None = None
) -> Iterator[dict]:
    """Rendered samples until `num_tokens` are drawn; the order is the training order.

    Args:
        pairs: `(task, id, source, target)` tuples of all tasks (see `processing.tasks`).
        renderer: a `TokenRenderer`.
        num_tokens: tokens of the whole run; progress for the warm-up is counted in them.
        max_length: samples longer than this are not drawn.
        seed: the draw is a function of the seed and of the pairs' order.
        final: motion share after the warm-up; it is 1 or 0 when only one modality has data.
        weights: task -> how often it is drawn relative to the other tasks of its modality; 1 unless given.

    Yields:
        `{"input_ids", "labels", "task", "id"}`. Within a task every pair is drawn once before any is drawn again.

    Raises:
        ValueError: no pairs, or every drawn sample is longer than `max_length`.
    """
    rng = np.random.default_rng(seed)
    pools: dict[str, list] = defaultdict(list)
    for pair in pairs:
        pools[pair[0]].append(pair)
    motion = sorted(t for t in pools if t in MOTION_TASKS)
    speech = sorted(t for t in pools if t not in MOTION_TASKS)
    if not pools:
        raise ValueError("there is nothing to train on: no motion and no speech rows")
    chances = {group: _chances(group, weights or {}) for group in (tuple(motion), tuple(speech)) if group}
    queues: dict[str, list[int]] = {task: [] for task in pools}
    drawn = too_long = 0
    while drawn < num_tokens:
        share = motion_share(drawn / num_tokens, final) if motion and speech else float(bool(motion))
        tasks = tuple(motion if rng.random() < share else speech)
        task = tasks[rng.choice(len(tasks), p=chances[tasks])]
        if not queues[task]:
            queues[task] = rng.permutation(len(pools[task])).tolist()
        _, row_id, source, target = pools[task][queues[task].pop()]
        instruction = phrasings(task)[rng.integers(len(phrasings(task)))]
        sample = renderer.task(instruction, source, target)
        if len(sample["input_ids"]) > max_length:
            too_long += 1
            if too_long > 1000 and drawn == 0:
                raise ValueError(f"no sample fits into max_length={max_length}; raise it")
            continue
        drawn += len(sample["input_ids"])
        yield {**sample, "task": task, "id": row_id}


def _chances(tasks: tuple[str, ...], weights: dict[str, float]) -> np.ndarray:
    chances = np.array([weights.get(task, 1.0) for task in tasks], dtype=float)
    if (chances < 0).any() or chances.sum() == 0:
        raise ValueError(f"task weights must be at least 0 and not all 0, got {weights} for {', '.join(tasks)}")
    return chances / chances.sum()
