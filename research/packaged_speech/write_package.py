"""Puts a trained codec and acoustic model where the package carries them, with a prompt of each offline voice."""

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch

from solami_hf.command_line import option, parse_arguments
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.audio.speech_voices import VOICES, speak
from solami_hf.processing.audio.waveforms import read_audio
from solami_hf.processing.files.atomic_write import atomic_write
from solami_hf.processing.files.text_files import write_json
from solami_hf.processing.voices import Voices

logger = logging.getLogger(__name__)
PROGRAM = "write_package"

PROMPT = "Good morning, my friend. I would like to show you the garden before the rain comes back."
FILES = ("config.json", "model.safetensors")
SOURCES = {"heart": "spoken by hibari-tts 0.2.1 (Apache-2.0)"}
FLITE = "spoken by flite's {}, from CMU (free for any use)"


@dataclass
class PackageArguments:
    """What is packaged, and where."""

    codec: str = option(..., "Folder of the speech codec.")
    acoustic_model: str = option(..., "Folder of the acoustic model.")
    output: str = option(..., "Folder that gets speech_codec/, acoustic_model/ and voices/.")
    voices: list[str] = field(default_factory=lambda: list(VOICES), metadata={"help": "Voices to make prompts of."})


@torch.no_grad()
def package(args: PackageArguments) -> int:
    """Copies the two models, makes the voices, and returns the bytes of the models' weights.

    Raises:
        FileNotFoundError: a folder without a model, or a voice that is not installed.
    """
    output, size = Path(args.output), 0
    folders = {"speech_codec": Path(args.codec), "acoustic_model": Path(args.acoustic_model)}
    for folder in folders.values():
        if missing := [file for file in FILES if not (folder / file).is_file()]:
            raise FileNotFoundError(
                f"{folder} has no {' and no '.join(missing)}; expected a folder of a trained model"
            )
    for name, folder in folders.items():
        with atomic_write(output / name / "model.safetensors") as temporary:
            shutil.copyfile(folder / "model.safetensors", temporary)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config.pop("auto_map", None)  # its code is the package itself
        write_json(output / name / "config.json", config, indent=2)
        size += (output / name / "model.safetensors").stat().st_size
    codec = SolamiSpeechCodecModel.from_pretrained(output / "speech_codec", dtype=torch.float32).eval()
    voices = Voices()
    for name in args.voices:
        values, rate = speak(name, PROMPT)
        values = read_audio(values, codec.config.sampling_rate, source_rate=rate, trim_silence=True)
        codes = codec.encode(torch.from_numpy(values)[None, None]).audio_codes[0]
        voices.add(name, codes, SOURCES.get(name, FLITE.format(name)), codec)
    voices.save(output)
    return size


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    (args,) = parse_arguments([PackageArguments], argv, PROGRAM)
    logger.warning("%.1f MB of weights in %s", package(args) / 1e6, args.output)
