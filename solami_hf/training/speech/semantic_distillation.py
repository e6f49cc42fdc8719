"""What level 0 of a speech codec learns from: the hidden states of a speech encoder that knows what is said.

Any audio encoder of transformers can teach, by hub id or folder: HuBERT (as in SpeechTokenizer,
https://arxiv.org/abs/2308.16692), wav2vec 2.0, WavLM, w2v-BERT, the encoder of Whisper.
"""

import torch
import torch.nn.functional as F
from torch import nn


class SemanticTeacher:
    """A frozen audio encoder that gives one vector for each frame of the codec.

    Args:
        name_or_path: hub id or folder of an audio model with its feature extractor.
        layer: which hidden states, as transformers counts them: 0 is what the first layer reads, -1 the last layer's;
            None is the mean of all layers'.
        sampling_rate: of the waveforms that will be given, in Hz.

    Raises:
        ValueError: the encoder reads another rate, or has no such layer.
        OSError: neither a folder nor a model of the hub.
    """

    def __init__(self, name_or_path: str, layer: int | None, sampling_rate: int, device: torch.device | str = "cpu"):
        from transformers import AutoFeatureExtractor, AutoModel

        self.extractor = AutoFeatureExtractor.from_pretrained(name_or_path)
        if self.extractor.sampling_rate != sampling_rate:
            raise ValueError(
                f"{name_or_path} reads {self.extractor.sampling_rate} Hz, the codec {sampling_rate} Hz; choose a "
                "semantic teacher with the codec's rate"
            )
        model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        self.encoder: nn.Module = encoder.to(device).eval().requires_grad_(False)
        layers = getattr(model.config, "num_hidden_layers", None) or model.config.encoder_layers
        if layer is not None and not -layers - 1 <= layer <= layers:
            raise ValueError(f"semantic_layer is {layer}, but {name_or_path} has layers {-layers - 1} to {layers}")
        self.layer, self.sampling_rate, self.device = layer, sampling_rate, device
        self.size = model.config.hidden_size
        self.mean, self.deviation = torch.zeros(self.size, device=device), torch.ones(self.size, device=device)

    @torch.no_grad()
    def hidden_states(self, input_values: torch.Tensor, frames: int) -> torch.Tensor:
        """Waveforms (batch, 1, samples) to hidden states (batch, frames, size), interpolated over time."""
        clips = list(input_values.squeeze(1).float().cpu().numpy())
        inputs = self.extractor(clips, sampling_rate=self.sampling_rate, return_tensors="pt").to(self.device)
        states = self.encoder(**inputs, output_hidden_states=True).hidden_states
        states = torch.stack(states[1:]).mean(0) if self.layer is None else states[self.layer]
        padded = getattr(self.extractor, "n_samples", None)  # Whisper's: every clip is filled up to 30 s
        if padded:
            states = states[:, : max(1, round(states.shape[1] * input_values.shape[-1] / padded))]
        return F.interpolate(states.float().transpose(1, 2), size=frames, mode="linear").transpose(1, 2)

    def measure(self, batches: list[torch.Tensor], frames: int) -> None:
        """Takes mean and deviation of the hidden states from waveforms (batch, 1, samples): a few large dimensions
        would otherwise decide everything."""
        states = torch.cat([self.hidden_states(batch, frames).flatten(0, 1) for batch in batches])
        self.mean, self.deviation = states.mean(0), states.std(0).clamp(min=1e-4)

    def __call__(self, input_values: torch.Tensor, frames: int) -> torch.Tensor:
        """Waveforms (batch, 1, samples) to standardized hidden states (batch, frames, size)."""
        return (self.hidden_states(input_values, frames) - self.mean) / self.deviation


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """One minus the mean cosine of the vectors (batch, frames, size) of both: 0 if they agree, 1 by chance."""
    return 1 - F.cosine_similarity(student.float(), teacher, dim=-1).mean()
