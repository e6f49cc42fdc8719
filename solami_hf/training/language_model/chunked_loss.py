"""The loss of a causal language model without its matrix of logits, and what each token has to do with it.

The head is applied to the labelled positions only, a part at a time, in the forward and again in the backward pass.
On GPUs a part is a tile of TRL's kernel (`trl.kernels.ChunkedLogProbFunction`, in Triton), slow in torch;
on CPUs it is some rows, always in the same memory. TRL's own `add_fused_lm_head` has tiles of 4,096 x 32,768 and on
CPUs scores every position: it saves next to nothing at our vocabularies.
"""

import functools
import logging
from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import ModelOutput

from ...processing.rendering import IGNORE

# Entries of the vocabulary in a tile of the kernel; in torch some eight copies of the tile live at once.
TILE_WIDTH = 2048
# Positions at a time elsewhere.
ROWS = 256
# What some configs do to logits, and experts to the loss; those models keep their own loss.
_BEYOND_THE_HEAD = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
    "output_router_logits",
)

logger = logging.getLogger(__name__)


@dataclass
class ChunkedLossOutput(ModelOutput):
    """Output of a model with a chunked loss for `labels`, n of which are not -100: `loss` (), the negative
    log-likelihood, summed over them and divided by `num_items_in_batch`, by n without it; `log_probs` (n,), natural
    logarithm of each target's probability; `is_top1` (n,) boolean, whether the target is the most likely token;
    `targets` (n,), the labels that are not -100, row by row."""

    loss: torch.Tensor | None = None
    log_probs: torch.Tensor | None = None
    is_top1: torch.Tensor | None = None
    targets: torch.Tensor | None = None


def add_chunked_loss(model: PreTrainedModel) -> bool:
    """Lets `model(..., labels=labels)` of any decoder return a [`ChunkedLossOutput`]; without labels it is what it
    was. Call it before PEFT or a distributed engine wraps the model. The loss is computed in the model's forward,
    because engines gather weights and begin autocast there; so the model becomes one of a class that does so. Returns
    false, and a warning, for a model whose loss is more than its head gives; it keeps its own."""
    beyond = beyond_the_head(model.config)
    if beyond or model.base_model is model or model.get_output_embeddings() is None:
        reason = f"its config sets {', '.join(beyond)}" if beyond else "it has no backbone and head to call apart"
        logger.warning("%s keeps its own loss, which needs all logits: %s", type(model).__name__, reason)
        return False
    model.__class__ = _with_chunked_loss(type(model))
    return True


@functools.cache
def _with_chunked_loss(model_class: type) -> type:
    """A model class of the same name whose forward gives a [`ChunkedLossOutput`] for labels."""

    class WithChunkedLoss(model_class):
        @functools.wraps(model_class.forward)  # Trainer and `generate` read the signature
        def forward(self, *args, labels=None, num_items_in_batch=None, **kwargs):
            if labels is None:
                return super().forward(*args, **kwargs)
            hidden = self.base_model(*args, **{**kwargs, "return_dict": True}).last_hidden_state[:, :-1]
            # PEFT replaces the head after the model was loaded
            head, targets = self.get_output_embeddings(), labels[:, 1:].to(hidden.device)
            labelled = targets != IGNORE
            targets = targets[labelled]
            log_probs, is_top1 = token_scores(hidden[labelled], head, targets)
            count = max(1, len(targets)) if num_items_in_batch is None else num_items_in_batch
            return ChunkedLossOutput(-log_probs.sum() / count, log_probs, is_top1, targets)

    for name in ("__name__", "__qualname__", "__module__"):  # saved configurations name the class
        setattr(WithChunkedLoss, name, getattr(model_class, name))
    return WithChunkedLoss


def beyond_the_head(config) -> list[str]:
    """Settings of a config that make the loss more than the head gives; such a model keeps its own."""
    settings = {name: getattr(config.get_text_config(), name, None) for name in _BEYOND_THE_HEAD}
    return [name for name, value in settings.items() if value is True or value not in (None, False, 1)]


