"""The models behind `SolamiProcessor`: given, or loaded from the subfolders of its checkpoint on first use."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps

import torch
from transformers.processing_utils import ProcessorMixin
from transformers.utils import cached_file

from ..modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from ..modeling.speech_codec.speech_codec_adapter import load_speech_codec

CODECS = ("motion_codec", "speech_codec", "acoustic_model")
MIXED_PRECISION = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that `torch.autocast` may be on for."""


def in_own_precision(method: Callable) -> Callable:
    """Codecs compute without gradients and in their own dtype, whatever `torch.autocast` stands around the call: codes
    are the same, and NumPy knows no bfloat16."""

    @wraps(method)
    @torch.no_grad()
    def computed(*args, **kwargs):
        with ExitStack() as stack:
            for kind in filter(torch.is_autocast_enabled, MIXED_PRECISION):
                stack.enter_context(torch.autocast(kind, enabled=False))
            return method(*args, **kwargs)

    return computed


class ProcessorCodecs(ProcessorMixin):
    """What `SolamiProcessor` inherits. Needs its `speech_levels` and `_load_voices`."""

    _codecs: dict[str, torch.nn.Module | None]
    _codec_source: tuple | None
    _found: dict[str, bool]

    def __getattr__(self, name: str):
        """`motion_codec`, `speech_codec`, `acoustic_model` and `voices`, loaded on first use.

        Not properties: transformers wants no argument of `__init__` to be an attribute of the class as well.

        Raises:
            ValueError: the checkpoint has no such codec. (Without an acoustic model, that is None.)
        """
        if name == "voices":
            return self._load_voices()
        if name in CODECS:
            return self._codec(name) if name != "acoustic_model" or self._has(name) else None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _read_later(self, path, hub: dict) -> None:
        """Remembers where the codecs and voices are, and of a folder, which it has: it may be gone when they are read.

        Args:
            path: folder or hub id.
            hub: keyword arguments of the hub.
        """
        if os.path.isdir(path):
            path = os.path.abspath(path)  # the program may go to another folder
            self._found = {name: os.path.isfile(os.path.join(path, name, "config.json")) for name in CODECS}
        self._codec_source = path, hub

    def _source(self) -> tuple:
        """Folder or hub id of the checkpoint, and keyword arguments of the hub.

        Raises:
            FileNotFoundError: the folder is no longer there.
        """
        path, hub = self._codec_source
        if os.path.isabs(path) and not os.path.isdir(path):
            raise FileNotFoundError(
                f"the checkpoint folder {path} is gone, and its codecs or voices had not been read yet; put it back, "
                "or load the processor from where it is now"
            )
        return path, hub

    def _codec(self, name: str):
        if self._codecs[name] is None:
            hint = f"pass {name}=... to SolamiProcessor, or save_pretrained a processor that has one"
            if self._codec_source is None:
                raise ValueError(f"this processor has no {name}; {hint}")
            path, kwargs = self._source()
            try:
                if not self._has(name):
                    raise OSError("there is no config.json in it")
                self._codecs[name] = self._loader(name)(path, subfolder=name, dtype=torch.float32, **kwargs).eval()
            except OSError as error:
                raise ValueError(f"{path} has no readable {name}/ folder; {hint} ({error})") from error
        return self._codecs[name]

    def _loader(self, name: str):
        if name == "motion_codec":
            return SolamiMotionVQModel.from_pretrained
        if name == "speech_codec":
            return partial(load_speech_codec, lm_levels=self.speech_levels)
        from ..modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel

        return SolamiSoundStormModel.from_pretrained

    def _has(self, name: str) -> bool:
        """Whether the processor or the checkpoint that it comes from has such a model."""
        if self._codecs[name] is not None or self._codec_source is None:
            return self._codecs[name] is not None
        if name not in self._found:  # asked once: the answer may come from the hub
            path, kwargs = self._source()
            self._found[name] = cached_file(
                path, "config.json", subfolder=name, _raise_exceptions_for_missing_entries=False, **kwargs
            ) is not None  # fmt: skip
        return self._found[name]


__all__ = ["CODECS", "MIXED_PRECISION", "ProcessorCodecs", "in_own_precision"]
