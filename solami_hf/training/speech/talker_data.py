"""Training data of the talker: texts and level 0 of their speech, aligned, in batches of clips of like length."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ...modeling.talker.modeling_talker import character_ids
from ...modeling.talker.spoken_text import spoken_text
from ...processing.batching import pad_right
from ...processing.datasets.token_dataset import load_tokens
from ...processing.files.atomic_write import atomic_write
from ..speech_recordings import read_arrays
from .talker_alignment import align, can_align, train_reader

logger = logging.getLogger(__name__)


@dataclass
class SpokenClips:
    """Clips with the ids of their characters and the frames of each, in flat arrays, clip after clip."""

    codes: np.ndarray  # (frames,) int16, level 0
    ids: np.ndarray  # (characters,) int16
    durations: np.ndarray  # (characters,) int16
    frame_ends: np.ndarray  # (clips,) int64, where each clip ends
    character_ends: np.ndarray  # (clips,) int64
    texts: list[str]  # as they were written

    def __len__(self) -> int:
        return len(self.frame_ends)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, durations and codes of a clip."""
        characters = slice(self.character_ends[index - 1] if index else 0, self.character_ends[index])
        frames = slice(self.frame_ends[index - 1] if index else 0, self.frame_ends[index])
        return self.ids[characters], self.durations[characters], self.codes[frames]

    @classmethod
    def join(cls, texts: list[str], ids: list, durations: list, codes: list) -> "SpokenClips":
        """From arrays of each clip."""
        flat = [np.concatenate(part).astype(np.int16) for part in (codes, ids, durations)]
        ends = [np.cumsum([len(row) for row in part]) for part in (codes, ids)]
        return cls(*flat, *ends, list(texts))


