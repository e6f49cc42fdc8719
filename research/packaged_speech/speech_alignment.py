"""Which frame of a sentence in one voice is which in another: dynamic time warping of a speech encoder's states."""

import numpy as np
import torch
from tqdm.auto import tqdm

from solami_hf.processing.batching import map_in_batches
from solami_hf.training.speech.speech_codec_losses import SemanticTeacher
from solami_hf.training.speech_recordings import Recordings

_PAIRS = 60  # warped together


def states_of(recordings: Recordings, teacher: SemanticTeacher, hop_length: int) -> list[torch.Tensor]:
    """What the teacher hears in each clip, (frames, size): standardized over the clip, every frame of length 1."""
    states = []
    for index in tqdm(range(len(recordings)), desc="hearing speech", unit="clip"):
        values = torch.from_numpy(recordings[index])[None, None]
        heard = teacher.hidden_states(values, -(-values.shape[-1] // hop_length))[0].cpu()
        heard = (heard - heard.mean(0)) / (heard.std(0, unbiased=False) + 1e-3)
        states.append(torch.nn.functional.normalize(heard, dim=1))
    return states


def align(voices: list[list[torch.Tensor]]) -> dict[tuple[int, int, int], np.ndarray]:
    """Warps every voice into the time of every other one.

    Args:
        voices: of each voice the states (frames, size) of the same sentences.

    Returns:
        {(source, target, sentence): (frames of the target,)}: the frame of the source that says the same.

    Raises:
        ValueError: the voices speak different numbers of sentences.
    """
    counts = sorted({len(sentences) for sentences in voices})
    if len(counts) != 1:
        raise ValueError(f"the voices speak {' or '.join(map(str, counts))} sentences, expected the same of all")
    numbers = range(len(voices))
    keys = [(a, b, index) for index in range(counts[0]) for a in numbers for b in numbers if a != b]
    paths = map_in_batches(
        keys, lambda key: len(voices[key[0]][key[2]]) + len(voices[key[1]][key[2]]), _PAIRS,
        lambda batch: warp([(voices[a][index], voices[b][index]) for a, b, index in batch]),
        progress=lambda batches: tqdm(batches, desc="aligning voices", unit="batch"),
    )  # fmt: skip
    return dict(zip(keys, paths, strict=True))


def warp(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[np.ndarray]:
    """Dynamic time warping of several pairs at once, along the diagonals of their tables.

    Args:
        pairs: states of a source (n, size) and a target (m, size).

    Returns:
        For each frame of each target the frame of its source on the path of least distance, (m,), never falling; where
        the path dwells, the first.
    """
    rows, columns = (max(len(pair[side]) for pair in pairs) for side in (0, 1))
    distance = np.full((len(pairs), rows, columns), 1e4, np.float32)
    for table, (source, target) in zip(distance, pairs, strict=True):
        table[: len(source), : len(target)] = torch.cdist(source, target).numpy()
    least = np.full((len(pairs), rows + 1, columns + 1), np.inf, np.float32)
    least[:, 0, 0] = 0
    came_from = np.zeros(least.shape, np.int8)  # 0 both moved on, 1 the source, 2 the target
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        before = np.stack([least[:, i, j], least[:, i, j + 1], least[:, i + 1, j]])
        came_from[:, i + 1, j + 1] = before.argmin(0)
        least[:, i + 1, j + 1] = before.min(0) + distance[:, i, j]
    return [
        _walk_back(steps, len(source), len(target)) for steps, (source, target) in zip(came_from, pairs, strict=True)
    ]


def _walk_back(came_from: np.ndarray, i: int, j: int) -> np.ndarray:
    path = np.zeros(j, np.int64)
    while i and j:
        path[j - 1] = i - 1
        step = came_from[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return path
