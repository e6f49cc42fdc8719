"""A user's turn while it comes in: sound, and what the body does meanwhile."""

import numpy as np

from ...processing.motion.landmarks import landmarks_to_smplx
from ...processing.motion.smplx_motion import SmplxMotion
from .live_protocol import LANDMARKS_IN, MICROPHONE_RATE, Limits, ProtocolError

POSES_FPS = 30.0
BEFORE_SECONDS = 0.5
"""Of movement that belongs to a spoken turn, though it came before the sound."""
PAUSE_SECONDS, WINDOW, QUIET = 0.25, 320, 0.03
"""After which a turn may be over, samples whose loudness is judged together, and what is quiet beside the loudest."""


class UserTurn:
    """What has come of a turn; sound behind the longest turn is left out, of a longer movement the beginning. `limits`
    are those of sound and movement, `body_fps` the frames of landmarks a second. `samples` of sound came so far,
    `spoken` of them up to the last that is not quiet; `ended`: it is being answered, or forgotten."""

    def __init__(self, limits: Limits, body_fps: float = POSES_FPS):
        self.limits, self.body_fps = limits, body_fps
        self.samples, self._sound, self._kind = 0, [], LANDMARKS_IN
        self._times, self._frames = np.zeros(0), np.zeros(0)
        self.spoken, self.ended, self._loudest, self._known, self._asked = 0, False, 0.0, (0, None), -1

    def add_sound(self, samples: np.ndarray) -> None:
        """Sound (n,) int16 at 16 kHz; ProtocolError where the turn becomes too long, once."""
        if not self.samples:
            self._keep_body(BEFORE_SECONDS)
        most, before = int(self.limits.turn_seconds * MICROPHONE_RATE), self.samples
        self._sound.append(samples[: most - before])
        self.samples += len(self._sound[-1])
        for begin in range(0, len(self._sound[-1]), WINDOW):
            window = self._sound[-1][begin : begin + WINDOW].astype(np.float32)
            loudness = float(np.sqrt(np.mean(window**2)))
            self._loudest = max(self._loudest, loudness)
            if loudness > QUIET * self._loudest:
                self.spoken = before + begin + len(window)
        if before < most <= self.samples:
            told = f"a turn has at most {self.limits.turn_seconds:g} s of sound; what follows is not heard"
            raise ProtocolError("too_long", told)

    def add_body(self, kind: int, start: float, frames: np.ndarray) -> None:
        """Landmarks (n, 75, 4) or poses (n, 159), the first of them at `start` seconds of the client's clock."""
        if not len(self._times) or kind != self._kind or start < self._times[-1] - 1:  # another camera or clock
            self._times, self._frames, self._kind = np.zeros(0), frames[:0], kind
        self._times = np.concatenate([self._times, start + np.arange(len(frames)) / self._fps])
        self._frames = np.concatenate([self._frames, frames])
        self._keep_body(self.limits.turn_seconds)

    @property
    def pauses(self) -> bool:
        """Whether somebody has spoken, and now says nothing."""
        return 0 < self.spoken <= self.samples - PAUSE_SECONDS * MICROPHONE_RATE

    def asks(self) -> bool:
        """Whether something can be read ahead: once when sound begins, and once in each pause."""
        asked, self._asked = self._asked, self.spoken if self.pauses else max(0, self._asked)
        return asked < self._asked

    def know(self, samples: int, words: str) -> None:
        """What was recognised in so many samples."""
        self._known = samples, words

    @property
    def words(self) -> str | None:
        """What was recognised, where nothing was said since; None where that is unknown, or nothing."""
        samples, words = self._known
        return words if words and self.spoken <= samples else None

    def sound(self) -> np.ndarray:
        """All sound so far (n,), float32 in -1..1."""
        return np.concatenate(self._sound).astype(np.float32) / 32768

    @property
    def has_body(self) -> bool:
        """Whether there is movement."""
        return len(self._times) > 0

    @property
    def _fps(self) -> float:
        return self.body_fps if self._kind == LANDMARKS_IN else POSES_FPS

    def _keep_body(self, seconds: float) -> None:
        most = max(1, int(seconds * self._fps))
        self._times, self._frames = self._times[-most:], self._frames[-most:]

    def content(self, text: str | None) -> list[dict]:
        """The turn as content blocks, with words where they are known. A body that cannot be read is left out; where
        there is nothing else, ValueError."""
        content = [] if text is None else [{"type": "text", "text": text}]
        if self.has_body:
            try:
                content.append({"type": "motion", "motion": self._motion()})
            except ValueError:
                if not self.samples and text is None:
                    raise
        if self.samples:
            content.append({"type": "audio", "audio": {"array": self.sound(), "sampling_rate": MICROPHONE_RATE}})
        return content

    def _motion(self) -> SmplxMotion:
        """The frames at an even rate: where some were lost, the last one before stays."""
        times = np.maximum.accumulate(self._times)
        begin = max(times[0], times[-1] - self.limits.turn_seconds)
        steps = np.arange(int((times[-1] - begin) * self._fps + 0.01) + 1)
        found = np.searchsorted(times, begin + (steps + 0.01) / self._fps, side="right") - 1
        frames = self._frames[np.maximum(found, 0)]
        if self._kind != LANDMARKS_IN:
            return SmplxMotion.from_params(frames, POSES_FPS)
        return landmarks_to_smplx(frames, self._fps)
