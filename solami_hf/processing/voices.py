"""Voices of a checkpoint: a few seconds of each as codes of its speech codec, which the acoustic model continues.

`voices/voices.json` maps a name to `{"source", "codec", "seconds"}`, and `voices/<name>.safetensors` holds the codes
of all levels, never the recording. `codec` is the fingerprint of the codec that made them: to another one they would
be noise. `processing/add_voice.py` makes them.
"""

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.utils import cached_file

from ..modeling.speech_codec.codec_interface import codec_fingerprint
from .files.atomic_write import atomic_write

FOLDER, INDEX = "voices", "voices.json"
_NAME = re.compile(r"\w(?:[\w .'-]{0,62}\w)?")


class Voices:
    """The voices of a checkpoint by name, whose `entries` are `{"source", "codec", "seconds"}`; codes (levels,
    frames) that are not known already are read from `folder` (a checkpoint folder or hub id with `revision`,
    `token`, ... in `hub`) when they are first needed."""

    def __init__(self, entries: dict | None = None, codes: dict | None = None, folder=None, hub: dict | None = None):
        self.entries, self._codes = dict(entries or {}), dict(codes or {})
        here = folder is not None and os.path.isdir(folder)
        self._folder, self._hub = os.path.abspath(folder) if here else folder, dict(hub or {})
        self._made_by = (None, "")

    @classmethod
    def load(cls, folder, **hub) -> "Voices":
        """The voices of a checkpoint folder or hub id; none where it has no `voices/`. Raises ValueError:
        `voices/voices.json` is damaged."""
        path = _find(folder, INDEX, hub)
        if path is None:
            return cls()
        try:
            entries = json.loads(Path(path).read_text(encoding="utf-8"))
            known = all(isinstance(entry.get("codec"), str) for entry in entries.values())
        except (ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path} is not readable ({error}); add the voices again with `solami add-voice`"
            ) from None
        if not known or not all(_NAME.fullmatch(name) for name in entries):
            raise ValueError(f"{path} has entries without a codec or with bad names; add them with `solami add-voice`")
        return cls(entries, folder=folder, hub=hub)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.entries)

    def prompt(self, name: str, codec) -> torch.LongTensor:
        """The codes (levels, frames) of a voice, for this codec. Raises ValueError: an unknown voice, one that
        another codec made, or a file that is missing or damaged."""
        if name not in self.entries:
            raise ValueError(
                f"unknown voice {name!r}; this checkpoint has {self.names or 'no voices'}. "
                "`solami add-voice` adds one, voice=None leaves the choice to the acoustic model"
            )
        ours = self._fingerprint(codec)
        if self.entries[name]["codec"] != ours:
            raise ValueError(
                f"voice {name!r} was made by the speech codec {self.entries[name]['codec']}, but the checkpoint has "
                f"{ours}; add it again with `solami add-voice`"
            )
        return self.codes(name)

    def codes(self, name: str) -> torch.LongTensor:
        """The codes (levels, frames) of a voice that is there; ValueError when its file is missing or damaged."""
        if name not in self._codes:
            path = _find(self._folder, f"{name}.safetensors", self._hub)
            try:
                codes = load_file(path)["audio_codes"].long() if path else None
            except (SafetensorError, KeyError, OSError, RuntimeError, ValueError) as error:
                raise ValueError(f"{path} holds no audio_codes ({error}); add the voice again") from None
            if codes is None or codes.dim() != 2 or codes.numel() == 0 or int(codes.min()) < 0:
                raise ValueError(f"the codes of voice {name!r} are missing; add it again with `solami add-voice`")
            self._codes[name] = codes
        return self._codes[name]

    def add(self, name: str, codes: torch.Tensor, source: str, codec, overwrite: bool = False) -> None:
        """Adds a voice with codes (levels, frames) of all levels of `codec`; `save` writes it. A name has up to 64
        letters, digits, spaces and `.'-_`; it is a file's name, too. `source` says where the voice is from, and on
        what terms. Raises ValueError: a name that cannot be a file's, or that is taken and not to `overwrite`."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"a voice cannot be named {name!r}: use up to 64 letters, digits, spaces, or any of .'-_")
        same = [known for known in self.entries if known.casefold() == name.casefold()]
        if same and not (overwrite and same == [name]):
            raise ValueError(f"there is a voice {same[0]!r} already; choose another name, or pass overwrite")
        seconds = round(codes.shape[1] / codec.config.frame_rate, 2)
        self.entries[name] = {"source": source, "codec": self._fingerprint(codec), "seconds": seconds}
        self._codes[name] = codes.long()

    def _fingerprint(self, codec) -> str:
        """The codec's, computed once: hashing its weights takes longer than speaking a sentence."""
        if self._made_by[0] is not codec:
            self._made_by = (codec, codec_fingerprint(codec))
        return self._made_by[1]

    def read_all(self) -> None:
        """Reads the codes of all voices; ValueError when a file is missing or damaged."""
        for name in self.entries:
            self.codes(name)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes all voices into `folder/voices/`, the index last."""
        self.read_all()
        for name in self.entries:
            codes = self.codes(name).contiguous()
            narrow = codes.to(torch.int16 if int(codes.max()) < 1 << 15 else torch.int32)
            with atomic_write(Path(folder) / FOLDER / f"{name}.safetensors") as temporary:
                save_file({"audio_codes": narrow}, temporary)
        if self.entries:
            with atomic_write(Path(folder) / FOLDER / INDEX) as temporary:
                temporary.write_text(json.dumps(self.entries, indent=1, ensure_ascii=False), encoding="utf-8")


def _find(folder, name: str, hub: dict) -> str | None:
    """Path of a file of a checkpoint's `voices/`, None where there is none."""
    try:
        return cached_file(folder, f"{FOLDER}/{name}", **hub)
    except OSError:
        return None
