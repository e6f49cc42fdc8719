"""Speech to train the codec on: a folder of recordings, or sentences spoken by the offline voice of `hibari-tts`."""

import logging
import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..processing.audio import read_audio
from .speech_sentences import sentences

logger = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SLOWEST, FASTEST = 0.75, 1.3


@dataclass
class Recordings:
    """Many clips in one array.

    Args:
        samples: (total,) int16 at the codec's rate, clip after clip.
        ends: (clips,) int64, where each clip ends.
        texts: what each clip says; empty strings if not known.
    """

    samples: np.ndarray
    ends: np.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """Clip `index`, float32 (samples,) in [-1, 1)."""
        start = self.ends[index - 1] if index else 0
        return self.samples[start : self.ends[index]].astype(np.float32) / 32768

    def save(self, path: Path) -> None:
        """Writes one .npz file, whole or not at all."""
        temporary = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(temporary, samples=self.samples, ends=self.ends, texts=np.array(self.texts, dtype=np.str_))
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> "Recordings":
        """Reads what `save` wrote; never runs pickles."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["samples"], file["ends"], file["texts"].tolist())

    @classmethod
    def join(cls, clips: list[np.ndarray], texts: list[str]) -> "Recordings":
        """From float clips (samples,) each."""
        rounded = [np.round(np.clip(clip, -1, 1) * 32767).astype(np.int16) for clip in clips]
        return cls(np.concatenate(rounded), np.cumsum([len(clip) for clip in rounded]), list(texts))


def read_recordings(source: str | Path, sampling_rate: int) -> Recordings:
    """All sound files below a folder, or those listed in a text file (one path a line, relative to it).

    Raises:
        FileNotFoundError: the folder, the list or a listed file is missing.
        ValueError: nothing to read, or an unreadable file.
    """
    source = Path(source)
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    elif source.is_file():
        lines = source.read_text(encoding="utf-8").splitlines()
        paths = [source.parent / line.strip() for line in lines if line.strip()]
    else:
        raise FileNotFoundError(f"no such folder or list of recordings: {source}; 'tts' synthesizes speech instead")
    if not paths:
        raise ValueError(f"{source} holds no recordings; expected files ending in {', '.join(SUFFIXES)}")
    clips = [read_audio(path, sampling_rate) for path in tqdm(paths, desc="reading recordings", unit="file")]
    return Recordings.join(clips, [""] * len(clips))


def synthesize(texts: list[str], takes: int, seed: int, sampling_rate: int) -> Recordings:
    """Speaks every text `takes` times, each at a random speed from 0.75 to 1.3 and with a random voice seed.

    Raises:
        ImportError: `hibari-tts` is not installed.
    """
    try:
        from hibari import Hibari
    except ImportError as error:
        raise ImportError("speech synthesis needs hibari-tts: pip install 'solami-hf[demo]'") from error
    voice = Hibari()
    generator = random.Random(seed)
    jobs = [text for _ in range(takes) for text in texts]
    clips = []
    for text in tqdm(jobs, desc="synthesizing speech", unit="sentence"):
        speed = round(generator.uniform(SLOWEST, FASTEST), 3)
        values = voice(text, speed=speed, seed=generator.randrange(2**31))
        clips.append(read_audio(values, sampling_rate, source_rate=Hibari.sample_rate))
    return Recordings.join(clips, jobs)


def speech_data(
    source: str, cache_dir: str | Path, sampling_rate: int, count: int, held_out: int, takes: int, seed: int
) -> tuple[Recordings, Recordings]:
    """Recordings to train on and recordings held out, kept in `cache_dir` as two .npz files.

    With `source` "tts" no sentence is in both; else the last `held_out` files (at most half) are held out.
    """
    cache_dir = Path(cache_dir)
    paths = [cache_dir / f"speech_{part}.npz" for part in ("train", "held_out")]
    if all(path.is_file() for path in paths):
        logger.info("using the speech in %s and %s", *paths)
        return Recordings.load(paths[0]), Recordings.load(paths[1])
    if source == "tts":
        texts = sentences(count + held_out, seed)
        train = synthesize(texts[:count], takes, seed, sampling_rate)
        test = synthesize(texts[count:], 1, seed + 1, sampling_rate)
    else:
        everything = read_recordings(source, sampling_rate)
        clips = [everything[index] for index in range(len(everything))]
        split = len(clips) - min(held_out, len(clips) // 2)
        train = Recordings.join(clips[:split], everything.texts[:split])
        test = Recordings.join(clips[split:] or clips, everything.texts[split:] or everything.texts)
    cache_dir.mkdir(parents=True, exist_ok=True)
    train.save(paths[0])
    test.save(paths[1])
    return train, test


class RandomCrops(Dataset):
    """Random windows of recordings. Window `index` is the same in every run with the same seed.

    Args:
        recordings: windows may span the border of two clips, as pauses do in speech.
        window: samples of a window; shorter material is repeated.
        count: nominal number of windows.
    """

    def __init__(self, recordings: Recordings, window: int, count: int, seed: int):
        samples = recordings.samples
        if len(samples) <= window:
            samples = np.tile(samples, window // len(samples) + 2)
        self.samples, self.window, self.count, self.seed = samples, window, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`input_values`: (1, window) float32, with a gain between -4 and +4 dB."""
        generator = np.random.default_rng((self.seed, index))
        start = int(generator.integers(len(self.samples) - self.window))
        values = self.samples[start : start + self.window].astype(np.float32) / 32768
        gain = 10 ** generator.uniform(-0.2, 0.2)
        return {"input_values": torch.from_numpy(np.clip(values * gain, -1, 1).astype(np.float32))[None]}
