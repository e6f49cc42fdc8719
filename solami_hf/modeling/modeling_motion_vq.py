"""Motion tokenizers: body and hand VQ-VAE, transform VQ, and the statistics that normalise their features.

After SOLAMI (arXiv 2412.00174), whose networks are those of T2M-GPT (arXiv 2301.06052). A padded batch gives the codes
that each clip gives alone: whatever lies behind a clip's end is zero before every convolution, as at the end of a
lone clip.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_motion_vq import SolamiMotionVQConfig
from .quantizers import EmaQuantizer, perplexity, usage

_ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}
_GROUPS, _GROUP_EPS = 32, 1e-6


@dataclass
class SolamiMotionVQEncoderOutput(ModelOutput):
    """Codes of a batch of motions.

    Args:
        body_codes (`torch.LongTensor` of shape `(batch, frames // 4)`): -1 behind a clip's end.
        hand_codes (`torch.LongTensor` of shape `(batch, frames // 4)`): -1 behind a clip's end.
        code_mask (`torch.BoolTensor` of shape `(batch, frames // 4)`): True = real.
    """

    body_codes: torch.LongTensor | None = None
    hand_codes: torch.LongTensor | None = None
    code_mask: torch.BoolTensor | None = None


@dataclass
class SolamiMotionVQDecoderOutput(ModelOutput):
    """Motions of a batch of codes.

    Args:
        motion_values (`torch.FloatTensor` of shape `(batch, 4 * codes, 315)`): raw features, zero behind a clip's end.
        padding_mask (`torch.BoolTensor` of shape `(batch, 4 * codes)`): True = real.
    """

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
        padding_mask (`(batch, 4 * codes)`): True = real.
        transform (`(batch, 5)`): reconstruction of the transform; `None` without one.
        body_codes, hand_codes, code_mask, transform_codes: as in `SolamiMotionVQModel.encode`.
        body_perplexity, hand_perplexity, transform_perplexity: effective number of codes in the batch.
        body_usage, hand_usage: share of the codebook that the batch uses, in [0, 1].
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


def _keep(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Zeroes what lies behind the clips' ends: hidden (B, C, T), mask (B, T)."""
    return hidden if mask is None else hidden.masked_fill(~mask[:, None], 0.0)


class MaskedGroupNorm(nn.GroupNorm):
    """GroupNorm over channels and time (B, C, T) whose statistics leave out what the mask (B, T) marks as padding."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if mask is None:  # unlike F.group_norm this takes a single value a group too: the shortest clip has one step
            return torch.group_norm(hidden, self.num_groups, self.weight, self.bias, self.eps)
        grouped = hidden.unflatten(1, (self.num_groups, -1))
        real = mask[:, None, None].to(hidden.dtype)
        count = (real.sum((-1, -2), keepdim=True) * grouped.shape[2]).clamp_min(1)
        mean = (grouped * real).sum((-1, -2), keepdim=True) / count
        variance = ((grouped - mean).square() * real).sum((-1, -2), keepdim=True) / count
        normed = ((grouped - mean) * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return normed * self.weight[:, None] + self.bias[:, None]


class ResidualBlock(nn.Module):
    """x + conv1(act(conv3(act(x)))), the first convolution dilated; each activation optionally after a norm."""

    def __init__(self, width: int, dilation: int, activation: str, norm: str | None):
        super().__init__()
        self.activation = _ACTIVATIONS[activation]
        self.norm1 = MaskedGroupNorm(_GROUPS, width, eps=_GROUP_EPS) if norm == "group" else None
        self.norm2 = MaskedGroupNorm(_GROUPS, width, eps=_GROUP_EPS) if norm == "group" else None
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        inner = hidden if self.norm1 is None else self.norm1(hidden, mask)
        inner = self.conv1(_keep(self.activation(inner), mask))
        inner = inner if self.norm2 is None else self.norm2(inner, mask)
        return _keep(hidden + self.conv2(self.activation(inner)), mask)


def _residual_blocks(width: int, depth: int, growth: int, activation: str, norm: str | None) -> nn.ModuleList:
    dilations = [growth**power for power in reversed(range(depth))]
    return nn.ModuleList(ResidualBlock(width, dilation, activation, norm) for dilation in dilations)


class EncoderStage(nn.Module):
    """Halves the time, then residual blocks: (B, C, T) -> (B, C, T // 2)."""

    def __init__(self, width: int, depth: int, growth: int, activation: str, norm: str | None):
        super().__init__()
        self.down = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.blocks = _residual_blocks(width, depth, growth, activation, norm)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        hidden = _keep(self.down(hidden), mask)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden


class DecoderStage(nn.Module):
    """Residual blocks, then twice the time: (B, C, T) -> (B, C, 2 T). Masks are of both rates."""

    def __init__(self, width: int, depth: int, growth: int, activation: str, norm: str | None):
        super().__init__()
        self.blocks = _residual_blocks(width, depth, growth, activation, norm)
        self.up = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, hidden, mask: torch.Tensor | None, up_mask: torch.Tensor | None) -> torch.Tensor:
        for block in self.blocks:
            hidden = block(hidden, mask)
        return _keep(self.up(hidden.repeat_interleave(2, dim=-1)), up_mask)


