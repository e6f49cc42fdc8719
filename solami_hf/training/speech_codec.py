"""Trains a speech codec from scratch: `solami train-speech-codec`.

    solami train-speech-codec --data tts --output_dir runs/codec                # synthetic speech, as packaged
    solami train-speech-codec --data recordings/ --output_dir runs/codec        # your own

What makes a small codec train fast on a CPU: every layer starts with orthogonal weights and unit-variance output; a
short unquantized warm-up, after which k-means over the residuals fills all codebooks at once; levels are dropped at
random (most often all but the first, which is what the language model writes); and what is kept are running averages
of the weights.
"""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchaudio.transforms import MelSpectrogram
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..modeling.configuration_speech_codec import SolamiSpeechCodecConfig
from ..modeling.modeling_speech_codec import SolamiSpeechCodecModel, SpeechCodecWeightNorm
from .checkpoints import last_checkpoint
from .speech_codec_data import RandomCrops, speech_data

logger = logging.getLogger(__name__)

AVERAGES_FILE = "averaged.safetensors"


@dataclass
class SpeechCodecArguments:
    """What to train on and how large; learning rate, steps and folders are `TrainingArguments`."""

    data: str = field(
        default="tts",
        metadata={"help": "Folder of recordings, text file that lists them, or 'tts' to synthesize sentences."},
    )
    sentences: int = field(default=2200, metadata={"help": "Sentences to synthesize for training."})
    takes: int = field(default=2, metadata={"help": "How often each is spoken, at different speeds."})
    held_out: int = field(default=150, metadata={"help": "Further sentences (or recordings) kept for measuring."})
    window_seconds: float = field(default=0.9, metadata={"help": "Length of the windows trained on, in seconds."})
    num_filters: int = field(default=16, metadata={"help": "Channels after the first convolution."})
    hidden_size: int = field(default=128, metadata={"help": "Width of the quantized latent."})
    semantic_size: int = field(default=16, metadata={"help": "Width of the semantic projection of level 0."})
    num_lstm_layers: int = field(default=1, metadata={"help": "LSTM layers of encoder and decoder."})
    bidirectional: bool = field(default=False, metadata={"help": "Whether the encoder's LSTM reads both ways."})
    num_quantizers: int = field(default=8, metadata={"help": "Levels of the residual quantizer."})
    codebook_size: int = field(default=1024, metadata={"help": "Codes of each level."})
    unquantized_steps: int = field(default=200, metadata={"help": "Steps before the codebooks are filled."})
    kmeans_windows: int = field(default=384, metadata={"help": "Windows whose latents fill the codebooks."})
    first_level_share: float = field(default=0.5, metadata={"help": "Share of windows decoded from level 0 alone."})
    averaging_decay: float = field(default=0.998, metadata={"help": "Decay of the running averages of the weights."})
    mel_weight: float = field(default=1.0, metadata={"help": "Weight of the multi-scale log-mel loss."})
    max_minutes: float | None = field(default=None, metadata={"help": "Stop training after this many minutes."})
    export_dir: str | None = field(
        default=None, metadata={"help": "Where the codec goes, in half precision; OUTPUT_DIR/codec if not given."}
    )

    def __post_init__(self):
        if not 0 <= self.first_level_share <= 1:
            raise ValueError(f"first_level_share is {self.first_level_share}, expected 0 to 1")
        if self.window_seconds < 0.2:
            raise ValueError(f"window_seconds is {self.window_seconds}, expected at least 0.2 (the mel windows)")
        if not 0 <= self.averaging_decay < 1:
            raise ValueError(f"averaging_decay is {self.averaging_decay}, expected at least 0 and below 1")


