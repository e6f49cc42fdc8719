"""Teaches a trained speech codec that level 0 says what is said, not who says it, so that a prompt decides the voice.

All voices speak the same sentences. Their frames are aligned by what the teacher hears; what aligned frames have in
common becomes the codebook of level 0 (`speech_units`). The head of the encoder learns to find these units in every
voice, and the decoder to speak them: from all levels; from level 0 of any voice and a vector that stands for the voice
wanted; and from level 0 of another voice with the levels that turn it. The layers of the encoder before its LSTM stay.
At last these vectors become level 1, see `voice_level`, so that a prompt says by it whose voice it is; for the levels
behind it, which are new then, the decoder is tuned by the last of the commands.

`OUTPUT_DIR/codec` gets the codec, whose codes are new ones, and `OUTPUT_DIR/codes_VOICE.npz` what an acoustic model
learns from: the clips of each voice, and each once more with level 0 of another voice.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import TrainingArguments, set_seed

from solami_hf.command_line import option, parse_arguments
from solami_hf.modeling.speech_codec.codec_interface import codec_fingerprint
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.files.folder_or_hub import with_sources
from solami_hf.processing.files.output_folder import writing_to
from solami_hf.processing.files.text_files import read_text
from solami_hf.training.speech.speech_codec_arguments import SpeechCodecTrainingArguments
from solami_hf.training.speech.speech_codec_losses import MelLoss, SemanticTeacher
from solami_hf.training.speech_recordings import Recordings, read_recordings
from solami_hf.training.trainer import ResumableTrainer, avoid_slow_bf16, require_one_process, save_run

from .parallel_speech import (
    HEAD_LAYERS,
    OWN,
    WORDS,
    ExchangeWindows,
    ParallelSpeech,
    exchanged_codes,
    features_of,
    latents_of_voices,
    run_head,
    speak_parallel,
)  # fmt: skip
from .speech_alignment import align, states_of
from .speech_units import SharedUnits, shared_units
from .voice_exchange_start import fill_behind_level_0, sharpness, teach_units, unit_logits
from .voice_level import check_room, make_level_1_the_voice

logger = logging.getLogger(__name__)
PROGRAM = "voice_exchange"


@dataclass
class VoiceExchangeArguments:
    """What to go on from, and which voices shall be exchanged."""

    start_from: str = option(..., "Trained codec, by hub id or folder; one LSTM that reads forwards.")
    semantic_teacher: str = option(..., "Audio encoder by whose states voices are aligned, likewise.")
    semantic_layer: int = option(1, "Which of its hidden states.")
    voices: list[str] = option(["heart", "slt", "rms", "awb"], "Offline voices.")
    sentences: int = option(1400, "Sentences that all of them speak.")
    leave_out: str | None = option(
        None, "Text file with sentences that they shall not speak, one a line: those to judge by."
    )
    data: list[str] = option([], "Folders of recordings of others, a twelfth of all.")
    window_seconds: float = option(0.9, "Length of the windows trained on, in seconds.")
    unit_steps: int = option(1600, "Steps in which the encoder learns the units at first.")
    unit_weight: float = option(0.2, "Weight of the units' cross entropy afterwards.")
    averaging_decay: float = option(0.998, "Decay of the running averages of the weights.")

    def __post_init__(self):
        if len(set(self.voices)) < 2:
            raise ValueError(f"voices is {self.voices}, expected two or more to exchange")


@dataclass
class VoiceExchangeTrainingArguments(SpeechCodecTrainingArguments):
    """As for speech codecs, with larger batches: twice the pattern of `ExchangeWindows`, on average."""

    max_steps: int = 2200
    per_device_train_batch_size: int = 24


class VoiceExchangeTrainer(ResumableTrainer):
    """Trains the encoder's head, the codebooks behind level 0 and the decoder, on `ExchangeWindows`.

    The vectors of the voices and the sharpness of the units are weights of the model while it trains
    (`model.exchange`), so that checkpoints have them.
    """

    def __init__(self, *args, unit_weight: float, **kwargs):
        super().__init__(*args, **kwargs)
        require_one_process(self.args, "voices are exchanged")
        self.unit_weight = unit_weight
        self.mel_loss = MelLoss(self.model.config.sampling_rate).to(self.args.device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mel and waveform loss of what is decoded, and how far the units are from being found."""
        levels, values, kind = model.quantizer.levels, inputs["input_values"], inputs["kind"]
        latents = self._latents(model, inputs, "")
        theirs = self._latents(model, inputs, "source_")
        words, exchanged = (kind == WORDS)[:, None, None], (kind != OWN)[:, None, None]
        with torch.no_grad():
            first = levels[0].encode(torch.where(exchanged, theirs, latents).flatten(0, 1)).view(latents.shape[:2])
            total = self._with_further_levels(model, latents.detach(), levels[0].decode(first), words)
        passed = torch.where(words, theirs, latents)
        decoded_from = passed + (total - passed).detach() + model.exchange.voices(inputs["voice"])[:, None] * words
        made = model.decoder(decoded_from.transpose(1, 2)).float()
        spoken = kind != WORDS  # of words alone the pitch is not known, so that waveforms cannot agree
        parts = {"mel": self.mel_loss(made, values), "units": self._unit_loss(model, inputs, latents, theirs)}
        loss = parts["mel"] + self.unit_weight * parts["units"]
        if spoken.any():
            parts["waveform"] = F.l1_loss(made[spoken], values[spoken])
            parts["commitment"] = F.mse_loss(passed[spoken], total[spoken])
            loss = loss + parts["waveform"] + 0.1 * parts["commitment"]
        for name, value in parts.items():
            self.parts[name].append(value.detach().float())
        return (loss, made) if return_outputs else loss

    def _latents(self, model, inputs, prefix: str) -> torch.Tensor:
        """Of the windows or their sources, frame by frame of the windows, (batch, window, size)."""
        latents = run_head(model, inputs[f"{prefix}features"].float()).float()
        return latents.gather(1, inputs[f"{prefix}places"][..., None].expand(-1, -1, latents.shape[-1]))

    def _with_further_levels(self, model, latents, total, words) -> torch.Tensor:
        """Level 0 and what the others add to come near the latents, but for windows of words; codebooks follow."""
        residual, flat = latents - total, latents.shape[0] * latents.shape[1]
        for level in model.quantizer.levels[1:]:
            vectors = residual.reshape(flat, -1)
            codes = level.encode(vectors)
            chosen = level.decode(codes).view_as(residual)
            total, residual = total + chosen * ~words, residual - chosen
            if model.training:
                level.update(vectors, codes)
        return total

    def _unit_loss(self, model, inputs, latents, theirs) -> torch.Tensor:
        found = unit_logits(torch.cat([latents, theirs]), model.quantizer.levels[0].codebook, model.exchange.sharpness)
        wanted = torch.cat([inputs["units"], inputs["source_units"]])
        return F.cross_entropy(found.flatten(0, 1), wanted.flatten(), ignore_index=-100)


