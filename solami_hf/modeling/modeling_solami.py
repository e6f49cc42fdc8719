"""The language model: Llama with a vocabulary of text, speech, body, hand and transform tokens.

State-dict keys are Llama's, so AnyGPT-base, Llama and SmolLM checkpoints load directly, and our folders load in any
engine that reads Llama.
"""

from __future__ import annotations

import os

import torch
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel

from .configuration_solami import SolamiConfig
from .vocabulary import build_layout, extend_tokenizer


class SolamiPreTrainedModel(LlamaPreTrainedModel):
    """Weight initialisation and loading, as Llama's."""

    config_class = SolamiConfig


class SolamiModel(SolamiPreTrainedModel, LlamaModel):
    """The decoder without its head: `input_ids (B,T)` -> `last_hidden_state (B,T,hidden_size)`."""


class SolamiForCausalLM(SolamiPreTrainedModel, LlamaForCausalLM):
    """The decoder with its language-modelling head: `input_ids (B,T)` -> `logits (B,T,vocab_size)`."""

    @classmethod
    def from_backbone(
        cls, backbone, tokenizer=None, *, sizes=None, speech_codec=None, answer_format="motion_speech", **kwargs
    ):
        """A model whose vocabulary is a Llama checkpoint's, extended by the modality tokens.

        Args:
            backbone (`str` | `os.PathLike` | `LlamaForCausalLM`): hub id or folder of any checkpoint of the Llama
                architecture, or a loaded model (which is left as it is).
            tokenizer (*optional*): the backbone's tokenizer, extended in place; the new ids follow its last one.
                Without it the new ids follow the backbone's last row, in the same order.
            sizes (`dict`, *optional*): number of codes per modality, by default the paper's
                (`speech` 1024, `body` 512, `hand` 512, `trans` 256).
            speech_codec (*optional*): the speech codec or its config; the number of speech codes, their levels and
                rate, and the sampling rate come from it. By default they are the paper's.
            answer_format (`str`): see `SolamiConfig`.
            kwargs: passed to `from_pretrained` when the backbone is a path (`revision`, `dtype`, ...).

        Returns:
            `SolamiForCausalLM` whose new input and output rows are the mean of the old ones, and whose config has the
            layout; `<eos>` is its `eos_token_id`.

        Raises:
            ValueError: the backbone is not of the Llama architecture, or `sizes` does not fit the speech codec.
        """
        speech = getattr(speech_codec, "config", speech_codec)
        if speech is not None:
            count = speech.lm_levels * speech.codebook_size
            given = (sizes or {}).get("speech", count)
            if given < count or (given > count and speech.lm_levels > 1):
                raise ValueError(f"sizes has {given} speech codes, but the speech codec needs {count}")
            sizes = {"speech": count, **(sizes or {})}
        is_path = isinstance(backbone, str | os.PathLike)
        source = AutoConfig.from_pretrained(backbone, **_hub_kwargs(kwargs)) if is_path else backbone.config
        if not (source.model_type == "llama" or isinstance(source, SolamiConfig)):
            raise ValueError(
                f"from_backbone needs a Llama-architecture checkpoint, got model_type={source.model_type!r}; train "
                "other decoders as a stock AutoModelForCausalLM with vocabulary.extend_tokenizer"
            )
        fields = {k: v for k, v in source.to_dict().items() if k not in ("model_type", "architectures", "auto_map")}
        config = SolamiConfig(**fields)
        if is_path:
            model = cls.from_pretrained(backbone, config=config, **kwargs)
        else:
            model = cls(config).to(backbone.dtype)
            model.load_state_dict(backbone.state_dict())
        old_rows = config.vocab_size if tokenizer is None else min(len(tokenizer), config.vocab_size)
        if tokenizer is None:
            modalities, markers = build_layout(sizes, old_rows)
        else:
            modalities, markers = extend_tokenizer(tokenizer, sizes)
        model._append_mean_rows(old_rows, modalities, markers)
        config = model.config
        config.modalities, config.markers, config.answer_format = modalities, markers, answer_format
        if speech is not None:
            config.speech_levels, config.sampling_rate = speech.lm_levels, speech.sampling_rate
            config.frame_rates = {**config.frame_rates, "speech": float(speech.frame_rate * speech.lm_levels)}
        config.eos_token_id = model.generation_config.eos_token_id = markers["eos"]
        pad = markers["pad"] if tokenizer is None else tokenizer.pad_token_id
        config.pad_token_id = model.generation_config.pad_token_id = pad
        config.validate_layout()
        return model

    def _append_mean_rows(self, old_rows: int, modalities: dict, markers: dict):
        """Makes room for the layout's tokens and sets each row from `old_rows` on to the mean of the rows before."""
        end = max([s["first_id"] + s["size"] for s in modalities.values()] + [i + 1 for i in markers.values()])
        if end > self.config.vocab_size:
            self.resize_token_embeddings(end, mean_resizing=False)
        tied = self.config.tie_word_embeddings
        for layer in [self.get_input_embeddings()] + ([] if tied else [self.get_output_embeddings()]):
            with torch.no_grad():
                layer.weight[old_rows:] = layer.weight[:old_rows].float().mean(0).to(layer.weight.dtype)


def _hub_kwargs(kwargs):
    return {k: v for k, v in kwargs.items() if k in ("revision", "token", "cache_dir", "local_files_only")}


__all__ = ["SolamiModel", "SolamiForCausalLM", "SolamiPreTrainedModel"]
