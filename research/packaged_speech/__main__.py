"""Makes the packaged pair of speech codec and acoustic model, with its voices, from nothing.

    python -m research.packaged_speech --recordings recordings/ --output runs/packaged

Each stage writes a folder below OUTPUT and is left out when its result is there; one that was stopped goes on from its
last checkpoint. `recipe.yaml` beside this file has the options of each stage; README.md says what they do.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.judged_voices import HELD_OUT, held_out_sentences
from solami_hf.command_line import option, parse_arguments, read_recipe, run_command
from solami_hf.training.soundstorm import train_soundstorm
from solami_hf.training.speech import semantic_teacher, train_speech_codec
from solami_hf.training.speech.speech_codec_arguments import SpeechCodecArguments, SpeechCodecTrainingArguments

from . import prompt_voice, voice_exchange, write_package
from .parallel_speech import exchanged_speech

logger = logging.getLogger(__name__)
PROGRAM = "python -m research.packaged_speech"
JUDGED = "judged_sentences.txt"  # below OUTPUT: what `benchmarks.speech_quality` judges by; no stage trains on it


@dataclass
class MakeArguments:
    """Where the pair is made, and by what recipe."""

    output: str = option(..., "Folder of all stages; OUTPUT/package is what the package carries.")
    recordings: list[str] = option([], "Folders of recordings of other people, which train along.")
    recipe: str = option(str(Path(__file__).with_name("recipe.yaml")), "YAML: options of each stage.")


def stages(args: MakeArguments) -> list[tuple[str, str, Callable[[list[str]], object], dict]]:
    """Name, result (below OUTPUT), function that takes arguments, and options of each stage, in order."""
    out, recipe = Path(args.output), read_recipe(args.recipe)
    voices = recipe.pop("voices")

    def codes() -> list[str]:
        return [str(out / "exchange" / f"codes_{voice}.npz") for voice in voices]

    def tune_decoder(argv: list[str]) -> None:
        types = [SpeechCodecArguments, SpeechCodecTrainingArguments]
        tuned, training_args = parse_arguments(types, argv, PROGRAM)
        speech = exchanged_speech(out / "exchange", tuned.sentences, tuned.held_out)
        train_speech_codec.train_speech_codec(tuned, training_args, speech)

    found = {
        "teacher": ("config.json", semantic_teacher.main, {"voices": voices}),
        "codec": (
            "codec/config.json",
            train_speech_codec.main,
            {"data": ["tts", *args.recordings], "voices": voices, "semantic_teacher": out / "teacher"},
        ),
        "exchange": (
            f"codes_{voices[-1]}.npz",
            voice_exchange.main,
            {
                "start_from": out / "codec" / "codec",
                "semantic_teacher": out / "teacher",
                "voices": voices,
                "leave_out": out / JUDGED,
                **({"data": args.recordings} if args.recordings else {}),
            },
        ),
        "acoustic": (
            "config.json",
            train_soundstorm.main,
            {"data": codes(), "speech_codec": out / "exchange" / "codec"},
        ),
        "prompt_voice": ("config.json", prompt_voice.main, {"data": codes(), "start_from": out / "acoustic"}),
        "decoder": (
            "codec/config.json",
            tune_decoder,
            {
                "start_from": out / "exchange" / "codec",
                "decoder_only": True,
                "acoustic_model": out / "prompt_voice",
            },
        ),
        "package": (
            "voices/voices.json",
            write_package.main,
            {"codec": out / "decoder" / "codec", "acoustic_model": out / "prompt_voice", "voices": voices},
        ),
    }
    folder = {name: "output" if name == "package" else "output_dir" for name in found}
    return [
        (name, result, run, {**recipe.get(name, {}), **options, folder[name]: out / name})
        for name, (result, run, options) in found.items()
    ]


def make(args: MakeArguments) -> None:
    """Runs the stages whose results are not there; raises as they do."""
    judged = Path(args.output) / JUDGED
    judged.parent.mkdir(parents=True, exist_ok=True)
    judged.write_text("\n".join(held_out_sentences(HELD_OUT)), encoding="utf-8")
    for name, result, run, options in stages(args):
        if (Path(args.output) / name / result).exists():
            logger.info("%s is there", Path(args.output) / name)
            continue
        logger.info("stage %s", name)
        argv = []
        for flag, value in options.items():
            argv += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
        run(argv)


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    (args,) = parse_arguments([MakeArguments], argv, PROGRAM, __doc__)
    make(args)


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, main))