class Scaffold(nn.Module):
    """What only training needs: a vector for each voice, and how sharply units are told apart."""

    def __init__(self, voices: torch.Tensor, codebook: torch.Tensor):
        super().__init__()
        self.voices = nn.Embedding.from_pretrained(voices, freeze=False)
        self.sharpness = nn.Parameter(sharpness(codebook))


def prepare(
    args: VoiceExchangeArguments, training_args: TrainingArguments, codec: SolamiSpeechCodecModel
) -> tuple[ParallelSpeech, SharedUnits, list[list[torch.Tensor]]]:
    """Speech of all voices, aligned and with its units, and the codec's latents as they were."""
    rate, hop = codec.config.sampling_rate, codec.config.hop_length
    lines = read_text(args.leave_out).split("\n") if args.leave_out else []
    spoken = speak_parallel(
        args.voices, args.sentences, rate, training_args.seed, Path(training_args.output_dir), frozenset(lines)
    )
    teacher = SemanticTeacher(args.semantic_teacher, args.semantic_layer, rate)
    warps = align([states_of(recordings, teacher, hop) for recordings in spoken])
    features = [features_of(codec, recordings) for recordings in spoken]
    latents = latents_of_voices(codec, features)
    units = shared_units(latents, warps, codec.config.codebook_size, training_args.seed)
    return ParallelSpeech(args.voices, spoken, features, warps, units.labels), units, latents