def token_scores(hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each of the `targets` (n,), float32 with gradients to `hidden` (n, hidden_size) and the
    head, and whether it is the most likely token, bool, both (n,). The head is a linear layer, one that PEFT trains
    in its place, or any module from hidden states to logits."""
    head, zero3 = _trained_copy(head), is_deepspeed_zero3_enabled()
    if type(head) is nn.Linear and hidden.device.type == "cpu" and not zero3:
        return RowsLogProbFunction.apply(hidden, head.weight, head.bias, targets)
    # Adapters on the head, some rows of it alone and quantised weights are no single matrix
    if type(head) is not nn.Linear:
        # ZeRO-3 gathers weights at every call, so all ranks need the same number of calls
        size = max(1, len(hidden)) if zero3 else ROWS
        parts = [
            checkpoint(_score_rows, rows, head, wanted, use_reentrant=False)
            for rows, wanted in zip(hidden.split(size), targets.split(size), strict=True)
        ]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import maybe_gather_lm_head_ctx

    hidden = hidden.to(head.weight.device)
    with maybe_gather_lm_head_ctx(head.weight, head.bias):
        log_probs, _, _, _, is_top1 = ChunkedLogProbFunction.apply(
            hidden,
            head.weight,
            head.bias,
            targets.to(hidden.device),
            1.0,  # temperature
            min(TILE_WIDTH, head.out_features),
            None,  # soft cap of logits
            1.0,  # scale of logits
            ("is_top1",),
        )
    return log_probs, is_top1


class RowsLogProbFunction(torch.autograd.Function):
    """Log-probabilities of targets under a linear head, ROWS positions at a time; see `token_scores`. The logits of a
    part are made once more in the backward pass, where they become their own gradient in place. They are computed as
    autocast says and summed in float32, as are the gradients of the parts."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets):
        """`(log_probs, is_top1)` from (n, hidden_size), (vocab_size, hidden_size), (vocab_size,) or None, (n,)."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        normaliser, picked = (torch.empty(len(hidden), dtype=torch.float32) for _ in range(2))
        is_top1 = torch.empty(len(hidden), dtype=torch.bool)
        for part, _, scores in _logits_of_parts(hidden, weight, bias, dtype):
            picked[part] = scores.gather(1, targets[part, None])[:, 0]
            is_top1[part] = scores.argmax(-1) == targets[part]
            highest = scores.amax(-1, keepdim=True)
            normaliser[part] = scores.sub_(highest).exp_().sum(-1).log_() + highest[:, 0]
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        ctx.dtype = dtype
        ctx.mark_non_differentiable(is_top1)
        return picked - normaliser, is_top1

    @staticmethod
    @once_differentiable
    def backward(ctx, slopes, _):
        """Gradients of what is trained among hidden states, weight and bias."""
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        of_hidden, of_weight, of_bias = (
            torch.zeros(tensor.shape, dtype=torch.float32) if needed else None
            for tensor, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        )
        cast = weight.to(ctx.dtype)
        for part, product, scores in _logits_of_parts(hidden, cast, bias, ctx.dtype):
            # The slope of a log-probability is the one-hot target less the probabilities
            scores.sub_(normaliser[part, None]).exp_().mul_(-slopes[part, None])
            scores.scatter_add_(1, targets[part, None], slopes[part, None])
            if of_bias is not None:
                of_bias += scores.sum(0)
            if ctx.dtype != torch.float32:  # else they are the same memory
                product.copy_(scores)
            if of_hidden is not None:
                of_hidden[part] = (product @ cast).float()
            if of_weight is not None:
                rows = hidden[part].to(ctx.dtype)
                if ctx.dtype == torch.float32:
                    of_weight.addmm_(product.t(), rows)
                else:
                    of_weight += product.t() @ rows
        found = (of_hidden, of_weight, of_bias)
        pairs = zip(found, (hidden, weight, bias), strict=True)
        return *(None if grad is None else grad.to(tensor.dtype) for grad, tensor in pairs), None


def _logits_of_parts(hidden, weight, bias, dtype):
    """Slice, logits in `dtype` and in float32 of ROWS positions at a time; each part is overwritten by the next."""
    weight, size = weight.to(dtype), min(ROWS, len(hidden))
    products = torch.empty((size, len(weight)), dtype=dtype)
    floats = products if dtype == torch.float32 else torch.empty(products.shape, dtype=torch.float32)
    for start in range(0, len(hidden), ROWS):
        part = slice(start, min(start + ROWS, len(hidden)))
        product, scores = products[: part.stop - start], floats[: part.stop - start]
        torch.mm(hidden[part].to(dtype), weight.t(), out=product)
        if bias is not None:
            product += bias.to(dtype)
        if products is not floats:
            scores.copy_(product)
        yield part, product, scores


def _score_rows(hidden, head, targets):
    logits = head(hidden).float()
    return -F.cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(-1) == targets


def _trained_copy(head: nn.Module) -> nn.Module:
    """The layer inside PEFT's `modules_to_save`, other heads as they are."""
    copies = getattr(head, "modules_to_save", None)
    if copies is None:
        return head
    active = [] if head.disable_adapters else head.active_adapters
    return copies[active[0]] if active else head.original_module
