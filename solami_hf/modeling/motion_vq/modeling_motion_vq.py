"""Motion tokenizers: body and hand VQ-VAE, transform VQ, and the statistics that normalise their features.

After SOLAMI (arXiv 2412.00174), whose networks are those of T2M-GPT (arXiv 2301.06052). A padded batch gives the codes
that each clip gives alone: whatever lies behind a clip's end is zero before every convolution, as at the end of a
lone clip. With `config.bound` one VQ-VAE, the body's, reads the hands' features too, and there are no hand codes. With
`config.causal` every convolution looks back only, so codes can be made and read while the motion goes on (see
[`MotionVQCache`]).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..remote_code import CarriesItsCode
from .configuration_motion_vq import SolamiMotionVQConfig
from .kinematics import pelvis_way
from .motion_representation import FEATURES_JOINTS, joint_places, raw_features, represent
from .quantizers import (
    EmaQuantizer,
    FiniteScalarQuantizer,
    Float32Buffers,
    fixed_normal,
    nearest_sums,
    perplexity,
    quantize_residual,
    residual_codes,
    usage,
)

_ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}
_GROUPS, _GROUP_EPS = 32, 1e-6
_FEW_STEPS = 128  # batch times frames
_REACH, _CONTEXT = 2, 5  # of a search: codes on either side whose joints count, and that are decoded


@dataclass
class SolamiMotionVQEncoderOutput(ModelOutput):
    """Codes of a batch of motions.

    Args:
        body_codes (`torch.LongTensor` of shape `(batch, frames // 4)`): -1 behind a clip's end.
        hand_codes (`torch.LongTensor` of shape `(batch, frames // 4)`): -1 behind a clip's end; `None` of a bound
            tokenizer.
        code_mask (`torch.BoolTensor` of shape `(batch, frames // 4)`): True = real.
        body_levels, hand_levels (`torch.LongTensor` of shape `(batch, num_levels, frames // 4)`): the codes of every
            level, level 0 among them; `None` where there is one level.
    """

    body_codes: torch.LongTensor | None = None
    hand_codes: torch.LongTensor | None = None
    code_mask: torch.BoolTensor | None = None
    body_levels: torch.LongTensor | None = None
    hand_levels: torch.LongTensor | None = None


@dataclass
class SolamiMotionVQDecoderOutput(ModelOutput):
    """Motions of a batch of codes: `motion_values` (batch, 4 * codes, 315), raw features, zero behind a clip's end,
    and `padding_mask` (batch, 4 * codes) boolean, True = real."""

    motion_values: torch.FloatTensor | None = None
    padding_mask: torch.BoolTensor | None = None


@dataclass
class SolamiMotionVQOutput(ModelOutput):
    """Loss and reconstruction. Losses are scalars over normalised features.

    Args:
        loss: the weighted sum of the parts.
        feature_loss: SmoothL1 of all features.
        velocity_loss: SmoothL1 of the first features (root and torso), which count again.
        commitment_loss: of body plus hand.
        transform_loss, transform_commitment_loss: the same for the transform; `None` without one.
        motion_values (`(batch, 4 * codes, 315)`): reconstruction in raw features, zero behind a clip's end.
        padding_mask (`(batch, 4 * codes)`): True = real; `None` where none came in: everything is real.
        transform (`(batch, 5)`): reconstruction of the transform; `None` without one.
        body_codes, hand_codes, code_mask, transform_codes: as in `SolamiMotionVQModel.encode`; `code_mask` is `None`
            where no mask came in.
        body_perplexity, hand_perplexity, transform_perplexity: effective number of codes in the batch.
        body_usage, hand_usage: share of the codebook that the batch uses, in [0, 1].
        hidden_states: of the body's encoder, `(batch, frames, body_width)` before its stages and behind each of them,
            with half the frames each time; `None` unless asked for.

    What is the hand's is `None` where the tokenizer is bound.
    """

    loss: torch.FloatTensor | None = None
    feature_loss: torch.FloatTensor | None = None
    velocity_loss: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None
    transform_loss: torch.FloatTensor | None = None
    transform_commitment_loss: torch.FloatTensor | None = None
    motion_values: torch.FloatTensor | None = None
    padding_mask: torch.BoolTensor | None = None
    transform: torch.FloatTensor | None = None
    body_codes: torch.LongTensor | None = None
    hand_codes: torch.LongTensor | None = None
    code_mask: torch.BoolTensor | None = None
    transform_codes: torch.LongTensor | None = None
    body_perplexity: torch.FloatTensor | None = None
    hand_perplexity: torch.FloatTensor | None = None
    transform_perplexity: torch.FloatTensor | None = None
    body_usage: torch.FloatTensor | None = None
    hand_usage: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


def _keep(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Zeroes, in place, what lies behind the clips' ends: hidden (B, T, C), mask (B, T)."""
    return hidden if mask is None else hidden.mul_(mask[..., None].to(hidden.dtype))


