"""A language model as a stock Llama, for engines that know no other, such as vLLM and `transformers serve`.

The weights are Llama's already, so only the configuration changes. It keeps the layout (`modalities`, `markers`, ...)
as further entries, which stock Llama carries along and `generation.vllm_grammar` reads.
"""

from __future__ import annotations

import os

import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from .backbones import allow_cache
from .configuration_solami import LAYOUT_FIELDS, SolamiConfig, require_layout


def convert_lm_to_llama(source: str | os.PathLike, dtype: torch.dtype | str = "auto", **hub) -> LlamaForCausalLM:
    """The model of a checkpoint as `LlamaForCausalLM`; its logits are the same.

    Args:
        source: folder or hub id of a `SolamiForCausalLM`.
        dtype: of the weights, by default as they are stored.
        hub: `revision`, `token`, ... of the hub.

    Raises:
        OSError: nothing to load there.
        ValueError: another architecture, which is stock already, or a config without modality tokens.
    """
    config = AutoConfig.from_pretrained(source, **hub)
    if not isinstance(config, SolamiConfig):
        raise ValueError(
            f"{source} is of model_type {config.model_type!r}, which engines read as it is; only `solami` is converted"
        )
    require_layout(config)
    fields = config.to_dict()
    for name in ("model_type", "architectures", "auto_map", "transformers_version"):
        fields.pop(name, None)
    llama = LlamaConfig(**fields, architectures=["LlamaForCausalLM"])
    for name in LAYOUT_FIELDS:
        setattr(llama, name, getattr(config, name))
    model = LlamaForCausalLM.from_pretrained(source, config=llama, dtype=dtype, **hub)
    allow_cache(model)
    return model


__all__ = ["convert_lm_to_llama"]