@dataclass
class SpeechCodecTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults that worked for small codecs."""

    max_steps: int = 3200
    per_device_train_batch_size: int = 8
    learning_rate: float = 5e-4
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 50
    optim: str = "adamw_torch"
    adam_beta2: float = 0.99
    max_grad_norm: float = 3.0
    logging_steps: float = 50
    save_steps: float = 400
    save_total_limit: int | None = 1
    remove_unused_columns: bool | None = False
    report_to: None | str | list[str] = "none"


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel magnitudes at several window lengths.

    Args:
        sampling_rate: in Hz.
        floor: added to the magnitudes; smaller values make silence dominate the loss.
    """

    SCALES = ((256, 24), (512, 40), (1024, 80), (2048, 80))

    def __init__(self, sampling_rate: int, floor: float = 1e-3):
        super().__init__()
        self.floor = floor
        self.spectrograms = nn.ModuleList(
            MelSpectrogram(sampling_rate, size, hop_length=size // 4, n_mels=bands, power=1, normalized="window")
            for size, bands in self.SCALES
        )

    def forward(self, values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Waveforms (batch, 1, samples) to a scalar."""
        values, target = values.float().squeeze(1), target.float().squeeze(1)
        parts = []
        for spectrogram in self.spectrograms:
            logs = [torch.log(spectrogram(signal) + self.floor) for signal in (values, target)]
            parts.append((logs[0] - logs[1]).abs().mean())
        return torch.stack(parts).mean()


class SpeechCodecTrainer(Trainer):
    """Trainer with the codec's losses and its warm-up. `codec_arguments` is a [`SpeechCodecArguments`]."""

    def __init__(self, *args, codec_arguments: SpeechCodecArguments, **kwargs):
        super().__init__(*args, **kwargs)
        self.codec_arguments = codec_arguments
        self.mel_loss = MelLoss(self.model.config.sampling_rate).to(self.args.device)
        self.level_choices = torch.tensor([1] + [n for n in (2, 4, 8) if n <= self.model.config.num_quantizers])
        rest = max(1, len(self.level_choices) - 1)
        share = codec_arguments.first_level_share
        self.level_shares = torch.tensor([share] + [(1 - share) / rest] * (len(self.level_choices) - 1)) + 1e-9
        self.parts: dict[str, list[torch.Tensor]] = {}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Waveform, commitment and log-mel losses of one batch."""
        values = inputs["input_values"]
        quantize = self.state.global_step >= self.codec_arguments.unquantized_steps
        if quantize and not codebooks_filled(self.accelerator.unwrap_model(model)):
            self.fill_codebooks(self.accelerator.unwrap_model(model))
        drawn = torch.multinomial(self.level_shares, len(values), replacement=True)
        output = model(values, num_quantizers=self.level_choices[drawn].to(values.device), quantize=quantize)
        mel = self.mel_loss(output.audio_values, values)
        parts = {
            "mel": mel,
            "waveform": output.reconstruction_loss,
            "commitment": output.commitment_loss,
        }
        if quantize:
            parts["codes_used"] = output.audio_codes[:, 0].unique().numel() / output.audio_codes[:, 0].numel()
        for name, value in parts.items():
            self.parts.setdefault(name, []).append(torch.as_tensor(value).detach().float())
        loss = output.loss + self.codec_arguments.mel_weight * mel
        return (loss, output) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        """Adds the means of the named losses since the last line."""
        logs |= {name: round(torch.stack(values).mean().item(), 4) for name, values in self.parts.items()}
        self.parts = {}
        super().log(logs, *args, **kwargs)

    @torch.no_grad()
    def fill_codebooks(self, model: SolamiSpeechCodecModel) -> None:
        """k-means over the residuals of the training data, level after level."""
        windows, size = self.codec_arguments.kmeans_windows, self.args.per_device_train_batch_size
        # Windows behind the nominal end of the data set: training never sees them.
        indices = range(len(self.train_dataset), len(self.train_dataset) + windows)
        device = next(model.parameters()).device
        batches = [indices[start : start + size] for start in range(0, windows, size)]
        values = [torch.stack([self.train_dataset[i]["input_values"] for i in batch]) for batch in batches]
        latents = [model.encoder(batch.to(device)) for batch in values]
        residual = torch.cat([latent.transpose(1, 2).flatten(0, 1) for latent in latents]).float()
        logger.info("filling %d codebooks from %d latents", len(model.quantizer.levels), len(residual))
        frames_per_batch = len(residual) * size / windows
        for level in model.quantizer.levels:
            centres, counts = kmeans(residual, len(level.code_counts), seed=self.args.seed)
            level.set_codes(centres, counts * frames_per_batch / len(residual))
            residual = residual - level.decode(level.encode(residual))


def codebooks_filled(model: SolamiSpeechCodecModel) -> bool:
    """Whether the codebooks hold codes rather than their random start."""
    return bool(model.quantizer.levels[0].initialised)


def kmeans(vectors: torch.Tensor, count: int, seed: int, iterations: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm: vectors (n, size) to centres (count, size) and how many vectors each has (count,)."""
    generator = torch.Generator(device=vectors.device).manual_seed(seed)
    order = torch.randperm(len(vectors), generator=generator, device=vectors.device)
    centres = vectors[order.repeat(count // len(vectors) + 1)[:count]].clone()
    for _ in range(iterations):
        nearest = (centres.pow(2).sum(1) - 2 * vectors @ centres.t()).argmin(1)
        counts = torch.bincount(nearest, minlength=count).to(vectors.dtype)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    return centres, counts


@torch.no_grad()
def start_with_unit_variance(model: SolamiSpeechCodecModel, input_values: torch.Tensor) -> None:
    """Scales each convolution so that its output on `input_values` (batch, 1, samples) has standard deviation 1.

    Layer-sequential unit-variance initialization (https://arxiv.org/abs/1511.06422); the last layer gets the deviation
    of the waveform.
    """
    last = model.decoder.layers[-1]

    def rescale(module: nn.Module, _, output: torch.Tensor) -> torch.Tensor:
        wanted = input_values.std() if module is last else 1.0
        scale = wanted / output.std().clamp(min=1e-5)
        module.gain.mul_(scale)
        return output * scale

    layers = [module for module in model.modules() if isinstance(module, SpeechCodecWeightNorm)]
    hooks = [layer.register_forward_hook(rescale) for layer in layers]
    try:
        model(input_values, quantize=False)
    finally:
        for hook in hooks:
            hook.remove()


class AveragedWeights(TrainerCallback):
    """Running averages of weights and codebooks, from the moment the codebooks are filled; they end in the model.

    Kept in every checkpoint, so that a resumed run goes on with them.
    """

    def __init__(self, decay: float):
        self.decay, self.steps, self.averages = decay, 0, {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Picks up the averages of the checkpoint that training resumes from."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}" / AVERAGES_FILE
        if state.global_step and checkpoint.is_file():
            tensors = load_file(checkpoint, device=str(args.device))
            self.steps = int(tensors.pop("steps"))
            self.averages = tensors

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Moves the averages; the first steps count more than `decay` says, or the start would linger."""
        if not codebooks_filled(model):
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in model.state_dict().items():
            if name not in self.averages:
                self.averages[name] = value.detach().clone()
            self.averages[name].lerp_(value, 1 - decay)
        self.steps += 1

    def on_save(self, args, state, control, **kwargs):
        """Writes the averages beside the weights."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.averages and folder.is_dir():
            save_file(self.averages | {"steps": torch.tensor(self.steps)}, folder / AVERAGES_FILE)

    def copy_to(self, model: SolamiSpeechCodecModel) -> None:
        """Puts the averages into the model."""
        if self.averages:
            model.load_state_dict(self.averages)


class TimeLimit(TrainerCallback):
    """Ends training after some minutes."""

    def __init__(self, minutes: float):
        self.minutes, self.started = minutes, time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        """Starts the clock."""
        self.started = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        """Asks the trainer to stop once the time is up."""
        if time.monotonic() - self.started > 60 * self.minutes:
            control.should_training_stop = True


def save_in_half_precision(model: SolamiSpeechCodecModel, folder: str | Path) -> None:
    """Writes weights as fp16; the config says float32, so `from_pretrained` computes in float32 as in training."""
    # The config takes its dtype from the model, which stays float32.
    model.save_pretrained(folder, state_dict={name: value.half() for name, value in model.state_dict().items()})


def train_speech_codec(args: SpeechCodecArguments, training_args: TrainingArguments) -> SolamiSpeechCodecModel:
    """Trains a codec and writes it, in half precision, to `args.export_dir` (or `OUTPUT_DIR/codec`).

    Run again with the same output folder, it continues from the last checkpoint and reuses the speech it made.

    Raises:
        FileNotFoundError, ValueError: the recordings are missing, empty or unreadable.
    """
    config = SolamiSpeechCodecConfig(
        num_filters=args.num_filters, hidden_size=args.hidden_size, semantic_size=args.semantic_size,
        num_lstm_layers=args.num_lstm_layers, bidirectional=args.bidirectional, num_quantizers=args.num_quantizers,
        codebook_size=args.codebook_size,
    )  # fmt: skip
    output_dir = Path(training_args.output_dir)
    recordings, _ = speech_data(
        args.data, output_dir, config.sampling_rate, args.sentences, args.held_out, args.takes, training_args.seed
    )
    torch.manual_seed(training_args.seed)
    window = round(args.window_seconds * config.frame_rate) * config.hop_length
    crops = RandomCrops(
        recordings, window, training_args.max_steps * training_args.train_batch_size, training_args.seed
    )
    model = SolamiSpeechCodecModel(config)
    start_with_unit_variance(model, torch.stack([crops[index]["input_values"] for index in range(16)]))
    averages = AveragedWeights(args.averaging_decay)
    callbacks = [averages] + ([TimeLimit(args.max_minutes)] if args.max_minutes else [])
    trainer = SpeechCodecTrainer(
        model=model, args=training_args, train_dataset=crops, callbacks=callbacks, codec_arguments=args
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(output_dir))
    averages.copy_to(model)
    model.eval()
    export_dir = Path(args.export_dir or output_dir / "codec")
    save_in_half_precision(model, export_dir)
    logger.info("wrote the codec to %s", export_dir)
    return model


def main(argv: list[str] | None = None) -> None:
    """The command line: recipe and flags by TRL's parser."""
    from trl import TrlParser

    parser = TrlParser((SpeechCodecArguments, SpeechCodecTrainingArguments))
    args, training_args = parser.parse_args_and_config(args=argv)
    train_speech_codec(args, training_args)


if __name__ == "__main__":
    main()
