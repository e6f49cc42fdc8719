"""How fast motion becomes codes and codes become motion: the original's way and ours, on the same inputs in one run.

    python benchmarks/motion.py [--clips 200] [--repeats 5]

The networks have the paper's sizes (two VQ-VAEs of width 512) and seeded weights; their codebooks are k-means centres
of the encodings, so that codes lie as close together as those of a trained tokenizer. The original encodes and decodes
clip by clip with `nn.Conv1d` and counts codes through one-hot products (shared facts of the original, written anew
here). The last line is one JSON object of ratios: theirs over ours, above 1 is faster.
"""

import argparse
import json
import logging
import resource
import statistics
from collections.abc import Callable

import numpy as np
import torch
from timing import timed
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from solami_hf.demo.corpus.gestures import GESTURES, make_gesture
from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import MotionVQCache, MotionVQVAE, SolamiMotionVQModel
from solami_hf.processing.batching import MOTION_BATCH_FRAMES, map_in_batches, pad_right
from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.features import features_to_smplx, motion_to_features

SHORTEST, LONGEST = 60, 250  # frames
STREAM_SECONDS, CODES_PER_SECOND = 10, 7.5
QUANTIZER_BATCH, QUANTIZER_FRAMES = 96, 64  # a training step of the original

logger = logging.getLogger(__name__)

Codes = tuple[torch.Tensor, torch.Tensor]


def make_clips(number: int, rng: np.random.Generator) -> list[torch.Tensor]:
    """Features (T, 315) of authored gestures, one after the other, cut to lengths between the shortest and longest."""
    gestures = [make_gesture(name, rng)[0].to_params() for name in GESTURES for _ in range(3)]
    features = [motion_to_features(torch.from_numpy(params)) for params in gestures]
    clips = []
    for length in rng.integers(SHORTEST, LONGEST + 1, size=number):
        parts = [features[i] for i in rng.permutation(len(features))[:8]]
        clips.append(torch.cat(parts)[:length].contiguous())
    return clips


def make_model(clips: list[torch.Tensor], causal: bool = False) -> SolamiMotionVQModel:
    """The paper's sizes; statistics and codebooks from the clips."""
    torch.manual_seed(0)
    model = SolamiMotionVQModel(SolamiMotionVQConfig(causal=causal)).eval()
    frames = torch.cat(clips)
    model.set_statistics(frames.mean(0), frames.std(0).clamp_min(0.02))
    latents: dict[MotionVQVAE, list[torch.Tensor]] = {model.body: [], model.hand: []}
    for clip in clips:
        for part, values in zip(latents, model.latents(*model.normalise(clip[None], None)), strict=True):
            latents[part].append(values[0])
    for part, values in latents.items():
        part.quantizer.initialise(torch.cat(values), kmeans_steps=10)
    return model


def original_conv(layer: torch.nn.Conv1d, hidden: torch.Tensor) -> torch.Tensor:
    """A 1-D convolution with channels first, as the original's layers are."""
    return F.conv1d(hidden, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation)


def original_blocks(blocks, hidden: torch.Tensor) -> torch.Tensor:
    """The residual blocks of a stage."""
    for block in blocks:
        inner = original_conv(block.conv1, F.relu(hidden))
        hidden = hidden + original_conv(block.conv2, F.relu(inner))
    return hidden


def original_encode(part: MotionVQVAE, features: torch.Tensor) -> torch.Tensor:
    """Codes (T // 4,) of one clip (T, F), normalised."""
    hidden = F.relu(original_conv(part.encoder["conv_in"], features.t()[None]))
    for stage in part.encoder["stages"]:
        hidden = original_blocks(stage.blocks, original_conv(stage.down, hidden))
    latents = original_conv(part.encoder["conv_out"], hidden)[0].t()
    codebook = part.quantizer.codebook.t()
    distance = (latents**2).sum(-1, keepdim=True) - 2 * latents @ codebook + (codebook**2).sum(0, keepdim=True)
    return distance.argmin(-1)


def original_decode(part: MotionVQVAE, codes: torch.Tensor) -> torch.Tensor:
    """Normalised features (4 T', F) of one clip's codes (T',)."""
    hidden = F.relu(original_conv(part.decoder["conv_in"], part.quantizer.codebook[codes].t()[None]))
    for stage in part.decoder["stages"]:
        hidden = F.interpolate(original_blocks(stage.blocks, hidden), scale_factor=2, mode="nearest")
        hidden = original_conv(stage.up, hidden)
    hidden = F.relu(original_conv(part.decoder["conv_mid"], hidden))
    return original_conv(part.decoder["conv_out"], hidden)[0].t()


