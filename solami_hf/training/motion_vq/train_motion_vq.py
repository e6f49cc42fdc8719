"""Trains the motion tokenizers: `solami train-motion-vq --config recipe.yaml --data FOLDER --output_dir FOLDER`.

Recipes beside this file: `recipes/motion_vq_tiny.yaml` (a minute on two cores), `recipes/motion_vq_paper.yaml`, and
`recipes/motion_vq_levels_tiny.yaml`, several levels over principal components.
The networks first learn without quantization; then k-means over the training set starts the codebooks, so every code
is in use from the beginning. `warmup_share: 0`, `kmeans_steps: 0` and `random_restart: false`, as in the paper's
recipe, train the codebooks as the paper does: from the encodings of the first batch.

Several GPUs, or ranks on the CPU: `torchrun --nproc_per_node 2 -m solami_hf.cli train-motion-vq --config ...`, with
`--deepspeed recipes/motion_vq_zero2.json` for DeepSpeed. The codebooks count the batches of all ranks.
"""

import logging
import sys
from dataclasses import dataclass

import numpy as np
import torch
from transformers import TrainingArguments, set_seed

from ...command_line import option, run_command
from ...modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from ...modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from ...modeling.motion_vq.quantizers import EmaQuantizer
from ...processing.datasets.manifests import read_manifest
from ...processing.motion.features import features_to_joints
from ..held_out import evaluation_split
from ..trackers import TrackedMedia
from ..trainer import ResumableTrainer, avoid_slow_bf16, run_training
from .motion_vq_data import (
    COUNTED_JOINTS,
    MotionClip,
    WindowDataset,
    cut_anywhere,
    feature_statistics,
    padded_batches,
    read_clips,
    read_transforms,
)
from .motion_vq_evaluation import evaluate_motion_vq
from .motion_vq_report import write_motion_vq_report

logger = logging.getLogger(__name__)


_LOGGED_LOSSES = ("feature_loss", "velocity_loss", "commitment_loss", "transform_loss", "transform_commitment_loss")
_LOGGED_CODES = ("body_perplexity", "hand_perplexity", "transform_perplexity", "body_usage", "hand_usage")
WAY_FRAMES = (1, 8, 32)
KMEANS_VECTORS = 32768  # most encodings that k-means looks at


