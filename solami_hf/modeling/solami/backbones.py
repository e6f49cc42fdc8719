"""Any decoder as a backbone: `extend_backbone` gives it the modality tokens, whatever its architecture."""

from __future__ import annotations

import os

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from .configuration_solami import SolamiConfig
from .modeling_solami import SolamiForCausalLM, hub_kwargs
from .vocabulary import add_modality_tokens


def extend_backbone(
    backbone, tokenizer=None, *, sizes=None, speech_codec=None, answer_format="motion_speech", **kwargs
) -> PreTrainedModel:
    """A decoder whose vocabulary is extended by the modality tokens, ready for `solami pretrain`.

    Args:
        backbone (`str` | `os.PathLike` | `PreTrainedModel`): hub id or folder of a checkpoint that
            `AutoModelForCausalLM` loads, or a loaded model. One that is no Llama is changed in place.
        tokenizer, sizes, speech_codec, answer_format: see `SolamiForCausalLM.from_backbone`.
        kwargs: passed to `from_pretrained` when the backbone is a path (`revision`, `dtype`, ...).

    Returns:
        a `SolamiForCausalLM` for the Llama architecture. For others (GPT-2, Qwen, ...) the stock model, whose config
        carries the same layout as a `SolamiConfig` does and keeps it in `config.json`.

    Raises:
        ValueError: the model has no language-modelling head, or `sizes` does not fit the speech codec.
    """
    is_path = isinstance(backbone, str | os.PathLike)
    config = AutoConfig.from_pretrained(backbone, **hub_kwargs(kwargs)) if is_path else backbone.config
    if config.model_type == "llama" or isinstance(config, SolamiConfig):
        layout = {"sizes": sizes, "speech_codec": speech_codec, "answer_format": answer_format}
        model = SolamiForCausalLM.from_backbone(backbone, tokenizer, **layout, **kwargs)
    else:
        model = AutoModelForCausalLM.from_pretrained(backbone, **kwargs) if is_path else backbone
        add_modality_tokens(model, tokenizer, sizes, speech_codec, answer_format)
    allow_cache(model)
    return model


def allow_cache(model: PreTrainedModel) -> None:
    """Takes back a `use_cache: false` that training left in a model's configs; whoever generates would be slow."""
    model.config.use_cache = True
    if model.generation_config.use_cache is False:
        model.generation_config.use_cache = True


__all__ = ["allow_cache", "extend_backbone"]