class MotionVQCache:
    """State of a causal tokenizer between the chunks of a stream: the last inputs of each convolution. Make one for
    each stream and pass it to every `encode` or `decode` call of that stream, chunk after chunk; the chunks then give
    what the whole clip gives at once. One cache serves one direction."""

    def __init__(self):
        self._inputs: dict[nn.Module, torch.Tensor] = {}

    def extend(self, layer: nn.Module, hidden: torch.Tensor, length: int) -> torch.Tensor:
        """Puts the `length` inputs that `layer` saw last before `hidden` (B, T, C), zeros at first."""
        past = self._inputs.get(layer)
        if past is None:
            past = hidden.new_zeros(hidden.shape[0], length, hidden.shape[2])
        elif past.shape[0] != hidden.shape[0]:
            raise ValueError(f"The chunk has {hidden.shape[0]} clips, expected {past.shape[0]} as in those before it.")
        hidden = torch.cat([past, hidden], dim=1)
        self._inputs[layer] = hidden[:, hidden.shape[1] - length :]
        return hidden


class MotionConv1d(nn.Conv1d):
    """Convolution over time, (B, T, C) -> (B, T // stride, C'); a causal one looks back only. On CPUs `nn.Conv1d`
    reorders input, weights and output at each call. Few steps are therefore multiplied as a matrix of windows, many as
    a 2-D convolution of height 1, which takes channels that lie last in memory as they are. `benchmarks/motion.py`
    measures the whole."""

    def __init__(self, channels: int, out: int, kernel: int, causal: bool, stride: int = 1, dilation: int = 1):
        self.past = dilation * (kernel - 1) + 1 - stride
        padding = 0 if causal else self.past // 2
        super().__init__(channels, out, kernel, stride=stride, dilation=dilation, padding=padding)
        self.causal = causal

    def forward(self, hidden: torch.Tensor, cache: MotionVQCache | None = None) -> torch.Tensor:
        if cache is not None and self.past:
            hidden = cache.extend(self, hidden, self.past)
        elif self.causal and self.past:
            hidden = F.pad(hidden, (0, 0, self.past, 0))
        if hidden.device.type == "cpu" and hidden.shape[0] * hidden.shape[1] <= _FEW_STEPS:
            if self.padding[0]:
                hidden = F.pad(hidden, (0, 0, self.padding[0], self.padding[0]))
            if self.kernel_size[0] > 1:
                windows = hidden.unfold(1, self.past + self.stride[0], self.stride[0])
                hidden = windows[..., :: self.dilation[0]].flatten(2)
            return F.linear(hidden, self.weight.flatten(1), self.bias)
        hidden = F.conv2d(
            hidden.transpose(1, 2).unsqueeze(2),
            self.weight.unsqueeze(2),
            self.bias,
            stride=(1, *self.stride),
            padding=(0, *self.padding),
            dilation=(1, *self.dilation),
        )
        return hidden.squeeze(2).transpose(1, 2)


class MaskedGroupNorm(nn.GroupNorm):
    """GroupNorm over channels and time (B, T, C) whose statistics leave out what the mask (B, T) marks as padding."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if mask is None:  # unlike F.group_norm this takes a single value a group too: the shortest clip has one step
            normed = torch.group_norm(hidden.transpose(1, 2), self.num_groups, self.weight, self.bias, self.eps)
            return normed.transpose(1, 2)
        grouped = hidden.unflatten(2, (self.num_groups, -1))
        real = mask[..., None, None].to(hidden.dtype)
        count = (real.sum(1, keepdim=True) * grouped.shape[3]).clamp_min(1)
        mean = (grouped * real).sum((1, 3), keepdim=True) / count
        variance = ((grouped - mean).square() * real).sum((1, 3), keepdim=True) / count
        normed = ((grouped - mean) * torch.rsqrt(variance + self.eps)).flatten(2)
        return _keep(normed * self.weight + self.bias, mask)


class ResidualBlock(nn.Module):
    """x + conv1(act(conv3(act(x)))), the first convolution dilated; each activation optionally after a norm. What
    comes in is zero behind the clips' ends, and every activation keeps zeros."""

    def __init__(self, config: SolamiMotionVQConfig, part: str, dilation: int):
        super().__init__()
        width, grouped = getattr(config, f"{part}_width"), getattr(config, f"{part}_norm") == "group"
        self.activation = _ACTIVATIONS[getattr(config, f"{part}_activation")]
        self.norm1 = MaskedGroupNorm(_GROUPS, width, eps=_GROUP_EPS) if grouped else None
        self.norm2 = MaskedGroupNorm(_GROUPS, width, eps=_GROUP_EPS) if grouped else None
        self.conv1 = MotionConv1d(width, width, 3, config.causal, dilation=dilation)
        self.conv2 = MotionConv1d(width, width, 1, config.causal)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, cache: MotionVQCache | None = None
    ) -> torch.Tensor:
        inner = hidden if self.norm1 is None else self.norm1(hidden, mask)
        inner = self.conv1(self.activation(inner), cache)
        inner = inner if self.norm2 is None else self.norm2(inner, mask)
        return _keep(self.conv2(self.activation(inner)).add_(hidden), mask)


def _residual_blocks(config: SolamiMotionVQConfig, part: str) -> nn.ModuleList:
    growth, depth = getattr(config, f"{part}_dilation_growth_rate"), getattr(config, f"{part}_depth")
    return nn.ModuleList(ResidualBlock(config, part, growth**power) for power in reversed(range(depth)))


class EncoderStage(nn.Module):
    """Halves the time, then residual blocks: (B, T, C) -> (B, T // 2, C)."""

    def __init__(self, config: SolamiMotionVQConfig, part: str):
        super().__init__()
        width = getattr(config, f"{part}_width")
        self.down = MotionConv1d(width, width, 4, config.causal, stride=2)
        self.blocks = _residual_blocks(config, part)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None, cache: MotionVQCache | None) -> torch.Tensor:
        hidden = _keep(self.down(hidden, cache), mask)
        for block in self.blocks:
            hidden = block(hidden, mask, cache)
        return hidden


