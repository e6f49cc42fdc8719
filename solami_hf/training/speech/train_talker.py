"""Trains the talker, text to level 0: `solami train-talker --config recipe.yaml --data FOLDER --output_dir DIR`.

    solami prepare speech recordings/ --processor checkpoint/ --output tokens/
    solami train-talker --config talker_small.yaml --data tokens/ --processor checkpoint/ --output_dir talker/

Recordings of one voice are best: durations are those of a speaker. First a small network learns from the same codes
and texts which frames each character is said in; that is kept in `DIR/alignment.npz`, see `talker_alignment.py`. The
recipe is `recipes/talker_small.yaml` (5.5M weights, for two CPU cores).
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

from ...command_line import option
from ...modeling.talker.configuration_talker import SolamiTalkerConfig
from ...modeling.talker.modeling_talker import SolamiTalkerModel
from ...processing.datasets.token_dataset import split_names
from ...processing.files.folder_or_hub import with_sources
from ...processing.processing_solami import SolamiProcessor
from ..held_out import evaluating, evaluation_split
from ..trackers import TrackedMedia
from ..trainer import ResumableTrainer, avoid_slow_bf16, run_training
from .talker_data import SpokenClips, TalkerBatches, collate, read_clips
from .talker_report import write_talker_report

logger = logging.getLogger(__name__)

_SIZES = (
    *("hidden_size", "intermediate_size", "num_encoder_layers", "num_attention_heads", "num_decoder_layers"),
    *("conv_channels", "conv_kernel_size", "dropout", "codebook_size", "frame_rate"),
)


@dataclass
class TalkerArguments:
    """Training data, and the sizes of the model; everything else is `transformers.TrainingArguments`."""

    data: str = option(..., "Token dataset with the config `speech`, see `solami prepare speech`.")
    processor: str | None = option(None, "Folder or hub id of its processor: checks the codec, and lets one listen.")
    start_from: str | None = option(None, "Folder or hub id of a trained talker to go on from, with its sizes.")
    alignment_steps: int = option(400, "Steps, of 2 minutes of speech, of learning which frames a character takes.")
    batch_seconds: float = option(120.0, "Speech in a batch.")
    most_joined: int = option(3, "Clips that are joined to one text, at most, at random.")
    hidden_size: int = option(256, "Width of encoder and decoder.")
    num_encoder_layers: int = option(3, "Layers over characters.")
    intermediate_size: int = option(512, "Width inside their feed-forward parts.")
    num_attention_heads: int = option(4, "Their attention heads.")
    num_decoder_layers: int = option(4, "Convolutional layers over frames.")
    conv_channels: int = option(512, "Width inside these.")
    conv_kernel_size: int = option(5, "Frames that one of these sees; odd.")
    dropout: float = option(0.0, "In attention and feed-forward parts.")
    codebook_size: int = option(1024, "Codes of level 0.")
    frame_rate: float = option(50.0, "Frames of codes a second.")
    averaging_decay: float = option(0.0, "Decay of running averages of the weights, which are kept; 0 for none.")
    half: bool = option(False, "Write the weights as fp16; they load as float32.")

    def __post_init__(self) -> None:
        for name, least in (("alignment_steps", 1), ("most_joined", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected at least {least}.")
        if not self.batch_seconds > 0:
            raise ValueError(f"`batch_seconds` is {self.batch_seconds}, expected more than 0.")
        if not 0 <= self.averaging_decay < 1:
            raise ValueError(f"`averaging_decay` is {self.averaging_decay}, expected at least 0 and below 1.")

    def to_config(self) -> SolamiTalkerConfig:
        """The model's configuration."""
        return SolamiTalkerConfig(**{name: getattr(self, name) for name in _SIZES})


class TalkerTrainer(ResumableTrainer):
    """Logs the parts of the loss, and evaluates `held_out` clips, if any, with the durations of the recordings, and
    those that are predicted; a `codec` lets one hear them."""

    def __init__(self, *args, held_out: SpokenClips | None, codec=None, **kwargs):
        self.held_out, self.codec = held_out, codec
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's own loss."""
        outputs = model(**inputs)
        for name in ("accuracy", "code_loss", "duration_loss"):
            self.parts[name].append(outputs[name].detach().float())
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def measure(self) -> dict[str, float]:
        """Held-out clips, see `evaluate_talker`."""
        if self.held_out is None:
            return {}
        with self.compute_loss_context_manager():
            return evaluate_talker(self.model, self.held_out)

    def write_page(self, media: TrackedMedia | None = None) -> None:
        """See `write_talker_report`."""
        write_talker_report(self.args.output_dir, self.model, self.history(), self.held_out, self.codec, media)


