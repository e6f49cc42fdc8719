"""Tunes a speech codec's decoder, mostly to an acoustic model: `solami train-speech-codec --decoder_only true`.

What an acoustic model fills in behind level 0 is never quite what the encoder would have written, and a decoder that
has only met the encoder's levels takes every slip for speech. Here it hears both. Encoder and codebooks stay.
"""

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ...modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from ...modeling.speech_codec.codec_interface import codec_fingerprint
from ...modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel, SolamiSpeechCodecOutput
from ...processing.batching import map_in_batches, pad_right
from ..soundstorm.soundstorm_data import SpeechCodes, encode
from ..speech_recordings import Recordings
from ..trainer import require_one_process
from .speech_codec_trainer import SpeechCodecTrainer

logger = logging.getLogger(__name__)


class SpeechDecoderTrainer(SpeechCodecTrainer):
    """Trains the decoder alone, on `DecoderWindows`; filled windows are decoded from all their levels."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.config.codes_fingerprint = codec_fingerprint(self.model)
        self.model.requires_grad_(False)
        self.model.decoder.requires_grad_(True)
        require_one_process(self.args, "a decoder is tuned")

    def reconstruct(self, model, inputs, levels: torch.Tensor, quantize: bool = True) -> SolamiSpeechCodecOutput:
        """The sound of the codes given, each clip's first `levels` (batch,) of them, all of them where filled."""
        codes, values = inputs["audio_codes"], inputs["input_values"]
        levels = levels.masked_fill(inputs["filled"], codes.shape[1])
        audio_values = model.decoder(latents_of(model, codes, levels))
        loss = F.l1_loss(audio_values, values)
        parts = {"reconstruction_loss": loss, "commitment_loss": loss.new_zeros(())}
        return SolamiSpeechCodecOutput(loss=loss, **parts, audio_values=audio_values, audio_codes=codes)


