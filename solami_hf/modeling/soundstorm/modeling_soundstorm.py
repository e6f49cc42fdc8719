"""The acoustic model: from level 0 of the speech codec's codes and a voice prompt to all levels.

SoundStorm (https://arxiv.org/abs/2305.09636): a conformer (https://arxiv.org/abs/2005.08100) sees every level at once
and predicts the cells that are still masked. `soundstorm_masking.py` says in which order they are filled.

    model = SolamiSoundStormModel.from_pretrained(folder, dtype=torch.bfloat16)
    codes = model.generate(semantic_codes, prompt_codes)      # (B, T'), (B, 8, P) -> (B, 8, T')
    speech = codec.decode(codes).audio_values
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import capture_outputs

from ..remote_code import CarriesItsCode
from ..speech_codec.codec_interface import check_integers, check_range, mask_lengths
from .configuration_soundstorm import SolamiSoundStormConfig
from .soundstorm_masking import Draws, fill_levels, fill_sums, fill_upstream

_VARIANCE_FLOOR = 1e-12  # far below `channel_norm_eps`, which does the work


@dataclass
class SolamiSoundStormOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): mean cross-entropy over the labelled cells, in nats; None without labels.
        accuracy (`torch.FloatTensor`): share of labelled cells whose most probable code is right; None without labels.
        logits (`torch.FloatTensor` of shape `(batch, num_acoustic_levels, frames, codebook_size)`): float32 scores of
            levels 1, 2, ...; None with labels, where only the labelled cells are computed.
        hidden_states (`tuple(torch.FloatTensor)`): `(batch, frames, hidden_size)` before the first block and behind
            each; with labels the last is `(cells, hidden_size)`, of the frames with a label. None unless asked for.
        sums (`torch.FloatTensor` of shape `(batch, frames, num_given_levels, vector_size)`): of a model with
            `config.vector_size`, instead of logits, what the vectors of all levels to fill add up to.
        attentions (`tuple(torch.FloatTensor)`): `(batch, heads, frames, frames)` of each block, shares that sum to 1;
            "eager" attention only. None unless asked for.
    """

    loss: torch.FloatTensor | None = None
    accuracy: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    sums: torch.FloatTensor | None = None


@dataclass
class SoundStormContext:
    """Context shared by layers and calls: rotary positions `cos` and `sin` (frames, 1, head_dim), of which the first
    half of `sin` is negative, and `mask` (batch, frames), boolean, True = real; None if everything is real."""

    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor | None


class SoundStormNorm(nn.LayerNorm):
    """Layer norm of a float32 stream in half-precision models: it takes and gives the dtype of its input."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.to(hidden.dtype), self.bias.to(hidden.dtype)
        return F.layer_norm(hidden, self.normalized_shape, weight, bias, self.eps)


class SoundStormFeedForward(nn.Module):
    """Norm, a wide layer with SiLU, and back."""

    def __init__(self, config: SolamiSoundStormConfig):
        super().__init__()
        self.norm = SoundStormNorm(config.hidden_size, config.layer_norm_eps)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden_size) to the same shape."""
        hidden = self.norm(hidden).to(self.up.weight.dtype)
        return self.dropout(self.down(self.dropout(F.silu(self.up(hidden)))))


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Attention that can show its weights, where the fused one cannot, for a function of transformers. Of query, key
    and value (batch, heads, frames, head_dim), and a mask, True = may be attended to, that is broadcast over the
    scores: (batch, frames, heads, head_dim) and the weights (batch, heads, frames, frames)."""
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    weights = F.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2), weights


class SoundStormAttention(nn.Module):
    """Norm and attention of every frame to every real frame, with rotary positions."""

    is_causal = False  # read by the attention functions of transformers

    def __init__(self, config: SolamiSoundStormConfig):
        super().__init__()
        self.config = config
        self.scaling = config.head_dim**-0.5
        self.head_shape = (config.num_attention_heads, config.head_dim)
        width = config.num_attention_heads * config.head_dim
        self.norm = SoundStormNorm(config.hidden_size, config.layer_norm_eps)
        self.qkv = nn.Linear(config.hidden_size, 3 * width, bias=False)
        self.out = nn.Linear(width, config.hidden_size)
        self.dropout = config.dropout

    def forward(self, hidden: torch.Tensor, context: SoundStormContext) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, frames, hidden_size) to the same shape, and the weights where `attn_implementation` is "eager"."""
        hidden = self.norm(hidden).to(self.qkv.weight.dtype)
        queries_keys, values = self.qkv(hidden).unflatten(-1, (3, *self.head_shape)).split((2, 1), dim=2)
        halves = queries_keys.unflatten(-1, (2, -1))
        cos, sin = (table[:, None].to(values.dtype) for table in (context.cos, context.sin))
        turned = torch.addcmul(queries_keys * cos, halves.flip(-2).flatten(-2), sin)
        query, key = (part.transpose(1, 2) for part in turned.unbind(2))
        mask = None if context.mask is None else context.mask[:, None, None]
        dropout = self.dropout if self.training else 0.0
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        value = values.squeeze(2).transpose(1, 2)
        mixed, weights = attend(self, query, key, value, mask, dropout=dropout, scaling=self.scaling)
        return self.out(mixed.flatten(-2)), weights


