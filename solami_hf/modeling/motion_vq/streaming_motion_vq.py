"""Motion from codes while they arrive.

A causal tokenizer looks back only: its chunks are what the whole clip gives, to rounding. The paper's looks both ways,
22 codes (2.9 s) at its sizes, so chunks overlap: each is decoded behind as many codes as the decoder looks back, and a
code's frames are given out once `lookahead` codes behind it are known. What lies further ahead is taken to repeat the
last known code (half as wrong as to take it for the clip's end). So the stream differs from the whole clip where a
frame hangs on codes further ahead, and with `decoder_reach(config)` codes of look-ahead it does not. On the demo's
tokenizer and real codes the joints are off by 20, 8.4, 3.8, 1.4 and 0.4 mm on average with 0 to 4 codes. Group norms
see the whole window, so with them the two differ a little everywhere.

    stream = MotionVQDecoderStream(model)
    for body_codes, hand_codes in chunks:       # (1, n) each, any n; a bound tokenizer has no hand codes
        show(stream.decode(body_codes, hand_codes))
    show(stream.finish())
"""

import torch

from .configuration_motion_vq import SolamiMotionVQConfig
from .modeling_motion_vq import MotionVQCache, SolamiMotionVQModel

LOOKAHEAD = 2
"""Codes; 0.27 s at the paper's rate."""


def decoder_reach(config: SolamiMotionVQConfig) -> int:
    """Codes on each side that a frame of a tokenizer's decoder depends on, its norms aside."""
    reach = 0
    for part in config.parts:
        dilations = [
            getattr(config, f"{part}_dilation_growth_rate") ** k for k in range(getattr(config, f"{part}_depth"))
        ]
        if config.network == "linear":
            reach = max(reach, 2 + sum(dilations))
            continue
        steps = 2  # of the last two convolutions, in frames
        for _ in range(config.down_t):
            steps = -(-(steps + 1) // 2) + sum(dilations)  # behind the upsampling, then in the residual blocks
        reach = max(reach, steps + 1)
    return reach


class MotionVQDecoderStream:
    """State of the decoder between the chunks of one stream, or of a batch of streams that go on together. The model's
    weights must not change while the stream lasts. `lookahead` codes must be known behind a code before its frames are
    given out; a causal tokenizer needs and uses none. Raises ValueError: a negative look-ahead."""

    def __init__(self, model: SolamiMotionVQModel, lookahead: int = LOOKAHEAD):
        if lookahead < 0:
            raise ValueError(f"lookahead is {lookahead} codes, expected 0 or more")
        self.model, self.lookahead = model, 0 if model.config.causal else lookahead
        self._cache = MotionVQCache() if model.config.causal else None
        self._reach = decoder_reach(model.config)
        self._codes: torch.Tensor | None = (
            None  # (parts, batch, [levels,] n): what is still looked back at, and what waits
        )
        self._past = 0  # codes among these whose frames are given out
        self._finished = False

    @torch.no_grad()
    def decode(self, body_codes: torch.Tensor, hand_codes: torch.Tensor | None = None) -> torch.Tensor:
        """The frames that became known with these codes: raw features (batch, frames, features_size); after n codes in
        all, those of n - lookahead codes in all. `body_codes` and `hand_codes` are (batch, n) integers, the next
        codes, or (batch, levels, n); n may be 0. A bound tokenizer takes body codes alone. Raises ValueError: as
        `SolamiMotionVQModel.decode`, another batch size than before, or a finished stream."""
        if self._finished:
            raise ValueError("this stream is finished; make a new MotionVQDecoderStream for the next answer")
        parts = self.model.config.parts
        given = [body_codes] if hand_codes is None else [body_codes, hand_codes]
        if len(given) != len(parts) or any(
            codes.shape != given[-1].shape or codes.ndim not in (2, 3) for codes in given
        ):
            names = ("body_codes", "hand_codes")[: len(given)]
            told = " and ".join(f"{n} has shape {tuple(c.shape)}" for n, c in zip(names, given, strict=True))
            raise ValueError(f"{told}, expected (batch, n) for {' and '.join(parts)}")
        codes = torch.stack(given).to(self.model.device)
        if self._codes is not None:
            if self._codes.shape[1] != codes.shape[1]:
                raise ValueError(f"the chunk has {codes.shape[1]} streams, expected {self._codes.shape[1]} as before")
            codes = torch.cat([self._codes, codes], dim=-1)
        self._codes = codes
        return self._give(codes.shape[-1] - self._past - self.lookahead)

    @torch.no_grad()
    def finish(self) -> torch.Tensor:
        """The rest of the frames (batch, frames, features_size), when no more codes will come. Raises ValueError: the
        stream got no codes, or is finished already."""
        if self._codes is None or self._finished:
            raise ValueError("nothing to finish: this stream has " + ("ended" if self._finished else "got no codes"))
        self._finished = True
        return self._give(self._codes.shape[-1] - self._past)

    def _give(self, count: int) -> torch.Tensor:
        """The frames of the next `count` codes."""
        config, codes = self.model.config, self._codes
        if count <= 0:
            return torch.zeros(codes.shape[1], 0, config.features_size, device=codes.device)
        if self._cache is not None:
            self._codes = codes[..., :0]
            return self.model.decode(*codes, cache=self._cache).motion_values
        unknown = 0 if self._finished else max(0, self._reach - self.lookahead)
        guessed = torch.cat([codes, codes[..., -1:].repeat_interleave(unknown, dim=-1)], dim=-1)
        values, frames = self.model.decode(*guessed).motion_values, config.frames_per_code
        end = self._past + count
        begin = max(0, end - self._reach)
        self._codes = codes[..., begin:]
        known = values[:, self._past * frames : end * frames]
        self._past = end - begin
        return known
