"""Which cells SoundStorm has masked: at random in training, and from all to none in generation.

Masked parallel decoding as in MaskGIT (https://arxiv.org/abs/2202.04200), level by level as in SoundStorm
(https://arxiv.org/abs/2305.09636). A cell is one frame of one level. Levels above the one in work stay masked, as
they are in training.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

# Of all codes, those that a draw chooses from. Written as the original does: 1 - 0.7 is slightly more than 0.3.
TOP_SHARE = 1 - 0.7

Draws = torch.Generator | Callable[[Sequence[int]], torch.Tensor]


def hide_codes(
    audio_codes: torch.Tensor,
    code_mask: torch.Tensor,
    mask_code: int,
    generator: torch.Generator | None = None,
    given: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One training example of each clip: a voice prompt, levels already known, and cells of one level to learn.

    Each clip draws where its prompt ends, which level is learnt, and by the cosine schedule how many of that level's
    cells behind the prompt are masked (at least one). Behind the prompt, higher levels are masked altogether.
    `audio_codes` are (B, num_quantizers, T); `code_mask` (B, T) is boolean, True = real, padding behind, and every
    clip has a real frame. `mask_code` and `given`, its `num_given_levels`, are the config's; `generator` is on the
    CPU, None draws from torch's global one. Returns, as `SolamiSoundStormModel.forward` takes them, the codes with
    masks and labels (B, num_quantizers - given, T), -100 where none is.
    """
    batch, levels, frames = audio_codes.shape
    device = audio_codes.device
    start, depth, amount = torch.rand(3, batch, generator=generator).to(device)
    order = torch.rand(batch, frames, generator=generator).to(device)
    lengths = code_mask.sum(1)
    start = (start * lengths).long()
    level = (depth * (levels - given)).long()
    behind = code_mask & (torch.arange(frames, device=device) >= start[:, None])
    count = (torch.cos(amount * math.pi / 2) * (lengths - start)).ceil().clamp(min=1)
    ranks = order.masked_fill(~behind, 2.0).argsort(1).argsort(1)
    return mask_cells(audio_codes, behind, level, behind & (ranks < count[:, None]), mask_code, given)


