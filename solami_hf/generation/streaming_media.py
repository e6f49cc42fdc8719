"""Codes of an answer that is still being written, to motion and sound: what each can say already.

Put end to end, the pieces are what `SolamiProcessor.decode_motion` and `decode_speech` make of all codes at once, but
for what these see ahead:

| decoder | the stream lags by | and differs by |
|---|---|---|
| motion, causal tokenizer | nothing | rounding |
| motion, others | `lookahead` codes (2: 0.27 s) | what hangs on codes further ahead, see `streaming_motion_vq` |
| our speech codec | `decoder_lookahead` samples (1203: 75 ms) | rounding |
| codecs of transformers | 0.25 s, behind 2 s that are decoded again | what lies further ahead or back than that |
| acoustic model before the codec | up to 1 s of level 0: 0.8 s filled at once, 0.2 s ahead | codes of levels 1 to 7 |
| motion filler before the codec | up to 1.1 s of level 0: 6 codes filled at once, 2 ahead | codes above level 0 |

| face | 0.1 s of codes, or of sound where the lips cannot read the codes | eyes that follow a body not known yet |

The acoustic model sees the voice's prompt and the last 3 s that it filled, so the voice goes on; the sentence's end it
cannot see. Of a talker's sentence it fills all once its end is known. Sound too loud to play is turned down from there
on; all at once it would be turned down as a whole.
"""

import zlib

import numpy as np
import torch

from ..modeling.face.configuration_lips import VISEMES
from ..modeling.face.modeling_lips import LipsStream, SolamiLipsModel
from ..modeling.motion_vq.streaming_motion_vq import LOOKAHEAD, MotionVQDecoderStream
from ..modeling.solami.vocabulary import split_levels
from ..modeling.speech_codec.codec_interface import codec_fingerprint
from ..modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from ..modeling.speech_codec.streaming_speech_codec import SpeechCodecDecoderStream
from ..processing.audio.packaged_speech import packaged_lips
from ..processing.audio.waveforms import LOUDEST, LOUDNESS_SECONDS, resample
from ..processing.checkpoint_models import in_own_precision
from ..processing.motion.expression import Expression, user_head
from ..processing.motion.face import FACE_FPS, FACE_UNITS
from ..processing.motion.features import features_to_smplx
from ..processing.motion.smplx_motion import SmplxMotion
from ..processing.motion.visemes import curve_places, curves_at_fps, reach, viseme_curves

FILLED_SECONDS, FILLED_AHEAD_SECONDS, FILLED_BEHIND_SECONDS = 0.8, 0.2, 3.0
OVERLAP_AHEAD_SECONDS, OVERLAP_BEHIND_SECONDS = 0.25, 2.0
FADE_SECONDS = 0.02
"""Over which the loudness falls, so that it does not click."""


class MotionPieces:
    """A motion, piece by piece: it goes on where the piece before it ended. `lookahead` codes are waited for, see
    `MotionVQDecoderStream`; the `filler` of the levels above 0, if any, sees the last 3 s that it filled."""

    def __init__(self, codec, lookahead: int = LOOKAHEAD, filler=None):
        self._fill = None if filler is None else _FilledLevels(filler, None, codec.config.frame_rate)
        self._stream, self._fps = MotionVQDecoderStream(codec, lookahead), codec.config.fps
        self._device = codec.device
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None  # features of the last frame, and where it stands

    @in_own_precision
    def push(self, *codes) -> SmplxMotion | None:
        """The frames that became known with the next codes (n,) of body and hand, or of the body alone where the codec
        is bound; None where there are none."""
        codes = torch.stack([torch.as_tensor(np.asarray(part, dtype=np.int64)) for part in codes])
        return self._motion(self._frames(codes if self._fill is None else self._fill.push(codes)))

    @in_own_precision
    def finish(self) -> SmplxMotion | None:
        """The rest, when no more codes will come."""
        rest = [] if self._fill is None else [self._frames(self._fill.finish())]
        return self._motion(torch.cat([*rest, self._stream.finish()], dim=1))

    def _frames(self, codes: torch.Tensor) -> torch.Tensor:
        """Features (1, frames, F) that are known with the next codes (rows, n), of each part level by level."""
        parts = codes.to(self._device).unflatten(0, (-1, len(self._stream.model.config.parts)))
        return self._stream.decode(*(part[None] for part in parts.unbind(1)))

    def _motion(self, features: torch.Tensor) -> SmplxMotion | None:
        features = features[0].float().cpu()
        if not len(features):
            return None
        if self._last is None:
            params = features_to_smplx(features)
        else:  # the step into the first of these frames is told by the last one before it
            last, place = self._last
            params = features_to_smplx(torch.cat([last, features]))[1:]
            params[:, (0, 2)] += place
        self._last = features[-1:], params[-1, (0, 2)]
        return SmplxMotion.from_params(params.numpy(), fps=self._fps)


