"""When somebody speaks, in sound that never ends: Silero VAD (https://github.com/snakers4/silero-vad, MIT).

The package `silero-vad` carries its weights. It answers with the probability of speech in each 32 ms.
"""

from collections import deque
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch

from ..loading import torch_threads
from .live_protocol import MICROPHONE_RATE

WINDOW = 512
"""Samples that are judged at once."""
SPEECH, SILENCE = 0.5, 0.35
"""Probability from which a window is speech, and below which it is none."""
BEGIN_WINDOWS, END_WINDOWS, BEFORE_WINDOWS = 3, 22, 12
"""Windows of speech that begin a turn (0.1 s), of silence that end it (0.7 s), and kept from before it (0.4 s)."""


class SpeechDetector:
    """Cuts turns out of a stream of sound by the `probability` of speech in a window (512,) float32 in -1..1 at 16
    kHz, which is called with one after the other."""

    def __init__(self, probability: Callable[[np.ndarray], float]):
        self._probability, self.speaking = probability, False
        self._waiting, self._run = np.zeros(0, np.int16), 0
        self._before: deque[np.ndarray] = deque(maxlen=BEFORE_WINDOWS)

    def push(self, samples: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """What the next samples (n,) int16 tell: ("begin", the first sound of a turn), ("speech", more of it) and
        ("end", nothing)."""
        self._waiting = np.concatenate([self._waiting, samples])
        while len(self._waiting) >= WINDOW:
            window, self._waiting = self._waiting[:WINDOW], self._waiting[WINDOW:]
            found = self._probability(window.astype(np.float32) / 32768)
            if self.speaking:
                self._run = self._run + 1 if found < SILENCE else 0
                yield "speech", window
                if self._run == END_WINDOWS:
                    self.speaking, self._run = False, 0
                    yield "end", window[:0]
            else:
                self._before.append(window)
                self._run = self._run + 1 if found >= SPEECH else 0
                if self._run == BEGIN_WINDOWS:
                    self.speaking, self._run = True, 0
                    yield "begin", np.concatenate(self._before)
                    self._before.clear()


def can_detect() -> bool:
    """Whether `silero-vad` is installed."""
    return find_spec("silero_vad") is not None


def speech_detector() -> SpeechDetector:
    """A detector for one stream; its network remembers what it heard."""
    with torch_threads(torch.get_num_threads()):  # importing it leaves one
        from silero_vad import load_silero_vad
    model = load_silero_vad()

    @torch.inference_mode()
    def probability(window: np.ndarray) -> float:
        return model(torch.from_numpy(window), MICROPHONE_RATE).item()

    probability(np.zeros(WINDOW, np.float32))
    model.reset_states()
    return SpeechDetector(probability)
