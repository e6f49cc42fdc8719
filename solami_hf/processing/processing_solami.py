"""`SolamiProcessor`: raw motion, audio and text to the language model's ids, and its answers back to media.

One folder holds the tokenizer, the chat template, the motion codec (with its statistics), the speech codec, the
acoustic model and the voices. Codecs and acoustic model are checkpoints in subfolders, loaded on first use.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import torch
from transformers import BatchFeature

from ..modeling.configuration_solami import ANSWER_FORMATS
from ..modeling.speech_codec_adapter import as_speech_codec, load_speech_codec
from ..modeling.vocabulary import MODALITY_FORMATS, extend_tokenizer
from .answers import Answer, parse_answer
from .batching import MOTION_BATCH_FRAMES, map_in_batches, pad_left, pad_right
from .interleaving import with_chunks
from .motion import SmplxMotion
from .motion_features import features_to_smplx, motion_to_features, relative_transform
from .motion_files import read_motion
from .processor_codecs import CODECS, ProcessorCodecs
from .processor_speech import SpeechProcessing
from .remote_code import AUTO_MAP, write_remote_code
from .rendering import TokenRenderer, sorted_blocks
from .smplx_body import standing_height
from .whole_file import follow_umask

_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
MAX_MOTION_SECONDS = 120.0
_PADDING = ("padding", "max_length", "pad_to_multiple_of", "padding_side")


class SolamiProcessor(SpeechProcessing, ProcessorCodecs):
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
        self.auto_map = dict(AUTO_MAP)
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
        hidden = {k: self.__dict__.pop(k) for k in derived}
        try:
            output = super().to_dict()
        finally:
            self.__dict__.update(hidden)
        return {k: v for k, v in output.items() if k not in CODECS}

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Writes tokenizer, template, processor config, voices, codecs and acoustic model (each in its subfolder), and
        the code that loads them with `trust_remote_code` where this package is not installed."""
        os.makedirs(save_directory, exist_ok=True)
        for name in filter(self._has, CODECS):
            self._codec(name).save_pretrained(os.path.join(save_directory, name))
            follow_umask(os.path.join(save_directory, name))
        self.voices.save(save_directory)
        write_remote_code(save_directory)
        files = super().save_pretrained(save_directory, **kwargs)
        if push_to_hub:
            hub = ("commit_message", "private", "token", "revision", "create_pr")
            repo_id = kwargs.get("repo_id", os.path.basename(os.path.abspath(save_directory)))
            self.push_to_hub(repo_id, **{k: v for k, v in kwargs.items() if k in hub})
        return files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Loads a processor folder or hub id; the codecs follow from its subfolders when they are first needed."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        hub = ("cache_dir", "force_download", "local_files_only", "token", "revision")
        source = {k: v for k, v in kwargs.items() if k in hub and v is not None}
        (processor[0] if isinstance(processor, tuple) else processor)._codec_source = (
            pretrained_model_name_or_path,
            source,
        )
        return processor

    # ---- media to codes

    @torch.no_grad()
    def encode_motion(self, motions: list, batch_size: int = 64) -> list[dict]:
        """Codes of motions.

        Args:
            motions: `SmplxMotion`s or paths; resampled to 30 fps when read from a path.
            batch_size: clips encoded together.

        Returns:
            one `{"body": (n,), "hand": (n,), "trans": (1,)}` of int arrays per motion, `n = (frames - 1) // 4`; `hand`
            is empty where the motion codec is bound.
            `trans` is the place and facing of the first frame seen by a character who stands at the origin and faces
            +Z; `body` and `hand` are those of the motion turned to face +Z itself.

        Raises:
            ValueError: fewer than 5 frames, more than two minutes, NaN, or a file that holds no motion.
        """
        params = [torch.from_numpy(_as_motion(m).to_params()).float() for m in motions]
        features = []
        for p in params:
            seconds = len(p) / self.motion_codec.config.fps
            if not 5 <= len(p) or seconds > MAX_MOTION_SECONDS:
                raise ValueError(
                    f"a motion needs at least 5 frames and at most {MAX_MOTION_SECONDS:.0f} s, got {len(p)} frames; "
                    "cut it into pieces"
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

    @torch.no_grad()
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

    # ---- messages

    def encode_media(self, conversations: list[list[dict]]) -> list[list[dict]]:
        """Conversations whose raw media (motions, waveforms, paths) are replaced by codes, encoded in batches."""
        copies = [
            [
                {**message, "content": [dict(block) for block in sorted_blocks(message["content"])]}
                if not isinstance(message["content"], str)
                else dict(message)
                for message in conversation
            ]
            for conversation in conversations
        ]
        blocks = [b for c in copies for m in c if not isinstance(m["content"], str) for b in m["content"]]
        raw_motion = [b for b in blocks if b["type"] == "motion" and not isinstance(b["motion"], dict)]
        raw_audio = [b for b in blocks if b["type"] == "audio" and not isinstance(b["audio"], dict)]
        if raw_motion:
            for block, codes in zip(raw_motion, self.encode_motion([b["motion"] for b in raw_motion]), strict=True):
                block["motion"] = codes
        if raw_audio:
            for block, codes in zip(raw_audio, self.encode_speech([b["audio"] for b in raw_audio]), strict=True):
                block["audio"] = {"codes": codes}
        for conversation in copies:
            for message in (m for m in conversation if not isinstance(m["content"], str)):
                for block in message["content"]:
                    if block["type"] in ("motion", "audio"):
                        block[block["type"]] = _plain_codes(block[block["type"]], message["role"] != "assistant")
        return copies

    def apply_chat_template(
        self,
        conversation,
        chat_template=None,
        add_generation_prompt=False,
        tokenize=False,
        return_dict=False,
        return_tensors=None,
        return_assistant_tokens_mask=False,
        **kwargs,
    ):
        """A dialogue as the language model's input.

        Args:
            conversation: messages, or a list of them. Content is a string or blocks: `{"type": "text", "text"}`,
                `{"type": "motion", "motion": SmplxMotion | path | {"body", "hand", "trans"}}`,
                `{"type": "audio", "audio": array at the codec's rate | path | {"codes"}}`. Raw media are encoded.
            chat_template: another template; it is then rendered as a string and tokenized.
            add_generation_prompt: end with the character's role marker.
            tokenize: ids instead of a string.
            return_dict: `BatchFeature` with `input_ids`, `attention_mask` (and `assistant_masks` when asked for), a
                batch even of one conversation, as all processors of transformers give it and TRL reads it. It is
                padded on the left when `return_tensors` is given.

        Raises:
            ValueError: unknown content types or roles, unreadable media, codes outside the codebooks.
        """
        if not conversation:
            raise ValueError("the conversation is empty; give at least one message")
        single = isinstance(conversation[0], dict)
        conversations = self.encode_media([conversation] if single else list(conversation))
        for c in conversations:
            _check_roles(c)
        if not tokenize or chat_template is not None:
            if tokenize and "padding_side" in kwargs:
                kwargs["tokenizer_kwargs"] = {"padding_side": kwargs.pop("padding_side")}
            return self.tokenizer.apply_chat_template(
                conversations[0] if single and not (tokenize and return_dict) else conversations,
                chat_template=chat_template or self.chat_template,
                add_generation_prompt=add_generation_prompt,
                tokenize=tokenize,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                **(dict(return_dict=return_dict, return_tensors=return_tensors) if tokenize else {}),
                **kwargs,
            )
        rendered = [self._renderer.chat(c, add_generation_prompt) for c in conversations]
        rows = {"input_ids": [r["input_ids"].tolist() for r in rendered]}
        rows["attention_mask"] = [[1] * len(ids) for ids in rows["input_ids"]]
        if return_assistant_tokens_mask:
            rows["assistant_masks"] = [(r["labels"] >= 0).astype(int).tolist() for r in rendered]
        if return_tensors is not None:
            rows = pad_left(rows, self.tokenizer.pad_token_id)
        output = BatchFeature(rows, tensor_type=return_tensors)
        if return_dict:
            return output
        return output["input_ids"][0] if single and return_tensors is None else output["input_ids"]

    def __call__(self, text=None, motion=None, audio=None, **kwargs) -> BatchFeature:
        """Ids of text, of a motion, of a waveform, or of all three in that order (no roles, no template).

        Args:
            text (`str` | `list[str]`, *optional*): tokenized by the text tokenizer.
            motion (`SmplxMotion` | path, *optional*): rendered as `{trans}{body}{hand}`.
            audio (array at the codec's rate | path, *optional*): rendered as `{speech}`.
            kwargs: of the tokenizer (`return_tensors`, `padding`, `max_length`, ...), as they are or in `text_kwargs`;
                beside motion or audio those that pad, as nothing of these is cut off.

        Returns:
            `BatchFeature` with `input_ids` and `attention_mask`.

        Raises:
            ValueError: nothing to encode, several texts beside motion or audio, `truncation` there, unreadable media.
        """
        kwargs = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)["text_kwargs"]
        if motion is None and audio is None:
            if text is None:
                raise ValueError("the processor needs text, motion or audio, got none of them")
            return BatchFeature(self.tokenizer(text, **kwargs))
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text beside motion or audio must be one string, got {type(text).__name__}")
        if kwargs.get("truncation"):
            raise ValueError("truncation would cut through motion or audio; cut the recordings, or pass text alone")
        content = [{"type": "text", "text": text}] if text else []
        content += [{"type": "motion", "motion": motion}] if motion is not None else []
        content += [{"type": "audio", "audio": audio}] if audio is not None else []
        blocks = self.encode_media([[{"role": "user", "content": content}]])[0][0]["content"]
        pieces = [(piece, False) for block in blocks for piece in self._renderer.block(block)]
        ids = self._renderer._join(pieces)["input_ids"].tolist()
        padding = {"padding": False, **{name: kwargs[name] for name in _PADDING if name in kwargs}}
        rows = dict(self.tokenizer.pad({"input_ids": ids, "attention_mask": [1] * len(ids)}, **padding))
        if kwargs.get("return_tensors") is not None:
            rows = {k: [v] for k, v in rows.items()}
        return BatchFeature(rows, tensor_type=kwargs.get("return_tensors"))

    def parse_response(self, ids, answer_format: str | None = None) -> Answer:
        """Text, codes and validity of generated ids; see `answers.parse_answer`."""
        return parse_answer(ids, self, answer_format or self.answer_format)

    @property
    def model_input_names(self):
        """Names of what the processor returns."""
        return ["input_ids", "attention_mask"]


def _as_motion(motion) -> SmplxMotion:
    if isinstance(motion, SmplxMotion):
        return motion
    if isinstance(motion, str | os.PathLike):
        return read_motion(motion)
    raise ValueError(f"a motion must be a SmplxMotion or a path, got {type(motion).__name__}")


def _plain_codes(codes: dict, with_transform: bool) -> dict:
    """Codes as lists of int, as the jinja template needs them; the character's turns carry no transform."""
    kept = {k: v for k, v in codes.items() if v is not None and (with_transform or k != "trans")}
    return {k: np.asarray(v, dtype=np.int64).reshape(-1).tolist() for k, v in kept.items()}


def _check_roles(conversation):
    if not conversation:
        raise ValueError("the conversation is empty; give at least one message")
    for message in conversation:
        if message.get("role") not in ("system", "user", "assistant"):
            raise ValueError(f"role must be system, user or assistant, got {message.get('role')!r}")


__all__ = ["SolamiProcessor"]
