"""SoundStorm: 5 s of speech after a 3 s prompt, 4 steps, at the real size (351M weights).

The original's way, written anew from its facts: float32, 11 calls of the network, each with all levels of all frames;
attention as explicit products, convolutions with channels first, the rotary table anew in every call, Gumbel noise
and sorting over every cell of every level.
"""

import math

import torch
from timing import log_row, logger, timed
from torch.nn import functional as F

from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel

FRAME_RATE, PROMPT_SECONDS, SECONDS, STEPS = 50, 3, 5, 4


def soundstorm(repeats: int) -> dict[str, float]:
    """The row: theirs, 11 calls; our default mode, 10 calls; our upstream mode, 11 calls as well."""
    torch.manual_seed(0)
    model = SolamiSoundStormModel(SolamiSoundStormConfig()).eval()
    config = model.config
    semantic = torch.randint(config.num_semantic_codes, (1, SECONDS * FRAME_RATE))
    prompt = torch.randint(config.codebook_size, (1, config.num_quantizers, PROMPT_SECONDS * FRAME_RATE))
    states: list[torch.Tensor] = []

    def ours(mode: str = "corrected", **kwargs) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return model.generate(semantic, prompt, STEPS, generator, mode=mode, **kwargs)

    theirs, expected = timed(lambda: generate(model, semantic, prompt, torch.Generator().manual_seed(1)), repeats)
    # the float32 ways take as long as theirs: fewer repeats
    upstream, same = timed(lambda: ours("upstream"), max(1, repeats - 2))
    corrected, codes = timed(ours, max(1, repeats - 2))
    ours(on_call=states.append)
    model.to(torch.bfloat16)
    half, half_codes = timed(ours, repeats)
    half_upstream, half_same = timed(lambda: ours("upstream"), repeats)
    results = {
        "soundstorm": log_row("SoundStorm, bfloat16", theirs, half),
        "soundstorm_upstream_bf16": log_row("SoundStorm, bfloat16, upstream mode", theirs, half_upstream),
        "soundstorm_fp32": log_row("SoundStorm, float32", theirs, corrected),
        "soundstorm_upstream_fp32": log_row("SoundStorm, float32, upstream mode", theirs, upstream),
        "soundstorm_upstream_codes_equal_fp32": share_equal(same, expected),
        "soundstorm_codes_differ_bf16": 1 - share_equal(half_codes, codes),
        "soundstorm_upstream_codes_differ_bf16": 1 - share_equal(half_same, expected),
        "soundstorm_choices_differ_bf16": choices_differ(model, states, codes),
    }
    logger.info(
        "upstream codes equal in float32: %.4f; codes that differ in bfloat16 (weights are random, so the best codes "
        "are close together): %.4f of one call's choices, %.4f after all calls, %.4f in upstream mode",
        *(results[f"soundstorm_{name}"] for name in (
            "upstream_codes_equal_fp32", "choices_differ_bf16", "codes_differ_bf16", "upstream_codes_differ_bf16"
        )),
    )  # fmt: skip
    return results


