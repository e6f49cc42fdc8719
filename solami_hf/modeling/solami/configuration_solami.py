"""Configuration of the SOLAMI language model: Llama's, and where each modality lies in the vocabulary."""

from huggingface_hub.dataclasses import strict
from transformers.models.llama.configuration_llama import LlamaConfig

ANSWER_FORMATS = ("motion_speech", "text_motion_speech", "text_motion")
HEARING = ("codes", "transcript", "both")
# How turns are read and answers written; a processor says it too, and a model's config follows it.
FORMAT_FIELDS = ("answer_format", "interleaved", "hearing")
# What a config says beyond its architecture's own fields; stock configs of other decoders carry the same.
LAYOUT_FIELDS = ("modalities", "markers", *FORMAT_FIELDS, "frame_rates", "speech_levels", "sampling_rate", "fps")
# A saved folder carries its code, so it loads with `trust_remote_code` where the package is not installed.
_AUTO_MAP = {
    "AutoConfig": "configuration_solami.SolamiConfig",
    "AutoModel": "modeling_solami.SolamiModel",
    "AutoModelForCausalLM": "modeling_solami.SolamiForCausalLM",
}


@strict
class SolamiConfig(LlamaConfig):
    r"""
    Args beyond `LlamaConfig`:
        modalities (`dict`, *optional*): name (`speech`, `body`, `hand`, `trans`) -> `{"first_id": int, "size": int}`;
            code `c` of a modality is token `first_id + c`.
        markers (`dict`, *optional*): name of a boundary or role token (see `vocabulary.MARKERS`) -> its id.
        answer_format (`str`): `"motion_speech"` (the paper's: body, hand, speech), `"text_motion_speech"` (a
            transcript first, ended by `<eot>`), or `"text_motion"` (a talker says the words, see `SolamiTalkerModel`).
        interleaved (`bool`): body, hand and speech in chunks of equal time instead of one after the other.
        hearing (`str`): what is read of a user's speech: its `"codes"` (the paper's), its `"transcript"`, or `"both"`,
            the transcript first.
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
    hearing: str = "codes"
    frame_rates: dict | None = None
    speech_levels: int = 1
    sampling_rate: int = 16000
    fps: int | float = 30.0

    def __post_init__(self, **kwargs):
        if self.frame_rates is None:
            self.frame_rates = {"speech": 50.0, "body": 7.5, "hand": 7.5}
        super().__post_init__(**{"auto_map": dict(_AUTO_MAP), **kwargs})

    def validate_layout(self):
        """Part of the `@strict` validation, see `check_layout`."""
        check_layout(self)

    def require_layout(self):
        """See the function of the same name."""
        require_layout(self)


def check_layout(config):
    """ValueError when a config's answer format or hearing is unknown, or its tokens lie outside the vocabulary."""
    if config.answer_format not in ANSWER_FORMATS:
        raise ValueError(f"answer_format must be one of {ANSWER_FORMATS}, got {config.answer_format!r}")
    if getattr(config, "hearing", "codes") not in HEARING:
        raise ValueError(f"hearing must be one of {HEARING}, got {config.hearing!r}")
    for name, span in (config.modalities or {}).items():
        if not {"first_id", "size"} <= set(span) or span["first_id"] + span["size"] > config.vocab_size:
            raise ValueError(
                f"modality {name!r} has the span {span}, outside a vocabulary of {config.vocab_size} tokens; "
                "build the config with SolamiForCausalLM.from_backbone"
            )
        if name == "speech" and (config.speech_levels < 1 or span["size"] % config.speech_levels):
            raise ValueError(f"{span['size']} speech codes cannot be shared by {config.speech_levels} levels")


def follow_formats(config, processor) -> None:
    """Writes into a config how a processor reads turns and writes answers."""
    for name in FORMAT_FIELDS:
        setattr(config, name, getattr(processor, name))


def require_layout(config):
    """ValueError when a config, ours or another decoder's, has no modality tokens: it is that of a plain backbone."""
    if not getattr(config, "modalities", None) or not getattr(config, "markers", None):
        kind = getattr(config, "model_type", type(config).__name__)
        raise ValueError(
            f"this config ({kind}) has no modality tokens; make a folder that has them with `solami init`, or the "
            "model with SolamiForCausalLM.from_backbone(...) or extend_backbone(...)"
        )
