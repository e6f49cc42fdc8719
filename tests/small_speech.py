"""Small random speech models of several levels: our codec, one of transformers, and an acoustic model."""

from transformers import DacConfig, DacModel

from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel


def own_codec(**change) -> SolamiSpeechCodecModel:
    """Three levels of 16 codes."""
    sizes = dict(num_filters=2, hidden_size=8, semantic_size=4, codebook_size=16, num_quantizers=3, num_lstm_layers=1)
    return SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**sizes | change)).eval()


def dac() -> DacModel:
    """Three levels of 32 codes."""
    config = DacConfig(
        encoder_hidden_size=4, decoder_hidden_size=16, downsampling_ratios=[4, 5, 8], n_codebooks=3, codebook_size=32,
        codebook_dim=4,
    )  # fmt: skip
    return DacModel(config).eval()


def soundstorm(levels: int = 3, codes: int = 16) -> SolamiSoundStormModel:
    """By default for the codes of `own_codec`."""
    config = SolamiSoundStormConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8, intermediate_size=32,
        conv_channels=16, conv_kernel_size=3, num_quantizers=levels, codebook_size=codes, num_semantic_codes=codes,
    )  # fmt: skip
    return SolamiSoundStormModel(config).eval()