class SpeechPieces:
    """A voice, piece by piece, by the processor's speech codec, and its acoustic model where it has one; `voice` as
    in `SolamiProcessor.decode_speech`. Raises ValueError: an unknown voice, or one that the checkpoint cannot use."""

    def __init__(self, processor, voice: str | None = None):
        codec = processor.speech_codec
        self._config, acoustic, prompt = codec.config, *processor.acoustics(voice)
        self._fill = None if acoustic is None else _FilledLevels(acoustic, prompt, self._config.frame_rate)
        ours = isinstance(codec, SolamiSpeechCodecModel)
        self._stream = SpeechCodecDecoderStream(codec) if ours else _OverlappedDecoder(codec)
        self._loudness, self._device, self._empty = _FallingLoudness(self._config.sampling_rate), codec.device, True

    @in_own_precision
    def push(self, codes) -> np.ndarray:
        """The sound (samples,) float32 in [-1, 1] that became known with the next speech codes (n,), whole frames."""
        if not len(codes):
            return np.zeros(0, np.float32)
        frames = torch.from_numpy(split_levels(codes, self._config.lm_levels, self._config.codebook_size))
        return self._heard(frames if self._fill is None else self._fill.push(frames), last=False)

    @in_own_precision
    def pause(self) -> np.ndarray:
        """The sound of all codes so far, but for what the codec sees ahead: a sentence ends here."""
        return self._heard(self._fill.finish(), last=False)

    @property
    def waits(self) -> bool:
        """Whether there are codes for which `pause` would give sound."""
        return self._fill is not None and self._fill.waiting.shape[1] > 0

    @in_own_precision
    def finish(self) -> np.ndarray:
        """The rest, when no more codes will come; nothing where none came."""
        rest = torch.zeros(1, 0, dtype=torch.long) if self._fill is None else self._fill.finish()
        return self._heard(rest, last=True)

    def _heard(self, frames: torch.Tensor, last: bool) -> np.ndarray:
        values = []
        if frames.shape[1]:
            values, self._empty = [self._stream.decode(frames[None].to(self._device))], False
        if last and not self._empty:
            values.append(self._stream.finish())
        if not values:
            return np.zeros(0, np.float32)
        return self._loudness.limit(torch.cat(values, dim=-1)[0, 0].float().cpu().numpy())


