"""Stage 2's mixture: motion and speech tasks drawn 4 : 6, the motion share warmed up over the first half.

`Mixture` draws by number of the sample, at random access or as a stream, on any number of ranks. `draw_pretraining`
draws one after the other until so many tokens are there, for a run that renders its samples beforehand.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import IterableDataset, Subset, get_worker_info

from ..processing.rendering import TASKS
from ..processing.tasks import MOTION_TASKS, phrasings
from .shuffled_rows import RowOrder

logger = logging.getLogger(__name__)
BLOCK = 4096  # samples whose sources are drawn together


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


def _limits(names: tuple[str, ...], weights: dict[str, float]) -> np.ndarray:
    """Where the share of each source ends on a scale from 0 to exactly 1."""
    ends = np.cumsum(_chances(names, weights))
    return ends / ends[-1]


class PairRenderer:
    """Renders the pairs that a `Mixture` draws, each time with a phrasing of its task drawn anew.

    Args:
        renderer: a `TokenRenderer`.
    """

    def __init__(self, renderer):
        self.renderer = renderer

    def __call__(self, pair: tuple, rng: np.random.Generator) -> dict:
        """`{"input_ids", "labels", "task", "id"}` of `(task, id, source, target)`."""
        task, row_id, source, target = pair
        instruction = phrasings(task)[rng.integers(len(phrasings(task)))]
        return {**self.renderer.task(instruction, source, target), "task": task, "id": row_id}


def fitting_pairs(pairs, renderer, max_length: int) -> tuple[dict[str, list], int]:
    """Task -> pairs that fit into `max_length` with the longest phrasing of their task, and how many do not.

    Args:
        pairs: `(task, id, source, target)` tuples.
        renderer: a `TokenRenderer`.
        max_length: tokens.
    """
    longest = {task: max(phrasings(task), key=lambda p: len(renderer.text(p))) for task in TASKS}
    kept, too_long = defaultdict(list), 0
    for pair in pairs:
        task, _, source, target = pair
        if len(renderer.task(longest[task], source, target)["input_ids"]) <= max_length:
            kept[task].append(pair)
        else:
            too_long += 1
    logger.info("%d pairs, %d left out as longer than %d tokens", sum(map(len, kept.values())), too_long, max_length)
    return dict(kept), too_long


class Mixture(torch.utils.data.Dataset):
    """`num_samples` samples of a run in training order, each a function of the seed and of its number alone.

    So the same samples come whether they are read one after the other, at random, by one rank or by many, and from
    the middle on after a crash; there are no epochs of the whole. Within a source every row is drawn once before any
    is drawn again.

    Args:
        motion, speech: name -> rows of a data set; a sequence, or `ParquetRows` for what is read from disk.
        num_samples: samples of the whole run, all ranks together; progress for the warm-up is counted in them.
        seed: what everything is drawn from.
        final: motion share after the warm-up; it is 1 or 0 when only one modality has data.
        warmup: part of the run over which the motion share grows from 0.
        weights: name -> how often a source is drawn relative to the others of its modality; 1 unless given.
        transform: `(row, generator) -> sample` applied to what is drawn, e.g. `PairRenderer`.

    Raises:
        ValueError: nothing to draw from, a source without rows, a name in both modalities, an unknown name in
            `weights`.
    """

    def __init__(
        self,
        motion: Mapping[str, Sequence],
        speech: Mapping[str, Sequence],
        num_samples: int,
        seed: int,
        final: float = 0.4,
        warmup: float = 0.5,
        weights: dict[str, float] | None = None,
        transform: Callable | None = None,
    ):
        self.sources, self.transform = {**dict(sorted(motion.items())), **dict(sorted(speech.items()))}, transform
        self._check(motion, speech, num_samples, weights or {})
        self.num_samples, self.seed, self.final, self.warmup = num_samples, seed, final, warmup
        self.names, self.num_motion = list(self.sources), len(motion)
        parts = [tuple(self.names[: self.num_motion]), tuple(self.names[self.num_motion :])]
        self._limits = [_limits(part, weights or {}) if part else None for part in parts]
        self._orders = []
        for number, source in enumerate(self.sources.values()):
            sizes = getattr(source, "group_sizes", [len(source)])
            self._orders.append(RowOrder(sizes, [seed, 1, number], getattr(source, "window", 1)))
        self._starts = [np.zeros(len(self.names), dtype=np.int64)]  # draws of each source before each block
        self._block: tuple[int, np.ndarray | None] = (-1, None)

    def _check(self, motion, speech, num_samples: int, weights: dict) -> None:
        if not self.sources:
            raise ValueError("there is nothing to train on: no motion and no speech rows")
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        if both := set(motion) & set(speech):
            raise ValueError(f"{sorted(both)} are given as motion and as speech; name them apart")
        if empty := [name for name, source in self.sources.items() if not len(source)]:
            raise ValueError(f"{', '.join(empty)} have no rows; leave them out or prepare them again")
        if unknown := set(weights) - set(self.sources):
            raise ValueError(f"weights for unknown sources {sorted(unknown)}; there are {', '.join(self.sources)}")

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, number: int) -> dict:
        """The sample with that number."""
        name, row = self.locate(number)
        sample = self.sources[name][row]
        if self.transform is None:
            return sample
        return self.transform(sample, np.random.default_rng([self.seed, 2, number]))

    def locate(self, number: int) -> tuple[str, int]:
        """`(source, row)` of a sample, without reading it."""
        number = int(number)
        if not 0 <= number < self.num_samples:
            raise IndexError(f"sample {number} of {self.num_samples}")
        block, within = divmod(number, BLOCK)
        while len(self._starts) <= block:
            drawn = np.bincount(self._choices(len(self._starts) - 1), minlength=len(self.names))
            self._starts.append(self._starts[-1] + drawn)
        if self._block[0] != block:
            self._block = (block, self._choices(block))
        choices = self._block[1]
        source = int(choices[within])
        place = int(self._starts[block][source]) + int(np.count_nonzero(choices[:within] == source))
        return self.names[source], self._orders[source][place]

    def _choices(self, block: int) -> np.ndarray:
        """The source of each sample of a block, as numbers."""
        first = block * BLOCK
        numbers = np.arange(first, min(first + BLOCK, self.num_samples))
        draws = np.random.default_rng([self.seed, 0, block]).random((BLOCK, 2))[: len(numbers)]
        motion, speech = self._limits
        if motion is None or speech is None:
            return np.searchsorted(speech if motion is None else motion, draws[:, 1], side="right")
        shares = np.array([motion_share(n / self.num_samples, self.final, self.warmup) for n in numbers])
        of_speech = self.num_motion + np.searchsorted(speech, draws[:, 1], side="right")
        return np.where(draws[:, 0] < shares, np.searchsorted(motion, draws[:, 1], side="right"), of_speech)

    def shard(self, rank: int, world_size: int) -> Subset:
        """The samples of one of several ranks, map-style: `rank`, `rank + world_size`, ...; disjoint, together all."""
        _check_rank(rank, world_size)
        return Subset(self, range(rank, self.num_samples, world_size))

    def stream(self, rank: int = 0, world_size: int = 1) -> MixtureStream:
        """The same samples as a stream that can be saved and continued."""
        return MixtureStream(self, rank, world_size)

    def identity(self) -> dict:
        """What the draw depends on; equal for equal draws."""
        settings = {"seed": self.seed, "num_samples": self.num_samples, "final": self.final, "warmup": self.warmup}
        limits = [None if part is None else [round(float(x), 9) for x in part] for part in self._limits]
        rows = {name: len(source) for name, source in self.sources.items()}
        return {**settings, "rows": rows, "limits": limits}


class MixtureStream(IterableDataset):
    """A `Mixture` as a stream for one rank; what it has yielded is its state.

    Workers of a `DataLoader` share the samples of their rank. With workers the state lives in them: use
    `torchdata.stateful_dataloader`, or the map-style `Mixture`, whose index is the whole state.

    Args:
        mixture: what is drawn.
        rank, world_size: which samples, see `Mixture.shard`. Leave them out where the trainer shards streams itself,
            as transformers' does.
    """

    def __init__(self, mixture: Mixture, rank: int = 0, world_size: int = 1):
        _check_rank(rank, world_size)
        self.mixture, self.rank, self.world_size = mixture, rank, world_size
        # The samples up to `start` are done by whoever ran before; of the others, each reader has done `taken`.
        self.start, self.taken, self.stride = 0, 0, world_size

    def __iter__(self) -> Iterator[dict]:
        """Yields from the present state on; a stream that has ended begins anew."""
        worker = get_worker_info()
        reader, readers = (
            (self.rank, self.world_size)
            if worker is None
            else (
                self.rank + self.world_size * worker.id,
                self.world_size * worker.num_workers,
            )
        )
        if readers != self.stride:  # another number of readers continues where all of the former ones stood
            self.start, self.taken, self.stride = self.start + self.taken * self.stride, 0, readers
        while (number := self.start + reader + self.taken * readers) < len(self.mixture):
            sample = self.mixture[number]
            self.taken += 1  # before the yield: what was handed out is done
            yield sample
        self.start = self.taken = 0

    def state_dict(self) -> dict:
        """What `load_state_dict` needs to continue with the very next sample; plain numbers, for JSON."""
        state = {"start": self.start, "taken": self.taken, "stride": self.stride}
        return {**state, "mixture": self.mixture.identity()}

    def load_state_dict(self, state: dict) -> None:
        """Continues a saved stream, with as many or with another number of ranks; nothing is read to get there.

        All ranks must have been saved at the same step.

        Raises:
            ValueError: the state is that of another draw: other data, seed, length or weights.
        """
        ours = self.mixture.identity()
        if state["mixture"] != ours:
            changed = [name for name in ours if state["mixture"].get(name) != ours[name]]
            raise ValueError(
                f"the saved state belongs to another draw ({', '.join(changed)} differ); continue with the same data "
                "and settings, or start anew"
            )
        self.start, self.taken, self.stride = state["start"], state["taken"], state["stride"]


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}")
