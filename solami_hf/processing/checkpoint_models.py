"""The models and voices behind `SolamiProcessor`: given, or loaded from its checkpoint's subfolders on first use."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps

import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoModel
from transformers.utils import cached_file

from ..modeling.speech_codec.speech_codec_adapter import load_speech_codec
from .voices import Voices

CODECS = ("motion_codec", "speech_codec", "acoustic_model", "talker", "lips", "motion_filler")
OPTIONAL = ("acoustic_model", "talker", "lips", "motion_filler")
MIXED_PRECISION = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that `torch.autocast` may be on for."""
_IS_REMOTE_CODE = not __name__.startswith("solami_hf.")


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


class CheckpointModels:
    """Codecs, acoustic model and voices of a processor: those `given` by their names of `CODECS`, or None;
    `speech_levels` of the speech codec are read and written by the language model."""

    def __init__(self, given: dict, voices: Voices | None, speech_levels: int):
        self.loaded, self._voices, self.speech_levels = dict(given), voices, speech_levels
        self._checkpoint: tuple | None = None
        self._placement: dict = {}
        self._known: dict[str, bool] = {}

    def read_later(self, path, hub: dict) -> None:
        """Remembers where the models and voices are (a folder or hub id, and keyword arguments of the hub), and of a
        folder, which it has: it may be gone when they are read."""
        if os.path.isdir(path):
            path = os.path.abspath(path)  # the program may go to another folder
            self._known = {name: os.path.isfile(os.path.join(path, name, "config.json")) for name in CODECS}
        self._checkpoint = path, hub

    def place(self, device, dtype) -> None:
        """Moves the models to a device and a dtype, those that are loaded later too; None leaves either as it is."""
        given = {"device": device, "dtype": dtype}
        self._placement |= {name: value for name, value in given.items() if value is not None}
        for model in filter(None, self.loaded.values()):
            model.to(**self._placement)

    def get(self, name: str):
        """A model, loaded on first use; ValueError where there is none."""
        if self.loaded[name] is None:
            hint = f"pass {name}=... to SolamiProcessor, or save_pretrained a processor that has one"
            if self._checkpoint is None:
                raise ValueError(f"this processor has no {name}; {hint}")
            path, hub = self._source()
            try:
                if not self.has(name):
                    raise OSError("there is no config.json in it")
                model = self._load(name, path, hub).eval()
            except (OSError, ValueError) as error:
                raise ValueError(f"{path} has no readable {name}/ folder; {hint} ({error})") from error
            self.loaded[name] = model.to(**self._placement) if self._placement else model
        return self.loaded[name]

    def has(self, name: str) -> bool:
        """True if the processor, or the checkpoint that it comes from, has such a model."""
        if self.loaded[name] is not None or self._checkpoint is None:
            return self.loaded[name] is not None
        if name not in self._known:  # asked once: the answer may come from the hub
            path, hub = self._source()
            try:
                self._known[name] = cached_file(path, "config.json", subfolder=name, **hub) is not None
            except OSError as error:
                if not isinstance(error.__cause__, LocalEntryNotFoundError):  # offline, and not in the cache
                    raise
                self._known[name] = False
        return self._known[name]

    @property
    def voices(self) -> Voices:
        """The checkpoint's voices, read on first use."""
        if self._voices is None:
            if self._checkpoint is None:
                self._voices = Voices()
            else:
                path, hub = self._source()
                self._voices = Voices.load(path, **hub)
        return self._voices

    def _source(self) -> tuple:
        """Folder or hub id of the checkpoint, and keyword arguments of the hub; FileNotFoundError where it is gone."""
        path, hub = self._checkpoint
        if os.path.isabs(path) and not os.path.isdir(path):
            raise FileNotFoundError(
                f"the checkpoint folder {path} is gone, and its codecs or voices had not been read yet; put it back, "
                "or load the processor from where it is now"
            )
        return path, hub

    def _load(self, name: str, path: str, hub: dict):
        options = {"dtype": torch.float32, "subfolder": name, **hub}
        if _IS_REMOTE_CODE:  # whoever loaded this module trusts the checkpoint
            options["trust_remote_code"] = True
        if name == "speech_codec":
            return load_speech_codec(path, lm_levels=self.speech_levels, **options)
        return AutoModel.from_pretrained(path, **options)