class FacePieces:
    """A face, piece by piece: lips (as `lips_of` gives them) from codes of speech or from its sound, eyes and brows
    seeded by the user's turn, whose media are codes; where it has a place, the eyes turn to it, and the head with
    `turn_head`."""

    def __init__(
        self, processor, lips: tuple[SolamiLipsModel, bool], user: dict | None = None, turn_head: bool = True
    ):
        self._lips, self.reads_codes = lips
        self._config, self._rate = processor.speech_codec.config, self._lips.config.frame_rate
        self._turn_head, self._stream = turn_head, LipsStream(self._lips)
        told = zlib.crc32(repr(sorted(user.items()) if user else "").encode())
        self._expression = Expression(told, _place_of(processor, user))
        self._visemes = np.zeros((0, len(self._lips.config.visemes)), np.float32)
        self.frames = 0  # given out

    def whole(self, motion: SmplxMotion, codes=(), sound: np.ndarray | None = None) -> tuple[SmplxMotion, np.ndarray]:
        """The motion of an answer with its head turned, and its face (frames, 52)."""
        motion, sound = self.move(motion), np.zeros(0, np.float32) if sound is None else sound
        seconds = max(motion.duration, len(sound) / self._config.sampling_rate)
        return motion, np.concatenate([self.push(codes, sound), self.finish(seconds)])

    def move(self, motion: SmplxMotion) -> SmplxMotion:
        """Takes the next frames of the body, and gives them with the head turned."""
        return self._expression.move(motion, self._turn_head)

    @in_own_precision
    def push(self, codes=(), samples=()) -> np.ndarray:
        """The frames (n, 52) that are known with the next speech codes (n,), whole frames, and the next sound (n,)."""
        config = self._config
        if self.reads_codes and len(codes):
            self._read(self._stream.push(codes=split_levels(codes, config.lm_levels, config.codebook_size)[0].copy()))
        elif not self.reads_codes and len(samples):
            samples = resample(np.asarray(samples, np.float32), config.sampling_rate, self._lips.config.sampling_rate)
            self._read(self._stream.push(samples=samples))
        known = len(self._visemes) - 1 - reach(self._rate)
        ready = int(np.floor((known + 0.5) * FACE_FPS / self._rate)) + 1 if known >= 0 else 0
        return self._frames(max(ready, self.frames))

    @in_own_precision
    def finish(self, seconds: float) -> np.ndarray:
        """The rest, when no more will come and the answer lasts so long; behind its speech the mouth rests."""
        if len(self._visemes) or self._stream.started:
            self._read(self._stream.finish())
        frames = int(np.ceil(seconds * FACE_FPS - 1e-6))
        resting = int(np.ceil(curve_places(frames, self._rate))) + reach(self._rate) + 1 - len(self._visemes)
        rest = np.eye(1, self._visemes.shape[1], dtype=np.float32)
        self._visemes = np.concatenate([self._visemes, rest.repeat(max(0, resting), 0)])
        return self._frames(max(frames, self.frames))

    def _read(self, visemes: torch.Tensor) -> None:
        self._visemes = np.concatenate([self._visemes, visemes.float().numpy()])

    def _frames(self, end: int) -> np.ndarray:
        """The frames up to `end` that were not given out."""
        frames = np.arange(self.frames, end)
        if not len(frames):
            return np.zeros((0, len(FACE_UNITS)), np.float32)
        near = reach(self._rate)
        first = max(0, int(curve_places(frames[0], self._rate)) - near)
        skipped = near if first else 0
        curves = viseme_curves(self._visemes[first:], self._rate)[skipped:]
        face = curves_at_fps(curves, self._rate, frames, first + skipped)
        places = np.clip(np.rint(curve_places(frames, self._rate)).astype(int), 0, len(self._visemes) - 1)
        speaking = 1 - self._visemes[places, VISEMES.index("rest")]
        self.frames = end
        return np.clip(face + self._expression.curves(frames[0], len(frames), speaking), 0, 1)


def lips_of(processor) -> tuple[SolamiLipsModel, bool]:
    """The processor's lips, or the packaged ones, and whether they read its codes; else they hear the sound."""
    lips = processor.lips or packaged_lips()
    return lips, lips.config.codec_fingerprint == codec_fingerprint(processor.speech_codec)


def _place_of(processor, user: dict | None) -> np.ndarray | None:
    """Where the head of a user is whose turn says where they stand, (3,)."""
    content = [] if user is None or isinstance(user["content"], str) else user["content"]
    trans = next((block["motion"].get("trans") for block in content if block.get("type") == "motion"), None)
    if trans is None or not len(trans):
        return None
    codec = processor.motion_codec
    with torch.no_grad():
        place = codec.decode_transform(torch.as_tensor([int(trans[0])], device=codec.device))[0, 2:]
    return user_head(place.float().cpu().numpy())