class SoundStormConvolution(nn.Module):
    """Norm, a gated pointwise layer, a depthwise convolution over time, SiLU, a norm over channels, and back."""

    def __init__(self, config: SolamiSoundStormConfig):
        super().__init__()
        channels, kernel = config.conv_channels, config.conv_kernel_size
        self.norm = SoundStormNorm(config.hidden_size, config.layer_norm_eps)
        self.up = nn.Linear(config.hidden_size, 2 * channels)
        self.depthwise = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.channel_scale = nn.Parameter(torch.ones(channels))
        self.down = nn.Linear(channels, config.hidden_size)
        self.eps = config.channel_norm_eps
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: torch.Tensor, context: SoundStormContext) -> torch.Tensor:
        """(batch, frames, hidden_size) to the same shape; what lies behind a clip's end does not reach into it."""
        hidden = F.glu(self.up(self.norm(hidden).to(self.up.weight.dtype)), dim=-1)
        if context.mask is not None:
            hidden = hidden.masked_fill(~context.mask[..., None], 0)
        hidden = F.silu(self._convolve(hidden))
        if context.mask is not None:
            hidden = hidden.masked_fill(~context.mask[..., None], 0)
        return self.dropout(self.down(self._normalise(hidden)))

    def _convolve(self, hidden: torch.Tensor) -> torch.Tensor:
        """Over time. On CPUs a 2-D convolution of height 1 is many times as fast: it takes channels that lie last."""
        layer = self.depthwise
        hidden = F.conv2d(
            hidden.transpose(1, 2)[:, :, None], layer.weight[:, :, None], layer.bias,
            padding=(0, layer.padding[0]), groups=layer.groups,
        )  # fmt: skip
        return hidden[:, :, 0].transpose(1, 2)

    def _normalise(self, hidden: torch.Tensor) -> torch.Tensor:
        """Over channels, without bias; the variance is at least `eps`, instead of `eps` being added to it."""
        shape = (hidden.shape[-1],)
        normed, _, deviation = torch.native_layer_norm(hidden, shape, self.channel_scale, None, _VARIANCE_FLOOR)
        return normed * (self.eps**-0.5 / deviation).clamp(max=1).to(normed.dtype)