def share_equal(codes: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the levels that are filled: (B, levels, T')."""
    return float((codes[:, 1:] == expected[:, 1:]).float().mean())


def choices_differ(model, states: list[torch.Tensor], codes: torch.Tensor) -> float:
    """Share of other choices than float32's for the same inputs, over the levels that take one call each."""
    shares = []
    for level, state in enumerate(states[STEPS:], start=1):
        chosen = model(state).logits[:, level, -codes.shape[2] :].argmax(-1)
        shares.append(float((chosen != codes[:, level + 1]).float().mean()))
    return sum(shares) / len(shares)


def turn(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary positions (T, head_dim) on (B, heads, T, head_dim)."""
    left, right = values.chunk(2, dim=-1)
    return values * positions.cos() + torch.cat((-right, left), dim=-1) * positions.sin()


def attention(part, hidden: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Explicit products and softmax."""
    heads, width = part.head_shape
    hidden = part.norm(hidden)
    query = F.linear(hidden, part.qkv.weight[: heads * width])
    key, value = F.linear(hidden, part.qkv.weight[heads * width :]).chunk(2, dim=-1)
    query, key, value = (x.unflatten(-1, (heads, width)).transpose(1, 2).contiguous() for x in (query, key, value))
    query, key = turn(query, positions), turn(key, positions)
    scores = torch.einsum("bhid,bhjd->bhij", query, key) * width**-0.5
    scores = scores.masked_fill(~mask[:, None, None], -torch.finfo(scores.dtype).max)
    mixed = torch.einsum("bhij,bhjd->bhid", scores.softmax(dim=-1), value)
    return part.out(mixed.transpose(1, 2).flatten(2))


def convolution(part, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Channels first; the channels' norm from mean and variance."""
    hidden = F.conv1d(part.norm(hidden).transpose(1, 2), part.up.weight[..., None], part.up.bias)
    values, gate = hidden.chunk(2, dim=1)
    hidden = (values * gate.sigmoid()).masked_fill(~mask[:, None], 0.0)
    layer = part.depthwise
    hidden = F.conv1d(F.pad(hidden, layer.padding * 2), layer.weight, layer.bias, groups=layer.groups)
    hidden = hidden.masked_fill(~mask[:, None], 0.0)
    hidden = hidden * hidden.sigmoid()
    mean, var = hidden.mean(dim=1, keepdim=True), hidden.var(dim=1, unbiased=False, keepdim=True)
    hidden = (hidden - mean) * var.clamp(min=part.eps).rsqrt() * part.channel_scale[:, None]
    return F.conv1d(hidden, part.down.weight[..., None], part.down.bias).transpose(1, 2)


def feed_forward(part, hidden: torch.Tensor) -> torch.Tensor:
    """Two wide layers."""
    hidden = part.up(part.norm(hidden))
    return part.down(hidden * hidden.sigmoid())


def all_logits(model, cells: torch.Tensor, semantic: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One call of the network: scores (B, T * levels, codes) of cells (B, T * levels) and level 0 (B, T)."""
    config = model.config
    levels = config.num_acoustic_levels
    rows = cells.unflatten(1, (-1, levels)) + torch.arange(levels) * (config.codebook_size + 1)
    hidden = model.code_embedding(rows).sum(dim=2) + model.semantic_embedding(semantic)
    speed = 1.0 / config.rotary_base ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    positions = torch.outer(torch.arange(hidden.shape[1]).float(), speed).repeat(1, 2)
    for layer in model.layers:
        hidden = feed_forward(layer.feed_forward_in, hidden) * 0.5 + hidden
        hidden = attention(layer.attention, hidden, mask, positions) + hidden
        hidden = convolution(layer.convolution, hidden, mask) + hidden
        hidden = feed_forward(layer.feed_forward_out, hidden) * 0.5 + hidden
        hidden = layer.norm(hidden)
    hidden = model.head_norm(model.head_projection(hidden).unflatten(-1, (levels, -1)))
    return (torch.einsum("bnqd,qdl->bnql", hidden, model.head_weight) + model.head_bias).flatten(1, 2)


def draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes drawn among the most probable 30 %, for every cell, and the scores they were drawn from."""
    values, indices = logits.topk(math.ceil((1 - 0.7) * logits.shape[-1]), dim=-1)
    logits = torch.full_like(logits, float("-inf")).scatter_(2, indices, values)
    noise = torch.rand(logits.shape, generator=generator)
    noise = -torch.log(-torch.log(noise + 1e-10) + 1e-10)
    return (logits / max(temperature, 1e-10) + noise).argmax(dim=-1), logits


def generate(model, semantic: torch.Tensor, prompt: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The original's decoding, greedy, with its faults: (B, T') and (B, levels, P) to codes (B, levels, T')."""
    config, size = model.config, semantic.shape[1]
    levels = config.num_acoustic_levels
    cells = torch.full((len(semantic), size, levels), config.mask_code)
    cells = torch.cat([prompt[:, 1:].transpose(1, 2), cells], dim=1)
    conditions = torch.cat([prompt[:, 0], semantic], dim=1)
    mask = torch.ones_like(conditions, dtype=torch.bool)
    outside_prompt = cells == config.mask_code
    hidden_cells = outside_prompt
    counts = (torch.cos(torch.linspace(0.0, 1.0, STEPS + 1) * math.pi / 2) * cells.shape[1]).long().tolist()
    for level in range(levels):
        for step, count in enumerate(counts if level == 0 else [0]):
            logits = all_logits(model, cells.flatten(1), conditions, mask)
            if level > 0:
                chosen = logits.argmax(dim=-1).view_as(cells)
                cells = torch.cat([cells[..., :level], chosen[..., level:]], dim=2)
                continue
            if count == 0:
                cells = torch.where(hidden_cells, logits.argmax(dim=-1).view_as(cells), cells)
                continue
            chosen, logits = draw(logits, step / STEPS, generator)
            cells = torch.where(hidden_cells, chosen.view_as(cells), cells)
            scores = (1 - logits.softmax(dim=-1)).gather(2, chosen[..., None])[..., 0]
            ranked = scores.argsort(dim=-1, descending=True)[:, :count]
            hidden_cells = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, ranked, True).view_as(cells)
            hidden_cells[..., 1:] = True
            hidden_cells = hidden_cells & outside_prompt
            cells = cells.masked_fill(hidden_cells, config.mask_code)
    return torch.cat([semantic[:, None], cells[:, -size:].transpose(1, 2)], dim=1)