class _FilledLevels:
    """All levels of a codec for level 0, some at a time; each goes on from what was filled before it. The most
    probable codes are taken, so an answer always sounds the same."""

    def __init__(self, acoustic, prompt: torch.Tensor | None, frame_rate: float):
        self.acoustic, self.prompt = acoustic, prompt
        self.count, self.ahead, self.behind = (
            max(1, round(seconds * frame_rate))
            for seconds in (FILLED_SECONDS, FILLED_AHEAD_SECONDS, FILLED_BEHIND_SECONDS)
        )
        self.given = acoustic.config.num_given_levels
        self.waiting = torch.zeros(self.given, 0, dtype=torch.long)
        self.filled: torch.Tensor | None = None  # (levels, n), the last ones

    def push(self, frames: torch.Tensor) -> torch.Tensor:
        """Codes (levels, n) that are certain with the next frames (given levels, m); often none."""
        self.waiting = torch.cat([self.waiting, frames], dim=1)
        codes = []
        while self.waiting.shape[1] >= self.count + self.ahead:
            codes.append(self._next(self.count, self.count + self.ahead))
        return torch.cat(codes, dim=1) if codes else frames.new_zeros(self.acoustic.config.num_quantizers, 0)

    def finish(self) -> torch.Tensor:
        """The rest."""
        rest = self.waiting.shape[1]
        return self._next(rest, rest) if rest else self.waiting.new_zeros(self.acoustic.config.num_quantizers, 0)

    def _next(self, count: int, seen: int) -> torch.Tensor:
        """The next `count` frames, filled while `seen` are looked at."""
        context = [part for part in (self.prompt, self.filled) if part is not None]
        device = self.acoustic.device
        prompt = torch.cat(context, dim=1)[None].to(device) if context else None
        waiting = self.waiting[:, :seen].to(device)
        codes = self.acoustic.generate(waiting if self.given == 1 else waiting[None], prompt)[0, :, :count].cpu()
        self.waiting = self.waiting[:, count:]
        self.filled = (codes if self.filled is None else torch.cat([self.filled, codes], dim=1))[:, -self.behind :]
        return codes[: self.acoustic.config.spoken_levels]


class _OverlappedDecoder:
    """Any codec in chunks: each is decoded with what was heard before it and some frames behind it."""

    def __init__(self, codec):
        self.codec = codec
        self.ahead = round(OVERLAP_AHEAD_SECONDS * codec.config.frame_rate)
        self.behind = round(OVERLAP_BEHIND_SECONDS * codec.config.frame_rate)
        self.frames: torch.Tensor | None = None  # (batch, levels, n): some that were heard, and those that wait
        self.heard = 0

    def decode(self, audio_codes: torch.Tensor) -> torch.Tensor:
        """Sound (batch, 1, samples) that is known with the next frames (batch, levels, n)."""
        self.frames = audio_codes if self.frames is None else torch.cat([self.frames, audio_codes], dim=2)
        return self._until(self.frames.shape[2] - self.ahead)

    def finish(self) -> torch.Tensor:
        """The rest of it."""
        return self._until(self.frames.shape[2])

    def _until(self, end: int) -> torch.Tensor:
        if end <= self.heard:
            return torch.zeros(len(self.frames), 1, 0)
        hop, values = self.codec.config.hop_length, self.codec.decode(self.frames).audio_values
        values = values[..., self.heard * hop : end * hop].float().cpu()
        begin = max(0, end - self.behind)
        self.frames, self.heard = self.frames[..., begin:], end - begin
        return values


class _FallingLoudness:
    """`audio.limit_loudness` for sound that is still coming: the volume is what the sound so far demands."""

    def __init__(self, sampling_rate: int):
        self.piece, self.fade = round(LOUDNESS_SECONDS * sampling_rate), round(FADE_SECONDS * sampling_rate)
        self.open = np.zeros(0)  # squares of the piece that is not full yet
        self.gain, self.highest, self.loudest = 1.0, 0.0, 0.0

    def limit(self, values: np.ndarray) -> np.ndarray:
        """The next sound (samples,) as float32 in [-1, 1]; samples that are no numbers are silent."""
        if not len(values):
            return values
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        squares = np.concatenate([self.open, values.astype(np.float64) ** 2])
        pieces = np.pad(squares, (0, -len(squares) % self.piece)).reshape(-1, self.piece)
        self.loudest = max(self.loudest, float(np.sqrt(pieces.mean(axis=1).max())))
        self.highest = max(self.highest, float(np.abs(values).max()))
        self.open = squares[len(squares) // self.piece * self.piece :]
        before, self.gain = self.gain, min(1.0, 1 / max(self.highest, 1e-9), LOUDEST / max(self.loudest, 1e-9))
        gains = np.full(len(values), self.gain)
        ramp = min(self.fade, len(values))
        gains[:ramp] = np.linspace(before, self.gain, ramp)
        return np.clip(values * gains, -1, 1).astype(np.float32)