def mask_cells(
    audio_codes: torch.Tensor,
    behind: torch.Tensor,
    level: torch.Tensor,
    cells: torch.Tensor,
    mask_code: int,
    given: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The masked codes and labels of `hide_codes` for what was drawn. That is the real frames `behind` the prompt (B,
    T), the acoustic `level` 0, 1, ... that is learnt (B,), and its masked `cells` (B, T)."""
    levels = torch.arange(audio_codes.shape[1] - given, device=audio_codes.device)[:, None]
    level = level[:, None, None]
    learnt = (levels == level) & cells[:, None]
    hidden = learnt | ((levels > level) & behind[:, None])
    acoustic = audio_codes[:, given:]
    masked = torch.cat([audio_codes[:, :given], acoustic.masked_fill(hidden, mask_code)], dim=1)
    return masked, acoustic.masked_fill(~learnt, -100)


def masked_after(step: int, steps: int, cells: int) -> int:
    """Number of `cells` that the cosine schedule leaves masked after `step` (1, 2, ...) of `steps`."""
    return math.floor(math.cos(math.pi / 2 * step / steps) * cells + 1e-9)


@dataclass(frozen=True)
class FillingCall:
    """One call of the network for one level. Which cells it asks for, and how many of them it fills, is known from the
    clips' lengths alone, so the host never waits for a result.

    Args:
        step: 0, 1, ... of the level.
        counts: cells asked for, of each clip.
        asked: (n,) places among the cells still masked; all those of the clips that have any to fill.
        others: (m,) places of the cells of all other clips.
        filled: (k,) places among the asked cells, ordered by clip and falling confidence, that are filled.
        kept: (n - k,) places of the asked cells that stay masked.
    """

    step: int
    counts: list[int]
    asked: torch.Tensor
    others: torch.Tensor
    filled: torch.Tensor
    kept: torch.Tensor


def filling_calls(cells: Sequence[int], steps: int, device: torch.device) -> list[FillingCall]:
    """The calls of a level with so many `cells` to fill in each clip; a step that would fill none is left out."""
    plan, places = [], []
    for step in range(steps):
        left = np.array([masked_after(step, steps, count) for count in cells])
        quota = left - [masked_after(step + 1, steps, count) for count in cells]
        if not quota.any():
            continue
        counts = np.where(quota > 0, left, 0)
        asked = np.repeat(quota > 0, left)
        filled = np.concatenate([np.arange(count) < share for count, share in zip(counts, quota, strict=True)])
        plan.append((step, counts.tolist()))
        places += [np.flatnonzero(chosen) for chosen in (asked, ~asked, filled, ~filled)]
    # one transfer: each would make the host wait for what the device still has to do
    moved = torch.from_numpy(np.concatenate(places)).to(device).split([len(chosen) for chosen in places])
    return [FillingCall(*call, *moved[4 * i : 4 * i + 4]) for i, call in enumerate(plan)]


def fill_levels(
    model,
    codes: torch.Tensor,
    start: Sequence[int],
    length: Sequence[int],
    steps: Sequence[int],
    generator: Draws | Sequence[Draws] | None,
    greedy: bool,
    temperature: float,
    on_call: Callable[[torch.Tensor], None] | None,
) -> torch.Tensor:
    """The default mode of `SolamiSoundStormModel.generate`: codes (B, num_quantizers, N) with every cell filled. What
    does not change is embedded once: `known` sums level 0, the prompt and the finished levels; a call adds the level
    in work, and the masks of those above as one vector. Only the cells still masked leave the last layer. `codes` hold
    prompt codes, and `config.mask_code` in the cells to fill; `start` and `length` are, of each clip, frames of its
    prompt and of what is to be filled behind it; padding comes last. `steps` are those of each acoustic level."""
    config, device = model.config, codes.device
    codes, (batch, _, frames) = codes.clone(), codes.shape
    spans = [np.arange(size) + begin for begin, size in zip(start, length, strict=True)]
    places = np.stack([np.repeat(np.arange(batch), length), np.concatenate(spans)])
    rows, columns = torch.from_numpy(places).to(device)
    cells = rows * frames + columns
    plans = {count: filling_calls(length, count, device) for count in set(steps)}
    draws = _draws_of_rows(generator, batch)
    context = model.context(frames, _real_frames(start, length, frames, device))
    known, above = _embed_known(model, codes, codes[:, -1] == config.mask_code)
    for level, count in enumerate(steps):
        values = torch.full_like(cells, config.mask_code)
        masked = torch.arange(len(cells), device=device)  # places of the cells still masked, in order
        for call in plans[count]:
            if on_call is not None:
                on_call(codes.clone())
            asked = masked[call.asked]
            vectors = model.embed_level(values, level) + above[level]
            embeddings = known.index_add(0, cells, vectors.to(known.dtype)).view(batch, frames, -1)
            logits = model.level_logits(model.encode(embeddings, context, cells[asked]), level)
            noise = None
            if not (greedy and count == 1):
                noise = _noise_of_rows(draws, call.counts, config.codebook_size, device)
            chosen, confidence = choose(logits, noise, temperature * (1 - call.step / count))
            order = confidence.argsort(descending=True, stable=True)
            order = order[rows[asked][order].argsort(stable=True)]  # row by row
            best = order[call.filled]
            values[asked[best]] = chosen[best]
            masked = torch.cat([masked[call.others], asked[order[call.kept]]]).sort().values
            codes[rows, level + config.num_given_levels, columns] = values
        known = known.index_add(0, cells, model.embed_level(values, level).to(known.dtype))
    return codes


def _real_frames(
    start: Sequence[int], length: Sequence[int], frames: int, device: torch.device
) -> torch.Tensor | None:
    """(B, frames) boolean, True = real; None where all are."""
    ends = [begin + size for begin, size in zip(start, length, strict=True)]
    if min(ends) == frames:
        return None
    return torch.arange(frames, device=device) < torch.tensor(ends, device=device)[:, None]


def fill_sums(model, codes: torch.Tensor, start: Sequence[int], length: Sequence[int]) -> torch.Tensor:
    """`fill_levels` for a model with `config.vector_size`: one call tells the sum of each part, and each level takes
    the code nearest to what those before it leave of it. Sampled codes would scatter about the sum, and err more."""
    given, mask_code, unknown = model.config.num_given_levels, model.config.mask_code, codes.clone()
    unknown[:, given:] = mask_code  # the prompt's too, as in training
    context = model.context(codes.shape[2], _real_frames(start, length, codes.shape[2], codes.device))
    left = list(model.sums(model.encode(model.embed(unknown), context)).unbind(2))
    filled = codes.clone()
    for row, vectors in enumerate(model.vectors):
        found = torch.cdist(left[row % given], vectors[None]).argmin(-1)
        left[row % given] = left[row % given] - vectors[found]
        filled[:, given + row] = found
    return torch.where(codes == mask_code, filled, codes)


def fill_upstream(
    model,
    codes: torch.Tensor,
    steps: Sequence[int],
    generator: Draws | None,
    greedy: bool,
    on_call: Callable[[torch.Tensor], None] | None,
) -> torch.Tensor:
    """Generation as the original does it, for comparison; see `SolamiSoundStormModel.generate`. Two faults are kept:
    re-masking ranks the cells of all levels together, so that it masks few of the first, and every later level
    overwrites the prompt and the levels above it."""
    config, levels = model.config, model.config.num_acoustic_levels
    codes = codes.clone()
    frames = codes.shape[2]
    context = model.context(frames)
    shares = torch.cos(torch.linspace(0.0, 1.0, steps[0] + 1) * math.pi / 2)
    plan = [(0, index, count) for index, count in enumerate((shares * frames).long().tolist())]
    plan += [(level, 0, 0) for level in range(1, levels)]
    to_fill = codes[:, 1:] == config.mask_code
    masked = to_fill
    for level, index, count in plan:
        if on_call is not None:
            on_call(codes.clone())
        hidden = model.encode(model.embed(codes), context)
        draws = not greedy or count > 0
        first = 0 if draws else level
        logits = torch.stack([model.level_logits(hidden, above) for above in range(first, levels)], dim=2)
        noise = None
        if draws:
            shape = (len(codes), frames * levels, config.codebook_size)
            noise = gumbel(uniform(generator, shape, logits.device)).view_as(logits)
        chosen, confidence = choose(logits, noise, index / steps[0])
        chosen = chosen.transpose(1, 2)[:, level - first :]
        if level > 0:
            codes[:, level + 1 :] = chosen
            continue
        codes[:, 1:] = torch.where(masked, chosen, codes[:, 1:])
        if count > 0:
            least = (1 - confidence).flatten(1).argsort(dim=-1, descending=True)[:, :count]
            again = torch.zeros_like(confidence, dtype=torch.bool).flatten(1).scatter(1, least, True)
            masked = again.view(confidence.shape).transpose(1, 2).clone()
            masked[:, 1:] = True
            masked &= to_fill
            codes[:, 1:] = codes[:, 1:].masked_fill(masked, config.mask_code)
    return codes


def choose(logits: torch.Tensor, noise: torch.Tensor | None, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (...,) of logits (..., codes) and their probabilities: the most probable ones, or drawn with `noise`. A
    draw is among the `TOP_SHARE` most probable codes; `noise` is Gumbel noise of the shape of the logits."""
    if noise is None:
        chosen = logits.argmax(-1)
    else:
        top = logits.topk(math.ceil(TOP_SHARE * logits.shape[-1]), dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, top.indices, top.values)
        chosen = (logits / max(temperature, 1e-10) + noise).argmax(-1)
    return chosen, logits.softmax(-1).gather(-1, chosen[..., None])[..., 0]


def uniform(source: Draws | None, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Numbers uniform in [0, 1) from a generator, a function of the shape, or (None) torch's global generator."""
    if source is None or isinstance(source, torch.Generator):
        drawn = torch.rand(shape, generator=source, device=device if source is None else source.device)
    elif callable(source):
        drawn = source(shape)
    else:
        raise ValueError(f"generator is {type(source).__name__}, expected a torch.Generator or a function of a shape")
    if tuple(drawn.shape) != tuple(shape):
        raise ValueError(f"generator gave numbers of shape {tuple(drawn.shape)}, expected {tuple(shape)}")
    return drawn.to(device)


def gumbel(uniforms: torch.Tensor) -> torch.Tensor:
    """Gumbel noise of uniform numbers in [0, 1)."""
    return -torch.log(-torch.log(uniforms + 1e-10) + 1e-10)


def _embed_known(model, codes: torch.Tensor, to_fill: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of known cells (B * N, hidden_size), and the sum of mask vectors above each level (levels, ...)."""
    levels, mask_code = model.config.num_acoustic_levels, model.config.mask_code
    masks = [model.embed_level(codes.new_tensor(mask_code), level) for level in range(levels)]
    masks = torch.stack(masks).to(torch.promote_types(model.dtype, torch.float32))
    return (model.embed(codes) - masks.sum(0) * to_fill[..., None]).flatten(0, 1), masks.sum(0) - masks.cumsum(0)


def _draws_of_rows(generator: Draws | Sequence[Draws] | None, batch: int) -> list[Draws] | None:
    if generator is None:
        return None
    draws = list(generator) if isinstance(generator, list | tuple) else [generator] * batch
    if len(draws) != batch:
        raise ValueError(f"generator has {len(draws)} entries for {batch} clips, expected one each, or one for all")
    return draws


def _noise_of_rows(
    draws: list[Draws] | None, counts: list[int], codes: int, device: torch.device
) -> torch.Tensor | None:
    """Gumbel noise (n, codes) for so many cells of each clip, in order; each clip draws for its own cells."""
    if draws is None:
        return None
    drawn = [uniform(source, (count, codes), device) for source, count in zip(draws, counts, strict=True) if count]
    return gumbel(torch.cat(drawn))
