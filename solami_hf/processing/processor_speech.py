"""The speech side of `SolamiProcessor`: waveforms to the language model's speech codes, and those to a voice."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from transformers.processing_utils import ProcessorMixin

from ..modeling.solami.vocabulary import flatten_levels, split_levels
from .audio.waveforms import limit_loudness, read_audio
from .batching import map_in_batches, pad_right
from .processor_codecs import in_own_precision
from .rendering import text_of
from .voices import Voices

MAX_SPEECH_SECONDS = 120.0


class SpeechProcessing(ProcessorMixin):
    """What `SolamiProcessor` inherits. Needs its codecs, `voices`, `characters` and `_source`."""

    _codec_source: tuple | None
    _voices: Voices | None

    @in_own_precision
    def encode_speech(self, audio: list, batch_size: int = 16, sampling_rate: int | None = None) -> list[np.ndarray]:
        """Speech codes of recordings.

        With the paper's codec these are the codes `(n,)` of level 0, 50 a second; several levels are written frame by
        frame (see `vocabulary`).

        Args:
            audio: a list of recordings, each in any form that `audio.read_audio` takes: a file, an array, ...
            batch_size: recordings encoded together.
            sampling_rate: Hz of arrays that tell no rate of their own, by default the codec's.

        Raises:
            ValueError: empty, NaN, or unreadable audio (see `audio.read_audio`), or more than two minutes.
        """
        if isinstance(audio, (str, bytes, os.PathLike, Mapping)) or not hasattr(audio, "__iter__"):
            raise ValueError(f"encode_speech takes a list of recordings, got {type(audio).__name__}")
        config = self.speech_codec.config
        waves = [
            torch.from_numpy(read_audio(a, config.sampling_rate, sampling_rate, max_seconds=MAX_SPEECH_SECONDS))
            for a in audio
        ]

        def encode(batch):
            values, mask = pad_right(batch)
            device = self.speech_codec.device
            output = self.speech_codec.encode(
                values[:, None].to(device), mask.to(device), num_quantizers=config.lm_levels
            )
            rows = zip(output.audio_codes.cpu(), output.code_mask.cpu(), strict=True)
            return [flatten_levels(codes[:, real], config.codebook_size) for codes, real in rows]

        return map_in_batches(waves, len, batch_size, encode)

    @in_own_precision
    def decode_speech(
        self, codes, voice: str | None = None, steps: int = 4, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """The waveform of speech codes `(n,)`: float32 `(samples,)` in [-1, 1] at the codec's rate, never too loud.

        Args:
            codes: as `encode_speech` gives them and the language model writes them.
            voice: one of `voices.names`, whose prompt the acoustic model continues. None: no prompt.
            steps, generator: for the acoustic model's `generate`.

        The acoustic model, where the checkpoint has one, adds the levels of the codec that the language model does not
        write. Without one, and where the language model writes them all, speech is made from its codes alone.

        Raises:
            ValueError: no code, codes of another codec or no whole frames, an unknown voice, or a voice for a
                checkpoint that cannot use any.
        """
        codec, config = self.speech_codec, self.speech_codec.config
        audio_codes = torch.from_numpy(split_levels(codes, config.lm_levels, config.codebook_size)).to(codec.device)
        acoustic, prompt = self.acoustics(voice)
        if acoustic is not None:
            prompt = None if prompt is None else prompt[None].to(acoustic.device)
            audio_codes = acoustic.generate(audio_codes.to(acoustic.device), prompt, steps=steps, generator=generator)
            audio_codes = audio_codes[0, : acoustic.config.spoken_levels].to(codec.device)
        values = codec.decode(audio_codes[None]).audio_values[0, 0]
        return limit_loudness(values.float().cpu().numpy(), config.sampling_rate)

    def acoustics(self, voice: str | None = None) -> tuple:
        """The acoustic model, None where the codes are decoded as they are, and a voice's prompt (levels, P) or None.

        Raises:
            ValueError: an unknown voice, or a voice for a checkpoint that cannot use any.
        """
        codec, config = self.speech_codec, self.speech_codec.config
        prompt = None if voice is None else self.voices.prompt(voice, codec)
        acoustic = self.acoustic_model if config.lm_levels == 1 < config.num_quantizers else None
        if acoustic is None and voice is not None:
            raise ValueError(
                f"voice {voice!r} cannot be used: voices need an acoustic model, and a speech codec with levels that "
                "the language model does not write; pass voice=None, or acoustic_model=... to SolamiProcessor"
            )
        return acoustic, prompt

    def _load_voices(self) -> Voices:
        """The checkpoint's voices, read on first use; see `voices.Voices`."""
        if self._voices is None:
            if self._codec_source is None:
                self._voices = Voices()
            else:
                path, hub = self._source()
                self._voices = Voices.load(path, **hub)
        return self._voices

    def character_system(self, character: str) -> str:
        """The system prompt of one of the checkpoint's characters; ValueError for an unknown one."""
        return self._character(character)["system"]

    def voice_of(self, messages: list[dict]) -> str | None:
        """The voice of the character whose system prompt a conversation begins with, None if there is none."""
        system = text_of(messages[0]["content"]) if messages and messages[0]["role"] == "system" else None
        voices = (known.get("voice") for known in self.characters.values() if known["system"] == system)
        return next(voices, None)

    def _character(self, character: str) -> dict:
        if character not in self.characters:
            raise ValueError(f"unknown character {character!r}; this checkpoint plays {sorted(self.characters)}")
        return self.characters[character]


__all__ = ["SpeechProcessing"]
