"""Tunes a speech codec's decoder, mostly to an acoustic model: `solami train-speech-codec --decoder_only true`.

What an acoustic model fills in behind level 0 is never quite what the encoder would have written, and a decoder that
has only met the encoder's levels takes every slip for speech. Here it hears both. Encoder and codebooks stay.
"""

import torch
import torch.nn.functional as F

from ...modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel, SolamiSpeechCodecOutput
from ...processing.fingerprints import codec_fingerprint
from ..resuming import require_one_process
from .speech_codec_trainer import SpeechCodecTrainer


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
        return SolamiSpeechCodecOutput(
            loss=loss,
            reconstruction_loss=loss,
            commitment_loss=loss.new_zeros(()),
            audio_values=audio_values,
            audio_codes=codes,
        )


def latents_of(codec: SolamiSpeechCodecModel, codes: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Latents (batch, hidden_size, frames) of the first `levels` (batch,) of codes (batch, q, frames)."""
    pairs = zip(codec.quantizer.levels, codes.unbind(1), strict=True)
    parts = torch.stack([level.decode(code) for level, code in pairs])
    kept = torch.arange(len(parts), device=levels.device)[:, None] < levels
    return (parts * kept[..., None, None]).sum(0).transpose(1, 2)