class SoundStormLayer(GradientCheckpointingLayer):
    """One conformer block. The stream between its parts is float32, also when the weights are not."""

    def __init__(self, config: SolamiSoundStormConfig):
        super().__init__()
        self.feed_forward_in = SoundStormFeedForward(config)
        self.attention = SoundStormAttention(config)
        self.convolution = SoundStormConvolution(config)
        self.feed_forward_out = SoundStormFeedForward(config)
        self.norm = SoundStormNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, hidden: torch.Tensor, context: SoundStormContext, cells: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(batch, frames, hidden_size) to the same shape, or to (n, hidden_size) for n `cells` of the flat batch."""
        hidden = torch.add(hidden, self.feed_forward_in(hidden), alpha=0.5)
        hidden = hidden + self.attention(hidden, context)[0]
        hidden = hidden + self.convolution(hidden, context)
        if cells is not None:
            hidden = hidden.flatten(0, 1)[cells]
        return self.norm(torch.add(hidden, self.feed_forward_out(hidden), alpha=0.5))


class SolamiSoundStormModel(CarriesItsCode, PreTrainedModel):
    """Fills levels 1, 2, ... of the speech codec's codes, given level 0 and the codes of a voice.
    `solami_hf.modeling.convert.convert_soundstorm` loads the original's checkpoints into it."""

    code_file = __file__
    config_class = SolamiSoundStormConfig
    base_model_prefix = "soundstorm"
    main_input_name = "audio_codes"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["SoundStormLayer"]
    _can_record_outputs = {"hidden_states": SoundStormLayer, "attentions": SoundStormAttention}
    _input_embed_layer = "semantic_embedding"

    def __init__(self, config: SolamiSoundStormConfig):
        super().__init__(config)
        size, levels, codes = config.hidden_size, config.num_acoustic_levels, config.codebook_size
        self.semantic_embedding = nn.Embedding(config.num_given_levels * config.num_semantic_codes, size)
        self.code_embedding = nn.Embedding(levels * (codes + 1), size)
        self.layers = nn.ModuleList(SoundStormLayer(config) for _ in range(config.num_hidden_layers))
        if config.vector_size:
            self.sum_head = nn.Linear(size, config.num_given_levels * config.vector_size)
            self.register_buffer("vectors", torch.zeros(levels, codes, config.vector_size))
        else:
            self.head_projection = nn.Linear(size, levels * size)
            self.head_norm = SoundStormNorm(size, config.layer_norm_eps)
            self.head_weight = nn.Parameter(torch.empty(levels, size, codes))
            self.head_bias = nn.Parameter(torch.empty(levels, codes))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, SoundStormConvolution):
            init.ones_(module.channel_scale)
        elif isinstance(module, nn.Conv1d):
            init.normal_(module.weight, std=self.config.conv_kernel_size**-0.5)
            init.zeros_(module.bias)
        elif isinstance(module, SolamiSoundStormModel) and self.config.vector_size:
            init.zeros_(module.vectors)
        elif isinstance(module, SolamiSoundStormModel):
            init.normal_(module.head_weight, std=std)
            init.zeros_(module.head_bias)

    @torch.no_grad()
    def generate(
        self,
        semantic_codes: torch.Tensor,
        prompt_codes: torch.Tensor | None = None,
        steps: int | Sequence[int] = 4,
        generator: Draws | Sequence[Draws] | None = None,
        *,
        code_mask: torch.Tensor | None = None,
        prompt_mask: torch.Tensor | None = None,
        mode: str = "corrected",
        greedy: bool = True,
        temperature: float = 1.0,
        on_call: Callable[[torch.Tensor], None] | None = None,
    ) -> torch.LongTensor:
        """Levels 1, 2, ... for level 0, in the voice of the prompt. Clips of a batch do not touch.

        `semantic_codes` (B, T') are integers, level 0 of what is to be said; (B, num_given_levels, T') of several.
        `prompt_codes` (B or 1, num_quantizers, P) are all levels of a few seconds in the voice, of which one serves
        every clip; None is any voice. `code_mask` (B, T') and `prompt_mask` (B or 1, P) are boolean, True = real;
        padding comes behind. `steps` are the calls for the first rows, as many as are given, the others take one each;
        or the calls of every row.

        `generator` is the source of random numbers: a `torch.Generator`, or a function from a shape to a tensor of
        numbers uniform in [0, 1); or a sequence of these, one for each clip, and then a batch draws what its clips
        alone would draw. None: nothing is random, the most probable code is taken everywhere; `greedy` takes it in
        levels of one step even with a generator. `temperature` is that of the first draw of a level, falling in equal
        steps ("corrected" only). `on_call` is called with the codes (B, num_quantizers, P + T') before each call of
        the network; unfilled cells hold `config.mask_code`, padding is behind.

        `mode` "corrected" keeps the prompt and reveals, level by level, what the cosine schedule says of the cells to
        fill. "upstream" does as the original does, faults included: `steps` + 1 calls for level 1, the prompt
        overwritten from level 2 on, almost nothing masked again, temperatures that rise. It takes no padding, and
        always draws: (B, frames * levels, codebook_size) uniform numbers for each call that samples, from torch's
        global generator if `generator` is None.

        Returns codes (B, num_quantizers, T'), the first as given, 0 where `code_mask` is False. Raises ValueError:
        wrong shapes or types, codes out of range, a bad mask, nothing to fill, more frames than `config.max_frames`,
        no step, or an unknown mode.
        """
        if mode not in ("corrected", "upstream"):
            raise ValueError(f'mode is {mode!r}, expected "corrected" or "upstream"')
        semantic_codes, prompt_codes = self._check_generate(semantic_codes, prompt_codes)
        (batch, given, size), device = semantic_codes.shape, semantic_codes.device
        length = _lengths_on_host(code_mask, (batch, size), "code_mask")
        if prompt_mask is not None and len(prompt_mask) == 1:
            prompt_mask = prompt_mask.expand(batch, -1)
        start = _lengths_on_host(prompt_mask, (batch, prompt_codes.shape[-1]), "prompt_mask")
        wanted = torch.tensor(start, device=device)[:, None] + torch.arange(size, device=device)
        padding = None if code_mask is None else ~code_mask.to(device)
        codes = self._join(semantic_codes, prompt_codes, start, length)
        frames = codes.shape[-1]
        steps = _steps_of_levels(steps, self.config.num_acoustic_levels, given)
        if self.config.vector_size:
            codes = fill_sums(self, codes, start, length)
        elif mode == "upstream":
            if given > 1 or any(begin + end != frames for begin, end in zip(start, length, strict=True)):
                raise ValueError('mode="upstream" takes no padding, as the original; give speech of equal length')
            if any(step != 1 for step in steps[1:]):
                raise ValueError(f'mode="upstream" has one step for levels 2, 3, ..., as the original; got {steps}')
            codes = fill_upstream(self, codes, steps, generator, greedy, on_call)
        else:
            codes = fill_levels(self, codes, start, length, steps, generator, greedy, temperature, on_call)
        picked = codes.gather(2, wanted.clamp(max=frames - 1)[:, None].expand(-1, codes.shape[1], -1))
        return picked if padding is None else picked.masked_fill(padding[:, None], 0)

    def fill_motion(
        self, given: Sequence[torch.Tensor], code_mask: torch.Tensor | None = None, **kwargs
    ) -> list[torch.Tensor]:
        """All levels (B, q, T') of body and of hand for their level 0 (B, T') each; arguments of `generate`."""
        codes = torch.stack(list(given), dim=1)
        codes = codes if code_mask is None else codes.masked_fill(~code_mask[:, None], 0)
        filled = self.generate(codes if len(given) > 1 else codes[:, 0], code_mask=code_mask, **kwargs)
        return list(filled.unflatten(1, (-1, len(given))).unbind(2))

    @capture_outputs
    def forward(
        self,
        audio_codes: torch.Tensor,
        code_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> SolamiSoundStormOutput:
        """Scores of the codes of levels 1, 2, ..., or the loss of the labelled cells.

        `audio_codes` (B, num_quantizers, T) are integers; `config.mask_code` in masked cells of levels 1, 2, ..., and
        `config.num_semantic_codes` in level 0 where it is unknown. `code_mask` (B, T) is boolean, True = real; padding
        comes behind. `labels` (B, num_acoustic_levels, T) are codes to learn, -100 elsewhere (see
        `soundstorm_masking.hide_codes`); only these cells are computed. `output_hidden_states` and `output_attentions`
        are by default what the config says; pass them, as `return_dict=False` for a plain tuple, by name. Raises
        ValueError: wrong shapes or types, codes out of range, a bad mask, labels without any cell.
        """
        self._check_codes(audio_codes)
        batch, _, frames = audio_codes.shape
        lengths = mask_lengths(code_mask, (batch, frames), "code_mask", audio_codes.device)
        mask = None if code_mask is None else code_mask.to(audio_codes.device)
        if mask is not None and mask.device.type == "cpu" and (lengths == frames).all():
            mask = None
        context = self.context(frames, mask)
        embeddings = self.embed(audio_codes)
        if labels is None:
            hidden = self.encode(embeddings, context)
            if self.config.vector_size:
                return SolamiSoundStormOutput(sums=self.sums(hidden))
            logits = [self.level_logits(hidden, level) for level in range(self.config.num_acoustic_levels)]
            return SolamiSoundStormOutput(logits=torch.stack(logits, dim=1))
        return self._loss(embeddings, context, labels)

    def _loss(
        self, embeddings: torch.Tensor, context: SoundStormContext, labels: torch.Tensor
    ) -> SolamiSoundStormOutput:
        expected = (embeddings.shape[0], self.config.num_acoustic_levels, embeddings.shape[1])
        if tuple(labels.shape) != expected:
            raise ValueError(f"labels has shape {tuple(labels.shape)}, expected {expected} (levels 1, 2, ...)")
        cells = (labels != -100).any(1).flatten().nonzero()[:, 0]
        if not len(cells):
            raise ValueError("labels is -100 everywhere; mask at least one cell, see soundstorm_masking.hide_codes")
        hidden = self.encode(embeddings, context, cells)
        if self.config.vector_size:
            wanted = labels.transpose(1, 2).flatten(0, 1)[cells]
            if (wanted == -100).any():
                raise ValueError("labels is -100 in some levels of a frame; a model with `vector_size` needs all")
            rows = torch.arange(len(self.vectors), device=wanted.device)
            vectors = self.vectors[rows, wanted].unflatten(1, (-1, self.config.num_given_levels))
            sums = self.sums(hidden)
            loss = (sums - vectors.sum(1)).square().sum(-1).add(1e-8).sqrt().mean()
            first = torch.cdist(sums[:, 0], self.vectors[0]).argmin(-1)
            return SolamiSoundStormOutput(loss=loss, accuracy=(first == wanted[:, 0]).float().mean())
        losses, right, count = [], 0, 0
        for level in range(labels.shape[1]):
            wanted = labels[:, level].flatten()[cells]
            labelled = wanted != -100
            if labelled.any():
                logits, wanted = self.level_logits(hidden[labelled], level), wanted[labelled]
                losses.append(F.cross_entropy(logits, wanted, reduction="sum"))
                right, count = right + (logits.argmax(-1) == wanted).sum(), count + len(wanted)
        return SolamiSoundStormOutput(loss=sum(losses) / count, accuracy=right / count)

    def context(self, frames: int, mask: torch.Tensor | None = None) -> SoundStormContext:
        """Context of all calls for clips of so many `frames`; `mask` (B, frames) None if all is real."""
        half = torch.arange(0, self.config.head_dim, 2, device=self.device, dtype=torch.float32)
        speed = self.config.rotary_base ** -(half / self.config.head_dim)
        angle = torch.arange(frames, device=self.device, dtype=torch.float32)[:, None, None] * speed
        cos, sin = angle.cos(), angle.sin()
        return SoundStormContext(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1), mask)

    def embed(self, audio_codes: torch.Tensor) -> torch.Tensor:
        """Sum of the embeddings of all levels: (B, num_quantizers, T) to (B, T, hidden_size), at least float32."""
        given, size, total = self.config.num_given_levels, self.config.num_semantic_codes, 0
        for row in range(given):
            unknown = audio_codes[:, row] == size
            known = self.semantic_embedding(audio_codes[:, row].masked_fill(unknown, 0) + row * size)
            known = known.to(torch.promote_types(self.dtype, torch.float32))
            total = total + known.masked_fill(unknown[..., None], 0)
        for level in range(self.config.num_acoustic_levels):
            total = total + self.embed_level(audio_codes[:, level + given], level)
        return total

    def embed_level(self, codes: torch.Tensor, level: int) -> torch.Tensor:
        """Vectors (..., hidden_size) of codes (...) of acoustic `level` 0, 1, ...; `config.mask_code` has one too."""
        return self.code_embedding(codes + level * (self.config.codebook_size + 1))

    def encode(
        self, embeddings: torch.Tensor, context: SoundStormContext, cells: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The conformer: (B, T, hidden_size) to the same shape, or to (n, hidden_size) for n `cells` of B * T."""
        hidden = embeddings
        for layer in self.layers[:-1]:
            hidden = layer(hidden, context)
        return self.layers[-1](hidden, context, cells)

    def sums(self, hidden: torch.Tensor) -> torch.Tensor:
        """What all levels to fill add up to, (..., num_given_levels, vector_size), for hidden states."""
        sums = self.sum_head(hidden.to(self.sum_head.weight.dtype)).float()
        return sums.unflatten(-1, (-1, self.config.vector_size))

    def level_logits(self, hidden: torch.Tensor, level: int) -> torch.Tensor:
        """Scores (..., codebook_size), at least float32, of acoustic `level` 0, 1, ... for hidden states."""
        rows = slice(level * self.config.hidden_size, (level + 1) * self.config.hidden_size)
        weight, bias = self.head_projection.weight[rows], self.head_projection.bias[rows]
        exact = torch.promote_types(self.dtype, torch.float32)
        hidden = self.head_norm(F.linear(hidden.to(weight.dtype), weight, bias).to(exact))
        # in half precision codes would tie: the last product is a hundredth of the work
        return hidden @ self.head_weight[level].to(exact) + self.head_bias[level].to(exact)

    def _join(self, semantic: torch.Tensor, prompt: torch.Tensor, start: list[int], length: list[int]):
        """Prompt and masked speech of each clip without a gap: (B, num_quantizers, longest), padding behind is 0."""
        spans = list(zip(start, length, strict=True))
        codes = prompt.new_zeros(*prompt.shape[:2], max(begin + size for begin, size in spans))
        for row, (begin, size) in enumerate(spans):
            codes[row, :, :begin] = prompt[row, :, :begin]
            codes[row, : semantic.shape[1], begin : begin + size] = semantic[row, :, :size]
            codes[row, semantic.shape[1] :, begin : begin + size] = self.config.mask_code
        return codes

    def _check_generate(
        self, semantic: torch.Tensor, prompt: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both as int64 on the model's device, one prompt (perhaps of no frames) for each clip."""
        config = self.config
        given = config.num_given_levels
        check_integers(semantic, "semantic_codes", "(batch, frames)" if given == 1 else f"(batch, {given}, frames)")
        semantic = semantic[:, None] if given == 1 else semantic
        if semantic.shape[1] != given or 0 in semantic.shape:
            raise ValueError(f"semantic_codes of shape {tuple(semantic.shape)} is empty, or not of {given} rows")
        semantic = semantic.to(self.device, torch.long)
        check_range(semantic, config.num_semantic_codes, "semantic_codes")
        if prompt is None:
            prompt = semantic.new_zeros(len(semantic), config.num_quantizers, 0)
        check_integers(prompt, "prompt_codes", "(batch, levels, frames)")
        batch, levels, frames = prompt.shape
        if levels != config.num_quantizers or batch not in (1, len(semantic)):
            raise ValueError(
                f"prompt_codes has shape {tuple(prompt.shape)}, expected ({len(semantic)} or 1, "
                f"{config.num_quantizers}, frames): every level of the codec, one prompt for each clip or for all"
            )
        if frames + semantic.shape[2] > config.max_frames:
            raise ValueError(
                f"prompt_codes and semantic_codes have {frames} + {semantic.shape[2]} frames, expected at most "
                f"{config.max_frames} together; cut the speech into pieces"
            )
        prompt = prompt.to(self.device, torch.long).expand(len(semantic), -1, -1)
        if frames:
            check_range(prompt[:, :given], config.num_semantic_codes, "level 0 of prompt_codes")
            check_range(prompt[:, given:], config.codebook_size, "prompt_codes")
        return semantic, prompt

    def _check_codes(self, codes: torch.Tensor) -> None:
        config = self.config
        check_integers(codes, "audio_codes", "(batch, levels, frames)")
        if codes.shape[1] != config.num_quantizers or 0 in codes.shape:
            raise ValueError(
                f"audio_codes has shape {tuple(codes.shape)}, expected (batch, {config.num_quantizers}, frames) with "
                "at least one frame"
            )
        given = config.num_given_levels
        check_range(codes[:, :given], config.num_semantic_codes + 1, "level 0 of audio_codes")
        check_range(codes[:, given:], config.codebook_size + 1, "audio_codes")


def _lengths_on_host(mask: torch.Tensor | None, shape: tuple[int, int], name: str) -> list[int]:
    """Real length of each row; a mask on a GPU is read, which makes the host wait once, without one nothing is."""
    return [shape[1]] * shape[0] if mask is None else mask_lengths(mask, shape, name, mask.device).tolist()


def _steps_of_levels(steps: int | Sequence[int], levels: int, given: int) -> list[int]:
    """Number of calls of each acoustic level."""
    chosen = list(steps) if isinstance(steps, list | tuple) else [*[steps] * given, *[1] * (levels - given)][:levels]
    if len(chosen) != levels or not all(isinstance(step, Integral) and step >= 1 for step in chosen):
        raise ValueError(f"steps is {steps!r}, expected an integer of at least 1, or {levels} of them (one per level)")
    return chosen
