"""Sound: files and arrays to waveforms, the packaged codec and voices."""

from .waveforms import read_audio, write_audio

__all__ = ["read_audio", "write_audio"]