def encode_theirs(model: SolamiMotionVQModel, clips: list[torch.Tensor]) -> list[Codes]:
    """Clip by clip."""
    size, std = model.config.body_features_size, model.std.clamp_min(model.config.std_floor)
    normalised = [(clip - model.mean) / std for clip in clips]
    return [
        (original_encode(model.body, values[:, :size]), original_encode(model.hand, values[:, size:]))
        for values in normalised
    ]


def encode_ours(model: SolamiMotionVQModel, clips: list[torch.Tensor]) -> list[Codes]:
    """Padded batches of like lengths."""

    def encode(batch: list[torch.Tensor]) -> list[Codes]:
        out = model.encode(*pad_right(batch))
        rows = zip(out.body_codes, out.hand_codes, out.code_mask.sum(-1).tolist(), strict=True)
        return [(body[:length], hand[:length]) for body, hand, length in rows]

    return map_in_batches(clips, len, MOTION_BATCH_FRAMES, encode, most_steps=MOTION_BATCH_FRAMES)


def decode_theirs(model: SolamiMotionVQModel, codes: list[Codes]) -> list[torch.Tensor]:
    """SMPL-X parameters (4 T', 159), clip by clip."""
    std, params = model.std.clamp_min(model.config.std_floor), []
    for body, hand in codes:
        features = torch.cat([original_decode(model.body, body), original_decode(model.hand, hand)], dim=-1)
        params.append(features_to_smplx(features * std + model.mean))
    return params


def decode_ours(model: SolamiMotionVQModel, codes: list[Codes]) -> list[torch.Tensor]:
    """SMPL-X parameters (4 T', 159) of padded batches."""

    def decode(batch: list[Codes]) -> list[torch.Tensor]:
        (body, mask), (hand, _) = (pad_right([pair[part] for pair in batch]) for part in (0, 1))
        out = model.decode(body, hand, mask)
        params = features_to_smplx(out.motion_values)
        return [row[:length] for row, length in zip(params, out.padding_mask.sum(-1).tolist(), strict=True)]

    most_codes = MOTION_BATCH_FRAMES // model.config.frames_per_code
    return map_in_batches(codes, lambda pair: len(pair[0]), most_codes, decode, most_steps=most_codes)


def quantizer_step_theirs(quantizer, vectors: torch.Tensor) -> None:
    """Distances, codes, and the moving averages by products with one-hot rows."""
    codebook = quantizer.codebook.t()
    distance = (vectors**2).sum(-1, keepdim=True) - 2 * vectors @ codebook + (codebook**2).sum(0, keepdim=True)
    codes = distance.argmin(-1)
    one_hot = torch.zeros(quantizer.code_num, len(vectors)).scatter_(0, codes[None], 1)
    code_sum = quantizer.decay * quantizer.code_sum + (1 - quantizer.decay) * (one_hot @ vectors)
    code_count = quantizer.decay * quantizer.code_count + (1 - quantizer.decay) * one_hot.sum(-1)
    spare = vectors[torch.randperm(len(vectors))][: quantizer.code_num]
    alive = (code_count >= quantizer.dead_code_threshold).float()[:, None]
    codebook = alive * (code_sum / code_count[:, None]) + (1 - alive) * spare
    F.mse_loss(vectors, codebook[codes])


def matrix_peak(dtype: torch.dtype, repeats: int) -> float:
    """FLOP/s of a product of two large matrices: what this machine can reach."""
    left, right = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    return 2 * 2048**3 / min(timed(lambda: left @ right, repeats)[0])


def compare(name: str, theirs: Callable, ours: Callable, repeats: int) -> tuple[float, float]:
    """Logs one row of the table; returns the ratio of the medians and the seconds of ours."""
    (a, _), (b, _) = timed(theirs, repeats), timed(ours, repeats)
    ratio = statistics.median(a) / statistics.median(b)
    row = (f"{1000 * statistics.median(t):9.1f} ({1000 * min(t):.1f}-{1000 * max(t):.1f})" for t in (a, b))
    logger.info("%-34s %-26s %-26s %6.2f", name, *row, ratio)
    return ratio, statistics.median(b)


def same_codes(left: list[Codes], right: list[Codes]) -> float:
    """Share of equal codes, the lower one of body and hand."""
    shares = []
    for part in (0, 1):
        pairs = zip(left, right, strict=True)
        shares.append(float(torch.cat([a[part] == b[part] for a, b in pairs]).float().mean()))
    return min(shares)