@dataclass
class MotionVQArguments:
    """Training data, and the sizes of the tokenizers; everything else is `transformers.TrainingArguments`."""

    data: str = option("", "Folder with manifest.jsonl: {id, motion, partner_id?, split?}.")
    width: int = option(512, "Channels of the convolutions, of body and hand each.")
    hand_width: int | None = option(None, "Channels for the hand, if not `width`.")
    code_dim: int = option(512, "Width of a body or hand code vector.")
    depth: int = option(3, "Residual blocks of a stage.")
    code_num: int = option(512, "Codes of body and of hand.")
    transform_code_num: int = option(256, "Codes of the transform.")
    quantizer: str = option("ema", "Body and hand: ema (a codebook) or fsq (fixed steps).")
    num_levels: int = option(1, "Codes of body and of hand at a time; 1 is the paper's.")
    shared_levels: bool = option(False, "One quantizer for all levels above 0.")
    level_dropout: float = option(0.5, "Share of clips of which training decodes the first few levels only.")
    bound: bool = option(False, "One tokenizer and one codebook for body and hand together.")
    body_features_size: int = option(135, "Features that the body reads; 99 leaves the arms to the hand.")
    representation: str = option("local_rotation", "What it sees: local_rotation, global_rotation, or joints.")
    network: str = option("conv", "conv, the paper's, or linear: principal components.")
    residual_hand: bool = option(False, "Of a linear network: the hand's code tells what the body's leaves of all.")
    candidates: int = option(1, "Codes that encoding tries at each place; 1 takes the nearest.")
    joint_units: bool = option(False, "Features count as far as they move joints, not by their deviation.")
    face_joints: float = option(0.0, "Joints that the face counts as in `joint_units`, where heads nod and turn.")
    causal: bool = option(False, "Convolutions look back only, for streaming.")
    loss_mode: str = option("corrected", "corrected, or upstream for the original's sum.")
    fps: float = option(30.0, "Frames a second at which motion is read.")
    down_t: int = option(2, "Halvings of the time: a code stands for 2**down_t frames, 8 at 60 fps.")
    window: int = option(64, "Frames of a training window.")
    warmup_share: float = option(0.2, "Share of the steps without quantization, before k-means starts the codebooks.")
    kmeans_steps: int = option(10, "k-means steps; 0 starts from the first batch, as the paper.")
    codebook_decay: float = option(0.99, "Share of the codebooks' averages that a step keeps; lower for short runs.")
    dead_code_threshold: float = option(1.0, "Averaged uses a step below which a code is replaced.")
    random_restart: bool = option(True, "Replace dead codes at random; else by the batch's first encodings.")
    rotation_std_floor: float = option(0.02, "Smallest deviation that rotation features are divided by.")
    velocity_features: int = option(
        75, "The first features count again in the loss; 75 ends before the arms, 135 after."
    )
    joint_weight: float = option(0.0, "Weight of errors of joints and of the way in metres, see `position_loss`.")
    random_transforms: int = option(4096, "Random standing places for the transform.")

    def __post_init__(self) -> None:
        for name in ("width", "code_dim", "depth", "code_num", "transform_code_num"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected at least 1.")
        if self.window < 2**self.down_t:
            raise ValueError(f"`window` is {self.window}, expected at least {2**self.down_t} frames (one code).")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"`warmup_share` is {self.warmup_share}, expected at least 0 and below 1.")
        if self.joint_units and self.representation != "local_rotation":
            raise ValueError(f"`representation` is {self.representation!r}, but `joint_units` are of local_rotation.")

    def to_config(self) -> SolamiMotionVQConfig:
        """The model's configuration."""
        sizes = {"width": self.width, "code_dim": self.code_dim, "depth": self.depth, "code_num": self.code_num}
        parts = {f"{part}_{name}": value for part in ("body", "hand") for name, value in sizes.items()}
        parts["hand_width"] = self.hand_width or self.width
        same = (
            "quantizer", "bound", "representation", "causal", "loss_mode", "velocity_features", "transform_code_num",
            "codebook_decay", "dead_code_threshold", "random_restart", "num_levels", "shared_levels", "level_dropout",
            "network", "body_features_size", "residual_hand", "candidates", "fps", "down_t",
        )  # fmt: skip
        return SolamiMotionVQConfig(**parts, **{name: getattr(self, name) for name in same})


class MotionVQTrainer(ResumableTrainer):
    """Logs the parts of the loss, evaluates reconstruction, and starts the codebooks after the warm-up."""

    def __init__(self, *args, vq_args: MotionVQArguments, clips: list[MotionClip], held_out: list[MotionClip], **kw):
        self.vq_args, self.clips, self.held_out = vq_args, clips, held_out
        super().__init__(*args, **kw)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """One step; decides before it whether the quantizers are at work."""
        warm = self.state.global_step < int(self.vq_args.warmup_share * self.state.max_steps)
        codec = self.accelerator.unwrap_model(model)
        for quantizer in codebooks(codec).values():
            quantizer.bypass = warm
            quantizer.frozen = self.vq_args.network == "linear" and quantizer is not codec.transform.quantizer
        if not warm and self.vq_args.kmeans_steps and not codebooks_started(codec):
            start_codebooks(codec, self.clips, self.train_dataset.transforms, self.vq_args)
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's own loss; keeps its parts for the log."""
        outputs = model(**inputs)
        warm = self.accelerator.unwrap_model(model).body.quantizer.bypass
        for name in _LOGGED_LOSSES + (() if warm else _LOGGED_CODES):
            if name in outputs:  # a bound tokenizer has no hand
                self.parts[name].append(outputs[name].detach().float())
        if self.vq_args.joint_weight:
            made = outputs.motion_values
            positions = position_loss(made, inputs["motion_values"][:, : made.shape[1]], outputs.padding_mask)
            outputs.loss = outputs.loss + self.vq_args.joint_weight * positions
            self.parts["position_loss"].append(positions.detach().float())
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def measure(self) -> dict[str, float]:
        """Reconstruction of the held-out clips, see `evaluate_motion_vq`."""
        return evaluate_motion_vq(self.model, self.held_out, self.args.per_device_eval_batch_size)

    def write_page(self, media: TrackedMedia | None = None) -> None:
        """See `write_motion_vq_report`."""
        write_motion_vq_report(self.args.output_dir, self.model, self.held_out, self.history(), media)


