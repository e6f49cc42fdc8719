"""Configuration of the talker, which says text in level 0 of a speech codec's codes."""

from transformers import PreTrainedConfig

# A saved folder carries its code, so it loads with `trust_remote_code` where the package is not installed.
_AUTO_MAP = {"AutoConfig": "configuration_talker.SolamiTalkerConfig", "AutoModel": "modeling_talker.SolamiTalkerModel"}
_SIZES = (
    *("hidden_size", "intermediate_size", "num_encoder_layers", "num_decoder_layers", "num_attention_heads"),
    *("local_attention", "num_places", "conv_channels", "conv_kernel_size", "codebook_size", "max_frames"),
)


class SolamiTalkerConfig(PreTrainedConfig):
    """Sizes of a [`SolamiTalkerModel`].

    Args:
        alphabet (`str`): the characters that it can read, each once. The id of a character is its place in this
            string plus 1; 0 is padding.
        hidden_size (`int`): width of encoder and decoder.
        num_encoder_layers (`int`): layers over characters, with attention.
        intermediate_size (`int`): width inside their gated feed-forward parts.
        num_attention_heads (`int`): attention heads of such a layer; their width is even, for rotary positions.
        local_attention (`int`): characters that most of these layers attend to, half of them on either side; the
            first and every third attend to all.
        num_decoder_layers (`int`): convolutional layers over frames.
        conv_channels (`int`): width inside such a layer.
        conv_kernel_size (`int`): frames that it sees; odd.
        num_places (`int`): frames from the start and to the end of a character that are told apart.
        codebook_size (`int`): codes of level 0.
        frame_rate (`float`): frames of codes a second.
        max_frames (`int`): longest speech of one call; attention over more would take long.
        dropout (`float`): in attention and feed-forward parts, in training.
        initializer_range (`float`): standard deviation of fresh weights.

    Raises ValueError: a size that is not positive, a character twice, no space in the alphabet, an even kernel, heads
    that do not divide the width or are odd, dropout outside [0, 1).
    """

    model_type = "solami_talker"

    alphabet: str = " abcdefghijklmnopqrstuvwxyz'.,?!-:;"
    hidden_size: int = 256
    num_encoder_layers: int = 3
    intermediate_size: int = 512
    num_attention_heads: int = 4
    local_attention: int = 16
    num_decoder_layers: int = 4
    conv_channels: int = 512
    conv_kernel_size: int = 5
    num_places: int = 16
    codebook_size: int = 1024
    frame_rate: float = 50.0
    max_frames: int = 6000
    dropout: float = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if len(set(self.alphabet)) != len(self.alphabet) or " " not in self.alphabet:
            raise ValueError(f"alphabet is {self.alphabet!r}, expected each character once, and a space among them")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size is {self.hidden_size}, expected a multiple of twice the {self.num_attention_heads} "
                "num_attention_heads, for rotary positions"
            )
        if self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size is {self.conv_kernel_size}, expected an odd number")
        if not self.frame_rate > 0:
            raise ValueError(f"frame_rate is {self.frame_rate}, expected more than 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected at least 0 and below 1")
        super().__post_init__(**{"auto_map": dict(_AUTO_MAP), **kwargs})
