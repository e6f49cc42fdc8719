"""How well a speech codec and its acoustic model keep words and voices: the figures of the packaged pair's card.

    python -m benchmarks.speech_quality --codec DIR --acoustic_model DIR --output quality.json

Every voice of `judged_voices` is heard by Whisper tiny.en, which helped no training, and by a speaker encoder: as it
is, after the round trip, and from level 0 with the acoustic model (see `speech_quality_figures.CONDITIONS`). Intervals
are 95 %, by bootstrap over sentences. Beside the JSON file come Markdown tables and a folder of parts from which an
interrupted run goes on, kept under fingerprints of sound and models. Nothing is random: a second run gives the same.
"""

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from solami_hf.command_line import run_command
from solami_hf.metrics.asr import SAMPLING_RATE, Transcriber
from solami_hf.metrics.evaluation.figures import word_errors
from solami_hf.metrics.speaker import SpeakerEmbedder
from solami_hf.modeling.solami.backbones import model_fingerprint
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.audio.waveforms import limit_loudness, resample
from solami_hf.processing.batching import map_in_batches, pad_right
from solami_hf.processing.files.atomic_write import atomic_write
from solami_hf.processing.files.text_files import write_json, write_text
from solami_hf.training.speech.speech_decoder import fill_batch
from solami_hf.training.speech_recordings import Recordings

from . import judged_voices
from .judged_voices import NAMES, Voice
from .speech_quality_figures import summarize, tables, targets

logger = logging.getLogger(__name__)

_BATCH = 16


