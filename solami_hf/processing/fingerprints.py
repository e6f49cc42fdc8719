"""Which codec made some codes: codes of another one are plausible numbers without meaning. And which model."""

from __future__ import annotations

import hashlib

import torch

from ..modeling.speech_codec.codec_interface import codec_fingerprint


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
