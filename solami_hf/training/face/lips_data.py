"""Training data of the lips: codes, log-mels and visemes of sentences whose phones have known times.

The voices of flite tell theirs. Those of other voices and of recordings are found from their text: a network learns
from flite's voices to read visemes off the log-mel spectrogram, looking both ways, the most probable times of the
visemes that flite would say are taken, and once more with what was found.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ...modeling.face.configuration_lips import SolamiLipsConfig
from ...modeling.face.modeling_lips import SolamiLipsModel
from ...processing.audio.speech_sentences import sentences
from ...processing.audio.speech_voices import FASTEST, FLITE_VOICES, SLOWEST, check_voices, speak, speak_phones
from ...processing.audio.waveforms import read_audio
from ...processing.files.atomic_write import atomic_write
from ...processing.motion.visemes import frame_visemes
from ..speech_recordings import read_arrays, read_recordings

logger = logging.getLogger(__name__)

SENTENCES = 7620
"""Of seed 0; the packaged codec was made from these, and the first `HELD_OUT` were kept from it."""
HELD_OUT = 120
_ALIGNER_LOOKAHEAD = 12
_LEAST_FRAMES = 2  # of a viseme that is aligned, where there is room
_ROUNDS = 2  # of learning to align; the second learns from what the first has aligned, too


@dataclass
class SpokenFrames:
    """Clips in flat arrays."""

    codes: np.ndarray  # (frames,) int16, level 0
    mels: np.ndarray  # (frames, mels) float16
    visemes: np.ndarray  # (frames,) int16
    ends: np.ndarray  # (clips,) int64, where each clip ends
    voices: np.ndarray  # (clips,) who speaks

    def clip(self, index: int) -> slice:
        """The frames of a clip."""
        return slice(self.ends[index - 1] if index else 0, self.ends[index])


class LipsWindows(Dataset):
    """Windows of clips, at random; window `index` is the same in every run with the same seed. Some codes are others,
    as a talker is wrong at times, and the spectrogram louder, brighter or darker, over noise."""

    def __init__(self, frames: SpokenFrames, window: int, count: int, codebook_size: int, seed: int):
        if len(frames.codes) <= window:
            raise ValueError(f"there are {len(frames.codes)} frames of speech, expected more than {window}, a window")
        self.frames, self.window, self.count, self.codebook_size = frames, window, count, codebook_size
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        start = int(rng.integers(len(self.frames.codes) - self.window))
        place = slice(start, start + self.window)
        codes = self.frames.codes[place].astype(np.int64)
        codes = np.where(rng.random(self.window) < 0.1, rng.integers(self.codebook_size, size=self.window), codes)
        mels = self.frames.mels[place].astype(np.float32) + rng.uniform(-0.6, 0.6)
        mels = mels + rng.uniform(-0.4, 0.4) * np.linspace(-1, 1, mels.shape[1])
        mels = np.logaddexp(4 * mels, rng.uniform(-10, 0)) / 4
        labels = self.frames.visemes[place].astype(np.int64)
        return {name: torch.from_numpy(value) for name, value in
                (("codes", codes), ("mels", mels.astype(np.float32)), ("labels", labels))}  # fmt: skip


def lips_data(
    codec, config: SolamiLipsConfig, voices: list[str], count: int, held_out: int, data: str | None, steps: int,
    cache: Path, seed: int = 0,
) -> tuple[SpokenFrames, SpokenFrames]:  # fmt: skip
    """Clips to train on and clips held out, of which `codec`'s level 0 is read, kept in two files of the folder
    `cache`. Each of `voices` (of `speech_voices.VOICES`) speaks `count` sentences of its own and the same `held_out`
    ones; `data` is a folder of recordings whose `manifest.jsonl` has their words. Where neither tells when phones end,
    `steps` are taken to learn to align. Raises ValueError, FileNotFoundError: an unknown voice, one that is not
    installed, too many sentences, no recordings."""
    paths = [cache / f"lips_{part}.npz" for part in ("train", "held_out")]
    if all(path.is_file() for path in paths):
        logger.info("using the clips in %s and %s", *paths)
        return tuple(SpokenFrames(**read_arrays(path)) for path in paths)
    check_voices([*voices, FLITE_VOICES[0]])
    if held_out > HELD_OUT or count * len(voices) > SENTENCES - HELD_OUT:
        raise ValueError(f"asked for {count} sentences of each voice and {held_out} held out, there are "
                         f"{SENTENCES - HELD_OUT} for all voices together and {HELD_OUT}")  # fmt: skip
    texts, rng = sentences(SENTENCES, 0), np.random.default_rng(seed)
    said = [(voice, text, False) for i, voice in enumerate(voices) for text in texts[HELD_OUT + i * count :][:count]]
    said += [(voice, text, True) for voice in voices for text in texts[:held_out]]
    rate, clips = config.sampling_rate, []
    for voice, text, kept in tqdm(said, desc="synthesizing speech", unit="sentence"):
        speed = 1.0 if kept else round(rng.uniform(SLOWEST, FASTEST), 3)
        clips.append((voice, kept, *spoken(voice, text, speed, rate, int(rng.integers(2**31)))))
    if data:
        for kept in (False, True):
            recordings = read_recordings(data, rate, "validation" if kept else "train")
            clips += [(data, kept, recordings[i], phones_of(text), False)
                      for i, text in enumerate(recordings.texts) if text.strip()]  # fmt: skip
    return _framed(clips, codec, config, steps, seed, paths)


def spoken(voice: str, text: str, speed: float, rate: int, seed: int) -> tuple[np.ndarray, list, bool]:
    """A sentence (samples,) at `rate`, its phones with the seconds of their ends, and whether these are its own."""
    if voice in FLITE_VOICES:
        values, source_rate, phones = speak_phones(voice, text, speed)
        return read_audio(values, rate, source_rate=source_rate), phones, True
    values, source_rate = speak(voice, text, speed, seed)
    return read_audio(values, rate, source_rate=source_rate), phones_of(text), False


def phones_of(text: str) -> list[tuple[str, float]]:
    """The phones that flite would say, with the seconds at which they would end."""
    return speak_phones(FLITE_VOICES[0], text)[2]


def _framed(clips: list[tuple], codec, config: SolamiLipsConfig, steps: int, seed: int, paths: list[Path]):
    lips = SolamiLipsModel(config)  # for its spectrogram
    rows = []
    for voice, kept, wave, phones, own in tqdm(clips, desc="encoding speech", unit="clip"):
        values = torch.from_numpy(wave)[None]
        with torch.no_grad():
            codes = codec.encode(values[None].to(codec.device), num_quantizers=1).audio_codes[0, 0].cpu().numpy()
        values = torch.nn.functional.pad(values, (0, len(codes) * lips.hop_length - len(wave)))
        mels = lips.log_mels(values)[0].numpy().astype(np.float16)
        visemes = frame_visemes(phones, len(codes), config.frame_rate)
        rows.append([voice, kept, codes.astype(np.int16), mels, visemes, own, phones])
    unknown = [row for row in rows if not row[5]]
    taught = [row for row in rows if row[5]] or _teachers(config, lips)
    for turn in range(_ROUNDS if unknown else 0):
        learnt = taught + unknown * (turn > 0)
        aligner = train_aligner([row[3] for row in learnt], [row[4] for row in learnt], config, steps, seed)
        for row in unknown:
            row[4] = aligned(aligner, row[3], row[6])
    parts = []
    for kept, path in zip((False, True), paths, strict=True):
        mine = [row for row in rows if row[1] == kept]
        codes, mels, visemes = (np.concatenate([row[i] for row in mine] or [np.zeros(0, np.int16)]) for i in (2, 3, 4))
        ends, voices = np.cumsum([len(row[2]) for row in mine]), np.array([row[0] for row in mine], np.str_)
        parts.append(SpokenFrames(codes, mels, visemes.astype(np.int16), ends, voices))
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **asdict(parts[-1]))
    return tuple(parts)


def _teachers(config: SolamiLipsConfig, lips: SolamiLipsModel) -> list:
    """Clips of flite's voices to learn aligning from, where none of the clips tells its times."""
    found = []
    for i, text in enumerate(sentences(240, 1)):
        wave, phones, _ = spoken(FLITE_VOICES[i % 3], text, 1.0, config.sampling_rate, 0)
        count = len(wave) // lips.hop_length
        mels = lips.log_mels(torch.from_numpy(wave[: count * lips.hop_length])[None])[0].numpy()
        found.append([None, None, None, mels, frame_visemes(phones, count, config.frame_rate), True, phones])
    return found


