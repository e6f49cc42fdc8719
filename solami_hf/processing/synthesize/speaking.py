"""Spoken lines: a TTS callable, and the wav files that it has written already."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from .plans import content_hash

logger = logging.getLogger(__name__)


class SpeechError(ValueError):
    """A line that the TTS callable could not speak."""


def load_callable(name: str) -> Callable:
    """The function that `module:function` names; modules of the working directory are found too.

    Raises:
        ValueError: the name has another form, or there is no such module or function.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"tts is {name!r}, expected module:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"tts {name!r} cannot be loaded: {error}") from error
    if not callable(found):
        raise ValueError(f"tts {name!r} is no function")
    return found


class Speaker:
    """Speaks each line once, into `folder/wav/<hash of TTS, voice, seed and text>.wav`.

    Args:
        speak: called as `speak(text=..., voice=..., seed=...)`, gives (samples,) in [-1, 1] and their rate in Hz.
        name: stands for `speak` in the hash.
        folder: the manifest folder.
    """

    def __init__(self, speak: Callable, name: str, folder: str | Path, seed: int = 0):
        self.speak, self.name, self.folder, self.seed = speak, name, Path(folder), seed
        self.spoken = 0

    def __call__(self, text: str, voice: str) -> str:
        """The line's file, relative to the folder; SpeechError when it cannot be spoken."""
        from ..audio.waveforms import write_audio

        path = f"wav/{content_hash([self.name, voice, self.seed, text])[:24]}.wav"
        if not (self.folder / path).is_file():
            try:
                samples, rate = self.speak(text=text, voice=voice, seed=self.seed)
                write_audio(self.folder / path, samples, rate)
            except ImportError as error:
                raise OSError(f"tts {self.name} cannot run: {error}") from error
            except Exception as error:  # whatever a foreign function raises, it must not cost the other dialogues
                reason = f"{type(error).__name__}: {error}"
                raise SpeechError(f"the voice {voice!r} could not speak {text!r}: {reason}") from error
            self.spoken += 1
        return path
