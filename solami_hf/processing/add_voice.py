"""`solami add-voice`: a few seconds of speech become a voice of a checkpoint, see `voices.py`.

    solami add-voice --checkpoint runs/demo/checkpoint --name Link --audio link.wav --character link

Only use voices whose owners agree.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..command_line import option, parse_arguments
from .audio.waveforms import read_audio
from .files.output_folder import writing_to
from .files.text_files import read_json, write_json
from .voices import FOLDER

logger = logging.getLogger(__name__)

SECONDS = (3.0, 10.0)


@torch.no_grad()
def add_voice(
    checkpoint: str | os.PathLike,
    name: str,
    audio,
    source: str | None = None,
    character: str | None = None,
    overwrite: bool = False,
) -> float:
    """Adds a voice to a checkpoint folder, that of a `SolamiProcessor`, and, if wanted, gives it to a character.

    `audio` is a sound file, or an array at the speech codec's rate; 3 to 10 s once the silence at its ends is cut off.
    `name` is the voice's, see `Voices.add`; `source` where it is from, by default the name of the file; `character`
    the id of one of the checkpoint's; `overwrite` replaces a voice of the same name. Returns the seconds of sound that
    were kept. Raises FileNotFoundError: no such checkpoint or recording; ValueError: unreadable or too short or long a
    recording, a bad or taken name, an unknown character, or a checkpoint whose language model makes the whole voice
    itself.
    """
    from .processing_solami import SolamiProcessor

    path = Path(checkpoint) / "processor_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{checkpoint} is no checkpoint folder: it has no processor_config.json")
    processor = SolamiProcessor.from_pretrained(checkpoint)
    codec = processor.speech_codec
    if codec.config.lm_levels == codec.config.num_quantizers:
        raise ValueError(f"{checkpoint} needs no voices: its language model writes all levels of its speech codec")
    if character is not None:
        processor.character_system(character)
    values = read_audio(audio, codec.config.sampling_rate, trim_silence=True)
    seconds = len(values) / codec.config.sampling_rate
    is_file = isinstance(audio, (str, os.PathLike))
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        raise ValueError(
            f"{audio if is_file else 'audio'} has {seconds:.1f} s of sound between its silent ends, expected "
            f"{SECONDS[0]:g} to {SECONDS[1]:g} s; record or cut it anew"
        )
    codes = codec.encode(torch.from_numpy(values)[None, None]).audio_codes[0]
    source = source or (Path(audio).name if is_file else "a recording")
    processor.voices.add(name, codes, source, codec, overwrite)
    processor.voices.save(checkpoint)
    if character is not None:
        config = read_json(path)
        config["characters"][character]["voice"] = name
        write_json(path, config, indent=2, sort_keys=True)
    if processor.acoustic_model is None:
        logger.warning("%s has no acoustic_model/ yet, which voices need; save a processor that has one", checkpoint)
    return seconds


@dataclass
class AddVoiceArguments:
    """A recording that becomes a voice."""

    checkpoint: str = option(..., "Folder of a checkpoint with its processor and codecs.")
    name: str = option(..., "The voice's name.")
    audio: str = option(..., "Sound file with 3 to 10 s of speech; silence at its ends is cut off.")
    source: str | None = option(None, "Where it is from, on what terms; else the file.")
    character: str | None = option(None, "Id of the character that speaks with it.")
    overwrite: bool = option(False, "Replace a voice of the same name.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of `solami add-voice`; returns the exit code."""
    (args,) = parse_arguments([AddVoiceArguments], argv, "solami add-voice")
    if not Path(args.checkpoint).is_dir():
        raise FileNotFoundError(f"no such checkpoint folder: {args.checkpoint}")
    with writing_to(args.checkpoint):
        seconds = add_voice(**vars(args))
    logger.info("%s: %.1f s of %s in %s", args.name, seconds, args.audio, Path(args.checkpoint) / FOLDER)
    return 0