class DecoderStage(nn.Module):
    """Residual blocks, then twice the time: (B, T, C) -> (B, 2 T, C). Masks are of both rates."""

    def __init__(self, config: SolamiMotionVQConfig, part: str):
        super().__init__()
        width = getattr(config, f"{part}_width")
        self.blocks = _residual_blocks(config, part)
        self.up = MotionConv1d(width, width, 3, config.causal)

    def forward(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        up_mask: torch.Tensor | None,
        cache: MotionVQCache | None,
    ) -> torch.Tensor:
        for block in self.blocks:
            hidden = block(hidden, mask, cache)
        return _keep(self.up(hidden.repeat_interleave(2, dim=1), cache), up_mask)


def _quantizer(config: SolamiMotionVQConfig, part: str) -> EmaQuantizer | FiniteScalarQuantizer:
    if config.quantizer == "fsq" and part != "transform":
        return FiniteScalarQuantizer(getattr(config, f"{part}_fsq_levels"), getattr(config, f"{part}_code_dim"))
    return EmaQuantizer(
        getattr(config, f"{part}_code_num"),
        getattr(config, f"{part}_code_dim"),
        config.codebook_decay,
        config.dead_code_threshold,
        config.random_restart,
    )


class MotionVQVAE(nn.Module):
    """One convolutional VQ-VAE over normalised features (B, T, F); `part` is "body" or "hand". The configured
    activation is that of the residual blocks; outside of them it is ReLU, as in the original."""

    def __init__(self, config: SolamiMotionVQConfig, part: str):
        super().__init__()
        features = config.input_sizes.get(part)  # a residual hand has codes alone
        self.encoder = nn.ModuleDict(self.encoder_layers(config, part, features) if features else {})
        self.quantizer = _quantizer(config, part)  # of level 0
        own = config.num_levels - 1
        self.repeats = own if config.shared_levels else 1
        self.residual = nn.ModuleList(_quantizer(config, part) for _ in range(own // self.repeats if own else 0))
        self.decoder = nn.ModuleDict(self.decoder_layers(config, part, features) if features else {})

    def encoder_layers(self, config: SolamiMotionVQConfig, part: str, features: int) -> dict[str, nn.Module]:
        width, code_dim, causal = getattr(config, f"{part}_width"), getattr(config, f"{part}_code_dim"), config.causal
        return {
            "conv_in": MotionConv1d(features, width, 3, causal),
            "stages": nn.ModuleList(EncoderStage(config, part) for _ in range(config.down_t)),
            "conv_out": MotionConv1d(width, code_dim, 3, causal),
        }

    def decoder_layers(self, config: SolamiMotionVQConfig, part: str, features: int) -> dict[str, nn.Module]:
        width, code_dim, causal = getattr(config, f"{part}_width"), getattr(config, f"{part}_code_dim"), config.causal
        return {
            "conv_in": MotionConv1d(code_dim, width, 3, causal),
            "stages": nn.ModuleList(DecoderStage(config, part) for _ in range(config.down_t)),
            "conv_mid": MotionConv1d(width, width, 3, causal),
            "conv_out": MotionConv1d(width, features, 3, causal),
        }

    @property
    def levels(self) -> list[nn.Module]:
        """The quantizer of each level."""
        return [self.quantizer, *list(self.residual) * self.repeats]

    def encode(
        self, features: torch.Tensor, masks: list[torch.Tensor | None], cache: MotionVQCache | None = None
    ) -> torch.Tensor:
        """Latents (B, T', D) of features (B, T, F), zero where padded; `masks` go from full rate to that of codes."""
        hidden = F.relu_(_keep(self.encoder["conv_in"](features, cache), masks[0]))
        for stage, mask in zip(self.encoder["stages"], masks[1:], strict=True):
            hidden = stage(hidden, mask, cache)
        return self.encoder["conv_out"](hidden, cache)

    def decode(
        self, latents: torch.Tensor, masks: list[torch.Tensor | None], cache: MotionVQCache | None = None
    ) -> torch.Tensor:
        """Features (B, 4 T', F) of latents (B, T', D), which are overwritten; `masks` go from full rate to that of
        codes."""
        masks = masks[::-1]
        hidden = F.relu_(_keep(self.decoder["conv_in"](_keep(latents, masks[0]), cache), masks[0]))
        for stage, mask, up_mask in zip(self.decoder["stages"], masks[:-1], masks[1:], strict=True):
            hidden = stage(hidden, mask, up_mask, cache)
        hidden = F.relu_(_keep(self.decoder["conv_mid"](hidden, cache), masks[-1]))
        return _keep(self.decoder["conv_out"](hidden, cache), masks[-1])


class LinearMotionVQVAE(MotionVQVAE):
    """Linear maps of a code's frames to its latent and back, and residual blocks that mend latents before the latter.
    The maps and the quantizers are started from data and stay as they are, so codes do, and training is cheap: at the
    rate of codes, and of the decoder alone."""

    def encoder_layers(self, config: SolamiMotionVQConfig, part: str, features: int) -> dict[str, nn.Module]:
        frames, code_dim = config.frames_per_code, getattr(config, f"{part}_code_dim")
        return {"linear": MotionConv1d(features, code_dim, frames, config.causal, stride=frames)}

    def decoder_layers(self, config: SolamiMotionVQConfig, part: str, features: int) -> dict[str, nn.Module]:
        width, code_dim, causal = getattr(config, f"{part}_width"), getattr(config, f"{part}_code_dim"), config.causal
        return {
            "conv_in": MotionConv1d(code_dim, width, 3, causal),
            "blocks": _residual_blocks(config, part),
            "conv_out": MotionConv1d(width, code_dim, 3, causal),
            "linear": nn.Linear(code_dim, config.frames_per_code * features),
        }

    def encode(
        self, features: torch.Tensor, masks: list[torch.Tensor | None], cache: MotionVQCache | None = None
    ) -> torch.Tensor:
        return self.encoder["linear"](features, cache)

    def decode(
        self, latents: torch.Tensor, masks: list[torch.Tensor | None], cache: MotionVQCache | None = None
    ) -> torch.Tensor:
        mask = masks[-1]
        hidden = F.relu_(_keep(self.decoder["conv_in"](_keep(latents, mask), cache), mask))
        for block in self.decoder["blocks"]:
            hidden = block(hidden, mask, cache)
        values = self.decoder["linear"](latents + self.decoder["conv_out"](hidden, cache))
        frames = len(self.decoder["linear"].bias) // self.encoder["linear"].in_channels
        return _keep(values.unflatten(2, (frames, -1)).flatten(1, 2), masks[0])


class TransformMLP(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (nn.Linear(sizes[i], sizes[i + 1]) for i in range(3))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(values)))))


