"""`solami init BACKBONE --motion_codec DIR --output DIR`: where training begins.

A language model and the codecs become one folder for `solami prepare`, `pretrain` and `sft`: the model with rows for
the modality tokens, its tokenizer with these tokens, chat template, codecs, characters. Without `--speech_codec` it
speaks with the codec, the acoustic model and the voices that the package carries.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from ..command_line import option, parse_arguments
from ..modeling.solami.configuration_solami import ANSWER_FORMATS, FORMAT_FIELDS, HEARING, follow_formats
from ..processing.files.folder_or_hub import with_sources
from ..processing.files.output_folder import atomic_folder
from ..processing.files.text_files import read_json

logger = logging.getLogger(__name__)


@dataclass
class InitArguments:
    """Arguments of `solami init`."""

    backbone: str = option(..., "Folder, hub id or .gguf file of a decoder: Llama, GPT-2, ... (or the first word).")
    motion_codec: str = option(..., "Folder or hub id of a SolamiMotionVQModel.")
    output: str = option(..., "Folder to write; it must not exist yet.")
    speech_codec: str | None = option(None, "Folder or hub id of ours or of transformers (Mimi, ...); else packaged.")
    acoustic_model: str | None = option(None, "Folder or hub id of a SoundStorm.")
    motion_filler: str | None = option(None, "Folder or hub id of one for motion's levels.")
    speech_levels: int | None = option(None, "Levels of the speech codec that the language model reads.")
    characters: str | None = option(None, 'JSON file: {"ada": {"name": "Ada", "system": "You are Ada ..."}, ...}.')
    answer_format: str = option("motion_speech", f"One of {', '.join(ANSWER_FORMATS)}.")
    interleaved: bool = option(False, "Body, hand and speech of answers in chunks of equal time, for streaming.")
    hearing: str = option("codes", f"What the model reads of a user's speech, one of {', '.join(HEARING)}.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    (args,) = parse_arguments([InitArguments], argv, "solami init", words=["backbone"])
    init(args)
    return 0


def init(args: InitArguments) -> None:
    """Writes the folder, whole or not at all; the weights keep the backbone's dtype. Raises FileNotFoundError: a
    folder or file that is not there; FileExistsError: there is something at `output`; ValueError: characters that
    are none, an unknown answer format, or codecs that do not fit the tokenizer."""
    from transformers import AutoTokenizer

    from ..modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
    from ..modeling.solami.backbones import extend_backbone, gguf_file
    from ..processing.processing_solami import SolamiProcessor

    with atomic_folder(args.output) as folder:
        sources = ("backbone", "motion_codec", "speech_codec", "acoustic_model", "motion_filler")
        args = with_sources(args, *sources, bare=["backbone"])
        characters = read_characters(args.characters) if args.characters else None
        motion = SolamiMotionVQModel.from_pretrained(args.motion_codec)
        speech = read_speech(args)
        if args.motion_filler:
            from ..modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel

            speech["motion_filler"] = SolamiSoundStormModel.from_pretrained(args.motion_filler)
        gguf = gguf_file(args.backbone)
        tokenizer = AutoTokenizer.from_pretrained(Path(args.backbone).parent if gguf else args.backbone, **gguf)
        # First the model: it looks at the tokenizer's length to tell old rows from new ones
        layout = {"sizes": motion.config.modality_sizes, "speech_codec": speech["speech_codec"]}
        model = extend_backbone(args.backbone, tokenizer, **layout, answer_format=args.answer_format)
        formats = {name: getattr(args, name) for name in FORMAT_FIELDS}
        processor = SolamiProcessor(tokenizer, motion, characters=characters, **formats, **speech)
        follow_formats(model.config, processor)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    added = sum(span["size"] for span in processor.modalities.values()) + len(processor.markers)
    logger.info("%s with %d modality tokens and markers is in %s", type(model).__name__, added, args.output)


def read_speech(args: InitArguments) -> dict:
    """Keywords of `SolamiProcessor` for speech; ValueError for an acoustic model or levels of no given codec."""
    if args.speech_codec is None:
        from ..processing.audio.packaged_speech import packaged_speech

        if args.acoustic_model or args.speech_levels:
            raise ValueError("acoustic_model and speech_levels belong to a speech codec: give speech_codec, too")
        return packaged_speech()
    from ..modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
    from ..modeling.speech_codec.speech_codec_adapter import load_speech_codec

    codec = load_speech_codec(args.speech_codec, lm_levels=args.speech_levels)
    acoustic = SolamiSoundStormModel.from_pretrained(args.acoustic_model) if args.acoustic_model else None
    return {"speech_codec": codec, "acoustic_model": acoustic}


def read_characters(path: str | Path) -> dict[str, dict]:
    """Characters of a JSON file: id -> `{"name", "system", ...}`; ValueError where it holds something else."""
    characters = read_json(path)
    ones = list(characters.values()) if isinstance(characters, dict) else [None]
    if not all(isinstance(one, dict) and isinstance(one.get(key), str) for one in ones for key in ("name", "system")):
        raise ValueError(f"{path} must map ids to characters with name and system (prompt), both strings")
    return characters