class TalkerBatches(Dataset):
    """Whole batches of clips: an epoch has each clip once, cut by length into batches of about `frames` frames,
    padding left aside. Clips are joined at random to texts of up to `most_joined` sentences, for answers have several,
    with `space`, an id, between two. An item depends on its number alone, which goes on counting from epoch to
    epoch."""

    def __init__(self, clips: SpokenClips, space: int, frames: int, most_joined: int = 3, seed: int = 0):
        self.clips, self.space, self.most_joined, self.seed = clips, space, most_joined, seed
        self.size = max(1, -(-len(clips.codes) // frames))
        self._epoch, self._batches = -1, []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        epoch, index = divmod(number, self.size)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._cut(np.random.default_rng([self.seed, epoch]))
        return collate([self._joined(group) for group in self._batches[index]])

    def _cut(self, rng: np.random.Generator) -> list[list[np.ndarray]]:
        """The groups of clips of each batch."""
        order, counts = rng.permutation(len(self.clips)), []
        while sum(counts) < len(order):
            counts += rng.integers(1, self.most_joined + 1, len(order)).tolist()
        groups = [group for group in np.split(order, np.cumsum(counts)) if len(group)]
        lengths = np.diff(self.clips.frame_ends, prepend=0)
        frames = np.array([lengths[group].sum() for group in groups])
        groups = [groups[place] for place in np.argsort(frames, kind="stable")]
        middles = np.sort(frames).cumsum() - np.sort(frames) / 2
        cuts = np.searchsorted(middles, np.arange(1, self.size) * frames.sum() / self.size)
        borders = list(zip([0, *cuts], [*cuts, len(groups)], strict=True))
        return [groups[first : max(last, first + 1)] or groups[-1:] for first, last in borders]

    def _joined(self, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = [self.clips[int(index)] for index in group]
        ids, durations, codes = (list(part) for part in zip(*parts, strict=True))
        for place in range(len(group) - 1):
            ids[place] = np.append(ids[place], self.space)
            durations[place] = durations[place].copy()
            given = min(1, durations[place][-1] - 1)
            durations[place][-1] -= given
            durations[place] = np.append(durations[place], given)
        return np.concatenate(ids), np.concatenate(durations), np.concatenate(codes)


def collate(clips: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Ids, durations and codes of clips as the talker's `input_ids`, `attention_mask`, `durations` and `labels`."""
    ids, durations, codes = (
        [torch.from_numpy(np.asarray(row).astype(np.int64)) for row in part] for part in zip(*clips, strict=True)
    )
    input_ids, mask = pad_right(ids)
    labels, real = pad_right(codes)
    labels = labels.masked_fill(~real, -100)
    return {"input_ids": input_ids, "attention_mask": mask, "durations": pad_right(durations)[0], "labels": labels}


def read_turns(folder: str, split: str, processor=None) -> tuple[list[str], list[np.ndarray]]:
    """Texts and level 0 (frames,) of all turns of a token dataset's `speech` config that have both. Raises
    FileNotFoundError, ValueError: see `load_tokens`; codes of several levels."""
    texts, codes = [], []
    for row in load_tokens(folder, "speech", split, processor):
        for turn in row["turns"]:
            if turn["text"] and turn["speech"]:
                texts.append(turn["text"])
                codes.append(np.array(turn["speech"], dtype=np.int16))
    return texts, codes


def read_clips(
    folder: str,
    splits: tuple[str, ...],
    cache: Path,
    alphabet: str,
    codebook_size: int,
    steps: int,
    processor=None,
    seed: int = 0,
    device="cpu",
    bf16: bool = False,
) -> list[SpokenClips]:
    """The clips of each split of a token dataset (config `speech`), aligned; their characters' frames are kept in the
    file `cache`. It is learnt from the first split, in `steps` of `train_reader`, how to align; `alphabet` and
    `codebook_size` are the talker's. The codec of `processor`, if given, must be the one that made the codes. Raises
    FileNotFoundError, ValueError: nothing to read, codes out of range, a cache of other data."""
    parts = [_read_split(folder, split, alphabet, codebook_size, processor) for split in splits]
    texts, ids, codes = ([row for part in parts for row in part[column]] for column in range(3))
    made_from = _made_from(texts, codes, alphabet, steps, seed)
    if cache.is_file():
        durations = _load_durations(cache, made_from)
        logger.info("using the alignment in %s", cache)
    else:
        first = parts[0]
        reader = train_reader(
            first[2], first[1], codebook_size, len(alphabet), steps, seed=seed, device=device, bf16=bf16
        )
        durations = align(reader, codes, ids)
        with atomic_write(cache) as temporary, open(temporary, "wb") as file:
            ends = np.cumsum([len(row) for row in durations])
            np.savez(file, durations=np.concatenate(durations).astype(np.int16), ends=ends, made_from=made_from)
    borders = np.cumsum([0, *(len(part[0]) for part in parts)])
    return [
        SpokenClips.join(*(column[start:end] for column in (texts, ids, durations, codes)))
        for start, end in zip(borders, borders[1:], strict=False)
    ]


def _read_split(
    folder: str, split: str, alphabet: str, codebook_size: int, processor
) -> tuple[list[str], list[list[int]], list[np.ndarray]]:
    """Texts, ids of their characters and codes of the clips that can be aligned."""
    kept = []
    texts, codes = read_turns(folder, split, processor)
    for text, clip in zip(texts, codes, strict=True):
        if clip.min() < 0 or clip.max() >= codebook_size:
            raise ValueError(
                f"{folder} has codes from {clip.min()} to {clip.max()}, expected 0 to {codebook_size - 1}, level 0 "
                "alone; `codebook_size` says how many"
            )
        ids = character_ids(spoken_text(text), alphabet)
        if can_align(clip, ids):
            kept.append((text, ids, clip))
    if not kept:
        raise ValueError(
            f"the {split} split of {folder} has no turn with speech and a text that is not longer than it"
        )
    if len(kept) < len(texts):
        logger.warning("left out %d of %d clips of %s: too many characters", len(texts) - len(kept), len(texts), split)
    return tuple(list(column) for column in zip(*kept, strict=True))


def _made_from(texts: list[str], codes: list[np.ndarray], alphabet: str, steps: int, seed: int) -> str:
    """A fingerprint of all that an alignment depends on."""
    digest = hashlib.sha256(json.dumps([texts, alphabet, steps, seed]).encode())
    for clip in codes:
        digest.update(clip.tobytes())
    return digest.hexdigest()[:16]


def _load_durations(path: Path, made_from: str) -> list[np.ndarray]:
    arrays = read_arrays(path)
    if str(arrays.get("made_from", "")) != made_from:
        raise ValueError(
            f"{path} was made from other data or settings; remove it to align anew, or give another `output_dir`"
        )
    return np.split(arrays["durations"], arrays["ends"][:-1])