class TransformVQ(nn.Module):
    """VQ-VAE of one vector a motion (B, 5): where the user stands, as the character sees it."""

    def __init__(self, config: SolamiMotionVQConfig):
        super().__init__()
        size, hidden = config.transform_features_size, config.transform_hidden_sizes
        self.encoder = TransformMLP([size, *hidden, config.transform_code_dim])
        self.quantizer = _quantizer(config, "transform")
        self.decoder = TransformMLP([config.transform_code_dim, *hidden, size])


class SolamiMotionVQModel(Float32Buffers, CarriesItsCode, PreTrainedModel):
    """Body, hand and transform tokenizers with their normalisation statistics. `mean`, `std` (315,) and
    `transform_mean`, `transform_std` (5,) are persistent buffers: raw features go in and come out. A standard
    deviation below `config.std_floor` counts as that floor. They and the codebooks stay in float32 whatever the dtype
    of the networks. With another `config.representation` than local rotations, `mean` and `std` are those of what
    `represent` gives. `hand` is `None` where `config.bound`."""

    code_file = __file__
    config_class = SolamiMotionVQConfig
    base_model_prefix = "motion_vq"
    main_input_name = "motion_values"
    _keep_in_fp32_modules_strict = [
        "codebook", "code_sum", "code_count", "mean", "std", "transform_mean", "transform_std"
    ]  # fmt: skip
    _can_record_outputs = {"hidden_states": OutputRecorder(EncoderStage, layer_name="body.encoder")}

    def __init__(self, config: SolamiMotionVQConfig):
        super().__init__(config)
        kind = LinearMotionVQVAE if config.network == "linear" else MotionVQVAE
        self.body = kind(config, "body")
        self.hand = None if config.bound else kind(config, "hand")
        self.transform = TransformVQ(config)
        size = sum(config.input_sizes.values())
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("transform_mean", torch.zeros(config.transform_features_size))
        self.register_buffer("transform_std", torch.ones(config.transform_features_size))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # PyTorch's default shrinks the signal by a factor of 3 a layer, so that the latents of a new network hardly
        # differ and the codebooks collapse. Orthogonal rows keep its scale.
        if isinstance(module, (nn.Conv1d, nn.Linear)):
            init.orthogonal_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, EmaQuantizer):
            init.copy_(module.codebook, fixed_normal(*module.codebook.shape))
            init.zeros_(module.code_sum)
            init.ones_(module.code_count)
            init.zeros_(module.initialised)
        elif isinstance(module, SolamiMotionVQModel):
            for name, buffer in module.named_buffers(recurse=False):
                init.ones_(buffer) if name.endswith("std") else init.zeros_(buffer)

    @property
    def quantizers(self) -> dict[str, EmaQuantizer | FiniteScalarQuantizer]:
        """The quantizers of level 0 by name: body, hand, transform. The transform's is always an [`EmaQuantizer`]."""
        parts = {name: part.quantizer for name, part in self.parts.items()}
        return {**parts, "transform": self.transform.quantizer}

    @property
    def parts(self) -> dict[str, MotionVQVAE]:
        """The VQ-VAEs by name: body and hand, or, bound, the body's alone."""
        return {name: getattr(self, name) for name in self.config.parts}

    @property
    def chains(self) -> dict[str, list[nn.Module]]:
        """The quantizers that code each network's latents one after the other, by the network's name."""
        levels = {name: part.levels for name, part in self.parts.items()}
        if self.config.residual_hand:
            return {"body": [level for both in zip(*levels.values(), strict=True) for level in both]}
        return levels

    def _by_part(self, codes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Part -> its codes (levels, ...) of those of `chains`."""
        if not self.config.residual_hand:
            return codes
        return {name: codes["body"][place::2] for place, name in enumerate(self.parts)}

    def represent(self, motion_values: torch.Tensor) -> torch.Tensor:
        """Raw features (..., 315) as the networks see them, not normalised: see `motion_representation`."""
        return represent(motion_values, self.config.representation)

    @torch.no_grad()
    def set_statistics(self, mean, std, transform_mean=None, transform_std=None) -> None:
        """Stores normalisation statistics (315,) and (5,) in the buffers; numbers are broadcast. Raises ValueError: a
        wrong size, a value that is not finite, or a negative standard deviation."""
        given = {"mean": mean, "std": std, "transform_mean": transform_mean, "transform_std": transform_std}
        for name, values in given.items():
            if values is None:
                continue
            buffer = getattr(self, name)
            values = torch.as_tensor(values, dtype=buffer.dtype, device=buffer.device)
            if values.numel() not in (1, buffer.numel()):
                raise ValueError(f"`{name}` has shape {tuple(values.shape)}, expected ({buffer.numel()},).")
            if not values.isfinite().all() or (name.endswith("std") and (values < 0).any()):
                raise ValueError(f"`{name}` holds NaN, infinite or negative values; check the data it comes from.")
            buffer.copy_(values.flatten())

    def encode(
        self, motion_values: torch.Tensor, padding_mask: torch.Tensor | None = None, cache: MotionVQCache | None = None
    ) -> SolamiMotionVQEncoderOutput:
        """Codes of motions (B, T, 315): raw features, see `solami_hf.processing.motion.features`. `padding_mask` (B,
        T) is boolean, True = real; padding is on the right; `None`: every frame is real. `cache` is that of a stream
        whose next chunk `motion_values` is, T a multiple of 4; for causal tokenizers. Raises ValueError: a wrong shape
        or dtype, NaN in a real frame, a mask with gaps, a clip of fewer than 4 frames, a cache that does not fit."""
        values, masks = self.normalise(motion_values, padding_mask)
        if cache is not None:
            self._check_stream(masks, "padding_mask")
            if motion_values.shape[1] % self.config.frames_per_code:
                raise ValueError(
                    f"A chunk has {motion_values.shape[1]} frames, expected a multiple of "
                    f"{self.config.frames_per_code}: keep the rest for the next chunk."
                )
        codes, latents = {}, dict(zip(self.chains, self.latents(values, masks, cache), strict=True))
        code_mask = _all_real(masks[-1], latents["body"])
        chosen = self._search(motion_values, latents, code_mask) if self.config.candidates > 1 else {}
        for name, levels in self.chains.items():
            chosen[name] = residual_codes(levels, latents[name].flatten(0, 1), chosen.get(name, ()))
        for name, found in self._by_part(chosen).items():
            found = found.view(-1, *code_mask.shape).transpose(0, 1).masked_fill(~code_mask[:, None], -1)
            codes[f"{name}_codes"] = found[:, 0]
            if self.config.num_levels > 1:
                codes[f"{name}_levels"] = found
        return SolamiMotionVQEncoderOutput(**codes, code_mask=code_mask)

    @torch.no_grad()
    def _search(
        self, motion_values: torch.Tensor, latents: dict[str, torch.Tensor], mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Codes (1 or 2, B * T') of level 0 of `chains` by what is decoded of them (analysis by synthesis).

        The decoder mends a code by those around it, and steps of the pelvis add up to a way. So codes are gone through
        in time, and of the `candidates` nearest that one is taken with which joints around it err least, as seen from
        the pelvis and in the world; what one step is short of, the next ones make up for.

        Args:
            motion_values: (B, T, 315) raw features.
            latents: those of `chains`, (B, T', D) each.
            mask: (B, T') bool, True = real.
        """
        frames, (clips, steps), count = self.config.frames_per_code, mask.shape, self.config.candidates
        target = joint_places(motion_values[:, : frames * steps].float())
        rows, codes, vectors = torch.arange(clips, device=mask.device), {}, {}
        chains = {name: levels[: 1 + self.config.residual_hand] for name, levels in self.chains.items()}
        for name, levels in chains.items():
            found = nearest_sums(levels, latents[name].flatten(0, 1).float(), 1)
            codes[name], vectors[name] = (part.view(clips, steps, -1) for part in found)

        def decoded(given: dict[str, torch.Tensor], real: torch.Tensor) -> torch.Tensor:
            return self._denormalise(self.decode_latents(given, self._decoder_masks(real)).float(), None)

        made = decoded({name: part.to(self.dtype, copy=True) for name, part in vectors.items()}, mask)
        real_frames, flat = mask.repeat_interleave(frames, 1), made.new_tensor([1.0, 0.0, 1.0])
        start = torch.zeros_like(flat)  # of the window, on the floor
        for step in range(steps):
            first, last = max(0, step - _CONTEXT), min(steps, step + _CONTEXT + 1)
            seen = slice(max(0, step - _REACH) * frames, min(steps, step + _REACH + 1) * frames)
            real = real_frames[:, None, seen, None]
            if seen.start:  # the codes that the window has just left behind stay as they are
                left = made[:, seen.start - frames : seen.start + 1]
                start = start + pelvis_way(left)[:, -1, None, None, None] * flat
            for name, levels in chains.items():
                near, sums = nearest_sums(levels, latents[name][:, step].float(), count)
                many = sums.shape[1]
                tried = {kind: given[:, first:last].repeat_interleave(many, 0) for kind, given in vectors.items()}
                tried[name][:, step - first] = sums.flatten(0, 1)
                tried = {kind: given.to(self.dtype) for kind, given in tried.items()}
                real_codes = mask[:, first:last].repeat_interleave(many, 0)
                found = decoded(tried, real_codes).unflatten(0, (clips, -1))
                found = found[:, :, seen.start - first * frames : seen.stop - first * frames]
                off = (joint_places(found) + start - target[:, None, seen])[..., FEATURES_JOINTS, :]
                error = (off - off[..., :1, :]).norm(dim=-1) + off.norm(dim=-1)
                best = (error * real).mean((2, 3)).argmin(1)
                codes[name][:, step], vectors[name][:, step] = near[rows, best], sums[rows, best]
                made[:, seen] = found[rows, best]
        return {name: chosen.flatten(0, 1).T for name, chosen in codes.items()}

    def decode(
        self,
        body_codes: torch.Tensor,
        hand_codes: torch.Tensor | None = None,
        code_mask: torch.Tensor | None = None,
        cache: MotionVQCache | None = None,
    ) -> SolamiMotionVQDecoderOutput:
        """Motions of codes; clips of a batch never touch.

        `body_codes` and `hand_codes` are (B, T') integers, or (B, q, T') of the first q levels, as in `body_levels`; a
        bound tokenizer takes body codes alone. `code_mask` (B, T') is boolean, True = real; padding is on the right;
        `None`: every code is real. `cache` is that of a stream whose next chunk the codes are; for causal tokenizers.
        Raises ValueError: shapes that differ, no codes, a real code outside its codebook, hand codes for a bound
        tokenizer or none for another, or a cache that does not fit.
        """
        codes = self._checked_codes(body_codes, hand_codes, code_mask)
        masks = self._decoder_masks(code_mask)
        if cache is not None:
            self._check_stream(masks, "code_mask")
        if self.config.residual_hand:
            codes = {"body": torch.stack([codes["body"], codes["hand"]], dim=2).flatten(1, 2)}
        latents = {
            name: sum(level.decode(c) for level, c in zip(levels, codes[name].unbind(1), strict=False)).to(self.dtype)
            for name, levels in self.chains.items()
        }
        values = self.decode_latents(latents, masks, cache)
        return SolamiMotionVQDecoderOutput(self._denormalise(values, masks[0]), _all_real(masks[0], values))

    def decode_latents(
        self, latents: dict[str, torch.Tensor], masks: list[torch.Tensor | None], cache: MotionVQCache | None = None
    ) -> torch.Tensor:
        """Normalised features (B, 4 T', 315) of the latents (B, T', D) of `chains`, which are overwritten."""
        return torch.cat([self.parts[name].decode(given, masks, cache) for name, given in latents.items()], dim=-1)

    def _checked_codes(self, body_codes, hand_codes, code_mask) -> dict[str, torch.Tensor]:
        """Part -> its codes (B, levels, T'), those behind a clip's end 0."""
        if (hand_codes is None) != self.config.bound:
            told = "takes body codes alone" if self.config.bound else "needs hand codes too"
            raise ValueError(f"`hand_codes` is {type(hand_codes).__name__}, but this tokenizer {told}.")
        codes = {}
        for name, values in zip(self.parts, (body_codes, hand_codes), strict=False):
            several = isinstance(values, torch.Tensor) and values.ndim == 3
            mask = code_mask[:, None].expand_as(values) if several and code_mask is not None else code_mask
            _check_codes(values, self.config.modality_sizes[name], f"{name}_codes", 3 if several else 2, mask)
            codes[name] = values if several else values[:, None]
        if hand_codes is not None and body_codes.shape != hand_codes.shape:
            raise ValueError(
                f"`body_codes` has shape {tuple(body_codes.shape)} and `hand_codes` {tuple(hand_codes.shape)}, "
                "expected the same."
            )
        if codes["body"].shape[1] > self.config.num_levels:
            raise ValueError(
                f"`body_codes` has {body_codes.shape[1]} levels, expected at most {self.config.num_levels}."
            )
        if code_mask is not None:
            _lengths(code_mask, codes["body"][:, 0].shape, "code_mask")
            codes = {name: values.masked_fill(~code_mask[:, None], 0) for name, values in codes.items()}
        return codes

    def encode_transform(self, transform: torch.Tensor) -> torch.Tensor:
        """Codes (B,) of transforms (B, 5), see `solami_hf.processing.motion.features.relative_transform`. ValueError
        for a wrong shape or dtype, or NaN."""
        return self.transform.quantizer.encode(self.transform.encoder(self.normalise_transform(transform)))

    def decode_transform(self, transform_codes: torch.Tensor) -> torch.Tensor:
        """Transforms (B, 5) of codes (B,); ValueError for a wrong shape, or a code outside the codebook."""
        _check_codes(transform_codes, self.config.transform_code_num, "transform_codes", 1)
        latents = self.transform.quantizer.decode(transform_codes).to(self.dtype)
        return self._denormalise_transform(self.transform.decoder(latents))

    @capture_outputs
    def forward(
        self,
        motion_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        transform: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SolamiMotionVQOutput:
        """Reconstruction and loss; in training mode also moves the codebooks. `return_dict=False` gives a tuple.
        `motion_values` are (B, T, 315) raw features; `padding_mask` (B, T) boolean, True = real, padding on the right;
        `transform` (B, 5), or `None` to leave the transform tokenizer out. `output_hidden_states` is by default what
        the config says. Raises ValueError: as in `encode` and `encode_transform`."""
        values, masks = self.normalise(motion_values, padding_mask)
        latents = dict(zip(self.chains, self.latents(values, masks), strict=True))
        out = SolamiMotionVQOutput(code_mask=_all_real(masks[-1], latents["body"]))
        decoder_masks = self._decoder_masks(None if masks[-1] is None else out.code_mask)
        filled, commitments, found, kept = {}, [], {}, self._kept_levels(out.code_mask)
        for name, levels in self.chains.items():
            real = _pick(latents[name], masks[-1])
            if len(levels) == 1 or levels[0].bypass:
                quantized, commitment, codes = levels[0](real)
                found[name] = codes.expand(len(levels), -1)
            else:
                quantized, _, commitment, found[name] = quantize_residual(levels, real, _pick(kept, masks[-1]))
            commitments.append(commitment)
            vectors = torch.zeros_like(latents[name])
            filled[name] = vectors.masked_scatter(out.code_mask[..., None], quantized.to(real.dtype))
        for name, (codes, *_) in self._by_part(found).items():
            number = self.quantizers[name].code_num
            out[f"{name}_codes"] = torch.full_like(out.code_mask, -1, dtype=torch.long).masked_scatter(
                out.code_mask, codes
            )
            out[f"{name}_perplexity"] = perplexity(codes, number)
            out[f"{name}_usage"] = usage(codes, number)
        decoded = self.decode_latents(filled, decoder_masks)
        frames = decoded.shape[1]
        # T is not always a multiple of 4; the frames behind the last code have no reconstruction
        real = out.code_mask.repeat_interleave(self.config.frames_per_code, dim=1)
        error = F.smooth_l1_loss(decoded.float(), values[:, :frames].float(), reduction="none")
        error = _pick(error, None if masks[-1] is None else real)
        out.feature_loss = error.mean()
        out.velocity_loss = error[:, : self.config.velocity_size].mean()
        out.commitment_loss = sum(commitments)
        out.motion_values, out.padding_mask = self._denormalise(decoded, real), real
        if transform is not None:
            self._forward_transform(transform, out)
        out.loss = self._total_loss(out)
        known = {name: value for name, value in out.items() if padding_mask is not None or not name.endswith("mask")}
        return SolamiMotionVQOutput(**known)  # anew, in the order of the fields: callers take the loss from `out[0]`

    def _kept_levels(self, code_mask: torch.Tensor) -> torch.Tensor:
        """How many of the codes of a chain at each place (B, T') are decoded: in training fewer of some clips."""
        levels, clips = self.config.num_levels, (len(code_mask), 1)
        kept = torch.full(clips, levels, device=code_mask.device)
        if self.training and levels > 1:
            some = torch.rand(clips, device=kept.device) < self.config.level_dropout
            # a "linear" decoder has most to learn of few levels
            share = torch.rand(clips, device=kept.device) ** (3 if self.config.network == "linear" else 1)
            kept = torch.where(some, 1 + (levels * share).long(), kept)
        return kept.expand(code_mask.shape) * (2 if self.config.residual_hand else 1)

    def _forward_transform(self, transform: torch.Tensor, out: SolamiMotionVQOutput) -> None:
        """Adds the transform's parts to `out`."""
        target = self.normalise_transform(transform)
        quantized, commitment, codes = self.transform.quantizer(self.transform.encoder(target))
        decoded = self.transform.decoder(quantized.to(target.dtype))
        out.transform_loss = F.smooth_l1_loss(decoded.float(), target.float())
        out.transform_commitment_loss = commitment
        out.transform_codes = codes
        out.transform_perplexity = perplexity(codes, self.config.transform_code_num)
        out.transform = self._denormalise_transform(decoded)

    def _total_loss(self, out: SolamiMotionVQOutput) -> torch.Tensor:
        """The weighted sum. The original counts the commitment of body and hand twice, the transform's never."""
        config, upstream = self.config, self.config.loss_mode == "upstream"
        loss = config.feature_weight * out.feature_loss + config.velocity_weight * out.velocity_loss
        loss = loss + config.commitment_weight * (2 if upstream else 1) * out.commitment_loss
        if out.transform_loss is not None:
            loss = loss + config.feature_weight * out.transform_loss
            if not upstream:
                loss = loss + config.commitment_weight * out.transform_commitment_loss
        return loss

    def normalise(
        self, motion_values: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Checked, normalised values with zeros for padding, and the masks of each rate (`None`: all real)."""
        size, least = self.config.features_size, self.config.frames_per_code
        if not isinstance(motion_values, torch.Tensor) or not motion_values.is_floating_point():
            kind = motion_values.dtype if isinstance(motion_values, torch.Tensor) else type(motion_values).__name__
            raise ValueError(f"`motion_values` is {kind}, expected a floating-point torch tensor.")
        if motion_values.ndim != 3 or motion_values.shape[-1] != size:
            raise ValueError(f"`motion_values` has shape {tuple(motion_values.shape)}, expected (B, T, {size}).")
        batch, frames = motion_values.shape[:2]
        masks: list[torch.Tensor | None] = [None] * (self.config.down_t + 1)
        shortest = frames if batch else 0
        if padding_mask is not None:
            lengths = _lengths(padding_mask, (batch, frames), "padding_mask")
            on_host = motion_values.device.type == "cpu"
            shortest = shortest if not (on_host and batch) else int(lengths.min())
            if shortest < frames or not on_host:
                masks = [_mask(lengths >> level, frames >> level) for level in range(len(masks))]
        if shortest < least:
            raise ValueError(f"A clip of `motion_values` has {shortest} frames, expected at least {least} (one code).")
        values = (self.represent(motion_values) - self.mean).div_(self.std.clamp_min(self.config.std_floor))
        if masks[0] is not None:
            values.masked_fill_(~masks[0][..., None], 0.0)
        # Values are looked at on a CPU only: elsewhere the host would wait for them
        if values.device.type == "cpu" and not values.sum(dtype=torch.float64).isfinite():
            raise ValueError("`motion_values` holds NaN or infinite values in a real frame.")
        return values.to(self.dtype), masks

    def latents(
        self, values: torch.Tensor, masks: list[torch.Tensor | None], cache: MotionVQCache | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Unquantised latents (B, T', D) of `chains` (body and hand, or the body alone) of what `normalise` gives."""
        pieces = values.split(list(self.config.input_sizes.values()), dim=-1)
        # contiguous: convolutions keep the layout of what they get, see `MotionConv1d`
        pairs = zip(self.chains, pieces, strict=True)
        return tuple(self.parts[name].encode(piece.contiguous(), masks, cache) for name, piece in pairs)

    def _check_stream(self, masks: list[torch.Tensor | None], name: str) -> None:
        if not self.config.causal:
            raise ValueError("`cache` is for causal tokenizers, but `config.causal` is False: encode the whole clip.")
        if masks[0] is not None:
            raise ValueError(f"`{name}` marks padding, expected chunks without any beside a `cache`.")

    def _decoder_masks(self, code_mask: torch.Tensor | None) -> list[torch.Tensor | None]:
        """The mask of each rate from frames down to codes (B, T'): what a decoder makes, whole codes only."""
        levels = reversed(range(self.config.down_t + 1))
        return [None if code_mask is None else code_mask.repeat_interleave(1 << level, dim=1) for level in levels]

    def _denormalise(self, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        values = values * self.std.clamp_min(self.config.std_floor) + self.mean
        values = raw_features(values, self.config.representation)
        return values if mask is None else values.masked_fill(~mask[..., None], 0.0)

    def normalise_transform(self, transform: torch.Tensor) -> torch.Tensor:
        size = self.config.transform_features_size
        if transform.ndim != 2 or transform.shape[1] != size or not transform.is_floating_point():
            raise ValueError(
                f"`transform` is {transform.dtype} of shape {tuple(transform.shape)}, "
                f"expected floating-point (B, {size})."
            )
        if transform.device.type == "cpu" and not transform.isfinite().all():
            raise ValueError("`transform` holds NaN or infinite values.")
        std = self.transform_std.clamp_min(self.config.std_floor)
        return ((transform - self.transform_mean) / std).to(self.dtype)

    def _denormalise_transform(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.transform_std.clamp_min(self.config.std_floor) + self.transform_mean


def _pick(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The real steps (n, ...) of (B, T, ...); without a mask their number is known without looking."""
    return values.flatten(0, 1) if mask is None else values[mask]


def _all_real(mask: torch.Tensor | None, values: torch.Tensor) -> torch.Tensor:
    """A mask (B, T), or the one of values (B, T, C) without padding."""
    return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device) if mask is None else mask


def _mask(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """(B, steps) bool, True before each length."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def _lengths(mask: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    """Lengths (B,) of a right-padded mask, checked."""
    if tuple(mask.shape) != tuple(shape) or mask.dtype != torch.bool:
        raise ValueError(f"`{name}` is {mask.dtype} of shape {tuple(mask.shape)}, expected bool of {tuple(shape)}.")
    lengths = mask.sum(-1)
    if mask.device.type == "cpu" and not torch.equal(mask, _mask(lengths, mask.shape[1])):
        raise ValueError(f"`{name}` has gaps, expected each row to be True up to the clip's end and False behind it.")
    return lengths


def _check_codes(
    codes: torch.Tensor, code_num: int, name: str, dims: int, code_mask: torch.Tensor | None = None
) -> None:
    """Raises where codes are not integers of the expected rank within [0, code_num), the padded ones aside."""
    if codes.ndim != dims or codes.is_floating_point() or codes.dtype == torch.bool or codes.numel() == 0:
        shape = {1: "(B,) with B > 0", 2: "(B, T') with T' > 0", 3: "(B, levels, T') with T' > 0"}[dims]
        raise ValueError(f"`{name}` is {codes.dtype} of shape {tuple(codes.shape)}, expected integers {shape}.")
    real = codes
    if code_mask is not None and codes.device.type == "cpu":
        real = codes[code_mask] if code_mask.shape == codes.shape and code_mask.dtype == torch.bool else codes[:0]
    if codes.device.type == "cpu" and real.numel() and (int(real.min()) < 0 or int(real.max()) >= code_num):
        raise ValueError(
            f"`{name}` runs from {int(real.min())} to {int(real.max())}, expected codes from 0 to {code_num - 1}; "
            "codes behind a clip's end need a `code_mask`."
        )