class MotionVQVAE(nn.Module):
    """One convolutional VQ-VAE over normalised features (B, T, F); `part` is "body" or "hand".

    The configured activation is that of the residual blocks; outside of them it is ReLU, as in the original.
    """

    def __init__(self, config: SolamiMotionVQConfig, part: str):
        super().__init__()
        features = getattr(config, f"{part}_features_size")
        width, code_dim = getattr(config, f"{part}_width"), getattr(config, f"{part}_code_dim")
        stage = (
            width,
            getattr(config, f"{part}_depth"),
            getattr(config, f"{part}_dilation_growth_rate"),
            getattr(config, f"{part}_activation"),
            getattr(config, f"{part}_norm"),
        )
        self.encoder = nn.ModuleDict(
            {
                "conv_in": nn.Conv1d(features, width, 3, padding=1),
                "stages": nn.ModuleList(EncoderStage(*stage) for _ in range(config.down_t)),
                "conv_out": nn.Conv1d(width, code_dim, 3, padding=1),
            }
        )
        self.quantizer = EmaQuantizer(
            getattr(config, f"{part}_code_num"),
            code_dim,
            config.codebook_decay,
            config.dead_code_threshold,
            config.random_restart,
        )
        self.decoder = nn.ModuleDict(
            {
                "conv_in": nn.Conv1d(code_dim, width, 3, padding=1),
                "stages": nn.ModuleList(DecoderStage(*stage) for _ in range(config.down_t)),
                "conv_mid": nn.Conv1d(width, width, 3, padding=1),
                "conv_out": nn.Conv1d(width, features, 3, padding=1),
            }
        )

    def encode(self, features: torch.Tensor, masks: list[torch.Tensor | None]) -> torch.Tensor:
        """Latents (B, T', D) of features (B, T, F); `masks` go from full rate to that of codes."""
        hidden = _keep(features.transpose(1, 2), masks[0])
        hidden = _keep(F.relu(self.encoder["conv_in"](hidden)), masks[0])
        for stage, mask in zip(self.encoder["stages"], masks[1:], strict=True):
            hidden = stage(hidden, mask)
        return self.encoder["conv_out"](hidden).transpose(1, 2)

    def decode(self, latents: torch.Tensor, masks: list[torch.Tensor | None]) -> torch.Tensor:
        """Features (B, 4 T', F) of latents (B, T', D); `masks` go from full rate to that of codes."""
        masks = masks[::-1]
        hidden = self.decoder["conv_in"](_keep(latents.transpose(1, 2), masks[0]))
        hidden = _keep(F.relu(hidden), masks[0])
        for stage, mask, up_mask in zip(self.decoder["stages"], masks[:-1], masks[1:], strict=True):
            hidden = stage(hidden, mask, up_mask)
        hidden = _keep(F.relu(self.decoder["conv_mid"](hidden)), masks[-1])
        return _keep(self.decoder["conv_out"](hidden), masks[-1]).transpose(1, 2)


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
        self.quantizer = EmaQuantizer(
            config.transform_code_num,
            config.transform_code_dim,
            config.codebook_decay,
            config.dead_code_threshold,
            config.random_restart,
        )
        self.decoder = TransformMLP([config.transform_code_dim, *hidden, size])


class SolamiMotionVQPreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading of the motion tokenizers."""

    config_class = SolamiMotionVQConfig
    base_model_prefix = "motion_vq"
    main_input_name = "motion_values"

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


class SolamiMotionVQModel(SolamiMotionVQPreTrainedModel):
    """Body, hand and transform tokenizers with their normalisation statistics.

    `mean`, `std` (315,) and `transform_mean`, `transform_std` (5,) are persistent buffers: raw features go in and come
    out. A standard deviation below `config.std_floor` counts as that floor.
    """

    def __init__(self, config: SolamiMotionVQConfig):
        super().__init__(config)
        self.body = MotionVQVAE(config, "body")
        self.hand = MotionVQVAE(config, "hand")
        self.transform = TransformVQ(config)
        self.register_buffer("mean", torch.zeros(config.features_size))
        self.register_buffer("std", torch.ones(config.features_size))
        self.register_buffer("transform_mean", torch.zeros(config.transform_features_size))
        self.register_buffer("transform_std", torch.ones(config.transform_features_size))
        self.post_init()

    @property
    def quantizers(self) -> dict[str, EmaQuantizer]:
        """The three quantizers by name: body, hand, transform."""
        return {"body": self.body.quantizer, "hand": self.hand.quantizer, "transform": self.transform.quantizer}

    @torch.no_grad()
    def set_statistics(self, mean, std, transform_mean=None, transform_std=None) -> None:
        """Stores normalisation statistics (315,) and (5,) in the buffers; numbers are broadcast.

        Raises:
            ValueError: a wrong size, a value that is not finite, or a negative standard deviation.
        """
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
        self, motion_values: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> SolamiMotionVQEncoderOutput:
        """Codes of motions.

        Args:
            motion_values: (B, T, 315) raw features, see `solami_hf.processing.motion_features`.
            padding_mask: (B, T) bool, True = real; padding is on the right. `None`: every frame is real.

        Raises:
            ValueError: a wrong shape or dtype, NaN in a real frame, a mask with gaps, a clip of fewer than 4 frames.
        """
        values, masks = self.normalise(motion_values, padding_mask)
        body, hand = self.latents(values, masks)
        code_mask = self._code_mask(body, masks)
        codes = [
            part.quantizer.encode(latents.flatten(0, 1)).view(latents.shape[:2]).masked_fill(~code_mask, -1)
            for part, latents in ((self.body, body), (self.hand, hand))
        ]
        return SolamiMotionVQEncoderOutput(body_codes=codes[0], hand_codes=codes[1], code_mask=code_mask)

    def decode(
        self, body_codes: torch.Tensor, hand_codes: torch.Tensor, code_mask: torch.Tensor | None = None
    ) -> SolamiMotionVQDecoderOutput:
        """Motions of codes; clips of a batch never touch.

        Args:
            body_codes, hand_codes: (B, T') integers.
            code_mask: (B, T') bool, True = real; padding is on the right. `None`: every code is real.

        Raises:
            ValueError: shapes that differ, no codes, or a real code outside its codebook.
        """
        _check_codes(body_codes, self.config.body_code_num, "body_codes", 2, code_mask)
        _check_codes(hand_codes, self.config.hand_code_num, "hand_codes", 2, code_mask)
        if body_codes.shape != hand_codes.shape:
            raise ValueError(
                f"`body_codes` has shape {tuple(body_codes.shape)} and `hand_codes` {tuple(hand_codes.shape)}, "
                "expected the same."
            )
        masks: list[torch.Tensor | None] = [None] * (self.config.down_t + 1)
        if code_mask is not None:
            lengths = _lengths(code_mask, body_codes.shape, "code_mask")
            steps = [body_codes.shape[1] << level for level in reversed(range(len(masks)))]
            masks = [_mask(lengths << level, s) for level, s in zip(reversed(range(len(masks))), steps, strict=True)]
            body_codes, hand_codes = (c.masked_fill(~code_mask, 0) for c in (body_codes, hand_codes))
        body = self.body.quantizer.decode(body_codes)
        hand = self.hand.quantizer.decode(hand_codes)
        values = torch.cat([self.body.decode(body, masks), self.hand.decode(hand, masks)], dim=-1)
        padding_mask = masks[0]
        if padding_mask is None:
            padding_mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return SolamiMotionVQDecoderOutput(self._denormalise(values, masks[0]), padding_mask)

    def encode_transform(self, transform: torch.Tensor) -> torch.Tensor:
        """Codes (B,) of transforms (B, 5), see `solami_hf.processing.motion_features.relative_transform`.

        Raises:
            ValueError: a wrong shape or dtype, or NaN.
        """
        return self.transform.quantizer.encode(self.transform.encoder(self.normalise_transform(transform)))

    def decode_transform(self, transform_codes: torch.Tensor) -> torch.Tensor:
        """Transforms (B, 5) of codes (B,).

        Raises:
            ValueError: a wrong shape, or a code outside the codebook.
        """
        _check_codes(transform_codes, self.config.transform_code_num, "transform_codes", 1)
        return self._denormalise_transform(self.transform.decoder(self.transform.quantizer.decode(transform_codes)))

    def forward(
        self,
        motion_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        transform: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SolamiMotionVQOutput | tuple:
        """Reconstruction and loss; in training mode also moves the codebooks.

        Args:
            motion_values: (B, T, 315) raw features.
            padding_mask: (B, T) bool, True = real, padding on the right.
            transform: (B, 5), or `None` to leave the transform tokenizer out.
            return_dict: `False` for a plain tuple.

        Raises:
            ValueError: as in `encode` and `encode_transform`.
        """
        values, masks = self.normalise(motion_values, padding_mask)
        latents = dict(zip(("body", "hand"), self.latents(values, masks), strict=True))
        out = SolamiMotionVQOutput(code_mask=self._code_mask(latents["body"], masks))
        decoded, commitments = [], []
        for name, part in (("body", self.body), ("hand", self.hand)):
            real = latents[name][out.code_mask]
            quantized, commitment, codes = part.quantizer(real)
            commitments.append(commitment)
            filled = torch.zeros_like(latents[name]).masked_scatter(out.code_mask[..., None], quantized.to(real.dtype))
            decoded.append(part.decode(filled, masks))
            out[f"{name}_codes"] = torch.full_like(out.code_mask, -1, dtype=torch.long).masked_scatter(
                out.code_mask, codes
            )
            out[f"{name}_perplexity"] = perplexity(codes, part.quantizer.code_num)
            out[f"{name}_usage"] = usage(codes, part.quantizer.code_num)
        decoded = torch.cat(decoded, dim=-1)
        frames = decoded.shape[1]
        # T is not always a multiple of 4; the frames behind the last code have no reconstruction
        real = out.code_mask.repeat_interleave(self.config.frames_per_code, dim=1)
        error = F.smooth_l1_loss(decoded.float(), values[:, :frames].float(), reduction="none")[real]
        out.feature_loss = error.mean()
        out.velocity_loss = error[:, : self.config.velocity_features].mean()
        out.commitment_loss = commitments[0] + commitments[1]
        out.motion_values, out.padding_mask = self._denormalise(decoded, real), real
        if transform is not None:
            self._forward_transform(transform, out)
        out.loss = self._total_loss(out)
        return out if return_dict is not False else out.to_tuple()

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
        if motion_values.ndim != 3 or motion_values.shape[-1] != size:
            raise ValueError(f"`motion_values` has shape {tuple(motion_values.shape)}, expected (B, T, {size}).")
        if not motion_values.is_floating_point():
            raise ValueError(f"`motion_values` is {motion_values.dtype}, expected floating-point features.")
        batch, frames = motion_values.shape[:2]
        masks: list[torch.Tensor | None] = [None] * (self.config.down_t + 1)
        shortest = frames if batch else 0
        if padding_mask is not None:
            lengths = _lengths(padding_mask, (batch, frames), "padding_mask")
            shortest = int(lengths.min()) if batch else 0
            if shortest < frames:
                masks = [_mask(lengths >> level, frames >> level) for level in range(len(masks))]
                motion_values = motion_values.masked_fill(~padding_mask[..., None], 0.0)
        if shortest < least:
            raise ValueError(f"A clip of `motion_values` has {shortest} frames, expected at least {least} (one code).")
        if not motion_values.isfinite().all():
            raise ValueError("`motion_values` holds NaN or infinite values in a real frame.")
        std = self.std.clamp_min(self.config.std_floor)
        values = ((motion_values - self.mean) / std).to(self.dtype)
        return values, masks

    def latents(self, values: torch.Tensor, masks: list[torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
        body, hand = values.split([self.config.body_features_size, self.config.hand_features_size], dim=-1)
        return self.body.encode(body, masks), self.hand.encode(hand, masks)

    @staticmethod
    def _code_mask(latents: torch.Tensor, masks: list[torch.Tensor | None]) -> torch.Tensor:
        if masks[-1] is not None:
            return masks[-1]
        return torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)

    def _denormalise(self, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        values = values * self.std.clamp_min(self.config.std_floor) + self.mean
        return values if mask is None else values.masked_fill(~mask[..., None], 0.0)

    def normalise_transform(self, transform: torch.Tensor) -> torch.Tensor:
        size = self.config.transform_features_size
        if transform.ndim != 2 or transform.shape[1] != size or not transform.is_floating_point():
            raise ValueError(
                f"`transform` is {transform.dtype} of shape {tuple(transform.shape)}, "
                f"expected floating-point (B, {size})."
            )
        if not transform.isfinite().all():
            raise ValueError("`transform` holds NaN or infinite values.")
        std = self.transform_std.clamp_min(self.config.std_floor)
        return ((transform - self.transform_mean) / std).to(self.dtype)

    def _denormalise_transform(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.transform_std.clamp_min(self.config.std_floor) + self.transform_mean


def _mask(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """(B, steps) bool, True before each length."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def _lengths(mask: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    """Lengths (B,) of a right-padded mask, checked."""
    if tuple(mask.shape) != tuple(shape) or mask.dtype != torch.bool:
        raise ValueError(f"`{name}` is {mask.dtype} of shape {tuple(mask.shape)}, expected bool of {tuple(shape)}.")
    lengths = mask.sum(-1)
    if not torch.equal(mask, _mask(lengths, mask.shape[1])):
        raise ValueError(f"`{name}` has gaps, expected each row to be True up to the clip's end and False behind it.")
    return lengths


def _check_codes(
    codes: torch.Tensor, code_num: int, name: str, dims: int, code_mask: torch.Tensor | None = None
) -> None:
    """Raises where codes are not integers of the expected rank within [0, code_num), the padded ones aside."""
    if codes.ndim != dims or codes.is_floating_point() or codes.dtype == torch.bool or codes.numel() == 0:
        shape = "(B, T') with T' > 0" if dims == 2 else "(B,) with B > 0"
        raise ValueError(f"`{name}` is {codes.dtype} of shape {tuple(codes.shape)}, expected integers {shape}.")
    real = codes
    if code_mask is not None:
        real = codes[code_mask] if code_mask.shape == codes.shape and code_mask.dtype == torch.bool else codes[:0]
    if real.numel() and (int(real.min()) < 0 or int(real.max()) >= code_num):
        raise ValueError(
            f"`{name}` runs from {int(real.min())} to {int(real.max())}, expected codes from 0 to {code_num - 1}; "
            "codes behind a clip's end need a `code_mask`."
        )


__all__ = ["SolamiMotionVQModel", "SolamiMotionVQPreTrainedModel"]