def evaluate_talker(model: SolamiTalkerModel, clips: SpokenClips, batch_size: int = 16) -> dict[str, float]:
    """Losses and accuracy with the clips' own durations, means over frames, `duration_loss` over characters.
    Returns `loss`, `code_loss`, `duration_loss` (nats), `accuracy`, and `duration_error`: by how much, relative to
    a clip's frames, the predicted ones are too many or too few, in the mean over clips."""
    names = ("code_loss", "accuracy", "duration_loss")
    sums, counts, errors = torch.zeros(3), torch.zeros(3), []
    for first in range(0, len(clips), batch_size):
        batch = collate([clips[index] for index in range(first, min(first + batch_size, len(clips)))])
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        with evaluating(model):
            output = model(**inputs)
        totals = batch["durations"].sum(1)
        weights = torch.tensor([totals.sum(), totals.sum(), batch["attention_mask"].sum()]).float()
        sums += weights * torch.stack([output[name] for name in names]).float().cpu()
        counts += weights
        predicted = (output.log_durations.exp() * inputs["attention_mask"]).sum(1).cpu()
        errors += ((predicted - totals).abs() / totals).tolist()
    figures = dict(zip(names, (sums / counts).tolist(), strict=True))
    figures["loss"] = figures["code_loss"] + figures["duration_loss"]
    return figures | {"duration_error": sum(errors) / len(errors)}


def train_talker(args: TalkerArguments, training_args: TrainingArguments) -> dict[str, float]:
    """Aligns texts and codes, trains, evaluates and saves the talker; returns the final evaluation
    (`evaluate_talker`), empty where the data has neither validation nor test split.

    `training_args.output_dir` gets `config.json`, `model.safetensors` (loads with `AutoModel`), `history.json` (the
    log and the final evaluation), `report.html` (the run's page), `alignment.npz`, and checkpoints, from which a
    second call goes on: on one process to the same weights and log, bit for bit. Raises FileNotFoundError, ValueError:
    missing or unusable data, see `read_clips`; a batch size other than 1.
    """
    set_seed(training_args.seed)
    avoid_slow_bf16(training_args)
    trainer = make_trainer(args, training_args)
    trainer.train_or_resume()
    return trainer.finish(args, training_args.output_dir, half=args.half)


def make_trainer(args: TalkerArguments, training_args: TrainingArguments) -> TalkerTrainer:
    """A trainer with a new model on the data of `args`; raises as `train_talker`."""
    if training_args.per_device_train_batch_size != 1:
        raise ValueError(
            f"`per_device_train_batch_size` is {training_args.per_device_train_batch_size}, expected 1: "
            "`batch_seconds` says how much speech is in a batch"
        )
    args = with_sources(args, "data", "processor", "start_from")
    processor = SolamiProcessor.from_pretrained(args.processor) if args.processor else None
    if args.start_from:
        model = SolamiTalkerModel.from_pretrained(args.start_from, dtype=torch.float32)
    else:
        model = SolamiTalkerModel(args.to_config())
    config = model.config
    held_out_split = evaluation_split(split_names(args.data, "speech"), training_args, args.data)
    splits, place = ("train", held_out_split) if held_out_split else ("train",), Path(training_args.output_dir)
    settings = training_args.seed, training_args.device, training_args.bf16
    with training_args.main_process_first(desc="aligning"):
        sizes = config.alphabet, config.codebook_size, args.alignment_steps
        clips, *rest = read_clips(args.data, splits, place / "alignment.npz", *sizes, processor, *settings)
    if not rest:
        logger.warning("%s has no validation split: nothing will be evaluated", args.data)
    space = config.alphabet.index(" ") + 1
    frames = max(1, round(args.batch_seconds * config.frame_rate))
    train = TalkerBatches(clips, space, frames, args.most_joined, training_args.seed)
    minutes = len(clips.codes) / config.frame_rate / 60
    logger.info("training %d weights on %.1f minutes of %d clips", model.num_parameters(), minutes, len(clips))
    return TalkerTrainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=rest[0].texts if rest else [],  # never iterated: `evaluate` collates clips itself
        data_collator=lambda batches: batches[0],  # whole ones already
        averaging_decay=args.averaging_decay,
        held_out=rest[0] if rest else None,
        codec=processor.speech_codec if processor else None,
    )


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    run_training(train_talker, [TalkerArguments, TrainingArguments], argv, "solami train-talker")
