"""`SolamiProcessor`: raw motion, audio and text to the language model's ids, and its answers back to media.

One folder holds the tokenizer, the chat template, the motion codec (with its statistics), the speech codec, the
acoustic model and the voices. Codecs and acoustic model are checkpoints in subfolders, loaded on first use.
"""

import os
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin, TextKwargs

from ..modeling.remote_code import write_remote_code
from ..modeling.solami.configuration_solami import ANSWER_FORMATS, HEARING
from ..modeling.solami.vocabulary import MODALITY_FORMATS, extend_tokenizer, flatten_levels, split_levels
from ..modeling.speech_codec.speech_codec_adapter import as_speech_codec, load_speech_codec
from .answers import Answer, parse_answer, with_chunks
from .audio.waveforms import is_pair, limit_loudness, read_audio
from .batching import MOTION_BATCH_FRAMES, map_in_batches, pad_right, pad_to
from .checkpoint_models import CODECS, OPTIONAL, CheckpointModels, in_own_precision
from .files.atomic_write import follow_umask
from .motion.body import standing_height
from .motion.features import features_to_smplx, motion_to_features, relative_transform
from .motion.formats.motion_npz import read_smplx
from .motion.smplx_motion import SmplxMotion
from .rendering import (
    PADDING,
    TokenRenderer,
    check_continued,
    check_messages,
    heard,
    plain_codes,
    raw_medium,
    refuse_unknown,
    sorted_blocks,
    sorted_keywords,
    text_of,
    variables_of,
)

_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
MAX_MOTION_SECONDS = MAX_SPEECH_SECONDS = 120.0
_NO_LIMIT = 1 << 30  # the `model_max_length` of tokenizers that have none is larger


