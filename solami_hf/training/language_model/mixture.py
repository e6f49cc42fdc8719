"""Stage 2's mixture: motion and speech tasks drawn 4 : 6, the motion share warmed up over the first half.

`Mixture` draws by number of the sample, at random access or as a stream, on any number of ranks; `PackedMixture` packs
what it draws into the rows of a run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import IterableDataset, Subset, get_worker_info

from ...processing.datasets.tasks import phrasings
from .shuffled_rows import RowOrder

CHUNK = 1024  # samples whose sources are drawn together


def motion_share(progress, final: float = 0.4, warmup: float = 0.5):
    """Share of motion samples at `progress` in 0..1 (a number or an array): linear from 0 to `final` over the first
    `warmup` of the run."""
    return final * np.minimum(1.0, np.asarray(progress) / warmup if warmup > 0 else np.ones_like(progress, float))


def _limits(names: list[str], weights: dict[str, float]) -> np.ndarray | None:
    """Ends of the sources' shares on a scale from 0 to exactly 1, None without sources."""
    if not names:
        return None
    chances = np.array([weights.get(name, 1.0) for name in names], dtype=float)
    if (chances < 0).any() or chances.sum() == 0:
        raise ValueError(f"task weights must be at least 0 and not all 0, got {weights} for {', '.join(names)}")
    ends = np.cumsum(chances / chances.sum())
    return ends / ends[-1]


class PairRenderer:
    """Renders the pairs that a `Mixture` draws by a `TokenRenderer`, each time with a phrasing of its task drawn
    anew."""

    def __init__(self, renderer):
        self.renderer = renderer

    def __call__(self, pair: tuple, rng: np.random.Generator) -> dict:
        """`{"input_ids", "labels", "task", "id"}` of `(task, id, source, target)`, or what is rendered already."""
        if isinstance(pair, dict):
            return pair
        task, row_id, source, target = pair
        instruction = phrasings(task)[rng.integers(len(phrasings(task)))]
        return {**self.renderer.task(instruction, source, target), "task": task, "id": row_id}


