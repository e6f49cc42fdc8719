"""Configuration of the lips, which read visemes off speech codes or a log-mel spectrogram."""

from transformers import PreTrainedConfig

# A saved folder carries its code, so it loads with `trust_remote_code` where the package is not installed.
_AUTO_MAP = {"AutoConfig": "configuration_lips.SolamiLipsConfig", "AutoModel": "modeling_lips.SolamiLipsModel"}
VISEMES = (
    *("rest", "bilabial", "labiodental", "dental", "alveolar", "sibilant", "postalveolar", "velar", "rhotic"),
    *("open", "mid", "spread", "central", "round_open", "round_close"),
)
"""Shapes of the mouth that sounds of English share, by what lips and jaw do."""
_SIZES = ("hidden_size", "num_layers", "kernel_size", "codebook_size", "num_mels", "sampling_rate", "frame_rate")


class SolamiLipsConfig(PreTrainedConfig):
    """Sizes of a [`SolamiLipsModel`].

    Args:
        visemes (`list[str]`): names of the shapes of the mouth; the first is the mouth at rest.
        hidden_size (`int`): width.
        num_layers (`int`): causal convolutions, each of twice the dilation of the one before.
        kernel_size (`int`): taps of each.
        lookahead (`int`): frames behind the one that is told which it hears; lips move before their sound.
        codebook_size (`int`): codes of level 0.
        frame_rate (`float`): frames of codes a second; the spectrogram has as many.
        sampling_rate (`int`): Hz of sound.
        num_mels (`int`): bands of the spectrogram.
        codec_fingerprint (`str`): of the speech codec whose codes it reads; of others it takes the sound.

    Raises ValueError: a size that is not positive, a negative look-ahead, a viseme twice.
    """

    model_type = "solami_lips"

    visemes: list[str] | tuple[str, ...] = VISEMES
    hidden_size: int = 96
    num_layers: int = 4
    kernel_size: int = 3
    lookahead: int = 5
    codebook_size: int = 1024
    frame_rate: float = 50.0
    sampling_rate: int = 16000
    num_mels: int = 40
    codec_fingerprint: str = ""

    def __post_init__(self, **kwargs):
        for name in _SIZES:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")
        if self.lookahead < 0 or len(set(self.visemes)) != len(self.visemes):
            raise ValueError(f"expected a lookahead of 0 or more and each viseme once, got {self.lookahead} and "
                             f"{self.visemes}")  # fmt: skip
        super().__post_init__(**{"auto_map": dict(_AUTO_MAP), **kwargs})
