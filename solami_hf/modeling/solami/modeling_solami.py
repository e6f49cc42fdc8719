"""The language model: Llama with a vocabulary of text, speech, body, hand and transform tokens.

State-dict keys are Llama's, so AnyGPT-base, Llama and SmolLM checkpoints load directly, and our folders load in any
engine that reads Llama.
"""

import os

from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel

from ..remote_code import CarriesItsCode
from .configuration_solami import SolamiConfig
from .vocabulary_rows import add_modality_tokens


class SolamiPreTrainedModel(CarriesItsCode, LlamaPreTrainedModel):
    """Weight initialisation and loading, as Llama's."""

    config_class = SolamiConfig
    code_file = __file__


class SolamiModel(SolamiPreTrainedModel, LlamaModel):
    """The decoder without its head: `input_ids (B,T)` -> `last_hidden_state (B,T,hidden_size)`."""


class SolamiForCausalLM(SolamiPreTrainedModel, LlamaForCausalLM):
    """The decoder with its language-modelling head: `input_ids (B,T)` -> `logits (B,T,vocab_size)`."""

    @classmethod
    def from_backbone(
        cls, backbone, tokenizer=None, *, sizes=None, speech_codec=None, answer_format="motion_speech", **kwargs
    ):
        """A model whose vocabulary is a Llama checkpoint's, extended by the modality tokens.

        `backbone` is the hub id or folder of any checkpoint of the Llama architecture, or a loaded `LlamaForCausalLM`
        (which is left as it is). `tokenizer` is the backbone's, extended in place; the new ids follow its last one,
        without it the backbone's last row, in the same order. `sizes` are numbers of codes per modality, by default
        the paper's (`speech` 1024, `body` 512, `hand` 512, `trans` 256). From `speech_codec`, a codec or its config,
        come the number of speech codes, their levels and rate, and the sampling rate, by default the paper's.
        `answer_format`: see `SolamiConfig`; `kwargs` go to `from_pretrained` when the backbone is a path (`revision`,
        `dtype`, ...).

        Returns `SolamiForCausalLM` whose new input and output rows are the mean of the old ones, and whose config has
        the layout; `<eos>` is its `eos_token_id`. Raises ValueError: the backbone is not of the Llama architecture, or
        `sizes` does not fit the speech codec.
        """
        is_path = isinstance(backbone, str | os.PathLike)
        source = AutoConfig.from_pretrained(backbone, **hub_kwargs(kwargs)) if is_path else backbone.config
        if not (source.model_type == "llama" or isinstance(source, SolamiConfig)):
            raise ValueError(
                f"from_backbone needs a Llama-architecture checkpoint, got model_type={source.model_type!r}; other "
                "decoders stay stock models, with modeling.backbones.extend_backbone"
            )
        fields = {k: v for k, v in source.to_dict().items() if k not in ("model_type", "architectures", "auto_map")}
        config = SolamiConfig(**fields)
        if is_path:
            model = cls.from_pretrained(backbone, config=config, **kwargs)
        else:
            model = cls(config).to(backbone.dtype)
            model.load_state_dict(backbone.state_dict())
        add_modality_tokens(model, tokenizer, sizes, speech_codec, answer_format)
        return model


def hub_kwargs(kwargs: dict) -> dict:
    """Those of a `from_pretrained` call that say where on the Hub."""
    return {k: v for k, v in kwargs.items() if k in ("revision", "token", "cache_dir", "local_files_only")}
