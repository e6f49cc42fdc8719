"""Which codec made some codes: codes of another one are plausible numbers without meaning. And which model."""

from __future__ import annotations

import hashlib

import torch


def codec_fingerprint(codec) -> str:
    """A short hash of a codec's weights and buffers; two codecs with the same one give the same codes.

    Where the language model reads several levels of a speech codec, their number is part of it; and what the networks
    of a motion codec see, where these are not the features as they come. A speech codec whose decoder alone was tuned
    keeps that of before (`codes_fingerprint` of its configuration).
    """
    if kept := getattr(codec.config, "codes_fingerprint", None):
        return kept
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    levels = getattr(codec.config, "lm_levels", 1)
    if levels != 1:
        digest.update(f"{levels} levels".encode())
    representation = getattr(codec.config, "representation", "local_rotation")
    if representation != "local_rotation":
        digest.update(representation.encode())
    return digest.hexdigest()[:16]


def model_fingerprint(model) -> str:
    """A short hash of names, shapes and a few values of all weights of a language model, quick for large ones."""
    digest = hashlib.sha256(f"{model.dtype} {type(model).__name__}".encode())
    for name, weight in sorted(model.state_dict().items()):
        if isinstance(weight, torch.Tensor):
            values = _in_memory(model, name, weight).reshape(-1)[:: max(1, weight.numel() // 16)]
            digest.update(
                f"{name} {tuple(weight.shape)}".encode() + values.float().cpu().numpy().astype("<f4").tobytes()
            )
    return digest.hexdigest()[:16]


def _in_memory(model, name: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight of a model, read where a device map has left it on a disk."""
    if not weight.is_meta:
        return weight.detach()
    from accelerate.utils import align_module_device

    parent, _, own = name.rpartition(".")
    module = model.get_submodule(parent)
    with align_module_device(module, "cpu"):
        return getattr(module, own).detach().clone()


__all__ = ["codec_fingerprint", "model_fingerprint"]
