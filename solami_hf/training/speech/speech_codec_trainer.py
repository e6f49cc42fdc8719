"""The Trainer of speech codecs: losses, the codebooks' start, averages, evaluation, and what a checkpoint keeps."""

import logging
import time
from collections.abc import Iterable

import numpy as np
import torch
from torch import distributed, nn
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from ...modeling.speech_codec.modeling_speech_codec import (
    SolamiSpeechCodecModel,
    SolamiSpeechCodecOutput,
    SpeechCodecCodebook,
    SpeechCodecWeightNorm,
)
from ..trackers import TrackedMedia
from ..trainer import AveragedWeights, ResumableTrainer
from .speech_codec_adversary import Adversary
from .speech_codec_arguments import SpeechCodecArguments
from .speech_codec_losses import MelLoss, SemanticTeacher, StftLoss, distillation_loss
from .speech_codec_report import evaluate_speech_codec, write_speech_codec_report

logger = logging.getLogger(__name__)


class SpeechCodecTrainer(ResumableTrainer):
    """[`ResumableTrainer`] with the codec's losses and its warm-up, as [`SpeechCodecArguments`] say. The held-out
    `clips`, what is said and samples (samples,), are measured and shown with each checkpoint; level 0 learns from
    `teacher`, if any."""

    def __init__(
        self,
        *args,
        codec_arguments: SpeechCodecArguments,
        clips: list[tuple[str, np.ndarray]] = (),
        teacher: SemanticTeacher | None = None,
        **kwargs,
    ):
        self.codec_arguments, self.clips, self.teacher = codec_arguments, list(clips), teacher
        super().__init__(*args, **kwargs)
        # A window is random by its number alone; in their order they do not depend on how many there will be
        self.sampler = SequentialSampler(self.train_dataset)
        device = self.args.device
        self.mel_loss = MelLoss(self.model.config.sampling_rate).to(device)
        self.stft_loss = StftLoss().to(device)
        settings, self.adversary = codec_arguments, None
        if settings.adversarial_weight:
            turns = settings.adversarial_start, settings.adversarial_every, settings.adversarial_learning_rate
            self.adversary = Adversary(*turns, seed=self.args.seed, device=device)
        if settings.averaging_decay:
            self.averages = AveragesOfFilledCodebooks(settings.averaging_decay)
            self.add_callback(self.averages)
        self.add_callback(MeasureBeforeCheckpoint())
        levels = self.model.config.num_quantizers
        self._levels = LevelChoice(levels, settings.first_level_share, settings.all_levels_share)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The sum of all losses of one batch, see `SpeechCodecArguments` for their weights."""
        values, step, weights = inputs["input_values"], self.state.global_step, self.codec_arguments
        codec = self.accelerator.unwrap_model(model)
        quantize = step >= weights.unquantized_steps
        if quantize and not codebooks_filled(codec):
            self._fill_codebooks(codec)
        # the last number keeps it apart from the random numbers of a window
        levels = self._levels.draw(len(values), (self.args.seed, step, self.args.process_index, 1))
        output = self.reconstruct(model, inputs, levels.to(values.device), quantize)
        mel = self.mel_loss(output.audio_values, values)
        parts = {"mel": mel, "waveform": output.reconstruction_loss, "commitment": output.commitment_loss}
        if self.teacher is not None:
            states = self.teacher(values, output.semantic_values.shape[1])
            parts["semantic"] = distillation_loss(output.semantic_values, states)
        if weights.stft_weight:
            parts["stft"] = self.stft_loss(output.audio_values, values)
        if self.adversary and self.adversary.is_active(step):
            parts |= self._adversarial_parts(values, output.audio_values)
        loss = output.loss  # has waveform and commitment
        for name in ("mel", "semantic", "stft", "adversarial", "feature_matching"):
            if name in parts:
                loss = loss + getattr(weights, f"{name}_weight") * parts[name]
        if quantize:
            parts["codes_used"] = output.audio_codes[:, 0].unique().numel() / output.audio_codes[:, 0].numel()
        for name, value in parts.items():
            self.parts[name].append(torch.as_tensor(value, device=values.device).detach().float())
        return (loss, output) if return_outputs else loss

    def reconstruct(self, model, inputs, levels: torch.Tensor, quantize: bool) -> SolamiSpeechCodecOutput:
        """Output for a batch, each clip decoded from so many levels (batch,)."""
        return model(inputs["input_values"], num_quantizers=levels, quantize=quantize)

    def _adversarial_parts(self, values: torch.Tensor, made: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminator's turn, then what it tells the codec."""
        share, last = 1 / self.current_gradient_accumulation_steps, self.accelerator.sync_gradients
        own = self.adversary.learn(values, made, self.state.global_step, share, last)
        adversarial, matching = self.adversary.losses(values, made)
        parts = {"adversarial": adversarial, "feature_matching": matching}
        return parts if own is None else parts | {"discriminator": own}

    @torch.no_grad()
    def _fill_codebooks(self, codec) -> None:
        """k-means over the latents of windows behind the nominal end of the data set, which training never sees."""
        count, size, first = self.codec_arguments.kmeans_windows, self.args.train_batch_size, len(self.train_dataset)
        windows = torch.stack([self.train_dataset[first + i]["input_values"] for i in range(count)])
        latents = [codec.encoder(values.to(codec.device)).transpose(1, 2) for values in windows.split(size)]
        vectors = torch.cat([latent.flatten(0, 1) for latent in latents]).float()
        fill_levels(codec.quantizer.levels, vectors, size * self.args.world_size / count, self.args.seed)
        logger.info("filled %d codebooks from %d latents", len(codec.quantizer.levels), len(vectors))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The adversary goes into a checkpoint with the weights, before the state that makes it a whole one."""
        super().save_model(output_dir, _internal_call)
        if _internal_call and self.adversary and self.args.should_save:
            self.adversary.save(output_dir)

    def load_beside_weights(self, checkpoint: str) -> None:
        """As [`ResumableTrainer`]; the adversary too."""
        super().load_beside_weights(checkpoint)
        if self.adversary:
            self.adversary.load(checkpoint)

    def measure(self) -> dict[str, float]:
        """Held-out clips, see `evaluate_speech_codec`."""
        return evaluate_speech_codec(self.model, self.clips, self.mel_loss, self.teacher, codebooks_filled(self.model))

    def write_page(self, media: TrackedMedia | None = None) -> None:
        """See `write_speech_codec_report`."""
        quantized = codebooks_filled(self.model)
        write_speech_codec_report(self.args.output_dir, self.model, self.clips, self.history(), quantized, media)


class LevelChoice:
    """Draws how many levels each clip is decoded from: 1, 2, 4 or 8 as far as the codec has them, or all. Level 0
    alone and all levels have their shares of the clips; the numbers between share the rest alike."""

    def __init__(self, num_quantizers: int, first_share: float, all_share: float):
        self.choices = sorted({count for count in (1, 2, 4, 8) if count < num_quantizers} | {num_quantizers})
        between = len(self.choices) - 2
        rest = [(1 - first_share - all_share) / max(1, between)] * between
        shares = np.array([first_share, *rest, all_share][-len(self.choices) :]) + 1e-9
        self.shares = shares / shares.sum()
        self._seed, self._generator = None, None

    def draw(self, count: int, seed: tuple[int, ...]) -> torch.Tensor:
        """Levels (count,); the same for the same `seed`, and others when it is given again at once (as a further
        batch of one step)."""
        if seed != self._seed:
            self._seed, self._generator = seed, np.random.default_rng(seed)
        return torch.from_numpy(self._generator.choice(self.choices, count, p=self.shares))


class AveragesOfFilledCodebooks(AveragedWeights):
    """Averages from the moment the codebooks are filled: before it there is nothing in them to average."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Moves the averages by one step."""
        if codebooks_filled(model):
            super().on_step_end(args, state, control, model=model, **kwargs)