def exchange_voices(args: VoiceExchangeArguments, training_args: TrainingArguments) -> SolamiSpeechCodecModel:
    """Trains and writes the codec and the codes of each voice, see above; a second call goes on from a checkpoint.

    Raises:
        ValueError: the codec's encoder reads both ways, it has too few levels or no room for so many voices (see
            `check_room`), or the windows are longer than the sentences.
    """
    set_seed(training_args.seed)
    avoid_slow_bf16(training_args)
    args = with_sources(args, "start_from", "semantic_teacher", bare=["semantic_teacher"])
    codec = SolamiSpeechCodecModel.from_pretrained(args.start_from, dtype=torch.float32)
    if codec.config.bidirectional:
        raise ValueError(f"{args.start_from} reads both ways: what lies before a window is not enough for it")
    check_room(codec, len(args.voices) + bool(args.data))
    codec.config.codes_fingerprint = None  # the codes will be others
    codec.eval()
    speech, units, latents = prepare(args, training_args, codec)
    others = None
    if args.data:
        recordings = Recordings.concatenate([read_recordings(path, codec.config.sampling_rate) for path in args.data])
        others = recordings, features_of(codec, recordings)
    window = round(args.window_seconds * codec.config.frame_rate)
    size = training_args.train_batch_size * training_args.gradient_accumulation_steps
    codec.quantizer.levels[0].set_codes(units.codebook, units.counts * size * window / units.counts.sum())
    codec.train()
    teach_units(codec, speech, latents, args.unit_steps, training_args.seed, bool(training_args.bf16))
    voices = fill_behind_level_0(codec, speech, size * window, training_args.seed)
    codec.exchange = Scaffold(voices, units.codebook)
    codec.encoder.layers[:-HEAD_LAYERS].requires_grad_(False)
    codec.semantic_projection.requires_grad_(False)
    trainer = VoiceExchangeTrainer(
        model=codec,
        args=training_args,
        train_dataset=ExchangeWindows(
            speech, window, training_args.max_steps * size, training_args.seed, codec.config.hop_length, others
        ),
        averaging_decay=args.averaging_decay,
        unit_weight=args.unit_weight,
    )
    trainer.train_or_resume()
    if trainer.averages:
        codec.load_state_dict(trainer.averages.averages)
    voices = codec.exchange.voices.weight.detach().clone()
    del codec.exchange
    codec.eval()
    make_level_1_the_voice(codec, speech, voices, others[1] if others else [], size * window, training_args.seed)
    folder = Path(training_args.output_dir)
    save_run(codec, {"arguments": asdict(args), "log": trainer.history()}, folder / "codec", half=True)
    codec = SolamiSpeechCodecModel.from_pretrained(folder / "codec", dtype=torch.float32).eval()
    name, latents = codec_fingerprint(codec), latents_of_voices(codec, speech.features)
    for target, voice in enumerate(args.voices):
        codes = exchanged_codes(codec, latents, speech.warps, target, name, training_args.seed)
        codes.save(folder / f"codes_{voice}.npz")
    logger.info("wrote the codec to %s, and codes of %d voices", folder / "codec", len(args.voices))
    return codec


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args, training_args = parse_arguments([VoiceExchangeArguments, VoiceExchangeTrainingArguments], argv, PROGRAM)
    with writing_to(training_args.output_dir):
        exchange_voices(args, training_args)
