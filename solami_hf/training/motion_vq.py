"""Trains the motion tokenizers: `solami train-motion-vq --config recipe.yaml --data FOLDER --output_dir FOLDER`.

Recipes beside this file: `recipes/motion_vq_tiny.yaml` (a minute on two cores) and `recipes/motion_vq_paper.yaml`.
The networks first learn without quantization; then k-means over the whole training set starts the codebooks, so every
code is in use from the beginning.
"""

import json
import logging
import os
import shutil
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, set_seed

from ..modeling.configuration_motion_vq import SolamiMotionVQConfig
from ..modeling.modeling_motion_vq import SolamiMotionVQModel
from ..processing.motion_features import features_to_smplx
from ..processing.smplx_body import joint_positions
from .checkpoints import last_checkpoint
from .motion_vq_data import (
    MotionClip,
    WindowDataset,
    feature_statistics,
    padded_batches,
    read_clips,
    read_transforms,
)

logger = logging.getLogger(__name__)

_LOGGED_LOSSES = (
    "feature_loss",
    "velocity_loss",
    "commitment_loss",
    "transform_loss",
    "transform_commitment_loss",
    "body_perplexity",
    "hand_perplexity",
    "transform_perplexity",
    "body_usage",
    "hand_usage",
)


@dataclass
class MotionVQArguments:
    """What to train on, and the sizes of the tokenizers; everything else is `transformers.TrainingArguments`."""

    data: str = field(default="", metadata={"help": "Folder with manifest.jsonl: {id, motion, partner_id?, split?}."})
    width: int = field(default=512, metadata={"help": "Channels of the convolutions, of body and hand each."})
    hand_width: int | None = field(default=None, metadata={"help": "Channels for the hand, if not `width`."})
    code_dim: int = field(default=512, metadata={"help": "Width of a body or hand code vector."})
    depth: int = field(default=3, metadata={"help": "Residual blocks of a stage."})
    code_num: int = field(default=512, metadata={"help": "Codes of body and of hand."})
    transform_code_num: int = field(default=256, metadata={"help": "Codes of the transform."})
    window: int = field(default=64, metadata={"help": "Frames of a training window (30 a second)."})
    warmup_share: float = field(
        default=0.2, metadata={"help": "Share of the steps without quantization, before k-means starts the codebooks."}
    )
    kmeans_steps: int = field(default=10, metadata={"help": "k-means steps; 0 starts from random encodings."})
    kmeans_vectors: int = field(default=32768, metadata={"help": "Most encodings that k-means looks at."})
    codebook_decay: float = field(
        default=0.99, metadata={"help": "Share of the codebooks' averages that a step keeps; lower for short runs."}
    )
    dead_code_threshold: float = field(
        default=1.0, metadata={"help": "Averaged uses a step below which a code is replaced."}
    )
    rotation_std_floor: float = field(
        default=0.02, metadata={"help": "Smallest deviation that rotation features are divided by."}
    )
    velocity_features: int = field(
        default=75,
        metadata={"help": "The first features count again in the loss; 75 ends before the arms, 135 after."},
    )
    random_transforms: int = field(default=4096, metadata={"help": "Random standing places for the transform."})

    def __post_init__(self) -> None:
        for name in ("width", "code_dim", "depth", "code_num", "transform_code_num", "kmeans_vectors"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected at least 1.")
        if self.window < 4:
            raise ValueError(f"`window` is {self.window}, expected at least 4 frames (one code).")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"`warmup_share` is {self.warmup_share}, expected at least 0 and below 1.")

    def to_config(self) -> SolamiMotionVQConfig:
        """The model's configuration."""
        sizes = {"width": self.width, "code_dim": self.code_dim, "depth": self.depth, "code_num": self.code_num}
        parts = {f"{part}_{name}": value for part in ("body", "hand") for name, value in sizes.items()}
        parts["hand_width"] = self.hand_width or self.width
        return SolamiMotionVQConfig(
            **parts,
            velocity_features=self.velocity_features,
            transform_code_num=self.transform_code_num,
            codebook_decay=self.codebook_decay,
            dead_code_threshold=self.dead_code_threshold,
        )


