"""Measurements of single media and pairs of them: shared among processes, kept on the disk, never done twice.

A run that is stopped goes on where it was: every finished part is a line of `parts/<process>.jsonl`, named by a hash
of the media's content, the judging models and this package's version.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ... import __version__
from ...processing.datasets.manifests import BadRow, json_lines
from ...processing.files.processes import processes
from ...processing.synthesize.writers import content_hash
from .. import folder_of
from ..motion_math import check_joints, kinetic_set
from .answer_pairs import Medium
from .media import joints_of, motion_of, sound_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One thing to measure, of one medium or two; of two, the answer and then the reference."""

    what: str  # motion (how it moves), feet (on the floor), sound, likeness (of two motions) or voices (of two sounds)
    media: tuple[Medium, ...]


@dataclass
class Measures:
    """The modules and models that measure, each loaded when it is first needed."""

    asr: str | None = None  # a speech recogniser's Hub id or folder; the packaged Whisper tiny.en when None
    speaker_model: str | None = None  # a speaker encoder's; the packaged one when None
    missing: dict[str, str] = field(default_factory=dict)  # what cannot be had here, with the reason
    _modules: dict = field(default_factory=dict, repr=False)

    def settings(self, what: str) -> list:
        """Settings that a part's value depends on."""
        return {"sound": [self.asr], "voices": [self.speaker_model]}.get(what, [])

    def measure(self, part: Part) -> dict:
        """The value of a part; `{"error": reason}` for media that cannot be judged."""
        try:
            return getattr(self, f"_{part.what}")(*part.media)
        except ValueError as error:
            return {"error": f"{part.media[0].name}: {error}"}

    def module(self, name: str):
        """The `evaluate` module of a metric; ImportError with the way out where what it needs is not installed."""
        import evaluate

        if name not in self._modules:
            try:
                self._modules[name] = evaluate.load(folder_of(name))
            except ImportError as error:
                raise ImportError(f"{name}: {error}; pip install 'solami_hf[eval]' brings it") from None
        return self._modules[name]

    def compute(self, name: str, **inputs) -> dict:
        """Result of a metric's module."""
        return self.module(name).compute(**inputs)

    def _motion(self, motion: Medium) -> dict:
        features = kinetic_set([check_joints(joints_of(motion), "motion")], motion_of(motion).fps)
        return {"kinetic": features[0].tolist(), "seconds": motion_of(motion).duration}

    def _feet(self, motion: Medium) -> dict:
        joints = [joints_of(motion)]
        return _figures(self.compute("foot_skating", predictions=joints, fps=motion_of(motion).fps))

    def _likeness(self, motion: Medium, reference: Medium) -> dict:
        joints = {"predictions": [joints_of(motion)], "references": [joints_of(reference)]}
        poses = {"predictions": [motion_of(motion).poses], "references": [motion_of(reference).poses]}
        return {
            **_figures(self.compute("motion_mpjpe", **joints)),
            **_figures(self.compute("rotation_error", **poses)),
            "angle_error": self.compute("rotation_error", **joints, mode="upstream")["angle_error"],
            "frames": min(motion_of(motion).num_frames, motion_of(reference).num_frames),
        }

    def _sound(self, sound: Medium) -> dict:
        samples = sound_of(sound)
        found = {"seconds": len(samples) / 16000}
        if self._transcriber is not None:
            found["transcript"] = self._transcriber([samples])[0]
        return found

    @cached_property
    def _transcriber(self):
        from ..asr import HubTranscriber, Transcriber

        if self.asr:
            return HubTranscriber(self.asr, device=_device())
        return self._optional("speech recognition", lambda: Transcriber(threads=1))

    def _voices(self, sound: Medium, reference: Medium) -> dict:
        if self._speaker is None:
            return {}
        samples = [sound_of(sound), sound_of(reference)]
        if not all(clip.any() for clip in samples):
            raise ValueError("is silent, or its reference is; silence is like no voice")
        first, second = self._speaker(samples)
        return {"similarity": float(np.dot(first, second))}

    @cached_property
    def _speaker(self):
        from ..speaker import SpeakerEmbedder, XVectorEmbedder

        if self.speaker_model:
            return XVectorEmbedder(self.speaker_model, device=_device())
        return self._optional("voice similarity", SpeakerEmbedder)

    def _optional(self, what: str, load: Callable):
        try:
            return load()
        except ImportError as error:
            self.missing[what] = str(error)
            logger.warning("without %s: %s", what, error)
            return None


def _device() -> str:
    """Of this process, for models of the Hub."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def _figures(result: dict) -> dict:
    """Measured values of a module, without the counts."""
    return {name: value for name, value in result.items() if name not in ("valid", "num_predictions", "mode")}


class Parts:
    """Values of parts by `Part`, kept in a folder and measured by `measures`."""

    def __init__(self, folder: str | Path, measures: Measures):
        self.folder, self.measures = Path(folder), measures
        self._values: dict[str, dict] = {}

    def __getitem__(self, part: Part) -> dict:
        return self._values[self._key(part)]

    def compute(self, wanted: Iterable[Part]) -> None:
        """Measures what is not there yet: this process its share, then all wait and read the others'."""
        rank, world, wait = processes()
        self._read()
        # By name, so that all processes have the same list; what shares a medium lies together for the cache of media.
        parts = {self._key(part): part for part in dict.fromkeys(wanted)}
        mine = [(key, part) for key, part in parts.items() if key not in self._values][rank::world]
        wait()  # nobody writes before all have read, or the shares would differ
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{rank}.jsonl", "ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # a killed run's open line is measured again
            for key, part in tqdm(mine, desc="measure", unit="part", disable=True if rank else None):
                file.write((json.dumps({"part": key, "value": self.measures.measure(part)}) + "\n").encode())
                file.flush()
        wait()
        self._read()

    def _key(self, part: Part) -> str:
        identities = [medium.identity for medium in part.media]
        return content_hash([__version__, part.what, identities, self.measures.settings(part.what)])

    def _read(self) -> None:
        for path in sorted(self.folder.glob("*.jsonl")):
            for _, row in json_lines(path):
                if not isinstance(row, BadRow):  # torn when a run was killed
                    self._values[row["part"]] = row["value"]