class Cache:
    """Arrays by name in a folder of .npz files; what is there is not computed again."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str, key: tuple, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of `make()`; `key` holds all that they depend on."""
        path = self.folder / f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}.npz"
        if not path.is_file():
            arrays = make()
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)
        with np.load(path, allow_pickle=False) as file:
            return dict(file)

    def recordings(self, name: str, key: tuple, make: Callable[[], tuple[Recordings, ...]]) -> tuple[Recordings, ...]:
        """Likewise for several `Recordings`."""

        def arrays() -> dict[str, np.ndarray]:
            return {
                f"{field}{index}": np.asarray(getattr(recordings, field))
                for index, recordings in enumerate(make())
                for field in ("samples", "ends", "texts")
            }

        found = self(name, key, arrays)
        return tuple(
            Recordings(found[f"samples{i}"], found[f"ends{i}"], found[f"texts{i}"].tolist())
            for i in range(len(found) // 3)
        )


class Judges:
    """Two workers that transcribe, and a speaker encoder; each is made when it is first needed."""

    def __init__(self, workers: int = 2):
        self.workers, self._transcribers, self._embedder = workers, [], None

    def transcribe(self, clips: list[np.ndarray], label: str) -> np.ndarray:
        """Texts of clips at 16 kHz."""
        self._transcribers = self._transcribers or [Transcriber(threads=1) for _ in range(self.workers)]
        texts = [""] * len(clips)
        with tqdm(total=len(clips), desc=label, unit="clip", leave=False) as bar:

            def work(first: int) -> None:
                for index in range(first, len(clips), self.workers):
                    texts[index] = self._transcribers[first]([clips[index]])[0]
                    bar.update()

            with ThreadPoolExecutor(self.workers) as pool:
                list(pool.map(work, range(self.workers)))
        return np.array(texts, dtype=np.str_)

    def embed(self, clips: list[np.ndarray]) -> np.ndarray:
        """Speaker embeddings (clips, size) of length 1 of clips at 16 kHz, each clip for itself."""
        self._embedder = self._embedder or SpeakerEmbedder()
        return self._embedder(clips)


class Pair:
    """A codec and, perhaps, an acoustic model, from clips to clips in padded batches."""

    def __init__(self, codec: SolamiSpeechCodecModel, acoustic: SolamiSoundStormModel | None):
        self.codec, self.acoustic = codec.eval(), acoustic and acoustic.eval()
        self.fingerprint = model_fingerprint(codec)  # of all of it: a tuned decoder gives other sounds
        self.acoustic_fingerprint = None
        if acoustic is not None:
            self.acoustic_fingerprint = f"{model_fingerprint(acoustic)} {acoustic.config.spoken_levels} levels"

    @torch.no_grad()
    def encode(self, clips: list[np.ndarray]) -> list[torch.Tensor]:
        """Clips (samples,) to codes (frames, levels)."""

        def encode(batch):
            values, mask = pad_right(batch)
            output = self.codec.encode(values[:, None], mask)
            return [codes[:, real].T for codes, real in zip(output.audio_codes, output.code_mask, strict=True)]

        return map_in_batches([torch.from_numpy(clip) for clip in clips], len, _BATCH, encode)

    @torch.no_grad()
    def decode(self, codes: list[torch.Tensor]) -> list[np.ndarray]:
        """Codes (frames, levels) to clips (samples,) at the codec's rate, as loud as the processor gives them."""

        def decode(batch):
            padded, mask = pad_right(batch)
            output = self.codec.decode(padded.transpose(1, 2), mask)
            pairs = zip(output.audio_values[:, 0].numpy(), output.padding_mask.numpy(), strict=True)
            return [limit_loudness(values[real], self.codec.config.sampling_rate) for values, real in pairs]

        return map_in_batches(codes, len, _BATCH, decode)

    def fill(self, codes: list[torch.Tensor], prompts: list[torch.Tensor]) -> list[torch.Tensor]:
        """Level 0 of `codes`, and the other levels by the acoustic model in the voices of `prompts` (frames, levels).

        Greedy, and of so many levels, as `SolamiProcessor.decode_speech` does it.
        """
        items, spoken = list(zip(codes, prompts, strict=True)), self.acoustic.config.spoken_levels

        def fill(batch):
            return [filled[:, :spoken] for filled in fill_batch(self.acoustic, batch)]

        return map_in_batches(items, lambda item: len(item[0]), _BATCH, fill)


def clips_of(recordings: Recordings) -> list[np.ndarray]:
    """All clips, float32 (samples,) each."""
    return [recordings[index] for index in range(len(recordings))]


def digest(recordings: Recordings) -> str:
    """A short hash of the sound and its texts."""
    return hashlib.sha256(recordings.samples.tobytes() + repr(recordings.texts).encode()).hexdigest()[:16]


def prompt_plan(voice: Voice, condition: str, trained: list[Voice]) -> list[tuple[str, int]]:
    """Which prompt each sentence is said and compared with: the voice's name and the prompt's number.

    Own prompts take turns; under "acoustic_other" the other trained voices do, and after each turn their prompts.
    """
    count = len(voice.speech)
    if condition != "acoustic_other":
        return [(voice.name, index % len(voice.prompts)) for index in range(count)]
    others = [other for other in trained if other.name != voice.name]
    turns = [divmod(index, len(others)) for index in range(count)]
    return [(others[place].name, turn % len(others[place].prompts)) for turn, place in turns]


class Measurement:
    """Runs or looks up everything for a list of voices.

    Args:
        pair: what is measured.
        voices: those marked "trained" are each other's competitors in speaker similarity.
        judges, cache: see there. `speaker`: whether to embed.
    """

    def __init__(self, pair: Pair, voices: list[Voice], judges: Judges, cache: Cache, speaker: bool = True):
        self.pair, self.judges, self.cache, self.speaker = pair, judges, cache, speaker
        self.voices = {voice.name: voice for voice in voices}
        self.trained = [voice for voice in voices if voice.kind == "trained"]
        self.prompts = {voice.name: self._embed_prompts(voice) for voice in voices} if speaker else {}

    def conditions(self, voice: Voice) -> list[str]:
        """Those that make sense: another voice's prompt is for trained voices only."""
        names = ["own", "all_levels", "level_0"]
        if self.pair.acoustic is not None:
            names.append("acoustic")
            if voice.kind == "trained" and len(self.trained) > 1:
                names.append("acoustic_other")
        return names

    def part(self, voice: Voice, condition: str) -> dict[str, np.ndarray]:
        """Of each sentence: `errors` (n, 2); with speaker similarity also `to_own` (n,) and `to_others` (n, voices),
        the cosines with its prompt and with the prompts of the (other) trained voices."""
        plan = prompt_plan(voice, condition, self.trained)
        found = self.cache(f"{voice.name}-{condition}", self._key(voice, condition, plan), lambda: self._judge(
            voice, condition, plan
        ))  # fmt: skip
        part = {"errors": word_errors(found["transcripts"].tolist(), voice.speech.texts)}
        if self.speaker:
            rows = list(zip(found["embeddings"], plan, strict=True))
            part["to_own"] = np.array([row @ self.prompts[name][number] for row, (name, number) in rows])
            part["to_others"] = np.array([[
                row @ self.prompts[other.name][number % len(other.prompts)]
                for other in self.trained if other.name != name
            ] for row, (name, number) in rows])  # fmt: skip
        return part

    def _key(self, voice: Voice, condition: str, plan: list[tuple[str, int]]) -> tuple:
        key: tuple = (digest(voice.speech), self.speaker)
        if condition != "own":
            key += (condition, self.pair.fingerprint)
        if condition.startswith("acoustic"):
            prompts = sorted({name for name, _ in plan})
            key += (self.pair.acoustic_fingerprint, plan, [digest(self.voices[name].prompts) for name in prompts])
        return key

    def _judge(self, voice: Voice, condition: str, plan: list[tuple[str, int]]) -> dict[str, np.ndarray]:
        clips = self._at_16_khz(self._sound(voice, condition, plan))
        found = {"transcripts": self.judges.transcribe(clips, f"{voice.name}, {condition}")}
        return {**found, "embeddings": self.judges.embed(clips)} if self.speaker else found

    def _sound(self, voice: Voice, condition: str, plan: list[tuple[str, int]]) -> list[np.ndarray]:
        if condition == "own":
            return clips_of(voice.speech)
        codes = self.pair.encode(clips_of(voice.speech))
        if condition == "level_0":
            codes = [code[:, :1] for code in codes]
        elif condition.startswith("acoustic"):
            needed = sorted(set(plan))
            prompts = self.pair.encode([self.voices[name].prompts[number] for name, number in needed])
            by_name = dict(zip(needed, prompts, strict=True))
            codes = self.pair.fill(codes, [by_name[item] for item in plan])
        return self.pair.decode(codes)

    def _at_16_khz(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        return [resample(clip, self.pair.codec.config.sampling_rate, SAMPLING_RATE) for clip in clips]

    def _embed_prompts(self, voice: Voice) -> np.ndarray:
        def make():
            return {"embeddings": self.judges.embed(self._at_16_khz(clips_of(voice.prompts)))}

        return self.cache(f"{voice.name}-prompts", (digest(voice.prompts),), make)["embeddings"]


def measure(measurement: Measurement) -> dict:
    """All figures: `{"voices": {name: {"kind", "sentences", "seconds", "conditions"}}, "trained": {condition: ...},
    "targets": [...]}`."""
    rate = measurement.pair.codec.config.sampling_rate
    todo = [(voice, name) for voice in measurement.voices.values() for name in measurement.conditions(voice)]
    parts = {(voice.name, name): measurement.part(voice, name) for voice, name in tqdm(todo, desc="conditions")}
    voices = {}
    for voice in measurement.voices.values():
        voices[voice.name] = {
            "kind": voice.kind,
            "sentences": len(voice.speech),
            "seconds": round(len(voice.speech.samples) / rate, 1),
            "conditions": {
                name: summarize([parts[voice.name, name]], [parts[voice.name, "own"]])
                for name in measurement.conditions(voice)
            },
        }
    trained = [voice.name for voice in measurement.trained]
    together = {
        condition: summarize([parts[name, condition] for name in trained], [parts[name, "own"] for name in trained])
        for condition in (measurement.conditions(measurement.trained[0]) if trained else ())
    }
    return {"voices": voices, "trained": together, "targets": targets(voices, together)}


def gather(
    names: list[str], count: int, rate: int, seconds: float, cache: Cache
) -> tuple[list[Voice], dict[str, str]]:
    """The voices that can be had, and why the others cannot."""
    voices, skipped = [], {}
    for name in tqdm(names, desc="voices"):

        def make(name: str = name) -> tuple[Recordings, Recordings]:
            voice = judged_voices.read_voice(name, count, rate, seconds)
            return voice.speech, voice.prompts

        try:
            speech, prompts = cache.recordings(f"{name}-speech", (count, rate, seconds), make)
        except (ImportError, FileNotFoundError) as error:
            skipped[name] = str(error)
            logger.warning("without %s: %s", name, error)
            continue
        voices.append(Voice(name, judged_voices.kind(name), speech, prompts))
    return voices, skipped


def main(argv: list[str] | None = None) -> None:
    """The command line; writes `--output`, the Markdown beside it, and the tables to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", required=True, help="folder of the codec")
    parser.add_argument(
        "--acoustic_model", help="folder of the acoustic model; without it its conditions are left out"
    )
    parser.add_argument("--output", required=True, help="JSON file to write; .md and a folder of parts go beside it")
    parser.add_argument("--voices", nargs="+", default=list(NAMES), choices=NAMES, help="default: all")
    parser.add_argument("--sentences", type=int, default=judged_voices.HELD_OUT, help="held-out sentences of a voice")
    parser.add_argument("--prompt_seconds", type=float, default=3.0, help="length of a voice prompt")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="clips transcribed at once")
    args = parser.parse_args(argv)
    codec = SolamiSpeechCodecModel.from_pretrained(args.codec)
    acoustic = args.acoustic_model and SolamiSoundStormModel.from_pretrained(args.acoustic_model)
    output = Path(args.output)
    cache, rate = Cache(output.parent / f"{output.stem}_parts"), codec.config.sampling_rate
    voices, skipped = gather(args.voices, args.sentences, rate, args.prompt_seconds, cache)
    judges = Judges(args.workers)
    try:
        judges.embed([])
    except ImportError as error:
        skipped["speaker similarity"] = str(error)
        logger.warning("without speaker similarity: %s", error)
    measurement = Measurement(
        Pair(codec, acoustic or None), voices, judges, cache, "speaker similarity" not in skipped
    )
    figures = {
        "judges": "Whisper tiny.en; resemblyzer 0.1.4, each clip embedded for itself",
        "codec": measurement.pair.fingerprint,
        "acoustic_model": measurement.pair.acoustic_fingerprint,
        "prompt_seconds": args.prompt_seconds,
        **measure(measurement),
        "skipped": skipped,
    }
    text = tables(figures)
    write_json(output, figures, indent=2)
    write_text(output.with_suffix(".md"), text)
    logger.info("wrote %s and .md", output)
    sys.stdout.write(text)


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.speech_quality", main))