class MotionVQTrainer(Trainer):
    """Logs the parts of the loss, evaluates reconstruction, and starts the codebooks after the warm-up."""

    def __init__(self, *args, vq_args: MotionVQArguments, clips: list[MotionClip], test_clips: list[MotionClip], **kw):
        super().__init__(*args, **kw)
        self.vq_args, self.clips, self.test_clips = vq_args, clips, test_clips
        self._parts: dict[str, list[torch.Tensor]] = defaultdict(list)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """One step; decides before it whether the quantizers are at work."""
        warm = self.state.global_step < int(self.vq_args.warmup_share * self.state.max_steps)
        codec = self.accelerator.unwrap_model(model)
        for quantizer in codec.quantizers.values():
            quantizer.bypass = warm
        if not warm and not codec.body.quantizer.initialised:
            initialise_codebooks(codec, self.clips, self.train_dataset.transforms, self.vq_args)
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's own loss; keeps its parts for the log."""
        outputs = model(**inputs)
        for name in _LOGGED_LOSSES:
            self._parts[name].append(outputs[name].detach())
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the means of the loss parts since the last log."""
        if "loss" in logs and self._parts:
            logs |= {name: round(float(torch.stack(values).mean()), 5) for name, values in self._parts.items()}
            self._parts.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Reconstruction of the test clips, see `evaluate_motion_vq`."""
        metrics = evaluate_motion_vq(self.model, self.test_clips, self.args.per_device_eval_batch_size)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@torch.no_grad()
def initialise_codebooks(
    model: SolamiMotionVQModel, clips: list[MotionClip], transforms: torch.Tensor, args: MotionVQArguments
) -> None:
    """Starts the three codebooks by k-means over encodings of the whole training set."""
    latents: dict[str, list[torch.Tensor]] = {"body": [], "hand": []}
    for values, mask in padded_batches(clips, 32):
        values, masks = model.normalise(values.to(model.device), mask.to(model.device))
        body, hand = model.latents(values, masks)
        real = masks[-1] if masks[-1] is not None else torch.ones(body.shape[:2], dtype=torch.bool, device=body.device)
        latents["body"].append(body[real])
        latents["hand"].append(hand[real])
    vectors = {name: torch.cat(parts) for name, parts in latents.items()}
    vectors["transform"] = model.transform.encoder(model.normalise_transform(transforms.to(model.device)))
    for name, quantizer in model.quantizers.items():
        chosen = torch.randperm(len(vectors[name]), device=model.device)[: args.kmeans_vectors]
        quantizer.initialise(vectors[name][chosen], kmeans_steps=args.kmeans_steps)


@torch.no_grad()
def evaluate_motion_vq(model: SolamiMotionVQModel, clips: list[MotionClip], batch_size: int = 32) -> dict[str, float]:
    """How well whole clips survive the tokenizers.

    Returns:
        `reconstruction_error` (SmoothL1 of normalised features), `mpjpe` (mm, joints of the free body after the way is
        integrated, drift included), `root_mpjpe` (mm, pelvis at the origin in every frame), `hand_mpjpe` (mm, finger
        joints relative to their wrist), `body_codes_used` and `hand_codes_used` (share of the codebook), `clips`.
    """
    was_training = model.training
    model.eval()
    sums: dict[str, float] = defaultdict(float)
    frames, used = 0, {"body": set(), "hand": set()}
    for values, mask in padded_batches(clips, batch_size):
        values, mask = values.to(model.device), mask.to(model.device)
        codes = model.encode(values, mask)
        out = model.decode(codes.body_codes, codes.hand_codes, codes.code_mask)
        for part, ids in (("body", codes.body_codes), ("hand", codes.hand_codes)):
            used[part].update(ids[codes.code_mask].unique().tolist())
        real, target = out.padding_mask, values[:, : out.motion_values.shape[1]]
        scale = model.std.clamp_min(model.config.std_floor)
        error = F.smooth_l1_loss(out.motion_values / scale, target / scale, reduction="none")[real]
        sums["reconstruction_error"] += float(error.mean(-1).sum())
        joints = [joint_positions(features_to_smplx(motion.float())) for motion in (out.motion_values, target)]
        for name, millimetres in _joint_errors(*joints).items():
            sums[name] += float(millimetres[real].sum())
        frames += int(real.sum())
    model.train(was_training)
    metrics = {name: value / frames for name, value in sums.items()} if frames else {}
    for part, ids in used.items():
        metrics[f"{part}_codes_used"] = len(ids) / model.quantizers[part].code_num
    return metrics | {"clips": len(clips)}