def train_aligner(mels: list, visemes: list, config: SolamiLipsConfig, steps: int, seed: int) -> SolamiLipsModel:
    """A reader of visemes off log-mels (frames, mels) of clips, that hears what is behind a frame as well."""
    torch.manual_seed(seed)
    aligner = SolamiLipsModel(SolamiLipsConfig(**config.to_diff_dict() | {"lookahead": _ALIGNER_LOOKAHEAD})).train()
    frames = np.concatenate(mels)
    labels = np.concatenate(visemes)
    data = LipsWindows(SpokenFrames(np.zeros(len(labels), np.int16), frames, labels, np.zeros(0), np.zeros(0)),
                       150, steps * 16, 1, seed)  # fmt: skip
    optimizer = torch.optim.AdamW(aligner.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=max(2, steps), pct_start=0.1)
    for step in tqdm(range(steps), desc="learning to align", unit="step"):
        batch = [data[step * 16 + i] for i in range(16)]
        loss = aligner(**{name: torch.stack([item[name] for item in batch]) for name in ("mels", "labels")}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return aligner.eval()


@torch.no_grad()
def aligned(aligner: SolamiLipsModel, mels: np.ndarray, phones: list[tuple[str, float]]) -> np.ndarray:
    """The viseme (frames,) of each frame: those of the phones in their order, at the most probable times."""
    count = len(mels)
    order = frame_visemes(phones, round(phones[-1][1] * 1000), 1000.0)  # at 1 ms none is passed over
    order = order[np.flatnonzero(np.diff(order, prepend=-1))]
    if len(order) > count:
        raise ValueError(f"a clip of {count} frames is too short for its {len(order)} visemes; is its text right?")
    scores = aligner(mels=torch.from_numpy(mels.astype(np.float32))[None]).logits.log_softmax(-1)[0].numpy()
    states = np.repeat(order, max(1, min(_LEAST_FRAMES, count // len(order))))
    return states[best_way(scores[:, states])]


def best_way(scores: np.ndarray) -> np.ndarray:
    """The state (frames,) of each frame that scores (frames, states) best in sum, each state in its order and at least
    for a frame."""
    frames, states = scores.shape
    best, came = np.full(states, -np.inf), np.zeros((frames, states), bool)
    best[0] = scores[0, 0]
    for frame in range(1, frames):
        before = np.concatenate([[-np.inf], best[:-1]])
        came[frame] = before > best
        best = np.maximum(before, best) + scores[frame]
    way = np.zeros(frames, int)
    way[-1] = states - 1
    for frame in range(frames - 1, 0, -1):
        way[frame - 1] = way[frame] - came[frame, way[frame]]
    return way
