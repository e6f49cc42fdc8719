"""SpeechTokenizer's published checkpoints as a [`SolamiSpeechCodecModel`]."""

import json
from pathlib import Path

from ..checkpoint_tensors import load_tensors, rename_key
from .configuration_speech_codec import SolamiSpeechCodecConfig
from .modeling_speech_codec import SolamiSpeechCodecModel

RENAMED_SIZES = {
    "sampling_rate": "sample_rate", "num_filters": "n_filters", "strides": "strides", "hidden_size": "dimension",
    "semantic_size": "semantic_dimension", "num_quantizers": "n_q", "codebook_size": "codebook_size",
    "residual_kernel_size": "residual_kernel_size", "num_residual_layers": "n_residual_layers",
    "dilation_base": "dilation_base", "num_lstm_layers": "lstm_layers", "bidirectional": "bidirectional",
}  # fmt: skip

RENAMED_KEYS = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.conv\.conv\.", "."),
    (r"\.convtr\.convtr\.", "."),
    (r"\.weight_g$", ".gain"),
    (r"\.weight_v$", ".direction"),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.levels.\1."),
    (r"\.inited$", ".initialised"),
    (r"\.cluster_size$", ".code_counts"),
    (r"\.embed$", ".codebook"),
    (r"^transform\.", "semantic_projection."),
)


def convert_speech_codec(config_json: str | Path, checkpoint: str | Path) -> SolamiSpeechCodecModel:
    """A checkpoint in SpeechTokenizer's layout, in evaluation mode: the `config.json` that it publishes, and its
    weights (`SpeechTokenizer.pt`, `ckpt.dev`), a plain state dict. Pickled code in it is never run. Raises
    FileNotFoundError: one of the files is missing; ValueError: no checkpoint of plain tensors, another activation
    than ELU, a missing size, or weights that do not fit the sizes."""
    state = load_tensors(checkpoint)
    if not Path(config_json).is_file():
        raise FileNotFoundError(f"no such file: {config_json}")
    original = json.loads(Path(config_json).read_text(encoding="utf-8"))
    missing = [name for name in RENAMED_SIZES.values() if name not in original]
    if missing:
        raise ValueError(f"{config_json} lacks {', '.join(missing)}; expected the config.json of SpeechTokenizer")
    if original.get("activation", "ELU") != "ELU":
        raise ValueError(f"{config_json} has activation {original['activation']!r}, only 'ELU' is supported")
    config = SolamiSpeechCodecConfig(**{ours: original[theirs] for ours, theirs in RENAMED_SIZES.items()})
    renamed = {
        rename_key(key, RENAMED_KEYS): value
        for key, value in state.items()
        if not key.endswith("._codebook.embed_avg")  # the codebook times its counts
    }
    model = SolamiSpeechCodecModel(config)
    try:
        model.load_state_dict(renamed)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} does not fit {config_json}: {error}") from error
    return model.eval()
