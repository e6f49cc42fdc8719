"""Sentences spoken by Debian's flite, which tells when each phone ends."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from .speech_voices import FLITE_VOICES, check_voices
from .waveforms import read_file


def speak_phones(voice: str, text: str, speed: float = 1.0) -> tuple[np.ndarray, int, list[tuple[str, float]]]:
    """A sentence as float32 (samples,), its rate in Hz, and its phones (ARPAbet, `pau`) with the second of their end.

    Raises:
        ValueError: no voice of flite. FileNotFoundError: flite is not installed.
    """
    if voice not in FLITE_VOICES:
        raise ValueError(f"voice is {voice!r}, expected one that tells its phones: {', '.join(FLITE_VOICES)}")
    check_voices([voice])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        stretch = f"duration_stretch={1 / speed:.4f}"
        command = ["flite", "-voice", voice, "--setf", stretch, "-psdur", "-t", text, "-o", str(path)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        values, rate = read_file(path)
    return values, rate, [(phone, float(end)) for phone, end in (part.rsplit(":", 1) for part in told.split())]