class SolamiProcessor(ProcessorMixin):
    r"""
    Args:
        tokenizer: the text tokenizer; the modality tokens are added when it lacks them.
        motion_codec (`SolamiMotionVQModel`, *optional*): body, hand and transform tokenizer with its statistics.
        speech_codec (`SolamiSpeechCodecModel` or any codec of transformers, *optional*): speech tokenizer, a model or
            the hub id or folder of one. The language model reads the first `lm_levels` of its levels, by default
            level 0 of ours; `speech_codec_adapter.load_speech_codec` chooses others.
        chat_template (`str`, *optional*): by default the packaged SOLAMI template.
        characters (`dict`, *optional*): id -> `{"name", "system", "voice"?}`, the characters of the checkpoint.
        answer_format (`str`): `"motion_speech"`, `"text_motion_speech"` or `"text_motion"`, see `SolamiConfig`.
        acoustic_model (`SolamiSoundStormModel`, *optional*): adds the levels that the language model does not write.
        speech_levels (`int`, *optional*): levels among the speech codes, by default those of the speech codec.
        voices (`Voices`, *optional*): prompts of the speech codec that the acoustic model can continue.
        interleaved (`bool`): body, hand and speech of answers in chunks of equal time instead of one after the other,
            see `answers`; also in the packaged chat template.
        hearing (`str`): what is read of a user's speech: its `"codes"`, its `"transcript"` (a text block beside the
            sound), or `"both"`.
        frame_rates (`dict`, *optional*): codes a second of `speech` (all levels counted), `body` and `hand`; by
            default those of the codecs, and the paper's for one that is not given.
        talker (`SolamiTalkerModel`, *optional*): says the words of answers whose format has no speech codes.
        lips (`SolamiLipsModel`, *optional*): reads off speech what the mouth does.
        motion_filler (`SolamiSoundStormModel`, *optional*): adds the levels of a motion codec with several.
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
        hearing="codes",
        talker=None,
        lips=None,
        motion_filler=None,
    ):
        if hearing not in HEARING:
            raise ValueError(f"hearing must be one of {HEARING}, got {hearing!r}")
        if answer_format not in ANSWER_FORMATS:
            raise ValueError(f"answer_format must be one of {ANSWER_FORMATS}, got {answer_format!r}")
        chat_template = chat_template or _TEMPLATE.read_text(encoding="utf-8")
        super().__init__(tokenizer, chat_template=chat_template)
        self.auto_map = {"AutoProcessor": "processing_solami.SolamiProcessor"}
        self.characters = characters or {}
        self.answer_format, self.hearing = answer_format, hearing
        if speech_codec is not None:
            load = load_speech_codec if isinstance(speech_codec, str | os.PathLike) else as_speech_codec
            speech_codec = load(speech_codec, lm_levels=speech_levels)
            speech_levels = speech_codec.config.lm_levels
        self.speech_levels, self.interleaved = speech_levels or 1, interleaved
        models = (motion_codec, speech_codec, acoustic_model, talker, lips, motion_filler)
        given = dict(zip(CODECS, models, strict=True))
        self._models = CheckpointModels(given, voices, self.speech_levels)
        self.frame_rates = frame_rates or self._rates()
        self.modalities, self.markers = extend_tokenizer(tokenizer, self._sizes(tokenizer))
        self.renderer = TokenRenderer(tokenizer, self)
        self.chat_template = tokenizer.chat_template = with_chunks(chat_template, self.renderer.chunks)
        self._first_template = self.chat_template  # of which the renderer writes the ids

    def __getattr__(self, name: str):
        """The models of `CODECS` by their names, and `voices`, loaded on first use. Not properties: transformers wants
        no argument of `__init__` to be an attribute of the class as well. Raises ValueError: the checkpoint has no
        such codec. (Without one of the optional ones, that is None.)"""
        if name == "voices":
            return self._models.voices
        if name in CODECS:
            return self._models.get(name) if name not in OPTIONAL or self._models.has(name) else None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def place_codecs(self, device=None, dtype: torch.dtype | None = None) -> None:
        """Moves codecs and acoustic model, also those that are not loaded yet, to a device and a dtype."""
        self._models.place(device, dtype)

    def _sizes(self, tokenizer) -> dict[str, int]:
        """Code counts: those of the tokenizer where it has modality tokens, else those of the codecs."""
        text, sizes = "\n".join(tokenizer.get_vocab()), {}
        for name, template in MODALITY_FORMATS.items():
            pattern = re.escape(template).replace(r"\{\}", r"(\d+)")
            sizes[name] = 1 + max((int(i) for i in re.findall(pattern, text)), default=-1)
        motion, speech = self._models.loaded["motion_codec"], self._models.loaded["speech_codec"]
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
        motion, speech = self._models.loaded["motion_codec"], self._models.loaded["speech_codec"]
        codes = 7.5 if motion is None else float(motion.config.frame_rate)
        frames = 50.0 if speech is None else float(speech.config.frame_rate)
        return {"speech": frames * self.speech_levels, "body": codes, "hand": codes}

    # ---- saving and loading

    def to_dict(self):
        """Contents of `processor_config.json`: no weights, no derived state."""
        derived = ("_models", "renderer", "modalities", "markers", "_first_template")
        hidden = {k: self.__dict__.pop(k) for k in derived}
        try:
            output = super().to_dict()
        finally:
            self.__dict__.update(hidden)
        return {k: v for k, v in output.items() if k not in CODECS}

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Writes tokenizer, template, processor config, voices, codecs and acoustic model (each in its subfolder), and
        the code that loads them with `trust_remote_code` where this package is not installed."""
        # All are read before anything is written: a processor is saved whole or not at all
        codecs = {name: self._models.get(name) for name in CODECS if self._models.has(name)}
        self.voices.read_all()
        os.makedirs(save_directory, exist_ok=True)
        for name, codec in codecs.items():
            codec.save_pretrained(os.path.join(save_directory, name))
            follow_umask(os.path.join(save_directory, name))
            if hasattr(codec, "code_file"):  # transformers looks here when the codec is loaded by `subfolder`
                write_remote_code(save_directory, codec.code_file)
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
        processor._models.read_later(pretrained_model_name_or_path, source)
        return loaded

    # ---- media to codes

    @in_own_precision
    def encode_motion(self, motions: list, batch_size: int = 64) -> list[dict]:
        """Codes of motions: `SmplxMotion`s, or paths of SMPL-X `.npz` files, of any rate; they are resampled to the
        motion codec's (the paper's: 30 fps). `processing.motion.read_motion` reads other formats; `batch_size` clips
        are encoded together.

        Returns one `{"body": (n,), "hand": (n,), "trans": (1,)}` of int arrays per motion, `n = (frames - 1) // 4`
        (4 frames a code, as the paper's); `hand` is empty where the motion codec is bound. `trans` is the place and
        facing of the first frame seen by a character who stands at the origin and faces +Z; `body` and `hand` are
        those of the motion turned to face +Z itself. Raises ValueError: too short for a code, more than two minutes,
        NaN, or a file that holds no motion.
        """
        if isinstance(motions, (str, os.PathLike)) or not hasattr(motions, "__iter__"):
            raise ValueError(f"encode_motion takes a list of motions, got {type(motions).__name__}")
        fps, a_code = self.motion_codec.config.fps, self.motion_codec.config.frames_per_code
        params = [torch.from_numpy(read_smplx(m, fps).to_params()).float() for m in motions]
        features = []
        for p in params:
            if not a_code < len(p) or len(p) / fps > MAX_MOTION_SECONDS:
                raise ValueError(
                    f"a motion needs at least {a_code + 1} frames and at most {MAX_MOTION_SECONDS:.0f} s, got "
                    f"{len(p)} frames at {fps:g} fps; cut it into pieces"
                )
            features.append(motion_to_features(p))
        character = torch.zeros(159)
        character[1] = standing_height()
        device = self.motion_codec.device
        transforms = torch.stack([relative_transform(p[0], character) for p in params])
        transforms = self.motion_codec.encode_transform(transforms.to(device)).cpu()

        def encode(batch):
            output = self.motion_codec.encode(*(part.to(device) for part in pad_right(batch)))
            body = output.body_codes.cpu().numpy()
            hand = body[:, :0] if output.hand_codes is None else output.hand_codes.cpu().numpy()
            codes = zip(body, hand, batch, strict=True)
            return [{"body": body[: len(f) // a_code], "hand": hand[: len(f) // a_code]} for body, hand, f in codes]

        encoded = map_in_batches(features, len, batch_size, encode, most_steps=MOTION_BATCH_FRAMES)
        return [{**codes, "trans": trans} for codes, trans in zip(encoded, transforms.numpy()[:, None], strict=True)]

    @in_own_precision
    def encode_speech(self, audio: list, batch_size: int = 16, sampling_rate: int | None = None) -> list[np.ndarray]:
        """Speech codes of recordings, each in any form that `audio.read_audio` takes, `batch_size` encoded together.
        With the paper's codec these are the codes `(n,)` of level 0, 50 a second; several levels are written frame by
        frame (see `vocabulary`). `sampling_rate` (Hz) is that of arrays that tell none, by default the codec's. Raises
        ValueError: empty, NaN, or unreadable audio (see `audio.read_audio`), or more than two minutes."""
        if isinstance(audio, (str, bytes, os.PathLike, Mapping)) or not hasattr(audio, "__iter__"):
            raise ValueError(f"encode_speech takes a list of recordings, got {type(audio).__name__}")
        config = self.speech_codec.config
        options = config.sampling_rate, sampling_rate
        waves = [torch.from_numpy(read_audio(a, *options, max_seconds=MAX_SPEECH_SECONDS)) for a in audio]

        def encode(batch):
            values, mask = pad_right(batch)
            device = self.speech_codec.device
            values, mask = values[:, None].to(device), mask.to(device)
            output = self.speech_codec.encode(values, mask, num_quantizers=config.lm_levels)
            rows = zip(output.audio_codes.cpu(), output.code_mask.cpu(), strict=True)
            return [flatten_levels(codes[:, real], config.codebook_size) for codes, real in rows]

        return map_in_batches(waves, len, batch_size, encode)

    # ---- codes to media

    @in_own_precision
    def decode_motion(self, codes: dict) -> SmplxMotion:
        """The motion of `{"body": (n,), "hand": (n,)}`, beginning at the origin facing +Z, at the motion codec's rate:
        with the paper's `4 n` frames at 30 fps. Of a bound codec there are body codes alone; `hand` is empty, `None`,
        or not there. The motion filler, where the checkpoint has one, adds the levels above 0. Raises ValueError: no
        codes, numbers of body and hand codes that do not fit, or a code outside its codebook."""
        given = ([] if values is None else values for values in (codes["body"], codes.get("hand")))
        device = self.motion_codec.device
        body, hand = (torch.as_tensor(np.asarray(values, dtype=np.int64), device=device)[None] for values in given)
        bound = self.motion_codec.config.bound
        if body.numel() == 0 or hand.numel() != (0 if bound else body.numel()):
            wanted = "body codes alone, as its codec is bound" if bound else "equally many body and hand codes"
            raise ValueError(f"a motion needs {wanted}, got {body.numel()} body and {hand.numel()} hand codes")
        given = [body] if bound else [body, hand]
        if (filler := self.motion_filler) is not None:
            given = [part.to(device) for part in filler.fill_motion([part.to(filler.device) for part in given])]
        features = self.motion_codec.decode(*given).motion_values[0].float().cpu()
        return SmplxMotion.from_params(features_to_smplx(features).numpy(), fps=self.motion_codec.config.fps)

    @in_own_precision
    def decode_speech(
        self, codes, voice: str | None = None, steps: int = 4, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """The waveform of speech codes `(n,)`, as `encode_speech` gives them and the language model writes them:
        float32 `(samples,)` in [-1, 1] at the codec's rate, never too loud.

        The acoustic model, where the checkpoint has one, adds the levels of the codec that the language model does not
        write, by its `generate` with `steps` and `generator`; it continues the prompt of `voice`, one of
        `voices.names`, or none. Without one, and where the language model writes them all, speech is made from its
        codes alone. Raises ValueError: no code, codes of another codec or no whole frames, an unknown voice, or a
        voice for a checkpoint that cannot use any.
        """
        codec, config = self.speech_codec, self.speech_codec.config
        audio_codes = torch.from_numpy(split_levels(codes, config.lm_levels, config.codebook_size)).to(codec.device)
        acoustic, prompt = self.acoustics(voice)
        if acoustic is not None:
            prompt = None if prompt is None else prompt[None].to(acoustic.device)
            audio_codes = acoustic.generate(audio_codes.to(acoustic.device), prompt, steps=steps, generator=generator)
            audio_codes = audio_codes[0, : acoustic.config.spoken_levels].to(codec.device)
        values = codec.decode(audio_codes[None]).audio_values[0, 0]
        return limit_loudness(values.float().cpu().numpy(), config.sampling_rate)

    def acoustics(self, voice: str | None = None) -> tuple:
        """The acoustic model, None where the codes are decoded as they are, and a voice's prompt (levels, P) or
        None. Raises ValueError: an unknown voice, or a voice for a checkpoint that cannot use any."""
        codec, config = self.speech_codec, self.speech_codec.config
        prompt = None if voice is None else self.voices.prompt(voice, codec)
        acoustic = self.acoustic_model if config.lm_levels == 1 < config.num_quantizers else None
        if acoustic is None and voice is not None:
            raise ValueError(
                f"voice {voice!r} cannot be used: voices need an acoustic model, and a speech codec with levels that "
                "the language model does not write; pass voice=None, or acoustic_model=... to SolamiProcessor"
            )
        return acoustic, prompt

    def say(self, text: str) -> np.ndarray:
        """Speech codes (n,) of words, sentence by sentence; `decode_speech` makes sound of them in any voice.
        Raises ValueError: the checkpoint has no talker."""
        if self.talker is None:
            raise ValueError(
                f"answers in the format {self.answer_format!r} are said by a talker, and this processor has none; "
                "train one with `solami train-talker`, and pass talker=... to SolamiProcessor"
            )
        return self.talker.say(text).cpu().numpy()

    # ---- characters

    def character_system(self, character: str) -> str:
        """The system prompt of one of the checkpoint's characters; ValueError for an unknown one."""
        if character not in self.characters:
            raise ValueError(f"unknown character {character!r}; this checkpoint plays {sorted(self.characters)}")
        return self.characters[character]["system"]

    def voice_of(self, messages: list[dict]) -> str | None:
        """The voice of the character whose system prompt a conversation begins with, None if there is none."""
        system = text_of(messages[0]["content"]) if messages and messages[0]["role"] == "system" else None
        return next((known.get("voice") for known in self.characters.values() if known["system"] == system), None)

    # ---- messages and media to ids

    def encode_media(self, conversations: list[list[dict]], sampling_rate: int | None = None) -> list[list[dict]]:
        """Conversations as in `apply_chat_template`, whose raw media are replaced by codes, encoded in batches.
        `sampling_rate` (Hz) is that of arrays of sound that tell none, by default the speech codec's. Raises
        ValueError: what is no message, see `rendering.check_messages`, an unreadable medium, or sound of a user
        without words where `hearing` is "transcript"."""
        for conversation in conversations:
            check_messages(conversation)
        copies = [[self._copy(message) for message in conversation] for conversation in conversations]
        whose = [(b, m["role"]) for c in copies for m in c if not isinstance(m["content"], str) for b in m["content"]]
        media = [(block, raw_medium(block), role) for block, role in whose if block["type"] != "text"]
        for kind in ("motion", "audio"):
            raw = [(block, medium) for block, medium, _ in media if block["type"] == kind and medium is not None]
            given = [medium for _, medium in raw]
            if not raw:
                continue
            if kind == "motion":
                encoded = self.encode_motion(given)
            else:
                encoded = [{"codes": codes} for codes in self.encode_speech(given, sampling_rate=sampling_rate)]
            for (block, _), codes in zip(raw, encoded, strict=True):
                block.clear()  # nothing is left of the medium for a template to see
                block.update({"type": kind, kind: codes})
        for block, _, role in media:
            kind = block["type"]
            block[kind] = plain_codes(kind, block[kind], with_transform=role != "assistant")
        return copies

    def _copy(self, message: dict) -> dict:
        """A message with blocks of its own, sorted; of a user's turn those that are read."""
        if isinstance(message["content"], str):
            return dict(message)
        blocks = [dict(block) for block in sorted_blocks(message["content"])]
        return {**message, "content": heard(blocks, self.hearing) if message["role"] == "user" else blocks}

    def apply_chat_template(
        self,
        conversation,
        chat_template=None,
        add_generation_prompt=False,
        tokenize=False,
        return_dict=False,
        return_tensors=None,
        return_assistant_tokens_mask=False,
        continue_final_message=False,
        **kwargs,
    ):
        """A dialogue as the language model's input.

        `conversation` are messages, or a list of them. Content is a string or blocks: `{"type": "text", "text"}`,
        `{"type": "motion", "motion": SmplxMotion | .npz path | {"body", "hand", "trans"}}`, `{"type": "audio",
        "audio": recording | {"codes"}}`; a recording is anything that `audio.read_audio` takes, and `url`, `path` or
        `sampling_rate` may stand in the block itself. Raw media are encoded. `chat_template` is another template, or
        the name of one of the processor's; it is then rendered as a string and tokenized, and so is one that was set
        on the processor.

        `add_generation_prompt` ends with the character's role marker; `continue_final_message` leaves the last message
        open, for the model to go on with its words. `tokenize` gives ids instead of a string; with `return_dict` a
        `BatchFeature` with `input_ids`, `attention_mask` (and `assistant_masks` when asked for), a batch even of one
        conversation, as all processors of transformers give it and TRL reads it, padded on the left when
        `return_tensors` is given. `kwargs` are variables of another template (`tools`, ...), and for ids `padding`,
        `padding_side`, `pad_to_multiple_of`, `truncation`, `max_length` as in tokenizers; `sampling_rate` of arrays of
        sound that tell none. These may also come in `processor_kwargs`, as in processors of transformers.

        Raises ValueError: unknown content types or roles, unreadable media, codes outside the codebooks, an unknown
        keyword, or `truncation` of a conversation with motion or sound.
        """
        if isinstance(conversation, Iterable) and not isinstance(conversation, (str, bytes, Mapping)):
            conversation = list(conversation)  # a column of a data set, too
        single = not isinstance(conversation, list) or not conversation or isinstance(conversation[0], Mapping)
        template = self._template(chat_template)
        exact = chat_template is None and self.chat_template == self._first_template
        options, variables = sorted_keywords(kwargs, set() if exact else variables_of(template))
        return_tensors = options.pop("return_tensors", return_tensors)
        return_tensors = None if return_tensors == "auto" else return_tensors
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise ValueError("return_assistant_tokens_mask=True needs tokenize=True and return_dict=True")
        sampling_rate = options.pop("sampling_rate", None)
        conversations = self.encode_media([conversation] if single else conversation, sampling_rate)
        if continue_final_message:
            if add_generation_prompt or return_assistant_tokens_mask:
                raise ValueError("continue_final_message excludes add_generation_prompt and assistant masks")
            for messages in conversations:
                check_continued(messages[-1], continue_final_message)
        # Not only for ids: what cannot be said as ids must not be said as a string either
        rendered = [self.renderer.chat(c, add_generation_prompt, bool(continue_final_message)) for c in conversations]
        if not tokenize or not exact:
            by_template = self.tokenizer.apply_chat_template(
                conversations[0] if single and not tokenize else conversations,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tokenize=tokenize,
                return_dict=tokenize,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                **variables,
            )
            if not tokenize:
                return by_template
            rows = {name: by_template[name] for name in ("input_ids", "assistant_masks") if name in by_template}
        else:
            rows = {"input_ids": [r["input_ids"].tolist() for r in rendered]}
            if return_assistant_tokens_mask:
                rows["assistant_masks"] = [(r["labels"] >= 0).astype(int).tolist() for r in rendered]
        rows["attention_mask"] = [[1] * len(ids) for ids in rows["input_ids"]]
        if options.get("truncation"):
            rows = self._cut(rows, self._limit(options, "truncation"), conversations)
        side = "left" if exact else self.tokenizer.padding_side
        rows = self._padded(rows, options, return_tensors is not None, side)
        output = BatchFeature(rows, tensor_type=return_tensors)
        if return_dict:
            return output
        return output["input_ids"][0] if single and return_tensors is None else output["input_ids"]

    def _template(self, chosen: str | None) -> str:
        """A chat template by its name or text, by default the processor's own."""
        known = self.chat_template if isinstance(self.chat_template, dict) else {"default": self.chat_template}
        if chosen is None and "default" not in known:
            raise ValueError(f"chat_template must be one of {', '.join(known)}: the processor has no default")
        return known["default"] if chosen is None else known.get(chosen, chosen)

    def _limit(self, options: dict, needed_by: str) -> int:
        limit = options.get("max_length", self.tokenizer.model_max_length)
        if not isinstance(limit, int) or not 0 < limit < _NO_LIMIT:
            raise ValueError(f"{needed_by} needs a positive max_length, as the tokenizer knows none; got {limit!r}")
        return limit

    def _cut(self, rows: dict, limit: int, conversations: list[list[dict]]) -> dict:
        """Rows of `limit` tokens at most, cut where the tokenizer cuts."""
        for ids, messages in zip(rows["input_ids"], conversations, strict=True):
            blocks = (block for m in messages if not isinstance(m["content"], str) for block in m["content"])
            if len(ids) > limit and any(block["type"] != "text" for block in blocks):
                raise ValueError(
                    f"truncation would cut through motion or audio: {len(ids)} tokens, max_length={limit}; leave out "
                    "the oldest rounds, or cut the recordings"
                )
        cut = slice(-limit, None) if self.tokenizer.truncation_side == "left" else slice(limit)
        return {name: [row[cut] for row in column] for name, column in rows.items()}

    def _padded(self, rows: dict, options: dict, as_tensors: bool, side: str) -> dict:
        how, step = options.get("padding", as_tensors), options.get("pad_to_multiple_of", 1)
        if not isinstance(step, int) or step < 1 or (step > 1 and not how):
            raise ValueError(f"pad_to_multiple_of is {step!r}, expected 1 or more, beside padding=True")
        if not how:
            return rows
        longest = max(map(len, rows["input_ids"]))
        width = self._limit(options, "padding='max_length'") if how == "max_length" else longest
        if width < longest and as_tensors:
            raise ValueError(
                f"max_length is {width}, but a conversation has {longest} tokens; pass truncation=True or a larger one"
            )
        return pad_to(-(-width // step) * step, rows, self.tokenizer.pad_token_id, options.get("padding_side", side))

    def __call__(self, text=None, motion=None, audio=None, **kwargs) -> BatchFeature:
        """Ids of text, of a motion (`SmplxMotion` or path of a `.npz`; `{trans}{body}{hand}`), of a recording in any
        form that `audio.read_audio` takes (`{speech}`), or of all three in that order, no roles, no template; or of
        lists of them.

        `kwargs` are those of the tokenizer (`return_tensors`, `padding`, `max_length`, ...), as they are or in
        `text_kwargs`; beside motion or audio those that pad, as nothing of these is cut off; and `sampling_rate`, as
        it is or in `audio_kwargs`, of arrays that tell no rate of their own; by default the speech codec's. Returns
        `BatchFeature` with `input_ids` and `attention_mask`; of lists, one row an item. Raises ValueError: nothing to
        encode, lists of different lengths, an unknown keyword, `truncation` beside motion or audio, unreadable media.
        """
        given = {name: value for name, value in kwargs.items() if value is not None}
        of_audio = {"sampling_rate": given.pop("sampling_rate", None), **given.pop("audio_kwargs", {})}
        groups = {name: given.get(name, {}) for name in ("text_kwargs", "common_kwargs")}
        asked = {**given, **groups["common_kwargs"], **groups["text_kwargs"]}.keys() - groups.keys()
        refuse_unknown(of_audio, ("sampling_rate",), "audio_kwargs")
        refuse_unknown(asked, TextKwargs.__annotations__, "the processor", ("sampling_rate", "audio_kwargs"))
        flat = {name: value for name, value in given.items() if name not in groups}
        if twice := flat.keys() & groups["text_kwargs"].keys():
            raise ValueError(f"{', '.join(sorted(twice))} stands in text_kwargs and beside it; pass it once")
        own = {name: value for name, value in self.tokenizer.init_kwargs.items() if name in TextKwargs.__annotations__}
        own = {name: getattr(self.tokenizer, name, value) for name, value in own.items()}
        options = {**own, **groups["common_kwargs"], **groups["text_kwargs"], **flat}
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
        ids = [self.renderer.content(messages[0]["content"]).tolist() for messages in encoded]
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
    """True if an argument of the processor is several items; one recording may be a list of numbers, or a pair."""
    if not isinstance(value, (list, tuple)):
        return False
    return name != "audio" or not (is_pair(value) or all(isinstance(number, Real) for number in value))
