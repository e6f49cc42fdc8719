"""The offline voices that a speech codec can learn from: `hibari-tts` and the voices of Debian's `flite`.

    wave, rate = speak("rms", "Please wave your hand.", speed=1.1, seed=0)

| voice | what |
|---|---|
| heart | a woman, US English, neural (`pip install hibari-tts`, Apache-2.0) |
| slt | a woman, US English, from CMU ARCTIC (`apt-get install flite`, free licence of CMU) |
| rms | a man, US English, likewise |
| awb | a man, Scottish English, likewise |
| kal16 | a man, US English, joined diphones (likewise) |
"""

import functools
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .waveforms import read_audio, read_file

FLITE_VOICES = ("slt", "rms", "awb", "kal16")
VOICES = ("heart", *FLITE_VOICES)
SLOWEST, FASTEST = 0.75, 1.3
SMALLEST, LARGEST = 0.85, 1.2  # of the factors that pitch and formants are multiplied with
_BLOCK = 16  # sentences of one voice that are spoken alike


def check_voices(voices: list[str]) -> None:
    """Raises ValueError for a voice that is not known, ImportError or FileNotFoundError for one not installed."""
    for voice in voices:
        if voice not in VOICES:
            raise ValueError(f"voice is {voice!r}, expected one of {', '.join(VOICES)}")
    if "heart" in voices:
        _hibari()
    if set(voices) & set(FLITE_VOICES) and shutil.which("flite") is None:
        raise FileNotFoundError(f"the voices {', '.join(FLITE_VOICES)} need flite: apt-get install flite")


def speak(voice: str, text: str, speed: float = 1.0, seed: int = 0) -> tuple[np.ndarray, int]:
    """A sentence as float32 (samples,) and its rate in Hz; `seed` varies the neural voice."""
    if voice == "heart":
        return _hibari()(text, speed=speed, seed=seed), type(_hibari()).sample_rate
    return _flite(voice, text, speed)[:2]


def speak_phones(voice: str, text: str, speed: float = 1.0) -> tuple[np.ndarray, int, list[tuple[str, float]]]:
    """A sentence by a voice of flite as float32 (samples,), its rate in Hz, and its phones (ARPAbet, `pau`) with the
    second of their end. Raises ValueError: no voice of flite; FileNotFoundError: flite is not installed."""
    if voice not in FLITE_VOICES:
        raise ValueError(f"voice is {voice!r}, expected one that tells its phones: {', '.join(FLITE_VOICES)}")
    check_voices([voice])
    values, rate, told = _flite(voice, text, speed, "-psdur")
    return values, rate, [(phone, float(end)) for phone, end in (part.rsplit(":", 1) for part in told.split())]


def _flite(voice: str, text: str, speed: float, *options: str) -> tuple[np.ndarray, int, str]:
    """Samples, rate, and what flite tells of a sentence."""
    stretch = f"duration_stretch={1 / speed:.4f}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "--setf", stretch, *options, "-t", text, "-o", str(path)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return *read_file(path), told


def speak_all(
    texts: list[str], voices: list[str], sampling_rate: int, seed: int, vary: bool = False, shift: bool = False
) -> tuple[list[np.ndarray], list[str]]:
    """Every text by every voice, voice after voice: clips (samples,) at `sampling_rate`, and the voice of each. With
    `vary` blocks of 16 sentences differ in speed (0.75 to 1.3); with `shift` every other block differs also in pitch
    and formants (0.85 to 1.2), as if another person spoke."""
    check_voices(voices)
    generator = random.Random(seed)
    clips, names = [], []
    speed = factor = 1.0
    progress = tqdm(total=len(texts) * len(voices), desc="synthesizing speech", unit="sentence")
    for voice in voices:
        for index, text in enumerate(texts):
            if index % _BLOCK == 0:
                other = shift and index // _BLOCK % 2 == 0
                factor = round(generator.uniform(SMALLEST, LARGEST), 3) if other else 1.0
                speed = round(generator.uniform(SLOWEST, FASTEST), 3) if vary else 1.0
            values, rate = speak(voice, text, speed / factor, generator.randrange(2**31))
            # played faster it is higher, and as long as it was asked to be
            clips.append(read_audio(values, sampling_rate, source_rate=round(rate * factor)))
            names.append(voice if factor == 1.0 else f"{voice} x {factor}")
            progress.update()
    progress.close()
    return clips, names


@functools.cache
def _hibari():
    try:
        from hibari import Hibari
    except ImportError as error:
        raise ImportError("the voice heart needs hibari-tts: pip install 'solami-hf[demo]'") from error
    return Hibari()
