"""Codes of motion and sound files, each read and encoded once, in batches; what cannot be used is told why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ..audio.waveforms import read_audio
from ..batching import map_in_batches
from ..motion.motion_io import read_motion
from ..motion.smplx_motion import SmplxMotion
from .prepare_rows import MediaFile

_READ_TOGETHER = 16  # batches whose files are in memory at once, so that like lengths find each other ...
_READ_SECONDS = 2 * 3600.0  # ... and no more sound than that
_BATCH_SECONDS = 600.0  # of sound in a batch, padding included


class Media:
    """Encodes files of a source folder.

    Args:
        folder: what paths are relative to.
        processor: a `SolamiProcessor` with the codecs that are needed.
        batch_size: files encoded together.
        known: codes of files that another call with the same processor has encoded, by `key`; not changed here.
        motion_rows (`MotionRows`, *optional*): where motions are that rows name by id.
    """

    def __init__(self, folder: Path, processor, batch_size: int, known: dict | None = None, motion_rows=None):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.folder, self.processor, self.batch_size = folder, processor, batch_size
        self.known, self.motion_rows = {} if known is None else known, motion_rows

    def key(self, file: MediaFile) -> tuple:
        """Key of a file: two names of one file are one."""
        return file.kind, os.path.realpath(self.folder / file.name), file.start, file.end

    def is_inside(self, file: MediaFile) -> bool:
        """True if a file's name leads to a place in the source folder."""
        return not os.path.isabs(file.name) and ".." not in Path(file.name).parts and "\0" not in file.name

    def path(self, file: MediaFile) -> Path:
        """Path of a file; ValueError when it is outside the source folder."""
        if not self.is_inside(file):
            raise ValueError(f"{file.name} lies outside {self.folder}; paths of a source are relative to its folder")
        return self.folder / file.name

    def encode(self, files: Iterable[MediaFile], done: Callable[[int, float], None] = lambda files, seconds: None):
        """Codes of all files inside the folder, by `key`; for a file that cannot be used a `ValueError` instead.

        The result depends on the set of files alone.

        Args:
            done: called with the number and the seconds of files that were encoded.
        """
        codes: dict[tuple, object] = {}
        files = list(files)  # walked once for each kind
        for kind, read, encode, seconds in (
            ("motion", self._read_motion, self._encode_motion, lambda motion: motion.duration),
            ("audio", self._read_audio, self._encode_audio, self._audio_seconds),
        ):
            wanted: dict[tuple, MediaFile] = {}
            for file in sorted((f for f in files if f.kind == kind), key=lambda f: (f.name, f.start, f.end or 0.0)):
                if self.is_inside(file):
                    wanted.setdefault(self.key(file), file)
            loaded: dict[tuple, object] = {}
            for key, file in wanted.items():
                if key in self.known:
                    codes[key] = self.known[key]
                    continue
                try:
                    loaded[key] = read(file)
                except (ValueError, OSError) as error:
                    codes[key] = ValueError(str(error))
                    done(1, 0.0)
                total = sum(map(seconds, loaded.values())) if len(loaded) % self.batch_size == 0 else 0.0
                if len(loaded) == _READ_TOGETHER * self.batch_size or total > _READ_SECONDS:
                    codes |= self._encode_some(loaded, encode)
                    done(len(loaded), sum(map(seconds, loaded.values())))
                    loaded = {}
            codes |= self._encode_some(loaded, encode)
            done(len(loaded), sum(map(seconds, loaded.values())))
        return codes

    def _encode_some(self, loaded: dict, encode: Callable) -> dict:
        if not loaded:
            return {}
        try:
            return dict(zip(loaded, encode(list(loaded.values())), strict=True))
        except ValueError:  # one bad file must not cost the batch: find it
            codes = {}
            for key, value in loaded.items():
                try:
                    codes[key] = encode([value])[0]
                except ValueError as error:
                    codes[key] = ValueError(str(error))
            return codes

    def _read_motion(self, file: MediaFile) -> SmplxMotion:
        motion = read_motion(self.path(file), fps=self.processor.motion_codec.config.fps)
        if not file.start and file.end is None:
            return motion
        start, end = (None if t is None else round(t * motion.fps) for t in (file.start, file.end))
        if start >= motion.num_frames:
            raise ValueError(f"{file.name} lasts {motion.duration:.2f} s, but the row begins at {file.start:g} s")
        return replace(motion, transl=motion.transl[start:end], poses=motion.poses[start:end])

    def _encode_motion(self, motions: list[SmplxMotion]) -> list[dict]:
        codes = self.processor.encode_motion(motions, batch_size=self.batch_size)
        return [{**c, "num_frames": m.num_frames} for c, m in zip(codes, motions, strict=True)]

    def _read_audio(self, file: MediaFile):
        return read_audio(self.path(file), sampling_rate=self.processor.speech_codec.config.sampling_rate)

    def _audio_seconds(self, values) -> float:
        return len(values) / self.processor.speech_codec.config.sampling_rate

    def _encode_audio(self, waves: list) -> list:
        most = round(_BATCH_SECONDS * self.processor.speech_codec.config.sampling_rate)
        return map_in_batches(waves, len, self.batch_size, self._encode_audio_batch, most_steps=most)

    def _encode_audio_batch(self, waves: list) -> list:
        return self.processor.encode_speech(waves, batch_size=len(waves))
