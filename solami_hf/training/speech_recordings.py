"""Speech to train the codec on: folders of recordings, and sentences spoken by offline voices."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..processing.audio.speech_sentences import sentences
from ..processing.audio.speech_voices import speak_all
from ..processing.audio.waveforms import read_audio
from ..processing.datasets.manifests import SPLITS, read_manifest
from ..processing.files.atomic_write import atomic_write
from ..processing.files.text_files import read_text
from ..processing.media_files import SOUND_SUFFIXES, find_media, kind_of, tell_left_out, way_out

logger = logging.getLogger(__name__)


@dataclass
class Recordings:
    """Many clips in one array, clip after clip."""

    samples: np.ndarray  # (total,) int16 at the codec's rate
    ends: np.ndarray  # (clips,) int64, where each clip ends
    texts: list[str]  # what each clip says; empty if not known

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """Clip `index`, float32 (samples,) in [-1, 1)."""
        return self.samples[self.ends[index - 1] if index else 0 : self.ends[index]].astype(np.float32) / 32768

    def save(self, path: Path) -> None:
        """Writes one .npz file, whole or not at all."""
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, samples=self.samples, ends=self.ends, texts=np.array(self.texts, dtype=np.str_))

    @classmethod
    def load(cls, path: Path) -> "Recordings":
        """Reads what `save` wrote; never runs pickles."""
        arrays = read_arrays(path)
        if missing := {"samples", "ends", "texts"} - arrays.keys():
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; expected recordings that were saved")
        samples, ends, texts = (arrays[name] for name in ("samples", "ends", "texts"))
        flat = samples.ndim == ends.ndim == texts.ndim == 1 and samples.dtype == np.int16 and ends.dtype.kind in "iu"
        if not flat or len(ends) != len(texts) or (np.diff([0, *ends, len(samples)]) < 0).any():
            raise ValueError(f"{path} is damaged, its arrays do not fit each other; remove it")
        return cls(samples, ends, texts.tolist())

    @classmethod
    def join(cls, clips: list[np.ndarray], texts: list[str]) -> "Recordings":
        """From float clips (samples,) each."""
        rounded = [np.round(np.clip(clip, -1, 1) * 32767).astype(np.int16) for clip in clips]
        ends = np.cumsum([len(clip) for clip in rounded], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0, np.int16), *rounded]), ends, list(texts))

    @classmethod
    def concatenate(cls, parts: "list[Recordings]") -> "Recordings":
        """Several, one after the other."""
        starts = np.cumsum([0] + [len(part.samples) for part in parts[:-1]])
        ends = [part.ends + start for part, start in zip(parts, starts, strict=True)]
        texts = [text for part in parts for text in part.texts]
        return cls(np.concatenate([part.samples for part in parts]), np.concatenate(ends), texts)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; pickles are never run. Raises OSError: it cannot be read. ValueError: it is none,
    or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except OSError:
        raise
    except Exception as error:  # zipfile and numpy fail in many ways: of one array, of sizes that are no sizes, ...
        raise ValueError(f"{path} is no readable .npz file ({error!r})") from None


def splits_of(source: str | Path) -> set[str]:
    """The splits of a folder with a `manifest.jsonl` or with Parquet files `train-*`, ...; none of what has none."""
    source = Path(source)
    if (source / "manifest.jsonl").is_file():
        return {row["split"] for row in read_manifest(source)}
    return {split for split in SPLITS if any(source.glob(f"{split}-*.parquet"))}


def read_recordings(source: str | Path, sampling_rate: int, split: str = "train") -> Recordings:
    """All sound files below a folder, or those listed in a text file (one path a line, relative to it); of a folder
    with a `manifest.jsonl` (see `solami prepare`) those of a split, with their words. Raises FileNotFoundError: the
    folder, the list or a listed file is missing; ValueError: nothing to read, or an unreadable file."""
    source, texts = Path(source), {}
    if (source / "manifest.jsonl").is_file():
        turns = [turn for row in read_manifest(source) if row["split"] == split for turn in row.get("turns", ())]
        texts = {source / turn["audio"]: turn.get("text") or "" for turn in turns if turn.get("audio")}
        paths = list(texts)
    elif source.is_dir():
        found = find_media(source, "audio", SOUND_SUFFIXES)
        paths = found.files
        tell_left_out(found.others, source, "no sound")
        if found.unread:
            tell_left_out(found.unread, source, way_out(found.unread[0]))
    elif kind_of(source) == "audio":
        paths = [source]
    elif source.is_file():
        lines = read_text(source).split("\n")
        paths = [source.parent / line.strip() for line in lines if line.strip()]
    else:
        raise FileNotFoundError(f"no such folder or list of recordings: {source}; 'tts' synthesizes speech instead")
    if not paths:
        raise ValueError(f"{source} holds no recordings; expected files ending in {', '.join(SOUND_SUFFIXES)}")
    clips = [read_audio(path, sampling_rate) for path in tqdm(paths, desc="reading recordings", unit="file")]
    return Recordings.join(clips, [texts.get(path, "") for path in paths])


def speech_data(
    sources: list[str], cache_dir: str | Path, sampling_rate: int, count: int, held_out: int, voices: list[str],
    seed: int, shift: bool = False,
) -> tuple[Recordings, Recordings]:  # fmt: skip
    """Recordings to train on and recordings held out, kept in `cache_dir` as two .npz files. Of the source "tts", each
    of the `voices` speaks `count` sentences of its own at varied speeds, with `shift` half of them at varied pitches,
    and all of them the same `held_out` others, as they are. Of a folder or list, the last `held_out` files (at most a
    tenth) are held out, or its split validation where it has one. A source that is named twice counts twice. Clips of
    one voice follow one another."""
    paths = [Path(cache_dir) / f"speech_{part}.npz" for part in ("train", "held_out")]
    if all(path.is_file() for path in paths):
        logger.info("using the speech in %s and %s", *paths)
        return Recordings.load(paths[0]), Recordings.load(paths[1])
    made = {
        source: synthesized(sampling_rate, count, held_out, voices, seed, shift)
        if source == "tts"
        else recorded(source, sampling_rate, held_out)
        for source in dict.fromkeys(sources)
    }
    train = Recordings.concatenate([made[source][0] for source in sources])
    test = Recordings.concatenate([part for _, part in made.values()])
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    train.save(paths[0])
    test.save(paths[1])
    return train, test


def synthesized(
    sampling_rate: int, count: int, held_out: int, voices: list[str], seed: int, shift: bool
) -> tuple[Recordings, Recordings]:
    """The sentences of "tts" to train on and held out, see `speech_data`."""
    texts = sentences(count * len(voices) + held_out, seed)
    test_texts, texts = texts[:held_out], texts[held_out:]
    train = []
    for index, voice in enumerate(voices):
        own = texts[count * index : count * (index + 1)]
        train.append(Recordings.join(speak_all(own, [voice], sampling_rate, seed + index, True, shift)[0], own))
    test = speak_all(test_texts, voices, sampling_rate, seed + 1)[0]
    return Recordings.concatenate(train), Recordings.join(test, test_texts * len(voices))


def recorded(source: str, sampling_rate: int, held_out: int) -> tuple[Recordings, Recordings]:
    """The recordings of a folder or list to train on and held out, see `speech_data`."""
    everything = read_recordings(source, sampling_rate)
    if "validation" in splits_of(source):
        return everything, read_recordings(source, sampling_rate, "validation")
    clips = [everything[index] for index in range(len(everything))]
    split = len(clips) - min(held_out, max(1, len(clips) // 10))
    train = Recordings.join(clips[:split] or clips, everything.texts[:split] or everything.texts)
    return train, Recordings.join(clips[split:], everything.texts[split:])


class RandomCrops(Dataset):
    """`count` (nominal) random windows of recordings, each of `window` samples; shorter material is repeated, and
    windows may span the border of two clips, as pauses do in speech. Window `index` is the same in every run with
    the same seed."""

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
