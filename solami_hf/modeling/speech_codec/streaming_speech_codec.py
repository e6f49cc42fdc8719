"""Speech from codes while they arrive, equal to decoding all of them at once.

The decoder's LSTM reads forwards, but its convolutions look a few steps ahead. Each layer therefore waits for what
lies to the right of a step, and the sound lags `config.decoder_lookahead` samples behind the codes (1203, or 75 ms, at
SpeechTokenizer's sizes). Nothing is computed twice and nothing is approximated.

    stream = SpeechCodecDecoderStream(codec)
    for codes in chunks:                        # (1, q, frames), any number of frames
        play(stream.decode(codes))
    play(stream.finish())
"""

import torch
from torch import nn

from .modeling_speech_codec import (
    SolamiSpeechCodecModel,
    SpeechCodecConv,
    SpeechCodecConvTranspose,
    SpeechCodecLSTM,
    SpeechCodecResidualBlock,
    check_codes,
    convolve,
    convolve_transposed,
    reflect_pad,
)


class SpeechCodecDecoderStream:
    """State of the decoder between the chunks of one stream, or of a batch of streams that go on together. The
    codec's weights must not change while it lasts; `first_quantizer` is the level of the first row of codes. Raises
    ValueError: another codec than `SolamiSpeechCodecModel`."""

    def __init__(self, codec: SolamiSpeechCodecModel, first_quantizer: int = 0):
        if not isinstance(codec, SolamiSpeechCodecModel):
            raise ValueError(f"only SolamiSpeechCodecModel is decoded in chunks, got {type(codec).__name__}")
        self.codec, self.first_quantizer = codec, first_quantizer
        self._past: dict[nn.Module, torch.Tensor] = {}  # inputs that a layer still needs
        self._started: set[nn.Module] = set()  # layers that have seen the start of the clip
        self._weights: dict[nn.Module, torch.Tensor] = {}
        self._lstm_states: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        self._batch: int | None = None
        self._finished = False

    @torch.no_grad()
    def decode(self, audio_codes: torch.Tensor) -> torch.Tensor:
        """The sound (batch, 1, samples) that became certain with the next codes (batch, q, frames), q and batch as
        in the chunks before; after n frames in all, `max(0, hop_length * n - decoder_lookahead)` samples in all.
        Raises ValueError: as in `SolamiSpeechCodecModel.decode`, another batch size than before, a finished stream."""
        config = self.codec.config
        check_codes(audio_codes, config.num_quantizers, config.codebook_size, self.first_quantizer)
        if self._finished:
            raise ValueError("this stream is finished; make a new SpeechCodecDecoderStream for the next answer")
        if self._batch not in (None, len(audio_codes)):
            raise ValueError(
                f"audio_codes has {len(audio_codes)} streams, expected {self._batch} as in earlier chunks"
            )
        self._batch = len(audio_codes)
        latents = self.codec.quantizer.decode(audio_codes.long(), self.first_quantizer)
        return self._push_all(self.codec.decoder.layers, latents.to(self.codec.dtype), last=False)

    @torch.no_grad()
    def finish(self) -> torch.Tensor:
        """The rest of the sound (batch, 1, samples), when no more codes will come. Raises ValueError: the stream
        got no codes, or is finished already."""
        if self._batch is None or self._finished:
            raise ValueError("nothing to finish: this stream has " + ("ended" if self._finished else "got no codes"))
        self._finished = True
        here = {"dtype": self.codec.dtype, "device": self.codec.device}
        nothing = torch.zeros(self._batch, self.codec.config.hidden_size, 0, **here)
        return self._push_all(self.codec.decoder.layers, nothing, last=True)

    def _push_all(self, layers: nn.Sequential, hidden: torch.Tensor, last: bool) -> torch.Tensor:
        for layer in layers:
            hidden = self._push(layer, hidden, last)
        return hidden

    def _push(self, layer: nn.Module, hidden: torch.Tensor, last: bool) -> torch.Tensor:
        """New inputs (batch, channels, n) of a layer to what it can say now (batch, channels', n')."""
        if isinstance(layer, SpeechCodecConv):
            return self._convolve(layer, hidden, last)
        if isinstance(layer, SpeechCodecConvTranspose):
            return self._convolve_transposed(layer, hidden, last)
        if isinstance(layer, SpeechCodecResidualBlock):
            inner = self._push_all(layer.block, hidden, last)
            waiting = self._with_past(layer, hidden)
            known = inner.shape[-1]
            self._past[layer] = waiting[..., known:]
            return inner + self._push(layer.shortcut, waiting[..., :known], last)
        if hidden.shape[-1] == 0:
            return hidden
        if isinstance(layer, SpeechCodecLSTM):
            steps = hidden.permute(2, 0, 1)
            output, self._lstm_states[layer] = layer.lstm(steps, self._lstm_states.get(layer))
            return (output + steps).transpose(0, 1).clone(memory_format=torch.contiguous_format).transpose(1, 2)
        return layer(hidden)

    def _convolve(self, layer: SpeechCodecConv, hidden: torch.Tensor, last: bool) -> torch.Tensor:
        hidden = self._with_past(layer, hidden)
        weight = self._weight(layer)
        if layer in self._started or hidden.shape[-1] > layer.left or last:
            left = 0 if layer in self._started else layer.left
            hidden = reflect_pad(hidden, left, layer.right if last else 0)
            self._started.add(layer)
        known = hidden.shape[-1] - layer.left - layer.right if layer in self._started else 0
        self._past[layer] = hidden[..., max(0, known) :]
        if known < 1:
            return hidden.new_zeros(len(hidden), len(weight), 0)
        return convolve(hidden, weight, layer.bias, dilation=layer.dilation)

    def _convolve_transposed(self, layer: SpeechCodecConvTranspose, hidden: torch.Tensor, last: bool) -> torch.Tensor:
        weight = self._weight(layer)
        known = hidden.shape[-1] * layer.stride
        tail = self._past.get(layer, hidden.new_zeros(len(hidden), weight.shape[1], layer.left + layer.right))
        if known:
            output = convolve_transposed(hidden, weight, None, layer.stride)
            output[..., : tail.shape[-1]] += tail
        else:
            output = tail
        output, self._past[layer] = output[..., :known], output[..., known:]
        if last:
            output = torch.cat([output, self._past[layer]], -1)
            output = output[..., : output.shape[-1] - layer.right]
        if layer not in self._started and output.shape[-1]:
            output = output[..., layer.left :]
            self._started.add(layer)
        return output + layer.bias[:, None]

    def _with_past(self, layer: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        past = self._past.get(layer)
        return hidden if past is None else torch.cat([past, hidden], -1)

    def _weight(self, layer: nn.Module) -> torch.Tensor:
        """The effective weights; computing them anew for each chunk would cost more than a short chunk."""
        if layer not in self._weights:
            self._weights[layer] = layer.weight
        return self._weights[layer]