def joint_difference_mm(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """Mean distance of the joints of two lists of motions (T, 159), pelvis at the origin."""
    pairs = [(joint_positions(a), joint_positions(b)) for a, b in zip(left, right, strict=True)]
    distances = [((a - a[:, :1]) - (b - b[:, :1])).norm(dim=-1).flatten() for a, b in pairs]
    return 1000 * float(torch.cat(distances).mean())


def peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Runs everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=200, help="clips of 60-250 frames")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    clips = make_clips(args.clips, np.random.default_rng(0))
    model, ratios = make_model(clips), {}
    frames = sum(map(len, clips))
    logger.info("%d clips, %d frames, %d threads; milliseconds", len(clips), frames, torch.get_num_threads())
    logger.info("%-34s %-26s %-26s %6s", "", "the original's way (range)", "ours (range)", "ratio")

    theirs = encode_theirs(model, clips)
    identical = same_codes(theirs, encode_ours(model, clips))
    ratios["encode_fp32"], fp32 = compare(
        "encode, float32", lambda: encode_theirs(model, clips), lambda: encode_ours(model, clips), args.repeats
    )
    ratios["decode_fp32"], _ = compare(
        "decode and features, float32",
        lambda: decode_theirs(model, theirs), lambda: decode_ours(model, theirs), args.repeats,
    )  # fmt: skip
    half = make_model(clips).to(torch.bfloat16)
    ratios["decode"], _ = compare(
        "decode and features, bfloat16",
        lambda: decode_theirs(model, theirs), lambda: decode_ours(half, theirs), args.repeats,
    )  # fmt: skip
    ratios["decode_difference_mm"] = joint_difference_mm(decode_ours(half, theirs), decode_ours(model, theirs))
    ratios["ids_equal_bf16"] = same_codes(theirs, encode_ours(half, clips))
    ratios["encode_bf16"], bf16 = compare(
        "encode, bfloat16",
        lambda: encode_theirs(model, clips), lambda: encode_ours(half, clips), args.repeats,
    )  # fmt: skip
    vectors = torch.randn(QUANTIZER_BATCH * QUANTIZER_FRAMES // 4, model.config.body_code_dim)
    quantizer = model.body.quantizer.train()
    ratios["quantizer_step"], _ = compare(
        "quantizer, training step",
        lambda: quantizer_step_theirs(quantizer, vectors), lambda: quantizer(vectors), 4 * args.repeats,
    )  # fmt: skip
    ratios["stream_first_frames"], difference = stream(make_model(clips, causal=True), args.repeats)
    ratios |= {"ids_equal_fp32": identical, "stream_largest_difference": difference}
    report_peak(model, clips, {"float32": fp32, "bfloat16": bf16}, args.repeats, ratios)
    report_memory(half, clips, ratios)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in ratios.items()}))


def stream(model: SolamiMotionVQModel, repeats: int) -> tuple[float, float]:
    """Time of a whole decode over that to a stream's first frames, and the largest difference of the two results."""
    codes = torch.randint(model.config.body_code_num, (2, 1, int(STREAM_SECONDS * CODES_PER_SECOND)))

    def chunks(size: int):
        cache = MotionVQCache()
        for start in range(0, codes.shape[-1], size):
            yield model.decode(*codes[..., start : start + size], cache=cache).motion_values

    whole = model.decode(*codes).motion_values
    ratio, _ = compare(
        f"{STREAM_SECONDS} s of codes: all, first frames",
        lambda: model.decode(*codes), lambda: next(chunks(1)), 4 * repeats,
    )  # fmt: skip
    return ratio, float((torch.cat(list(chunks(4)), dim=1) - whole).abs().max())


def report_peak(model, clips, taken: dict[str, float], repeats: int, ratios: dict[str, float]) -> None:
    """Adds the share of the machine's matrix peak that encoding reaches."""
    with FlopCounterMode(display=False) as counter:
        model.encode(clips[0][None])
    total = counter.get_total_flops() / len(clips[0]) * sum(map(len, clips))
    for name, wall in taken.items():
        peak = matrix_peak(getattr(torch, name), repeats)
        ratios[f"share_of_peak_{name}"] = total / wall / peak
        logger.info("encode, %s: %.0f GFLOP/s of %.0f", name, total / wall / 1e9, peak / 1e9)


def report_memory(model, clips, ratios: dict[str, float]) -> None:
    """Adds by how many MB four times as many clips raise the peak memory of encoding, the clips themselves aside."""
    before = peak_memory_mb()
    encode_ours(model, [clip for clip in clips for _ in range(4)])
    ratios["more_memory_mb_for_4x_clips"] = peak_memory_mb() - before
    logger.info("encode 4 x the clips: %.0f MB more at the peak", ratios["more_memory_mb_for_4x_clips"])


if __name__ == "__main__":
    main()
