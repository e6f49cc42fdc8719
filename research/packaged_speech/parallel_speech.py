"""The same sentences in several voices: what a codec learns from whose level 0 shall not know who speaks."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel, run_layers
from solami_hf.processing.audio.speech_sentences import sentences
from solami_hf.processing.audio.speech_voices import speak_all
from solami_hf.processing.batching import map_in_batches, pad_right
from solami_hf.training.soundstorm.soundstorm_data import SpeechCodes
from solami_hf.training.speech_recordings import Recordings

logger = logging.getLogger(__name__)

HEAD_LAYERS = 3  # of the encoder: the LSTM, an activation, and the convolution to the latents
CONTEXT = 20  # frames that the LSTM reads before a window
BEHIND = 3  # frames behind it that the last convolution reads
_BATCH_SAMPLES = 800_000
OWN, WORDS, EXCHANGED = range(3)  # what a window is decoded from, see `ExchangeWindows`


@dataclass
class ParallelSpeech:
    """
    Args:
        names: of the voices.
        recordings: of each voice, the same sentences in the same order.
        features: of each voice and clip what the encoder's head reads, (frames, channels) in half precision.
        warps: see `speech_alignment.align`.
        units: of each voice and clip what level 0 shall be, (frames,).
    """

    names: list[str]
    recordings: list[Recordings]
    features: list[list[torch.Tensor]]
    warps: dict[tuple[int, int, int], np.ndarray]
    units: list[list[torch.Tensor]]


def speak_parallel(
    voices: list[str], count: int, sampling_rate: int, seed: int, folder: Path, left_out: frozenset[str] = frozenset()
) -> list[Recordings]:
    """`count` sentences by every voice, at speeds of their own; kept in `folder` as one .npz file a voice.

    Raises:
        ValueError: the folder has other sentences.
    """
    texts = [text for text in sentences(count + len(left_out), seed) if text not in left_out][:count]
    spoken = []
    for index, voice in enumerate(voices):
        path = folder / f"parallel_{voice}.npz"
        if path.is_file():
            logger.info("using the speech in %s", path)
            spoken.append(Recordings.load(path))
            if spoken[-1].texts != texts:
                raise ValueError(f"{path} has other sentences; remove it to synthesize anew")
            continue
        clips = speak_all(texts, [voice], sampling_rate, seed + 1 + index, vary=True)[0]
        spoken.append(Recordings.join(clips, texts))
        folder.mkdir(parents=True, exist_ok=True)
        spoken[-1].save(path)
    return spoken


@torch.no_grad()
def features_of(codec: SolamiSpeechCodecModel, recordings: Recordings) -> list[torch.Tensor]:
    """What the head of the codec's encoder reads of each clip: (frames, channels), half precision."""
    body = codec.encoder.layers[:-HEAD_LAYERS]

    def compute(clips: list[np.ndarray]) -> list[torch.Tensor]:
        values, mask = pad_right([torch.from_numpy(clip) for clip in clips])
        lengths = mask.sum(1)
        hidden = run_layers(body, values[:, None], lengths).transpose(1, 2).half()
        frames = -(-lengths // codec.config.hop_length)
        return [clip[:count].clone() for clip, count in zip(hidden, frames.tolist(), strict=True)]

    clips = [recordings[index] for index in range(len(recordings))]
    return map_in_batches(
        clips, len, 16, compute, progress=lambda batches: tqdm(batches, desc="encoding speech", unit="batch"),
        most_steps=_BATCH_SAMPLES,
    )  # fmt: skip


def run_head(codec: SolamiSpeechCodecModel, features: torch.Tensor) -> torch.Tensor:
    """Features (batch, frames, channels) to latents (batch, frames, size)."""
    return run_layers(codec.encoder.layers[-HEAD_LAYERS:], features.transpose(1, 2), None).transpose(1, 2)


@torch.no_grad()
def latents_of_voices(codec: SolamiSpeechCodecModel, features: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """Latents (frames, size) of each voice and clip, of what `features_of` gave."""
    return [[run_head(codec, clip.float()[None])[0] for clip in clips] for clips in features]


@torch.no_grad()
def exchanged_codes(
    codec: SolamiSpeechCodecModel, latents: list[list[torch.Tensor]], warps: dict[tuple[int, int, int], np.ndarray],
    target: int, codec_name: str, seed: int,
) -> SpeechCodes:  # fmt: skip
    """Each clip of a voice as codes, and in turn with them each again with level 0 of another voice, warped into its
    time, and the further levels that make it the target's: what an acoustic model learns to exchange from.

    See `latents_of_voices`, `speech_alignment.align`, and `sentence_of` for the order.
    """
    generator = np.random.default_rng((seed, target))
    first, clips = codec.quantizer.levels[0], []
    for number in range(2 * len(latents[target])):
        index = sentence_of(number, len(latents[target]))
        own = latents[target][index]
        units = first.encode(own)
        if number % 2:
            source = int(generator.choice([voice for voice in range(len(latents)) if voice != target]))
            units = first.encode(latents[source][index])[torch.from_numpy(warps[source, target, index])]
        clips.append(behind_level_0(codec, own, units))
    return SpeechCodes.join([clips], codec_name)


def sentence_of(number: int, count: int) -> int:
    """What clip `number` of exchanged codes says, of `count` sentences. Even ones are the voice's own in order, odd
    ones exchanged, half of all sentences ahead: beside its twin a clip would be filled in by copying."""
    return (number // 2 + number % 2 * (count // 2)) % count


def exchanged_speech(folder: Path, count: int, held_out: int) -> tuple[Recordings, SpeechCodes, Recordings]:
    """What `voice_exchange` has written: of each voice at most `count` sentences, own and exchanged, as sound (the
    same for both) and as codes, and sentences held out: of each voice the last, `held_out` in all.

    Raises:
        FileNotFoundError: the folder has no such codes, or not the speech to them.
        ValueError: speech and codes are not of the same clips.
    """
    paths = sorted(folder.glob("codes_*.npz"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no codes_*.npz, expected a folder of voice_exchange")
    clips, texts, kept, codes = [], [], [], []
    for path in paths:
        spoken = Recordings.load(folder / path.name.replace("codes_", "parallel_", 1))
        both = SpeechCodes.load(path)
        if len(both) != 2 * len(spoken):
            raise ValueError(f"{path} has {len(both)} clips, expected {2 * len(spoken)}, two of each that is spoken")
        border = len(spoken) - min(-(-held_out // len(paths)), len(spoken) // 2)
        kept += [(spoken[index], spoken.texts[index]) for index in range(border, len(spoken))]
        for number in range(2 * len(spoken)):
            index = sentence_of(number, len(spoken))
            if index < min(border, count):
                clips.append(spoken[index])
                texts.append(spoken.texts[index])
                codes.append(both[number])
    rest = Recordings.join([clip for clip, _ in kept], [text for _, text in kept])
    return Recordings.join(clips, texts), SpeechCodes.join([codes], both.codec), rest


def behind_level_0(codec: SolamiSpeechCodecModel, latents: torch.Tensor, units: torch.Tensor) -> np.ndarray:
    """Codes of all levels, int16 (levels, frames), of latents (frames, size) of which level 0 says `units`."""
    quantizer = codec.quantizer
    residual = (latents - quantizer.levels[0].decode(units)).t()[None]
    further = quantizer.encode(residual, len(quantizer.levels), first_quantizer=1)[0]
    return torch.cat([units[None], further]).numpy().astype(np.int16)


class ExchangeWindows(Dataset):
    """Windows of a voice, each with the same words of one that may be another. An item is that of its number alone.

    Of `PATTERN`, an item's number says what it is decoded from: OWN, the voice's own levels; WORDS, level 0 of the
    source alone, with a vector that says whose voice it shall be; EXCHANGED, level 0 of another voice, with the
    further levels that are left to say.

    Args:
        window: frames of a window.
        count: nominal number of windows.
        others: recordings of no known voice and their features, of which every twelfth window is, decoded from its own
            levels; or None.
    """

    PATTERN = (*[OWN] * 4, *[WORDS] * 5, *[EXCHANGED] * 2, None)

    def __init__(
        self, speech: ParallelSpeech, window: int, count: int, seed: int, hop_length: int,
        others: tuple[Recordings, list[torch.Tensor]] | None = None,
    ):  # fmt: skip
        self.speech, self.window, self.count, self.seed, self.hop_length = speech, window, count, seed, hop_length
        self.others = others
        self.length = CONTEXT + window + BEHIND
        self.source_length = self.length + CONTEXT  # speaks more slowly
        self.clips = [
            index
            for index, clips in enumerate(zip(*speech.features, strict=True))
            if min(map(len, clips)) >= self.source_length
        ]
        self.long_others = [i for i, clip in enumerate(others[1]) if len(clip) > self.length] if others else []
        if not self.clips:
            raise ValueError(
                f"no sentence is as long as {self.source_length} frames in all voices: give a shorter window_seconds"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """`kind`, `voice`, `input_values` (1, samples), and of the window and its source the `features` (frames,
        channels) that the head reads, the `places` (window,) in them and `units` (window,), -100 if not known."""
        generator = np.random.default_rng((self.seed, number))
        kind = self.PATTERN[number % len(self.PATTERN)]
        if kind is None:
            if self.long_others:
                return self._other(generator)
            kind = OWN
        while True:
            item = self._draw(generator, kind)
            if item is not None:
                return item

    def _draw(self, generator: np.random.Generator, kind: int) -> dict[str, torch.Tensor] | None:
        """None where the source speaks too slowly there."""
        speech, voices = self.speech, len(self.speech.names)
        index, target, source = int(generator.choice(self.clips)), *map(int, generator.integers(voices, size=2))
        if kind == EXCHANGED and source == target:
            source = (target + 1 + int(generator.integers(voices - 1))) % voices
        values = speech.recordings[target][index]
        start = int(generator.integers(len(values) // self.hop_length - self.window + 1))
        path = np.arange(start, start + self.window)
        item = self._window(speech.features[target][index], path, self.length)
        units = speech.units[target][index][path]
        if source != target:
            path = speech.warps[source, target, index][path]
        other = self._window(speech.features[source][index], path, self.source_length)
        if other is None:
            return None
        return {
            "kind": torch.tensor(kind),
            "voice": torch.tensor(target),
            "input_values": self._samples(values, start),
            "features": item[0],
            "places": item[1],
            "units": units,
            "source_features": other[0],
            "source_places": other[1],
            "source_units": speech.units[source][index][path],
        }

    def _other(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        recordings, features = self.others
        index = int(generator.choice(self.long_others))
        start = int(generator.integers(len(recordings[index]) // self.hop_length - self.window + 1))
        path = np.arange(start, start + self.window)
        found, places = self._window(features[index], path, self.length)
        unknown = torch.full((self.window,), -100)
        return {
            "kind": torch.tensor(OWN),
            "voice": torch.tensor(0),
            "input_values": self._samples(recordings[index], start),
            "features": found,
            "places": places,
            "units": unknown,
            "source_features": torch.nn.functional.pad(found, (0, 0, 0, self.source_length - self.length)),
            "source_places": places,
            "source_units": unknown,
        }

    def _window(
        self, features: torch.Tensor, path: np.ndarray, length: int
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        first = max(0, min(int(path[0]) - CONTEXT, len(features) - length))
        if path[-1] - first >= length:
            return None
        return features[first : first + length], torch.from_numpy(path - first)

    def _samples(self, values: np.ndarray, start: int) -> torch.Tensor:
        return torch.from_numpy(values[start * self.hop_length : (start + self.window) * self.hop_length])[None]