class Mixture(torch.utils.data.Dataset):
    """`num_samples` samples of a run, all ranks together, in training order, each a function of the seed and of its
    number alone.

    So the same samples come whether they are read one after the other, at random, by one rank or by many, and from the
    middle on after a crash; there are no epochs of the whole. Within a source every row is drawn once before any is
    drawn again.

    `motion` and `speech`: name -> rows of a data set, such as a `datasets.Dataset`. `final` is the motion share after
    the warm-up, 1 or 0 when only one modality has data; `warmup` the part of the run over which it grows from 0;
    `weights` name -> how often a source is drawn relative to the others of its modality, 1 unless given. `transform`,
    `(row, generator) -> sample`, is applied to what is drawn, e.g. `PairRenderer`. `progress`: numbers of samples, of
    one CHUNK and in order -> how far the run is with them, in 0..1; by default the number over `num_samples`. Raises
    ValueError: nothing to draw from, a source without rows, a name in both modalities, an unknown name in `weights`.
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
        progress: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self.sources, self.transform = {**dict(sorted(motion.items())), **dict(sorted(speech.items()))}, transform
        self._check(motion, speech, num_samples, weights or {})
        self.num_samples, self.seed, self.final, self.warmup = num_samples, seed, final, warmup
        self.names, self.num_motion, self._progress = list(self.sources), len(motion), progress
        parts = self.names[: self.num_motion], self.names[self.num_motion :]
        self._limits = [_limits(part, weights or {}) for part in parts]
        self._orders = [RowOrder(len(rows), [seed, 1, number]) for number, rows in enumerate(self.sources.values())]
        self._starts = [np.zeros(len(self.names), dtype=np.int64)]  # draws of each source before each chunk
        self._chunk: tuple[int, np.ndarray | None] = (-1, None)

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
        chunk, within = divmod(number, CHUNK)
        while len(self._starts) <= chunk:
            drawn = np.bincount(self._choices(len(self._starts) - 1), minlength=len(self.names))
            self._starts.append(self._starts[-1] + drawn)
        if self._chunk[0] != chunk:
            self._chunk = (chunk, self._choices(chunk))
        choices = self._chunk[1]
        source = int(choices[within])
        place = int(self._starts[chunk][source]) + int(np.count_nonzero(choices[:within] == source))
        return self.names[source], self._orders[source][place]

    def _choices(self, chunk: int) -> np.ndarray:
        """The source of each sample of a chunk, as numbers."""
        first = chunk * CHUNK
        numbers = np.arange(first, min(first + CHUNK, self.num_samples))
        draws = np.random.default_rng([self.seed, 0, chunk]).random((CHUNK, 2))[: len(numbers)]
        motion, speech = self._limits
        if motion is None or speech is None:
            return np.searchsorted(speech if motion is None else motion, draws[:, 1], side="right")
        progress = numbers / self.num_samples if self._progress is None else self._progress(numbers)
        of_speech = self.num_motion + np.searchsorted(speech, draws[:, 1], side="right")
        is_motion = draws[:, 0] < motion_share(progress, self.final, self.warmup)
        return np.where(is_motion, np.searchsorted(motion, draws[:, 1], side="right"), of_speech)

    def shard(self, rank: int, world_size: int) -> Subset:
        """The samples of one of several ranks, map-style: `rank`, `rank + world_size`, ...; disjoint, together all."""
        _check_rank(rank, world_size)
        return Subset(self, range(rank, self.num_samples, world_size))

    def stream(self, rank: int = 0, world_size: int = 1) -> "MixtureStream":
        """The same samples as a stream that can be saved and continued."""
        return MixtureStream(self, rank, world_size)

    def identity(self) -> dict:
        """Fingerprint of the draw; equal for equal draws."""
        settings = {name: getattr(self, name) for name in ("seed", "num_samples", "final", "warmup")}
        limits = [None if part is None else [round(float(x), 9) for x in part] for part in self._limits]
        return {**settings, "rows": {name: len(rows) for name, rows in self.sources.items()}, "limits": limits}


class MixtureStream(IterableDataset):
    """A `Mixture` as a stream for one rank; what it has yielded is its state. Workers of a `DataLoader` share the
    samples of their rank. With workers the state lives in them: use `torchdata.stateful_dataloader`, or the map-style
    `Mixture`, whose index is the whole state. `rank` and `world_size` say which samples, see `Mixture.shard`; leave
    them out where the trainer shards streams itself, as transformers' does."""

    def __init__(self, mixture: Mixture, rank: int = 0, world_size: int = 1):
        _check_rank(rank, world_size)
        self.mixture, self.rank, self.world_size = mixture, rank, world_size
        self.done = 0  # samples that all readers together have done, each as many as the others

    def __iter__(self) -> Iterator[dict]:
        """Yields from the present state on; a stream that has ended begins anew."""
        worker = get_worker_info()
        reader = self.rank + self.world_size * (worker.id if worker else 0)
        readers = self.world_size * (worker.num_workers if worker else 1)
        while (number := self.done + reader) < len(self.mixture):
            sample = self.mixture[number]
            self.done += readers  # before the yield: what was handed out is done
            yield sample
        self.done = 0

    def state_dict(self) -> dict:
        """State from which `load_state_dict` continues with the very next sample; plain numbers, for JSON."""
        return {"done": self.done, "mixture": self.mixture.identity()}

    def load_state_dict(self, state: dict) -> None:
        """Continues a saved stream, with as many or with another number of ranks; nothing is read to get there. All
        ranks must have been saved at the same step. Raises ValueError: the state is that of another draw: other data,
        seed, length or weights."""
        ours, theirs = self.mixture.identity(), state["mixture"]
        if changed := [name for name in ours if theirs.get(name) != ours[name]]:
            raise ValueError(
                f"the saved state belongs to another draw ({', '.join(changed)} differ); continue with the same data "
                "and settings, or start anew"
            )
        self.done = state["done"]


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}")