class MeasureBeforeCheckpoint(TrainerCallback):
    """Measures held-out clips before each checkpoint, so that they are in its log and a resumed run has them."""

    def on_step_end(self, args, state, control, **kwargs):
        """Asks for an evaluation where a checkpoint is due."""
        control.should_evaluate |= control.should_save


class TimeLimit(TrainerCallback):
    """Ends training after some minutes, with a checkpoint from which a further call goes on."""

    def __init__(self, minutes: float):
        self.minutes, self.started = minutes, time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        """Starts the clock."""
        self.started = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        """Asks the trainer to save and stop once the time is up, by the clock of any rank."""
        over = torch.tensor(float(time.monotonic() - self.started > 60 * self.minutes), device=args.device)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(over)
        if over:
            control.should_save = control.should_training_stop = True


@torch.no_grad()
def start_with_unit_variance(model: SolamiSpeechCodecModel, input_values: torch.Tensor) -> None:
    """Scales each convolution so that its output on `input_values` (batch, 1, samples) has standard deviation 1.
    Layer-sequential unit-variance initialization (https://arxiv.org/abs/1511.06422); the last layer gets the deviation
    of the waveform."""
    last = model.decoder.layers[-1]

    def rescale(module: nn.Module, _, output: torch.Tensor) -> torch.Tensor:
        scale = (input_values.std() if module is last else 1.0) / output.std().clamp(min=1e-5)
        module.gain.mul_(scale)
        return output * scale

    layers = [module for module in model.modules() if isinstance(module, SpeechCodecWeightNorm)]
    hooks = [layer.register_forward_hook(rescale) for layer in layers]
    try:
        model(input_values, quantize=False)
    finally:
        for hook in hooks:
            hook.remove()


def codebooks_filled(model: SolamiSpeechCodecModel) -> bool:
    """True if the codebooks hold codes rather than their random start."""
    return bool(model.quantizer.levels[0].initialised)


@torch.no_grad()
def fill_levels(levels: Iterable[SpeechCodecCodebook], residual: torch.Tensor, share: float, seed: int) -> None:
    """k-means over `residual` (n, size), and for each further level over what the ones before leave; `share` of these
    vectors move the codebooks in a step of training."""
    for level in levels:
        centres, counts = kmeans(residual, len(level.code_counts), seed=seed)
        level.set_codes(centres, counts * share)
        residual = residual - level.decode(level.encode(residual))


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