def position_loss(result: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean distance in metres of joints as seen from the pelvis, plus that of the pelvis' ways of several lengths, of
    raw features (B, T, 315); `mask` (B, T) is boolean, True = real; None if everything is. What turns the root moves
    every joint, which a loss of rotations does not know. Both in the world's axes."""
    real = torch.ones(result.shape[:2], dtype=torch.bool, device=result.device) if mask is None else mask
    made, wanted = (features_to_joints(values.float())[..., COUNTED_JOINTS, :] for values in (result, target))
    offsets = made - made[..., :1, :] - wanted + wanted[..., :1, :]
    loss = offsets.square().sum(-1).add(1e-8).sqrt().mean(-1)[real].mean()
    for step in (span for span in WAY_FRAMES if span < result.shape[1]):
        ways = [(part[:, step:, 0] - part[:, :-step, 0])[real[:, step:]] for part in (made, wanted)]
        if len(ways[0]):  # some clip is as long
            loss = loss + (ways[0] - ways[1]).square().sum(-1).add(1e-8).sqrt().mean() / len(WAY_FRAMES)
    return loss


def codebooks(model: SolamiMotionVQModel) -> dict[str, EmaQuantizer]:
    """The quantizers of all levels that learn a codebook, by their names in the model."""
    return {name: part for name, part in model.named_modules() if isinstance(part, EmaQuantizer)}


def codebooks_started(model: SolamiMotionVQModel) -> bool:
    """True if every quantizer that learns a codebook has one."""
    return all(bool(quantizer.initialised) for quantizer in codebooks(model).values())


@torch.no_grad()
def start_codebooks(
    model: SolamiMotionVQModel, clips: list[MotionClip], transforms: torch.Tensor, args: MotionVQArguments
) -> None:
    """Starts the codebooks by k-means over encodings of random clips of the training set. Quantizers without a
    codebook are left alone. On several ranks all have to call this; rank 0's result counts."""
    latents: dict[str, list[torch.Tensor]] = {name: [] for name in model.chains}
    order = torch.randperm(len(clips)).tolist()
    frames_before = np.cumsum([0] + [len(clips[i].features) for i in order])[:-1]
    enough = KMEANS_VECTORS * model.config.frames_per_code
    chosen = [clips[i] for i, before in zip(order, frames_before, strict=True) if before < enough]
    if model.config.network == "linear":  # its codes do not follow, so they have to serve clips cut anywhere
        chosen = cut_anywhere(chosen, model.config.frames_per_code)
    for values, mask in padded_batches(chosen, 32):
        values, masks = model.normalise(values.to(model.device), mask.to(model.device))
        for name, part in zip(latents, model.latents(values, masks), strict=True):
            latents[name].append(part.flatten(0, 1) if masks[-1] is None else part[masks[-1]])
    vectors = {name: torch.cat(parts) for name, parts in latents.items()}
    vectors["transform"] = model.transform.encoder(model.normalise_transform(transforms.to(model.device)))
    levels = model.chains | {"transform": [model.transform.quantizer]}
    for name, quantizers in levels.items():
        left = vectors[name][torch.randperm(len(vectors[name]), device=model.device)[:KMEANS_VECTORS]].float()
        for quantizer in quantizers:
            if isinstance(quantizer, EmaQuantizer) and not quantizer.initialised:
                quantizer.initialise(left, kmeans_steps=args.kmeans_steps)
            left = left - quantizer.decode(quantizer.encode(left))


@torch.no_grad()
def start_linear_maps(model: SolamiMotionVQModel, clips: list[MotionClip]) -> None:
    """Sets the maps of a "linear" network to the principal components of a code's frames; its blocks add nothing yet.

    The eighth component has a deviation of 1, the others what they have beside it, so distances of latents are those
    of features. Training does not move the maps.
    """
    frames, pieces = model.config.frames_per_code, []
    for clip in clips:
        values, _ = model.normalise(clip.features[None], None)
        pieces.append(values[0, : values.shape[1] // frames * frames].unflatten(0, (-1, frames)))
    sizes = list(model.config.input_sizes.values())
    parts = [model.parts[name] for name in model.chains]
    for part, values in zip(parts, torch.cat(pieces).split(sizes, dim=-1), strict=True):
        values, down, decoder = values.flatten(1), part.encoder["linear"], part.decoder
        squares, vectors = torch.linalg.eigh((values.T @ values).double() / len(values))
        squares, vectors = (found.flip(-1)[..., : down.out_channels].float() for found in (squares, vectors))
        count, scale = len(squares), squares[:8][-1].sqrt()
        down.weight.zero_()[:count] = (vectors / scale).T.unflatten(1, (frames, -1)).transpose(1, 2)
        decoder["linear"].weight.zero_()[:, :count] = vectors * scale
        decoder["conv_in"].weight[:, :count] /= (squares.clamp_min(0).sqrt() / scale).clamp_min(0.1)[:, None]
        decoder["conv_out"].weight.zero_()
        for layer in (down, decoder["linear"]):
            layer.requires_grad_(False)


def train_motion_vq(args: MotionVQArguments, training_args: TrainingArguments) -> dict[str, float]:
    """Trains, evaluates and saves the motion tokenizers. Returns the final evaluation, see `evaluate_motion_vq`, on
    the split that `evaluation_split` says; empty without one.

    `training_args.output_dir` gets `config.json`, `model.safetensors` (loads with `AutoModel`), `history.json` (the
    log of every logging step and the final evaluation), `report.html` (the run's page), and checkpoints, from which a
    second call goes on: on one process to the same weights and log, bit for bit. Raises FileNotFoundError, ValueError:
    missing or unusable data, see `read_clips`.
    """
    if not args.data:
        raise ValueError("`data` is empty, expected a folder with a manifest.jsonl of motion rows.")
    set_seed(training_args.seed)
    avoid_slow_bf16(training_args)
    trainer = make_trainer(args, training_args)
    trainer.train_or_resume()
    for quantizer in codebooks(trainer.model).values():
        quantizer.bypass = False
    if not codebooks_started(trainer.model):
        raise ValueError("Training ended within its warm-up, so no codebook was made: raise `max_steps`.")
    return trainer.finish(args, training_args.output_dir)


def make_trainer(args: MotionVQArguments, training_args: TrainingArguments) -> MotionVQTrainer:
    """A trainer with a new model, its statistics set, on the data of `args`; raises as `train_motion_vq`."""
    config = args.to_config()
    clips = read_clips(args.data, "train", config.fps, config.frames_per_code)
    if not clips:
        raise ValueError(f"The manifest in {args.data} has no motion of the split train.")
    split = evaluation_split({row["split"] for row in read_manifest(args.data)}, training_args, args.data)
    held_out = read_clips(args.data, split, config.fps, config.frames_per_code) if split else []
    if not held_out:
        logger.warning("%s has no motion of the splits validation and test: nothing will be evaluated.", args.data)
    transforms = read_transforms(clips, args.random_transforms, torch.Generator().manual_seed(training_args.seed))
    model = SolamiMotionVQModel(config)
    parts = tuple(config.input_sizes.values()) if args.joint_units else ()
    units = (args.representation, parts, args.face_joints, args.fps)
    statistics = feature_statistics(clips, args.rotation_std_floor, *units)
    model.set_statistics(*statistics, transforms.mean(0), transforms.std(0, correction=0))
    if args.network == "linear":
        start_linear_maps(model, clips)
    logger.info("Training on %d clips, evaluating on %d, %d transforms.", len(clips), len(held_out), len(transforms))
    return MotionVQTrainer(
        model=model,
        args=training_args,
        train_dataset=WindowDataset(clips, args.window, transforms, training_args.seed),
        eval_dataset=held_out,  # never iterated: `evaluate` takes whole clips
        vq_args=args,
        clips=clips,
        held_out=held_out,
    )


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    run_training(train_motion_vq, [MotionVQArguments, TrainingArguments], argv, "solami train-motion-vq")


if __name__ == "__main__":
    sys.exit(run_command("solami train-motion-vq", main))
