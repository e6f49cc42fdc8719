"""Quantizers of latent vectors: a codebook that follows its data by moving averages, and finite scalar steps."""

import math
from collections.abc import Sequence

import torch
from torch import distributed, nn
from torch.nn import functional as F


class Float32Buffers:
    """Keeps a module's own buffers in float32 when it is cast, for example by `.bfloat16()` or DeepSpeed. In half
    precision, moving averages lose their small steps and statistics their digits."""

    def _apply(self, fn, recurse: bool = True):
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers(recurse=False):
            if buffer.dtype != kept[name].dtype:
                setattr(self, name, kept[name].to(buffer.device))
        return self


class EmaQuantizer(Float32Buffers, nn.Module):
    """Nearest-vector quantizer; in training the codebook is a moving average of what it stood for.

    After SOLAMI's and MotionGPT's `QuantizeEMAReset` (van den Oord et al., arXiv 1711.00937, appendix A.1). The whole
    state lies in persistent buffers, so a loaded codebook stays what it was: it is initialised from data only where
    `initialised` is still false. On several ranks (torch.distributed) a step counts the vectors of all of them, and
    what is drawn at random comes from rank 0, so that the codebooks stay one.

    There are `code_num` codes of width `code_dim`; `decay` is the share of the old averages that a training step
    keeps. Codes with a smaller averaged count than `dead_code_threshold` are replaced by vectors of the batch, drawn
    at random with `random_restart`, else the one of the same index, as the original does. Codes with less than
    `dead_code_share` of the average count are replaced too, whatever the batch's size; a replaced code then counts as
    one of average use, and stays until it falls behind again. `seed` is of what the codebook holds before it has seen
    data. While `bypass` is true, vectors pass unquantised and nothing is updated: a warm-up for the networks around
    it; while `frozen` is true, training quantizes and does not move the codebook.
    """

    def __init__(
        self,
        code_num: int,
        code_dim: int,
        decay: float = 0.99,
        dead_code_threshold: float = 1.0,
        random_restart: bool = True,
        dead_code_share: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.code_num, self.code_dim, self.seed = code_num, code_dim, seed
        self.decay, self.dead_code_threshold, self.random_restart = decay, dead_code_threshold, random_restart
        self.dead_code_share = dead_code_share
        self.bypass = self.frozen = False
        self.register_buffer("codebook", fixed_normal(code_num, code_dim, seed=seed))
        self.register_averages()

    def register_averages(self) -> None:
        """Adds the buffers beside `codebook`: sums and counts of each code's vectors, and whether data was seen."""
        self.register_buffer("code_sum", torch.zeros(self.code_num, self.code_dim))
        self.register_buffer("code_count", torch.ones(self.code_num))
        self.register_buffer("initialised", torch.tensor(False))

    def encode(self, vectors: torch.Tensor) -> torch.Tensor:
        """Indices (M,) of the nearest code of each vector (M, D), compared in float32."""
        return self._distances(vectors).argmin(-1)

    def nearest(self, vectors: torch.Tensor, count: int) -> torch.Tensor:
        """Indices (M, count) of the `count` nearest codes (all, if there are fewer), the nearest first."""
        return self._distances(vectors).topk(min(count, self.code_num), largest=False).indices

    def _distances(self, vectors: torch.Tensor) -> torch.Tensor:
        with torch.autocast(vectors.device.type, enabled=False):  # it would compare in half precision
            # |v|^2 is the same for every code; addmm fuses |c|^2 - 2 v.c
            codebook = self.codebook
            return torch.addmm(codebook.square().sum(-1), vectors.float(), codebook.t(), alpha=-2)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Code vectors (..., D) of indices (...)."""
        return F.embedding(codes, self.codebook)

    def forward(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantizes (M, D); in training mode also updates the codebook. Returns the code vectors (M, D) with a
        straight-through gradient, the commitment loss (scalar), the codes (M,)."""
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            if self.training and not self.bypass and not self.initialised:
                self.initialise(vectors.detach())
            codes = self.encode(vectors.detach())
            if self.bypass:
                return vectors, vectors.new_zeros(()), codes
            # taken before the update: the step trains on the codebook that it has used
            quantized = self.decode(codes)
            if self.training and not self.frozen:
                self.update(vectors.detach(), codes)
            commitment = F.mse_loss(vectors, quantized)
            return vectors + (quantized - vectors).detach(), commitment, codes

    @torch.no_grad()
    def initialise(self, vectors: torch.Tensor, kmeans_steps: int = 0) -> None:
        """Starts the codebook from data (M, D): its first vectors, or random ones refined by Lloyd's k-means."""
        if len(vectors) == 0:
            raise ValueError("`vectors` is empty, expected at least one vector to start the codebook from.")
        vectors = vectors.float()
        if kmeans_steps:
            vectors = vectors[torch.randperm(len(vectors), device=vectors.device)]
        self.codebook.copy_(self._tile(vectors))
        for _ in range(kmeans_steps):
            code_sum, count = self._statistics(vectors, self.encode(vectors))
            spare = vectors[torch.randint(len(vectors), (self.code_num,), device=vectors.device)]
            mean = code_sum / count.clamp_min(1)[:, None]
            self.codebook.copy_(torch.where(count[:, None] > 0, mean, spare))
        self.set_codes(self.codebook, torch.ones_like(self.code_count))

    @torch.no_grad()
    def set_codes(self, vectors: torch.Tensor, counts: torch.Tensor) -> None:
        """Takes `vectors` (N, D) as the codebook, and `counts` (N,) as what was averaged of their use."""
        self.codebook.copy_(vectors)
        self.code_count.copy_(counts.clamp(min=1e-3))
        take_from_first_rank(self.codebook)
        take_from_first_rank(self.code_count)
        self.code_sum.copy_(self.codebook * self.code_count[:, None])
        self.initialised.fill_(1)

    @torch.no_grad()
    def update(self, vectors: torch.Tensor, codes: torch.Tensor) -> None:
        """One step of the moving averages with vectors (M, D) and their codes (M,); dead codes are replaced."""
        vectors = vectors.to(self.codebook.dtype)
        code_sum, count = self._statistics(vectors, codes)
        add_over_ranks(code_sum)
        add_over_ranks(count)
        # multiplied and added apart: a fused 0.99 * 1 + 0.01 rounds to 0.99999994, below the threshold of 1
        code_sum = self.code_sum * self.decay + code_sum.mul_(1 - self.decay)
        self.code_count.mul_(self.decay).add_(count.mul_(1 - self.decay))
        average = self.code_count.mean()
        alive = self.code_count >= (self.dead_code_share * average).clamp_min(self.dead_code_threshold)
        if self.dead_code_share:
            spare = vectors[torch.randint(len(vectors), (self.code_num,), device=vectors.device)]
        else:
            if self.random_restart and len(vectors) > self.code_num:
                vectors = vectors[torch.randperm(len(vectors), device=vectors.device)[: self.code_num]]
            spare = self._tile(vectors).contiguous()
        take_from_first_rank(spare)
        if self.dead_code_share:
            code_sum = torch.where(alive[:, None], code_sum, spare * average)
            self.code_count.copy_(torch.where(alive, self.code_count, average))
            alive = torch.ones_like(alive)
        mean = code_sum / self.code_count.clamp_min(1e-12)[:, None]
        self.codebook.copy_(torch.where(alive[:, None], mean, spare))
        self.code_sum.copy_(code_sum)

    def _statistics(self, vectors: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum (N, D) and number (N,) of the vectors of each code."""
        code_sum = torch.zeros_like(self.codebook).index_add_(0, codes, vectors)
        return code_sum, torch.bincount(codes, minlength=self.code_num).to(self.code_count.dtype)

    def _tile(self, vectors: torch.Tensor) -> torch.Tensor:
        """Exactly N vectors (N, D); too few are repeated with a little noise, so that no two codes are equal."""
        if len(vectors) < self.code_num:
            repeats = -(-self.code_num // len(vectors))
            vectors = vectors.repeat(repeats, 1)
            vectors = vectors + torch.randn_like(vectors) * (0.01 / self.code_dim**0.5)
        return vectors[: self.code_num]


class FiniteScalarQuantizer(nn.Module):
    """Rounds each of a few channels to a few steps; every combination of steps is a code (FSQ, arXiv 2309.15505).
    There is no codebook to learn, so none of its codes can die, and none to wait for: it always quantizes. (Networks
    that learn without rounding at first hide what they have to say within one step.) `levels` are numbers of steps of
    each channel, whose product is the number of codes; linear layers lead from vectors of width `code_dim` to the
    channels and back."""

    bypass = False

    def __init__(self, levels: list[int] | tuple[int, ...], code_dim: int):
        super().__init__()
        self.levels, self.code_num, self.code_dim = tuple(levels), math.prod(levels), code_dim
        self.project_in = nn.Linear(code_dim, len(levels))
        self.project_out = nn.Linear(len(levels), code_dim)

    def encode(self, vectors: torch.Tensor) -> torch.Tensor:
        """Codes (M,) of vectors (M, D)."""
        return self._codes(self._steps(vectors).round())

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Vectors (..., D) of codes (...)."""
        levels, weights = self._layout(codes.device)
        return self._vectors(codes[..., None] // weights % levels)

    def forward(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Vectors (M, D) quantized, with a straight-through gradient, a commitment loss of zero, the codes (M,)."""
        steps = self._steps(vectors)
        rounded = steps.round()
        return self._vectors(steps + (rounded - steps).detach()), steps.new_zeros(()), self._codes(rounded)

    def _steps(self, vectors: torch.Tensor) -> torch.Tensor:
        """Places of vectors (..., D) on the steps 0 to L - 1 of each channel, (..., C) in float32, unrounded. The
        paper shifts channels with an even L by half a step; here all have bins of equal width about zero, which also
        serves L = 2."""
        levels = self._layout(vectors.device)[0]
        # encodings of any size would all end on the outermost steps, where tanh has no slope
        vectors = F.layer_norm(vectors.to(self.project_in.weight.dtype), (self.code_dim,))
        channels = self.project_in(vectors).float()
        steps = (channels.tanh() + 1) / 2 * levels - 0.5
        # tanh reaches 1 in float32, and round() takes halves to even numbers: stay off both ends
        return steps.clamp(torch.full_like(steps, -0.499), levels - 0.501)

    def _vectors(self, steps: torch.Tensor) -> torch.Tensor:
        levels = self._layout(steps.device)[0]
        return self.project_out(((2 * steps + 1) / levels - 1).to(self.project_out.weight.dtype))

    def _codes(self, rounded: torch.Tensor) -> torch.Tensor:
        return (rounded.long() * self._layout(rounded.device)[1]).sum(-1)

    def _layout(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Levels (C,) and what a step of each channel adds to the code (C,)."""
        weights = [math.prod(self.levels[:channel]) for channel in range(len(self.levels))]
        return torch.tensor(self.levels, device=device), torch.tensor(weights, device=device)


def quantize_residual(
    levels: Sequence[nn.Module], vectors: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantizes (M, D) by levels, each of which codes what those before it left over; in training they learn. One
    quantizer may stand for several levels; `kept` (M,) says how many of each vector are decoded; the codebooks learn
    from all. Returns quantized (M, D) with one straight-through gradient, that of level 0 alone, the commitment loss
    (mean over the levels), and the codes (levels, M)."""
    residual, total, first, commitment, codes = vectors, 0.0, None, vectors.new_zeros(()), []
    for depth, level in enumerate(levels):
        chosen, _, found = level(residual)
        left, keep = residual - chosen.detach(), (kept > depth).to(vectors.dtype)[:, None]
        if isinstance(level, EmaQuantizer):
            commitment = commitment + (left.square() * keep).mean()
            chosen = chosen if depth == 0 else chosen.detach()
        first = chosen if depth == 0 else first
        total, residual = total + chosen * keep, left
        codes.append(found)
    return total, first, commitment / len(levels), torch.stack(codes)


def residual_codes(
    levels: Sequence[nn.Module], vectors: torch.Tensor, given: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """Codes (levels, M) of vectors (M, D), each level's of what those before it leave; `given`: codes (M,) of the
    first levels that were chosen already."""
    codes = []
    for depth, level in enumerate(levels):
        if depth:
            vectors = vectors - levels[depth - 1].decode(codes[-1]).to(vectors.dtype)
        codes.append(given[depth] if depth < len(given) else level.encode(vectors))
    return torch.stack(codes)


def nearest_sums(
    levels: Sequence[EmaQuantizer], vectors: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (M, count, levels) whose vectors add up nearest to vectors (M, D), nearest first, and what they add up to
    (M, count, D); a beam of `count` goes from level to level. Fewer where there are not as many."""
    codes, sums = torch.empty(len(vectors), 1, 0, dtype=torch.long, device=vectors.device), vectors[:, None] * 0
    for level in levels:
        near = level.nearest((vectors[:, None] - sums).flatten(0, 1), count).unflatten(0, sums.shape[:2])
        tried = (sums[:, :, None] + level.decode(near)).flatten(1, 2)
        known = torch.cat([codes[:, :, None].expand(*near.shape, -1), near[..., None]], dim=-1).flatten(1, 2)
        away = (tried - vectors[:, None]).square().sum(-1)
        best = away.topk(min(count, away.shape[1]), largest=False).indices[..., None]
        codes, sums = known.take_along_dim(best, 1), tried.take_along_dim(best, 1)
    return codes, sums


def fixed_normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers, the same whenever they are asked for: what a codebook holds before it has seen data. A
    model that is built without weights and filled later then starts as one built at once."""
    values = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    return values.to(torch.get_default_device())


def _several_ranks() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def add_over_ranks(values: torch.Tensor) -> None:
    """Adds up `values` of all ranks, in place."""
    if _several_ranks():
        distributed.all_reduce(values)


def take_from_first_rank(values: torch.Tensor) -> None:
    """Overwrites `values` with those of rank 0."""
    if _several_ranks():
        distributed.broadcast(values, src=0)


def perplexity(codes: torch.Tensor, code_num: int) -> torch.Tensor:
    """exp of the entropy of the codes (M,): 1 where one code does everything, `code_num` where all are used alike."""
    share = torch.bincount(codes, minlength=code_num).float()
    share = share / share.sum().clamp_min(1)
    return torch.exp(-(share * torch.log(share + 1e-7)).sum())


def usage(codes: torch.Tensor, code_num: int) -> torch.Tensor:
    """Share of the codebook that the codes (M,) use, in [0, 1]."""
    return (torch.bincount(codes, minlength=code_num) > 0).float().mean()
