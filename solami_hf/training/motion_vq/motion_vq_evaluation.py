"""Reconstruction errors of whole clips by the motion tokenizers, in millimetres of joints."""

import math
from collections import Counter
from itertools import islice

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.nn import functional as F

from ...modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from ...processing.motion.features import features_to_joints
from ..held_out import evaluating
from .motion_vq_data import COUNTED_JOINTS, MotionClip, padded_batches

_BODY = list(range(22))
_WRISTS = [20] * 15 + [21] * 15


def evaluate_motion_vq(
    model: SolamiMotionVQModel, clips: list[MotionClip], batch_size: int = 32, levels: int | None = None, filler=None
) -> dict[str, float]:
    """Errors of reconstructed clips, of `levels` or a `filler` as in `reconstruct`. Several ranks share the clips, and
    all get the same figures; all have to call it. While the quantizers are bypassed, the networks are measured without
    them, and nothing is said about codes.

    Returns means over frames: `reconstruction_error` (SmoothL1 of normalised features), `mpjpe` (mm, body and fingers
    of the free body after the way is integrated, drift included), `body_mpjpe` (the same of the 22 body joints),
    `root_mpjpe` (mm, body and fingers with the pelvis at the origin in every frame), `hand_mpjpe` (mm, fingers
    relative to their wrist), `accel` (mm per frame squared, mean length of the difference of the joints'
    accelerations); then `body_codes_used`, `hand_codes_used` (share of the codebook), `body_perplexity`,
    `hand_perplexity` (effective number of codes over all clips), and `clips`. Empty where no clip was given. A bound
    tokenizer has no hand codes.
    """
    if not clips:
        return {}
    ranks, totals = PartialState(), Counter()
    with evaluating(model):
        for values, mask in islice(padded_batches(clips, batch_size), ranks.process_index, None, ranks.num_processes):
            _add_errors(model, values.to(model.device), mask.to(model.device), totals, levels, filler)
    merged = Counter()
    for part in gather_object([totals]):
        merged.update(part)
    return _means(merged, model) | {"clips": len(clips)}


def reconstruct(
    model: SolamiMotionVQModel,
    values: torch.Tensor,
    mask: torch.Tensor,
    levels: int | None = None,
    filler=None,
    codes=None,
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Reconstruction of motions (B, T, 315): features, mask, codes. It ends with the last whole code. It is made of
    the first `levels` (`None`: all), or of level 0 and what a `filler` (`SolamiSoundStormModel`) adds. The codes (N,)
    of body and hand (of a bound tokenizer the body's) are those of all clips in a row; there are none while the
    quantizers are bypassed. `codes`: what `encode` gave, where it is known."""
    if not model.body.quantizer.bypass:
        codes = model.encode(values, mask) if codes is None else codes
        given = [codes[f"{part}_codes"] for part in model.parts]
        if filler is not None:
            given = filler.fill_motion(given, codes.code_mask)
        elif codes.body_levels is not None:
            given = [codes[f"{part}_levels"][:, :levels] for part in model.parts]
        out = model.decode(*given, *[None] * (2 - len(given)), codes.code_mask)
        ids = {part: codes[f"{part}_codes"][codes.code_mask] for part in model.parts}
        return out.motion_values, out.padding_mask, ids
    whole = mask.sum(-1) // model.config.frames_per_code * model.config.frames_per_code
    frames = int(whole.max())
    out = model(values[:, :frames], torch.arange(frames, device=mask.device) < whole[:, None])
    return out.motion_values, out.padding_mask, {}


def joint_errors(result: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Errors (B, T) in millimetres between joint positions (B, T, 55, 3), and `accel` (B, T - 2) in mm per frame^2."""

    def length(difference: torch.Tensor) -> torch.Tensor:
        return 1000 * difference.norm(dim=-1).mean(-1)

    error = result - target
    joints = error[..., COUNTED_JOINTS, :]
    return {
        "mpjpe": length(joints),
        "body_mpjpe": length(error[..., _BODY, :]),
        "root_mpjpe": length(joints - error[..., :1, :]),
        "hand_mpjpe": length(error[..., 25:, :] - error[..., _WRISTS, :]),
        "accel": length(joints.diff(n=2, dim=-3)),
    }


def _add_errors(
    model: SolamiMotionVQModel, values: torch.Tensor, mask: torch.Tensor, totals: Counter, levels, filler
) -> None:
    """Adds a batch's sums over frames, the numbers of frames, and how often each code came."""
    result, real, codes = reconstruct(model, values, mask, levels, filler)
    target = values[:, : result.shape[1]]
    for part, ids in codes.items():
        totals.update((part, code) for code in ids.tolist())
    scale = model.std.clamp_min(model.config.std_floor)
    seen = [model.represent(motion) / scale for motion in (result, target)]
    error = F.smooth_l1_loss(*seen, reduction="none").mean(-1)
    positions = [features_to_joints(motion.float()) for motion in (result, target)]
    for name, errors in {"reconstruction_error": error, **joint_errors(*positions)}.items():
        # an acceleration takes three frames, so its last one decides whether it is real
        counted = real[:, real.shape[1] - errors.shape[1] :]
        totals[name] += float(errors[counted].double().sum())
        totals[name, "frames"] += int(counted.sum())


def _means(totals: Counter, model: SolamiMotionVQModel) -> dict[str, float]:
    """The figures of `evaluate_motion_vq` from its sums."""
    names = [name for name in totals if isinstance(name, str)]
    means = {name: totals[name] / totals[name, "frames"] for name in names if totals[name, "frames"]}
    for part in model.parts:
        counts = [n for key, n in totals.items() if isinstance(key, tuple) and key[0] == part]
        if counts:
            shares = [count / sum(counts) for count in counts]
            means[f"{part}_codes_used"] = len(counts) / model.quantizers[part].code_num
            means[f"{part}_perplexity"] = math.exp(-sum(share * math.log(share) for share in shares))
    return means
