"""Configuration of the speech codec (SpeechTokenizer's architecture, https://arxiv.org/abs/2308.16692)."""

import math

from transformers import PreTrainedConfig

# A saved folder carries its code, so it loads with `trust_remote_code` where the package is not installed.
_AUTO_MAP = {
    "AutoConfig": "configuration_speech_codec.SolamiSpeechCodecConfig",
    "AutoModel": "modeling_speech_codec.SolamiSpeechCodecModel",
    "AutoModelForAudioTokenization": "modeling_speech_codec.SolamiSpeechCodecModel",
}


_SIZES = (
    *("sampling_rate", "num_filters", "hidden_size", "semantic_size", "num_quantizers", "codebook_size"),
    *("kernel_size", "last_kernel_size", "residual_kernel_size", "num_residual_layers", "num_lstm_layers"),
    "dilation_base",
)


class SolamiSpeechCodecConfig(PreTrainedConfig):
    """Sizes of a [`SolamiSpeechCodecModel`]. The defaults are those of the SpeechTokenizer that AnyGPT and SOLAMI use.

    Args:
        sampling_rate (`int`): samples per second of the waveform that the codec reads and writes.
        num_filters (`int`): channels after the first convolution; each downsampling stage doubles them.
        strides (`list[int]`): upsampling factors of the decoder, in order; the encoder uses them backwards. Their
            product is the number of samples that one code stands for.
        hidden_size (`int`): width of the latent that is quantized, and of the codebook vectors.
        semantic_size (`int`): width of the features that level 0 is distilled to (HuBERT's 768 in the original).
        num_quantizers (`int`): levels of the residual quantizer.
        codebook_size (`int`): codes of each level.
        lm_levels (`int`): how many levels, from level 0 on, the language model reads and writes; an acoustic model
            adds the others.
        kernel_size, last_kernel_size, residual_kernel_size (`int`): convolution widths of the first and last layer and
            of the residual blocks.
        num_residual_layers (`int`): residual blocks of a stage; block j has dilation `dilation_base ** j`.
        num_lstm_layers (`int`): LSTM layers of encoder and decoder.
        bidirectional (`bool`): whether the encoder's LSTM reads both ways (the decoder's always reads forwards).
        codebook_decay (`float`): share of the old codebook statistics that one training step keeps.
        dead_code_share (`float`): a code is replaced in training once it is used less than this share of the average.
        commitment_weight (`float`): weight of the commitment loss in the model's `loss`.
        codes_fingerprint (`str`, *optional*): of a codec whose decoder alone was tuned, the fingerprint
            (`codec_fingerprint`) of the codec before: it gives the same codes.

    Raises ValueError: a size that is not positive, more `lm_levels` than levels, or a decay outside [0, 1).
    """

    model_type = "solami_speech_codec"
    attribute_map = {"sample_rate": "sampling_rate"}  # the name in the original's config.json

    sampling_rate: int = 16000
    num_filters: int = 64
    strides: list[int] | tuple[int, ...] = (8, 5, 4, 2)
    hidden_size: int = 1024
    semantic_size: int = 768
    num_quantizers: int = 8
    codebook_size: int = 1024
    lm_levels: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    num_residual_layers: int = 1
    dilation_base: int = 2
    num_lstm_layers: int = 2
    bidirectional: bool = True
    codebook_decay: float = 0.99
    dead_code_share: float = 0.02
    commitment_weight: float = 0.25
    codes_fingerprint: str | None = None

    def __post_init__(self, **kwargs):
        self.strides = list(self.strides)
        sizes = {name: getattr(self, name) for name in _SIZES} | {"every stride": min(self.strides, default=0)}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        levels = self.num_quantizers
        if not 1 <= self.lm_levels <= levels:
            raise ValueError(f"lm_levels is {self.lm_levels}, expected 1 to {levels}, the levels of the codec")
        if not 0 <= self.codebook_decay < 1:
            raise ValueError(f"codebook_decay is {self.codebook_decay}, expected at least 0 and below 1")
        super().__post_init__(**{"auto_map": dict(_AUTO_MAP), **kwargs})

    @property
    def hop_length(self) -> int:
        """Samples that one code stands for (320 for strides 8, 5, 4, 2)."""
        return math.prod(self.strides)

    @property
    def decoder_lookahead(self) -> int:
        """Samples by which decoding in chunks lags behind its codes: what the decoder's convolutions see ahead."""
        step = self.hop_length
        samples = (self.kernel_size - 1) // 2 * step
        dilations = [self.dilation_base**depth for depth in range(self.num_residual_layers)]
        for stride in self.strides:
            step //= stride
            samples += (stride - stride // 2) * step
            samples += sum((self.residual_kernel_size - 1) * dilation // 2 for dilation in dilations) * step
        return samples + (self.last_kernel_size - 1) // 2

    @property
    def frame_rate(self) -> float:
        """Codes per second and level (50 at 16 kHz)."""
        return self.sampling_rate / self.hop_length
