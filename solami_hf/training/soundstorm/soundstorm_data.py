"""Training data of SoundStorm: all levels of speech or motion codes, random windows of them with masks."""

from __future__ import annotations

import json
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ...modeling.soundstorm.soundstorm_masking import hide_codes
from ...modeling.speech_codec.codec_interface import codec_fingerprint
from ...processing.batching import map_in_batches, pad_right
from ...processing.files.atomic_write import atomic_write
from ...processing.media_files import files_below
from ..held_out import spread
from ..motion_vq.motion_vq_data import MotionClip, padded_batches
from ..speech_recordings import Recordings, read_arrays, read_recordings, splits_of

logger = logging.getLogger(__name__)

_BATCH_SECONDS = 60  # of speech that are encoded together


@dataclass
class SpeechCodes:
    """Codes of many clips in one array.

    Args:
        codes: (num_quantizers, total_frames) integers, clip after clip.
        ends: (clips,) int64, the frame where each clip ends.
        sources: (sources,) int64, how many clips lie before the end of each source. A source is mostly of one voice.
        codec: fingerprint of the codec that made the codes (`codec_fingerprint`), empty if not known.
        made_from: what was encoded, for `read_sources`.
    """

    codes: np.ndarray
    ends: np.ndarray
    sources: np.ndarray
    codec: str = ""
    made_from: str = ""

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """Codes (num_quantizers, frames) of clip `index`."""
        return self.codes[:, self.ends[index - 1] if index else 0 : self.ends[index]]

    def of_sources(self) -> list[np.ndarray]:
        """Codes (num_quantizers, frames) of each source."""
        borders = [int(self.ends[count - 1]) if count else 0 for count in self.sources]
        return [self.codes[:, start:end] for start, end in zip([0, *borders], borders, strict=False)]

    def clips_of_sources(self) -> list[list[np.ndarray]]:
        """The clips (num_quantizers, frames) of each source."""
        borders = zip([0, *self.sources], self.sources, strict=False)
        return [[self[index] for index in range(start, end)] for start, end in borders]

    def source_of(self, index: int) -> int:
        """Number of the source that clip `index` is of."""
        return int(np.searchsorted(self.sources, index, side="right"))

    def split(self, held_out: int) -> tuple[SpeechCodes, SpeechCodes | None]:
        """All but the last `held_out` clips (at most half) of each source, and these; None if there are none."""
        sources = self.clips_of_sources()
        borders = [len(clips) - min(held_out, len(clips) // 2) for clips in sources]
        rest = [clips[border:] for clips, border in zip(sources, borders, strict=True)]
        kept = [clips[:border] for clips, border in zip(sources, borders, strict=True)]
        return SpeechCodes.join(kept, self.codec), SpeechCodes.join(rest, self.codec) if any(rest) else None

    def save(self, path: Path) -> None:
        """Writes one .npz file, whole or not at all."""
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> SpeechCodes:
        """Reads what `save` wrote, or any .npz with `codes` and `ends`; never runs pickles. Raises ValueError: a
        damaged file, a missing array, or arrays that do not fit each other."""
        arrays = read_arrays(path)
        for name in ("codes", "ends"):
            if name not in arrays:
                raise ValueError(f"{path} lacks the array `{name}`; expected codes (levels, frames) and ends (clips,)")
        codes, ends = arrays["codes"], arrays["ends"]
        if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"`codes` of {path} is {codes.dtype} {codes.shape}, expected integers (levels, frames)")
        if not _rises(ends, codes.shape[1]) or (np.diff(ends, prepend=0) < 1).any():
            raise ValueError(f"`ends` of {path} does not rise to {codes.shape[1]}, the number of frames, clip by clip")
        sources = arrays.get("sources", np.array([len(ends)]))
        if not _rises(sources, len(ends)):
            raise ValueError(f"`sources` of {path} does not rise to {len(ends)}, the number of clips")
        return cls(codes, ends, sources, str(arrays.get("codec", "")), str(arrays.get("made_from", "")))

    @classmethod
    def join(cls, sources: list[list[np.ndarray]], codec: str = "", made_from: str = "") -> SpeechCodes:
        """From the clips (num_quantizers, frames) of each source."""
        clips = [clip for source in sources for clip in source]
        ends = np.cumsum([clip.shape[1] for clip in clips])
        return cls(np.concatenate(clips, 1), ends, np.cumsum([len(source) for source in sources]), codec, made_from)


def _rises(counts: np.ndarray, last: int) -> bool:
    """True if an array holds whole numbers that never fall and end with `last`."""
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or not len(counts):
        return False
    return counts[0] >= 0 and counts[-1] == last and not (counts[1:] < counts[:-1]).any()


class CodeWindows(Dataset):
    """Windows of `window` frames at random places, masked for training. They span clips, but not sources.

    An item is {audio_codes (num_quantizers, window), labels (num_quantizers - 1, window)}, see `hide_codes`. Its
    number goes on counting from epoch to epoch, and it alone with `seed` decides place and masks. `mask_code` and
    `given` (`num_given_levels`) are the model's configuration's. A shorter source is repeated, or `padded`, and
    `code_mask` (window,) says where: motion cannot jump. The windows of an epoch are rounded up to a multiple of
    `multiple_of`, so that every batch is full. With `whole` all levels to fill are masked, and labels: for a model
    with `config.vector_size`.
    """

    def __init__(
        self,
        codes: SpeechCodes,
        window: int,
        mask_code: int,
        seed: int = 0,
        multiple_of: int = 1,
        given: int = 1,
        padded: bool = False,
        whole: bool = False,
    ):
        self.window, self.mask_code, self.seed, self.codec = window, mask_code, seed, codes.codec
        self.given, self.padded, self.whole = given, padded, whole
        self.sources, places = [], []
        for source in codes.of_sources():
            frames = source.shape[1]
            if not frames:
                continue
            places.append(frames - window + 1 if frames >= window else 1 if padded else frames)
            short = frames < window and not padded
            self.sources.append(np.tile(source, (1, window // frames + 2)) if short else source)
        self.places = np.cumsum(places)
        self.size = -(-max(1, codes.codes.shape[1] // window) // multiple_of) * multiple_of

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, number])
        codes = torch.from_numpy(self._window(rng).astype(np.int64))[None]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        real = torch.arange(self.window)[None] < codes.shape[2]
        codes = F.pad(codes, (0, self.window - codes.shape[2]))
        masked, labels = hide_codes(codes, real, self.mask_code, generator, self.given)
        if self.whole:
            masked[:, self.given :], labels = self.mask_code, codes[:, self.given :].masked_fill(~real[:, None], -100)
        item = {"audio_codes": masked[0], "labels": labels[0]}
        return item | {"code_mask": real[0]} if self.padded else item

    def fixed(self, count: int) -> torch.Tensor:
        """At most `count` whole windows (count, num_quantizers, window), evenly over all material, without masks."""
        whole = []
        for source in self.sources:
            starts = range(0, source.shape[1] - self.window + 1, self.window)
            whole += [source[:, start : start + self.window] for start in starts]
        return torch.from_numpy(np.stack(spread(whole, count)).astype(np.int64))

    def _window(self, rng: np.random.Generator) -> np.ndarray:
        place = int(rng.integers(self.places[-1]))
        source = int(np.searchsorted(self.places, place, side="right"))
        start = place - (int(self.places[source - 1]) if source else 0)
        return self.sources[source][:, start : start + self.window]


def read_sources(
    paths: list[str], codec=None, cache: Path | None = None, device="cpu", held_out: bool = False
) -> SpeechCodes:
    """Codes of all sources, of which those that are speech are encoded by `codec` and kept in the file `cache`.

    `paths` are, of each source, a folder of recordings, a text file that lists them, an .npz file of speech
    (`Recordings`) or of codes ([`SpeechCodes`]), or a .parquet file or folder with a column `codes`; `codec`: see
    `load_speech_codec`, None if there are only codes. `held_out` reads of a folder with splits its validation; else,
    and where it has none, its training split is read. Raises FileNotFoundError: a path is missing; ValueError: nothing
    to read, something unreadable, codes or a cache of another codec, other numbers of levels.
    """
    if not paths:
        raise ValueError("`data` is empty, expected folders or files of speech, or of codes (.npz, .parquet)")
    fingerprint = codec_fingerprint(codec) if codec is not None else ""
    made_from = json.dumps([_identity(Path(path)) for path in paths])
    if cache is not None and cache.is_file():
        cached = SpeechCodes.load(cache)
        problem = "was made from other data" if cached.made_from != made_from else ""
        if cached.codec != fingerprint:
            problem = f"has codes of the codec {cached.codec}, but `speech_codec` is {fingerprint or 'not given'}"
        if problem:
            raise ValueError(f"{cache} {problem}; remove it to encode anew, or give another `output_dir`")
        logger.info("using the codes in %s", cache)
        return cached
    sources, encoded = [], False
    for path in paths:
        split = "validation" if held_out and "validation" in splits_of(path) else "train"
        codes = _read_codes(Path(path), split)
        if codes is None:
            if codec is None:
                raise ValueError(f"{path} is speech: give the codec that makes codes of it as `speech_codec`")
            sources.append(encode(_read_speech(Path(path), codec.config.sampling_rate, split), codec, device))
            encoded = True
            continue
        if fingerprint and codes.codec and codes.codec != fingerprint:
            raise ValueError(
                f"{path} has codes of the codec {codes.codec}, expected those of {fingerprint}, the `speech_codec` or "
                "the codec of the other sources; encode the speech with one codec"
            )
        sources += codes.clips_of_sources()
        fingerprint = fingerprint or codes.codec
    levels = {clip.shape[0] for source in sources for clip in source}
    if len(levels) != 1:
        raise ValueError(f"`data` has codes of {sorted(levels)} levels, expected one number of them in all sources")
    result = SpeechCodes.join(sources, fingerprint, made_from)
    if encoded and cache is not None:
        result.save(cache)
    return result


@torch.no_grad()
def encode(recordings: Recordings, codec, device="cpu") -> list[np.ndarray]:
    """All levels of each clip's codes, int16 (num_quantizers, frames), encoded in batches."""
    if codec.config.codebook_size > 2**15:
        raise ValueError(f"the codec has {codec.config.codebook_size} codes a level, expected at most {2**15}")
    codec.to(device)

    def codes_of(batch: list[np.ndarray]) -> list[np.ndarray]:
        values, mask = pad_right([torch.from_numpy(clip) for clip in batch])
        output = codec.encode(values[:, None].to(device), mask.to(device))
        pairs = zip(output.audio_codes.cpu().numpy(), output.code_mask.cpu().numpy(), strict=True)
        return [codes[:, : mask.sum()].astype(np.int16) for codes, mask in pairs]

    clips = [recordings[index] for index in range(len(recordings))]
    return map_in_batches(
        clips, len, 64, codes_of, progress=lambda batches: tqdm(batches, desc="encoding speech", unit="batch"),
        most_steps=_BATCH_SECONDS * codec.config.sampling_rate,
    )  # fmt: skip


@torch.no_grad()
def encode_motions(clips: list[MotionClip], codec) -> SpeechCodes | None:
    """All levels of motions, each clip a source: rows body, hand, body, ... level by level; None without clips. Raises
    ValueError: a motion codec of one level, or whose body and hand have different numbers of codes."""
    config, rows = codec.config, []
    if config.num_levels < 2:
        raise ValueError("`motion_codec` has one level, so there is nothing to fill: train it with num_levels 2 to 8")
    if config.body_code_num != config.modality_sizes[config.parts[-1]]:
        raise ValueError("`motion_codec` has other numbers of codes for body and hand, expected the same")
    for values, mask in padded_batches(clips, 32):
        out = codec.encode(values.to(codec.device), mask.to(codec.device))
        codes = torch.stack([out[f"{part}_levels"] for part in config.parts], dim=2).flatten(1, 2).cpu().numpy()
        lengths = out.code_mask.sum(-1).tolist()
        rows += [[clip[:, :length].astype(np.int16)] for clip, length in zip(codes, lengths, strict=True)]
    return SpeechCodes.join(rows, codec_fingerprint(codec)) if rows else None


def _identity(path: Path) -> list:
    """Path and size, by which a changed source is noticed."""
    if not path.exists():
        raise FileNotFoundError(f"no such folder or file: {path}")
    files = [path] if path.is_file() else files_below(path)
    return [str(path.resolve()), len(files), sum(file.stat().st_size for file in files)]


def _read_speech(path: Path, sampling_rate: int, split: str) -> Recordings:
    recordings = Recordings.load(path) if path.suffix == ".npz" else read_recordings(path, sampling_rate, split)
    if not len(recordings):
        raise ValueError(f"{path} holds no clips")
    return recordings


def _read_codes(path: Path, split: str) -> SpeechCodes | None:
    """The codes in `path`, None where it is speech."""
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                speech = "samples" in file.files
        except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:  # TypeError: a single array
            raise ValueError(f"{path} is no readable .npz file ({error})") from None
        return None if speech else SpeechCodes.load(path)
    pattern = f"{split}-*.parquet" if splits_of(path) else "*.parquet"
    files = sorted(path.glob(pattern)) if path.is_dir() else [path] if path.suffix == ".parquet" else []
    return _read_parquet(files) if files else None


def _read_parquet(files: list[Path]) -> SpeechCodes:
    """Rows {codes: levels of frames, speaker?}; rows of one speaker that follow one another are a source."""
    from datasets import Dataset as Table

    table = Table.from_parquet([str(file) for file in files], keep_in_memory=True)
    if "codes" not in table.column_names:
        raise ValueError(f"{files[0]} has no column `codes` (all levels of a clip, each a list of integers)")
    sources, speaker = [], None
    for row in table:
        lengths = {len(level) for level in row["codes"]}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"a row of {files[0]} has levels of {sorted(lengths)} codes, expected one length above 0")
        if not sources or row.get("speaker") != speaker:
            sources.append([])
            speaker = row.get("speaker")
        sources[-1].append(np.array(row["codes"], dtype=np.int64))
    if not sources:
        raise ValueError(f"{files[0]} has no rows")
    return SpeechCodes.join(sources)
