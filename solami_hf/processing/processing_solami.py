"""`SolamiProcessor`: raw motion, audio and text to the language model's ids, and its answers back to media.

One folder holds the tokenizer, the chat template, the motion codec (with its statistics), the speech codec, the
acoustic model and the voices. Codecs and acoustic model are checkpoints in subfolders, loaded on first use.
"""

from __future__ import annotations

import os
import re
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from transformers import BatchFeature
from transformers.processing_utils import TextKwargs

from ..modeling.remote_code import write_remote_code
from ..modeling.solami.configuration_solami import ANSWER_FORMATS
from ..modeling.solami.vocabulary import MODALITY_FORMATS, extend_tokenizer
from ..modeling.speech_codec.speech_codec_adapter import as_speech_codec, load_speech_codec
from .answers import Answer, parse_answer, with_chunks
from .audio.waveforms import is_pair
from .batching import MOTION_BATCH_FRAMES, map_in_batches, pad_right
from .files.atomic_write import follow_umask
from .motion.body import standing_height
from .motion.features import features_to_smplx, motion_to_features, relative_transform
from .motion.motion_io import read_motion
from .motion.smplx_motion import SmplxMotion
from .processor_chat import PADDING, ChatProcessing, refuse_unknown
from .processor_codecs import CODECS, ProcessorCodecs, in_own_precision
from .processor_speech import SpeechProcessing
from .rendering import TokenRenderer

_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
MAX_MOTION_SECONDS = 120.0