def _joint_errors(result: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean joint errors (B, T) in millimetres of positions (B, T, 55, 3); jaw and eyes, which follow, are left out."""
    real = [*range(22), *range(25, 55)]
    wrists = torch.tensor([20] * 15 + [21] * 15, device=result.device)

    def error(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return 1000 * (a - b).norm(dim=-1).mean(-1)

    return {
        "mpjpe": error(result[..., real, :], target[..., real, :]),
        "root_mpjpe": error((result - result[..., :1, :])[..., real, :], (target - target[..., :1, :])[..., real, :]),
        "hand_mpjpe": error(
            result[..., 25:, :] - result[..., wrists, :], target[..., 25:, :] - target[..., wrists, :]
        ),
    }


def train_motion_vq(args: MotionVQArguments, training_args: TrainingArguments) -> dict[str, float]:
    """Trains, evaluates and saves the motion tokenizers.

    `training_args.output_dir` gets `config.json`, `model.safetensors` (loads with `AutoModel`), `history.json` (the
    log of every logging step and the final evaluation), and checkpoints, from which a second call goes on.

    Returns:
        the final evaluation, see `evaluate_motion_vq`; empty where the data has no test split.

    Raises:
        FileNotFoundError, ValueError: missing or unusable data, see `read_clips`.
    """
    if not args.data:
        raise ValueError("`data` is empty, expected a folder with a manifest.jsonl of motion rows.")
    set_seed(training_args.seed)
    config = args.to_config()
    clips = read_clips(args.data, "train", config.fps, config.frames_per_code)
    test_clips = read_clips(args.data, "test", config.fps, config.frames_per_code)
    if not clips:
        raise ValueError(f"The manifest in {args.data} has no motion of the split train.")
    if not test_clips:
        logger.warning("The manifest in %s has no motion of the split test: nothing will be evaluated.", args.data)
    transforms = read_transforms(clips, args.random_transforms, torch.Generator().manual_seed(training_args.seed))
    model = SolamiMotionVQModel(config)
    model.set_statistics(
        *feature_statistics(clips, args.rotation_std_floor), transforms.mean(0), transforms.std(0, correction=0)
    )
    logger.info("Training on %d clips, testing on %d, %d transforms.", len(clips), len(test_clips), len(transforms))
    trainer = MotionVQTrainer(
        model=model,
        args=training_args,
        train_dataset=WindowDataset(clips, args.window, transforms),
        eval_dataset=test_clips,  # never iterated: `evaluate` takes whole clips
        vq_args=args,
        clips=clips,
        test_clips=test_clips,
    )
    resume_from = training_args.resume_from_checkpoint or last_checkpoint(training_args.output_dir)
    trainer.train(resume_from_checkpoint=resume_from)
    for quantizer in model.quantizers.values():
        quantizer.bypass = False
    if not model.body.quantizer.initialised:
        raise ValueError("Training ended within its warm-up, so no codebook was made: raise `max_steps`.")
    metrics = trainer.evaluate() if test_clips else {}
    if trainer.is_world_process_zero():
        history = {"arguments": asdict(args), "log": trainer.state.log_history, "evaluation": metrics}
        _save(model, history, Path(training_args.output_dir))
    trainer.end()
    return metrics


def _save(model: SolamiMotionVQModel, history: dict, folder: Path) -> None:
    """Writes model and history beside their place, then moves each file there at once, the configuration last."""
    staging = folder / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    model.save_pretrained(staging)
    (staging / "history.json").write_text(json.dumps(history, indent=1), encoding="utf-8")
    for path in sorted(staging.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, folder / path.name)
    staging.rmdir()


def main(argv: list[str] | None = None) -> None:
    """The command line: recipe and flags by TRL's parser."""
    from trl import TrlParser

    parser = TrlParser((MotionVQArguments, TrainingArguments))
    args, training_args = parser.parse_args_and_config(args=argv)
    metrics = train_motion_vq(args, training_args)
    logger.info("Wrote %s: %s", training_args.output_dir, metrics)


if __name__ == "__main__":
    main()