def latents_of(codec: SolamiSpeechCodecModel, codes: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Latents (batch, hidden_size, frames) of the first `levels` (batch,) of codes (batch, q, frames)."""
    pairs = zip(codec.quantizer.levels, codes.unbind(1), strict=True)
    parts = torch.stack([level.decode(code) for level, code in pairs])
    kept = torch.arange(len(parts), device=levels.device)[:, None] < levels
    return (parts * kept[..., None, None]).sum(0).transpose(1, 2)


PROMPT_SECONDS = 3.0
_BATCH_FRAMES = 8000  # prompts and speech that are filled in together


def own_and_filled(
    recordings: Recordings,
    codec: SolamiSpeechCodecModel,
    acoustic_model: str | None,
    cache: Path,
    device="cpu",
    bf16: bool = False,
    own: SpeechCodes | None = None,
) -> tuple[SpeechCodes, SpeechCodes]:
    """The codec's codes of each clip (or `own`, where given), and the same level 0 with the levels that an acoustic
    model (a folder or hub id) makes of it; without one, the codec's codes twice. The prompt of a clip is the one
    before it, mostly of the same voice. The filled codes are kept in `cache`. Raises ValueError: the acoustic model or
    the codes are not of this codec."""
    fingerprint, expected = codec_fingerprint(codec), (codec.config.num_quantizers, codec.config.codebook_size)
    if own is None:
        own = SpeechCodes.join([encode(recordings, codec, device)], fingerprint)
    elif own.codec != fingerprint:
        raise ValueError(f"the given codes are of the codec {own.codec}, expected {fingerprint}, `start_from`")
    if acoustic_model is None:
        return own, own
    acoustic = SolamiSoundStormModel.from_pretrained(acoustic_model, dtype=torch.float32).to(device).eval()
    found = (acoustic.config.num_quantizers, acoustic.config.codebook_size)
    if found != expected:
        raise ValueError(
            "the acoustic model has {} levels of {} codes, expected {} of {} as the speech codec: train one with "
            "`solami train-soundstorm --speech_codec ...`".format(*found, *expected)
        )
    made_from = f"{codec_fingerprint(acoustic)} of {len(own)} clips, {own.codes.shape[1]} frames"
    if cache.is_file():
        filled = SpeechCodes.load(cache)
        if (filled.codec, filled.made_from) != (fingerprint, made_from):
            raise ValueError(f"{cache} was made by other models or of other speech; remove it to fill in anew")
        logger.info("using the codes in %s", cache)
        return own, filled
    longest = round(PROMPT_SECONDS * codec.config.frame_rate)
    clips = [torch.from_numpy(own[index].astype(np.int64)).T for index in range(len(own))]
    prompts = [clips[index - 1 if index else min(1, len(clips) - 1)][:longest] for index in range(len(clips))]

    def fill(batch: list[tuple[torch.Tensor, torch.Tensor]]) -> list[np.ndarray]:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            return [codes.T.numpy().astype(np.int16) for codes in fill_batch(acoustic, batch)]

    filled = map_in_batches(
        list(zip(clips, prompts, strict=True)), lambda item: len(item[0]) + longest, 64, fill,
        progress=lambda batches: tqdm(batches, desc="filling in levels", unit="batch"), most_steps=_BATCH_FRAMES,
    )  # fmt: skip
    filled = SpeechCodes.join([filled], fingerprint, made_from)
    filled.save(cache)
    return own, filled


def fill_batch(acoustic: SolamiSoundStormModel, batch: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
    """Level 0 of each clip with the levels that the acoustic model makes of it, greedily, in the voice of its prompt:
    codes (frames, levels) on the CPU, of clips and prompts of the same form (of a clip level 0 alone is read)."""
    device = acoustic.device
    semantic, mask = (part.to(device) for part in pad_right([clip[:, 0] for clip, _ in batch]))
    prompt, prompt_mask = (part.to(device) for part in pad_right([prompt for _, prompt in batch]))
    codes = acoustic.generate(semantic, prompt.transpose(1, 2), code_mask=mask, prompt_mask=prompt_mask)
    return [levels[:, real].T for levels, real in zip(codes.cpu(), mask.cpu(), strict=True)]


class DecoderWindows(Dataset):
    """Random windows of `window` frames of `hop_length` samples, with the codec's codes or, in `filled_share` of
    them, the filled ones; `count` is nominal. An item is that of its number alone. `recordings`, `own` and `filled`
    are the same clips; those shorter than a window are left out."""

    def __init__(
        self, recordings: Recordings, own: SpeechCodes, filled: SpeechCodes, window: int, count: int, seed: int,
        hop_length: int, filled_share: float,
    ):  # fmt: skip
        self.recordings, self.own, self.filled = recordings, own, filled
        self.window, self.count, self.seed = window, count, seed
        self.hop_length, self.filled_share = hop_length, filled_share
        # whole frames of sound: the last code of a clip stands for less
        places = np.maximum(0, np.diff(recordings.ends, prepend=0) // hop_length - window + 1)
        if not places.any():
            raise ValueError(f"no clip is as long as a window of {window} frames: give a shorter window_seconds")
        self.places = np.cumsum(places)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """`input_values` (1, samples), `audio_codes` (levels, window), and `filled`, whether these are the filled."""
        rng = np.random.default_rng((self.seed, number))
        place = int(rng.integers(self.places[-1]))
        clip = int(np.searchsorted(self.places, place, side="right"))
        start = place - int(self.places[clip - 1] if clip else 0)
        filled = bool(rng.random() < self.filled_share)
        codes = (self.filled if filled else self.own)[clip][:, start : start + self.window]
        values = self.recordings[clip][start * self.hop_length : (start + self.window) * self.hop_length]
        codes = torch.from_numpy(codes.astype(np.int64))
        return {"input_values": torch.from_numpy(values)[None], "audio_codes": codes, "filled": torch.tensor(filled)}