class SolamiProcessor(ChatProcessing, SpeechProcessing, ProcessorCodecs):
    r"""
    Args:
        tokenizer: the text tokenizer; the modality tokens are added when it lacks them.
        motion_codec (`SolamiMotionVQModel`, *optional*): body, hand and transform tokenizer with its statistics.
        speech_codec (`SolamiSpeechCodecModel` or any codec of transformers, *optional*): speech tokenizer, a model or
            the hub id or folder of one. The language model reads the first `lm_levels` of its levels, by default
            level 0 of ours; `speech_codec_adapter.load_speech_codec` chooses others.
        chat_template (`str`, *optional*): by default the packaged SOLAMI template.
        characters (`dict`, *optional*): id -> `{"name", "system", "voice"?}`, the characters of the checkpoint.
        answer_format (`str`): `"motion_speech"` or `"text_motion_speech"`.
        acoustic_model (`SolamiSoundStormModel`, *optional*): adds the levels that the language model does not write.
        speech_levels (`int`, *optional*): levels among the speech codes, by default those of the speech codec.
        voices (`Voices`, *optional*): prompts of the speech codec that the acoustic model can continue.
        interleaved (`bool`): body, hand and speech of answers in chunks of equal time instead of one after the other,
            see `interleaving`; also in the packaged chat template.
        frame_rates (`dict`, *optional*): codes a second of `speech` (all levels counted), `body` and `hand`; by
            default those of the codecs, and the paper's for one that is not given.
    """

    def __init__(
        self,
        tokenizer,
        motion_codec=None,
        speech_codec=None,
        chat_template=None,
        characters=None,
        answer_format="motion_speech",
        acoustic_model=None,
        speech_levels=None,
        voices=None,
        interleaved=False,
        frame_rates=None,
    ):
        if answer_format not in ANSWER_FORMATS:
            raise ValueError(f"answer_format must be one of {ANSWER_FORMATS}, got {answer_format!r}")
        chat_template = chat_template or _TEMPLATE.read_text(encoding="utf-8")
        super().__init__(tokenizer, chat_template=chat_template)
        self.auto_map = {"AutoProcessor": "processing_solami.SolamiProcessor"}
        self.characters = characters or {}
        self.answer_format = answer_format
        if speech_codec is not None:
            load = load_speech_codec if isinstance(speech_codec, str | os.PathLike) else as_speech_codec
            speech_codec = load(speech_codec, lm_levels=speech_levels)
            speech_levels = speech_codec.config.lm_levels
        self.speech_levels, self.interleaved = speech_levels or 1, interleaved
        self._codecs = dict(zip(CODECS, (motion_codec, speech_codec, acoustic_model), strict=True))
        self._codec_source, self._voices = None, voices
        self._found: dict[str, bool] = {}
        self.frame_rates = frame_rates or self._rates()
        self.modalities, self.markers = extend_tokenizer(tokenizer, self._sizes(tokenizer))
        self._renderer = TokenRenderer(tokenizer, self)
        self.chat_template = tokenizer.chat_template = with_chunks(chat_template, self._renderer.chunks)
        self._first_template = self.chat_template  # of which the renderer writes the ids

    def _sizes(self, tokenizer) -> dict[str, int]:
        """Code counts: those of the tokenizer where it has modality tokens, else those of the codecs."""
        text, sizes = "\n".join(tokenizer.get_vocab()), {}
        for name, template in MODALITY_FORMATS.items():
            pattern = re.escape(template).replace(r"\{\}", r"(\d+)")
            sizes[name] = 1 + max((int(i) for i in re.findall(pattern, text)), default=-1)
        motion, speech = self._codecs["motion_codec"], self._codecs["speech_codec"]
        if motion is not None:
            if sizes["body"] and motion.config.bound == bool(sizes["hand"]):
                bound, has = ("is", "has") if motion.config.bound else ("is not", "lacks")
                raise ValueError(
                    f"the motion codec {bound} bound, but the tokenizer has body tokens and {has} hand tokens; start "
                    "from a tokenizer without, or use the codec that they were made for"
                )
            known = motion.config.modality_sizes
            sizes = {**sizes, **{name: size for name, size in known.items() if not sizes[name]}}
        if speech is not None:
            needed = self.speech_levels * speech.config.codebook_size
            sizes["speech"] = sizes["speech"] or needed
            if sizes["speech"] < needed or (self.speech_levels > 1 and sizes["speech"] > needed):
                raise ValueError(
                    f"the tokenizer has {sizes['speech']} speech tokens, but the speech codec needs {needed}; start "
                    "from a tokenizer without speech tokens, or use the codec that they were made for"
                )
        # Body codes without hand codes are those of a bound motion codec; what else is missing gets the paper's size
        return {name: size for name, size in sizes.items() if size or (name == "hand" and sizes["body"])}

    def _rates(self) -> dict[str, float]:
        """Codes a second of the codecs that are given, the paper's for the others."""
        motion, speech = self._codecs["motion_codec"], self._codecs["speech_codec"]
        codes = 7.5 if motion is None else float(motion.config.frame_rate)
        frames = 50.0 if speech is None else float(speech.config.frame_rate)
        return {"speech": frames * self.speech_levels, "body": codes, "hand": codes}

    # ---- saving and loading

    def to_dict(self):
        """What goes into `processor_config.json`: no weights, no derived state."""
        derived = ("_codecs", "_voices", "_found", "_renderer", "_codec_source", "modalities", "markers")
        derived += ("_first_template",)
        hidden = {k: self.__dict__.pop(k) for k in derived}
        try:
            output = super().to_dict()
        finally:
            self.__dict__.update(hidden)
        return {k: v for k, v in output.items() if k not in CODECS}

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Writes tokenizer, template, processor config, voices, codecs and acoustic model (each in its subfolder), and
        the code that loads them with `trust_remote_code` where this package is not installed."""
        codecs = {name: self._codec(name) for name in CODECS if self._has(name)}  # all, or nothing is written
        self.voices.read_all()
        os.makedirs(save_directory, exist_ok=True)
        for name, codec in codecs.items():
            codec.save_pretrained(os.path.join(save_directory, name))
            follow_umask(os.path.join(save_directory, name))
        self.voices.save(save_directory)
        write_remote_code(save_directory, __file__)
        files = super().save_pretrained(save_directory, **kwargs)
        if push_to_hub:
            hub = ("commit_message", "private", "token", "revision", "create_pr")
            repo_id = kwargs.get("repo_id", os.path.basename(os.path.abspath(save_directory)))
            self.push_to_hub(repo_id, **{k: v for k, v in kwargs.items() if k in hub})
        return files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Loads a processor folder or hub id; the codecs follow from its subfolders when they are first needed."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        hub = ("cache_dir", "force_download", "local_files_only", "token", "revision")
        source = {k: v for k, v in kwargs.items() if k in hub and v is not None}
        processor = loaded[0] if isinstance(loaded, tuple) else loaded
        processor._read_later(pretrained_model_name_or_path, source)
        return loaded

    # ---- media to codes

    @in_own_precision
    def encode_motion(self, motions: list, batch_size: int = 64) -> list[dict]:
        """Codes of motions.

        Args:
            motions: `SmplxMotion`s or paths, of any rate; they are resampled to the motion codec's, 30 fps.
            batch_size: clips encoded together.

        Returns:
            one `{"body": (n,), "hand": (n,), "trans": (1,)}` of int arrays per motion, `n = (frames - 1) // 4`; `hand`
            is empty where the motion codec is bound.
            `trans` is the place and facing of the first frame seen by a character who stands at the origin and faces
            +Z; `body` and `hand` are those of the motion turned to face +Z itself.

        Raises:
            ValueError: fewer than 5 frames, more than two minutes, NaN, or a file that holds no motion.
        """
        if isinstance(motions, (str, os.PathLike)) or not hasattr(motions, "__iter__"):
            raise ValueError(f"encode_motion takes a list of motions, got {type(motions).__name__}")
        fps = self.motion_codec.config.fps
        params = [torch.from_numpy(read_motion(m, fps).to_params()).float() for m in motions]
        features = []
        for p in params:
            if not 5 <= len(p) or len(p) / fps > MAX_MOTION_SECONDS:
                raise ValueError(
                    f"a motion needs at least 5 frames and at most {MAX_MOTION_SECONDS:.0f} s, got {len(p)} frames at "
                    f"{fps:g} fps; cut it into pieces"
                )
            features.append(motion_to_features(p))
        character = torch.zeros(159)
        character[1] = standing_height()
        transforms = self.motion_codec.encode_transform(
            torch.stack([relative_transform(p[0], character) for p in params])
        )

        def encode(batch):
            output = self.motion_codec.encode(*pad_right(batch))
            body = output.body_codes.numpy()
            hand = body[:, :0] if output.hand_codes is None else output.hand_codes.numpy()
            codes = zip(body, hand, batch, strict=True)
            return [{"body": body[: len(f) // 4], "hand": hand[: len(f) // 4]} for body, hand, f in codes]

        encoded = map_in_batches(features, len, batch_size, encode, most_steps=MOTION_BATCH_FRAMES)
        return [{**codes, "trans": trans} for codes, trans in zip(encoded, transforms.numpy()[:, None], strict=True)]

    # ---- codes to media

    @in_own_precision
    def decode_motion(self, codes: dict) -> SmplxMotion:
        """The motion of `{"body": (n,), "hand": (n,)}`: `4 n` frames at 30 fps, beginning at the origin facing +Z.

        Of a bound motion codec there are body codes alone; `hand` is empty, `None`, or not there.

        Raises:
            ValueError: no codes, numbers of body and hand codes that do not fit, or a code outside its codebook.
        """
        body, hand = (
            torch.as_tensor(np.asarray([] if values is None else values, dtype=np.int64))[None]
            for values in (codes["body"], codes.get("hand"))
        )
        bound = self.motion_codec.config.bound
        if body.numel() == 0 or hand.numel() != (0 if bound else body.numel()):
            wanted = "body codes alone, as its codec is bound" if bound else "equally many body and hand codes"
            raise ValueError(f"a motion needs {wanted}, got {body.numel()} body and {hand.numel()} hand codes")
        features = self.motion_codec.decode(body, None if bound else hand).motion_values[0]
        return SmplxMotion.from_params(features_to_smplx(features).numpy(), fps=self.motion_codec.config.fps)

    def __call__(self, text=None, motion=None, audio=None, **kwargs) -> BatchFeature:
        """Ids of text, of a motion, of a recording, or of all three in that order (no roles, no template).

        Args:
            text (`str` | `list[str]`, *optional*): tokenized by the text tokenizer.
            motion (`SmplxMotion` | path | list of them, *optional*): rendered as `{trans}{body}{hand}`.
            audio (recording in any form that `audio.read_audio` takes | list of them, *optional*): as `{speech}`.
            kwargs: of the tokenizer (`return_tensors`, `padding`, `max_length`, ...), as they are or in `text_kwargs`;
                beside motion or audio those that pad, as nothing of these is cut off. `sampling_rate`, as it is or in
                `audio_kwargs`, of arrays that tell no rate of their own; by default the speech codec's.

        Returns:
            `BatchFeature` with `input_ids` and `attention_mask`; of lists, one row an item.

        Raises:
            ValueError: nothing to encode, lists of different lengths, an unknown keyword, `truncation` beside motion
                or audio, unreadable media.
        """
        given = {name: value for name, value in kwargs.items() if value is not None}
        of_audio = {"sampling_rate": given.pop("sampling_rate", None), **given.pop("audio_kwargs", {})}
        groups = {name: given.get(name, {}) for name in ("text_kwargs", "common_kwargs")}
        asked = {**given, **groups["common_kwargs"], **groups["text_kwargs"]}.keys() - groups.keys()
        refuse_unknown(of_audio, ("sampling_rate",), "audio_kwargs")
        refuse_unknown(asked, TextKwargs.__annotations__, "the processor", ("sampling_rate", "audio_kwargs"))
        options = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **given)["text_kwargs"]
        media = {name: value for name, value in (("motion", motion), ("audio", audio)) if value is not None}
        if not media:
            if text is None:
                raise ValueError("the processor needs text, motion or audio, got none of them")
            return BatchFeature(self.tokenizer(text, **options))
        if options.get("truncation"):
            raise ValueError("truncation would cut through motion or audio; cut the recordings, or pass text alone")
        refuse_unknown(
            (name for name in asked if name != "add_special_tokens" or options[name]),
            (*PADDING, "truncation", "return_tensors"),
            "the processor beside motion or audio",
        )
        media = {**({} if text is None else {"text": text}), **media}
        lengths = {name: len(value) if _is_list(name, value) else None for name, value in media.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name}: {'one' if n is None else f'a list of {n}'}" for name, n in lengths.items())
            raise ValueError(f"text, motion and audio are one each, or lists of one length; got {told}")
        count = next(iter(lengths.values()))
        rows = [media.values()] if count is None else zip(*media.values(), strict=True)
        contents = [[{"type": n, n: v} for n, v in zip(media, row, strict=True) if n != "text" or v] for row in rows]
        encoded = self.encode_media([[{"role": "user", "content": c}] for c in contents], of_audio["sampling_rate"])
        pieces = [[p for block in c[0]["content"] for p in self._renderer.block(block)] for c in encoded]
        ids = [self._renderer._join([(piece, False) for piece in p])["input_ids"].tolist() for p in pieces]
        output = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
        padding = {"padding": False, **{name: options[name] for name in PADDING if name in options}}
        output = dict(self.tokenizer.pad(output, **padding))
        tensors = options.get("return_tensors")
        if count is None and tensors is None:
            output = {name: rows[0] for name, rows in output.items()}
        return BatchFeature(output, tensor_type=tensors)

    def parse_response(self, ids, answer_format: str | None = None) -> Answer:
        """Text, codes and validity of generated ids; see `answers.parse_answer`."""
        return parse_answer(ids, self, answer_format or self.answer_format)

    @property
    def model_input_names(self):
        """Names of what the processor returns."""
        return ["input_ids", "attention_mask"]


def _is_list(name: str, value) -> bool:
    """Whether an argument of the processor is several items; one recording may be a list of numbers, or a pair."""
    if not isinstance(value, (list, tuple)):
        return False
    return name != "audio" or not (is_pair(value) or all(isinstance(number, Real) for number in value))


__all__ = ["SolamiProcessor"]
