"""Configuration of the SOLAMI language model: Llama's, and where each modality lies in the vocabulary."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers.models.llama.configuration_llama import LlamaConfig

ANSWER_FORMATS = ("motion_speech", "text_motion_speech")


@strict
class SolamiConfig(LlamaConfig):
    r"""
    Args beyond `LlamaConfig`:
        modalities (`dict`, *optional*): name (`speech`, `body`, `hand`, `trans`) -> `{"first_id": int, "size": int}`;
            code `c` of a modality is token `first_id + c`.
        markers (`dict`, *optional*): name of a boundary or role token (see `vocabulary.MARKERS`) -> its id.
        answer_format (`str`): `"motion_speech"` (the paper's: body, hand, speech) or `"text_motion_speech"` (a
            transcript first, ended by `<eot>`).
        interleaved (`bool`): body, hand and speech in chunks of equal time instead of one after the other.
        frame_rates (`dict`): codes per second of each modality, all levels counted.
        speech_levels (`int`): levels of the speech codec among the speech codes, see `vocabulary`; 1 in the paper.
        sampling_rate (`int`): Hz of the speech codec's waveform.
        fps (`float`): motion frames per second.

    `SolamiForCausalLM.from_backbone` fills `modalities` and `markers`; a config without them is a plain Llama.
    """

    model_type = "solami"

    modalities: dict | None = None
    markers: dict | None = None
    answer_format: str = "motion_speech"
    interleaved: bool = False
    frame_rates: dict | None = None
    speech_levels: int = 1
    sampling_rate: int = 16000
    fps: int | float = 30.0

    def __post_init__(self, **kwargs):
        if self.frame_rates is None:
            self.frame_rates = {"speech": 50.0, "body": 7.5, "hand": 7.5}
        super().__post_init__(**kwargs)

    def validate_layout(self):
        """Part of the `@strict` validation: the answer format is known and the layout lies inside the vocabulary."""
        if self.answer_format not in ANSWER_FORMATS:
            raise ValueError(f"answer_format must be one of {ANSWER_FORMATS}, got {self.answer_format!r}")
        for name, span in (self.modalities or {}).items():
            if not {"first_id", "size"} <= set(span) or span["first_id"] + span["size"] > self.vocab_size:
                raise ValueError(
                    f"modality {name!r} has the span {span}, outside a vocabulary of {self.vocab_size} tokens; "
                    "build the config with SolamiForCausalLM.from_backbone"
                )
            if name == "speech" and (self.speech_levels < 1 or span["size"] % self.speech_levels):
                raise ValueError(f"{span['size']} speech codes cannot be shared by {self.speech_levels} levels")

    def require_layout(self):
        """Raises ValueError when the config has no modality tokens (it came from a plain Llama)."""
        if not self.modalities or not self.markers:
            raise ValueError(
                "this config has no modality tokens; make the model with SolamiForCausalLM.from_backbone(...)"
            )


__all__ = ["SolamiConfig"]
