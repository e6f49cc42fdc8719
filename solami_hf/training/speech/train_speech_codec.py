"""Trains a speech codec: `solami train-speech-codec`.

    solami train-speech-codec --data tts --output_dir runs/codec                # synthetic speech, one voice
    solami train-speech-codec --data recordings/ --output_dir runs/codec        # your own
    solami train-speech-codec --config recipes/speech_codec_paper.yaml --data LibriSpeech/ --output_dir runs/codec
    solami train-speech-codec --start_from codec/ --data mine/ --output_dir runs/codec   # goes on from a trained one
    solami train-speech-codec --start_from codec/ --decoder_only true --acoustic_model acoustic/ --data mine/ ...

What makes a small codec train fast on a CPU: every layer starts with orthogonal weights and unit-variance output; a
short unquantized warm-up, after which k-means over the residuals fills all codebooks at once; levels are dropped at
random (most often all but the first, which is what the language model writes); and what is kept are running averages
of the weights. With `--semantic_teacher` level 0 also learns what an audio encoder hears
(https://arxiv.org/abs/2308.16692), and with `--adversarial_weight` a discriminator takes part.

Recipes beside this file: `recipes/speech_codec_small.yaml` (7.9 MB, two CPU cores) and
`recipes/speech_codec_paper.yaml` (SpeechTokenizer's sizes).
"""

import logging
import sys
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

from ...command_line import parse_arguments, run_command
from ...modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from ...processing.files.folder_or_hub import with_sources
from ...processing.files.output_folder import writing_to
from ..speech_recordings import RandomCrops, speech_data
from ..trainer import avoid_slow_bf16
from .speech_codec_arguments import SpeechCodecArguments, SpeechCodecTrainingArguments
from .speech_codec_losses import SemanticTeacher
from .speech_codec_report import clips_to_measure
from .speech_codec_trainer import SpeechCodecTrainer, TimeLimit, codebooks_filled, start_with_unit_variance
from .speech_decoder import DecoderWindows, SpeechDecoderTrainer, own_and_filled

logger = logging.getLogger(__name__)


def train_speech_codec(
    args: SpeechCodecArguments, training_args: TrainingArguments, speech: tuple | None = None
) -> SolamiSpeechCodecModel:
    """Trains a codec and writes it, in half precision, with the run's `history.json` to `OUTPUT_DIR/codec`.

    `OUTPUT_DIR` gets the speech, `report.html` (curves, figures and held-out clips, renewed with each checkpoint), and
    checkpoints, from which a second call goes on: on one process to the same weights and log, bit for bit. `speech`,
    recordings, their codes (for `decoder_only`, or None) and held-out recordings, stands in for `args.data`. Raises
    FileNotFoundError, ValueError: the recordings are missing, empty or unreadable; there are not enough steps to fill
    the codebooks.
    """
    set_seed(training_args.seed)
    avoid_slow_bf16(training_args)
    trainer = make_trainer(args, training_args, speech)
    trainer.train_or_resume()
    if not codebooks_filled(trainer.model):
        raise ValueError(
            f"training ended at step {trainer.state.global_step}, before the codebooks were filled: go on"
        )
    folder = Path(training_args.output_dir) / "codec"
    trainer.finish(args, folder, half=True)
    logger.info("wrote the codec to %s", folder)
    if trainer.averages:
        trainer.model.load_state_dict(trainer.averages.averages)
    return trainer.model.eval()


def make_trainer(
    args: SpeechCodecArguments, training_args: TrainingArguments, speech: tuple | None = None
) -> SpeechCodecTrainer:
    """A trainer with a new or a given codec on the data of `args`, or on `speech`; raises as `train_speech_codec`."""
    if training_args.max_steps <= args.unquantized_steps:
        raise ValueError(
            f"max_steps is {training_args.max_steps}, expected more than the {args.unquantized_steps} "
            "unquantized_steps, after which the codebooks are filled"
        )
    if training_args.n_gpu > 1:  # copies of the model, whose codebooks Trainer would throw away after each step
        raise ValueError(f"one process sees {training_args.n_gpu} GPUs, expected 1: start one for each with torchrun")
    args = with_sources(args, "start_from", "acoustic_model", "semantic_teacher", bare=["semantic_teacher"])
    device, seed = training_args.device, training_args.seed
    given = SolamiSpeechCodecModel.from_pretrained(args.start_from, dtype=torch.float32) if args.start_from else None
    config = given.config if given else args.to_config()
    if not args.decoder_only:
        config.codes_fingerprint = None  # the codes will be others
    teacher = None
    if args.semantic_teacher:
        teacher = SemanticTeacher(args.semantic_teacher, args.semantic_layer, config.sampling_rate, device)
        if given is None:
            config = args.to_config(teacher.size)
        elif config.semantic_size != teacher.size:
            raise ValueError(
                f"{args.semantic_teacher} is {teacher.size} wide, but {args.start_from} learnt from a teacher of "
                f"{config.semantic_size}: name that one, or none"
            )
    with training_args.main_process_first(desc="preparing speech"):
        if speech is None:
            counts = args.sentences, args.held_out, args.voices, seed
            recordings, held_out = speech_data(args.data, training_args.output_dir, config.sampling_rate, *counts)
            speech = recordings, None, held_out
    recordings, own, held_out = speech
    batch = training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size
    frames, count = round(args.window_seconds * config.frame_rate), training_args.max_steps * batch
    windows = RandomCrops(recordings, frames * config.hop_length, count, seed)
    some = torch.stack([windows[index]["input_values"] for index in range(64)])
    if teacher is not None:
        teacher.measure(some.to(device).split(16), frames)
    if args.decoder_only:
        cache = Path(training_args.output_dir) / "filled_codes.npz"
        codes = own_and_filled(recordings, given, args.acoustic_model, cache, device, training_args.bf16, own)
        windows = DecoderWindows(recordings, *codes, frames, count, seed, config.hop_length, args.filled_share)
    torch.manual_seed(seed)
    if given is None:
        given = SolamiSpeechCodecModel(config)
        start_with_unit_variance(given, some[:16])
    return (SpeechDecoderTrainer if args.decoder_only else SpeechCodecTrainer)(
        model=given,
        args=training_args,
        train_dataset=windows,
        callbacks=[TimeLimit(args.max_minutes)] if args.max_minutes else [],
        codec_arguments=args,
        clips=clips_to_measure(held_out, args.eval_clips, config.sampling_rate),
        teacher=teacher,
    )


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    types = [SpeechCodecArguments, SpeechCodecTrainingArguments]
    args, training_args = parse_arguments(types, argv, "solami train-speech-codec")
    with writing_to(training_args.output_dir):
        train_speech_codec(args, training_args)


if __name__ == "__main__":
    sys.exit(run_command("solami train-speech-codec", main))
