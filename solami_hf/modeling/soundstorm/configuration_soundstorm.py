"""Configuration of the acoustic model (SoundStorm, https://arxiv.org/abs/2305.09636)."""

from transformers import PreTrainedConfig

# A saved folder carries its code, so it loads with `trust_remote_code` where the package is not installed.
_AUTO_MAP = {
    "AutoConfig": "configuration_soundstorm.SolamiSoundStormConfig",
    "AutoModel": "modeling_soundstorm.SolamiSoundStormModel",
}


_SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "intermediate_size", "conv_channels"),
    *("conv_kernel_size", "codebook_size", "num_semantic_codes", "max_frames"),
)


class SolamiSoundStormConfig(PreTrainedConfig):
    """Sizes of a [`SolamiSoundStormModel`]. The defaults are those of the SoundStorm that AnyGPT and SOLAMI use.

    Args:
        hidden_size (`int`): width of the conformer.
        num_hidden_layers (`int`): conformer blocks.
        num_attention_heads (`int`): attention heads of a block.
        head_dim (`int`): width of a head; even, for rotary positions.
        intermediate_size (`int`): width inside the feed-forward parts.
        conv_channels (`int`): channels of the depthwise convolution.
        conv_kernel_size (`int`): frames that the depthwise convolution sees; odd.
        num_quantizers (`int`): rows of codes at a time: the levels of a speech codec, or of body, hand, body, ... of a
            motion codec, level by level. The first rows are given, the others are filled in.
        num_given_levels (`int`): the given rows: 1, level 0 of speech; 2, level 0 of body and hand.
        modality (`str`): "speech" or "motion", what the codes are of.
        codebook_size (`int`): codes of each of the levels that are filled in.
        num_semantic_codes (`int`): codes of level 0.
        max_frames (`int`): longest prompt and speech together; attention over more would take minutes.
        rotary_base (`float`): base of the rotary positions' wavelengths.
        layer_norm_eps, channel_norm_eps (`float`): floors of the variances in the norms.
        dropout (`float`): in feed-forward parts, attention and convolution, in training.
        initializer_range (`float`): standard deviation of fresh weights.
        vector_size (`int`): of motion, width of the codec's code vectors: one call tells what those of all levels to
            fill add up to, and the codes nearest to that are taken. 0: the model scores codes, level by level.
        spoken_levels (`int`, *optional*): how many levels, level 0 included, the processor decodes of what the model
            fills in; all if None. Few, where the last ones are more often wrong than they are worth.

    Raises ValueError: a size that is not positive, one level only, an odd head or an even kernel, dropout outside
    [0, 1), levels to speak that there are not.
    """

    model_type = "solami_soundstorm"

    hidden_size: int = 1024
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    head_dim: int = 128
    intermediate_size: int = 4096
    conv_channels: int = 2048
    conv_kernel_size: int = 31
    num_quantizers: int = 8
    num_given_levels: int = 1
    modality: str = "speech"
    codebook_size: int = 1024
    num_semantic_codes: int = 1024
    max_frames: int = 6000
    rotary_base: float = 10000.0
    layer_norm_eps: float = 1e-5
    channel_norm_eps: float = 1e-6
    dropout: float = 0.0
    initializer_range: float = 0.02
    vector_size: int = 0
    spoken_levels: int | None = None

    def __post_init__(self, **kwargs):
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        levels, given = self.num_quantizers, self.num_given_levels
        if not 1 <= given < levels:
            raise ValueError(
                f"num_quantizers is {levels}, expected at least {given + 1}: {given} given, others filled"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}, expected an even number for rotary positions")
        if self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size is {self.conv_kernel_size}, expected an odd number")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected at least 0 and below 1")
        if self.spoken_levels is not None and not 2 <= self.spoken_levels <= levels:
            raise ValueError(f"spoken_levels is {self.spoken_levels}, expected 2 to {levels}, or None")
        super().__post_init__(**{"auto_map": dict(_AUTO_MAP), **kwargs})

    @property
    def mask_code(self) -> int:
        """The id behind the last code of a level: the cell is still to be filled."""
        return self.codebook_size

    @property
    def num_acoustic_levels(self) -> int:
        """Rows of codes that the model fills in."""
        return self.num_quantizers - self.num_given_levels
