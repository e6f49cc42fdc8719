"""Room for the modality tokens in a model: rows of its embedding and head, and their layout in its config."""

import torch

from .configuration_solami import LAYOUT_FIELDS, SolamiConfig, check_layout
from .vocabulary import build_layout, extend_tokenizer


def add_modality_tokens(model, tokenizer=None, sizes=None, speech_codec=None, answer_format="motion_speech") -> None:
    """Makes room for the modality tokens in any decoder of `AutoModelForCausalLM`, in place, and writes their layout
    into its config. New input and output rows are the mean of the old ones; `<eos>` becomes the `eos_token_id`.
    `tokenizer` is the model's own, not extended yet; the others are as in `SolamiForCausalLM.from_backbone`, with 0
    `hand` codes for a bound motion codec. Raises ValueError: the model has no head, or `sizes` does not fit the speech
    codec."""
    config, speech = model.config, getattr(speech_codec, "config", speech_codec)
    if model.get_output_embeddings() is None:
        raise ValueError(
            f"{type(model).__name__} has no language-modelling head; pass a model of AutoModelForCausalLM"
        )
    sizes = _with_speech(sizes, speech)
    old_rows = config.vocab_size if tokenizer is None else min(len(tokenizer), config.vocab_size)
    if tokenizer is None:
        modalities, markers = build_layout(sizes, old_rows)
    else:
        modalities, markers = extend_tokenizer(tokenizer, sizes)
    end = max([s["first_id"] + s["size"] for s in modalities.values()] + [i + 1 for i in markers.values()])
    if end > config.vocab_size:
        model.resize_token_embeddings(end, mean_resizing=False)
    _mean_rows(model, old_rows)
    paper = SolamiConfig()
    for name in LAYOUT_FIELDS:
        if not hasattr(config, name):
            setattr(config, name, getattr(paper, name))
    config.modalities, config.markers, config.answer_format = modalities, markers, answer_format
    if speech is not None:
        config.speech_levels, config.sampling_rate = speech.lm_levels, speech.sampling_rate
        config.frame_rates = {**config.frame_rates, "speech": float(speech.frame_rate * speech.lm_levels)}
    config.eos_token_id = model.generation_config.eos_token_id = markers["eos"]
    pad = markers["pad"] if tokenizer is None else tokenizer.pad_token_id
    config.pad_token_id = model.generation_config.pad_token_id = pad
    check_layout(config)


def _with_speech(sizes: dict | None, speech) -> dict | None:
    """The sizes with as many speech codes as a codec's config needs; ValueError where they say otherwise."""
    if speech is None:
        return sizes
    count = speech.lm_levels * speech.codebook_size
    given = (sizes or {}).get("speech", count)
    if given < count or (given > count and speech.lm_levels > 1):
        raise ValueError(f"sizes has {given} speech codes, but the speech codec needs {count}")
    return {"speech": count, **(sizes or {})}


@torch.no_grad()
def _mean_rows(model, first: int) -> None:
    """Sets the rows from `first` on of embedding and head to the mean of those before."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    for values in [embedding.weight] + ([] if tied else [head.weight]) + [getattr(head, "bias", None)]:
        if values is not None:
            values[first:] = values[:first].float().mean(0).to(values.dtype)
