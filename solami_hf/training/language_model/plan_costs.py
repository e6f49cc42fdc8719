"""Parameters, memory and operations of a training run, computed; `plan` puts them together.

- states of mixed-precision Adam, 2 + 2 + 12 bytes a parameter, and what ZeRO divides: Rajbhandari et al., "ZeRO", SC
  2020 (arXiv 1910.02054), section 3; 4 + 4 + 8 in fp32, and 2 more for autocast's copies. Offloading: Ren et al.,
  "ZeRO-Offload" (2101.06840). Communication buffers: DeepSpeed's page on ZeRO, 4.5 times a bucket twice over.
- activations: Korthikanti et al., "Reducing Activation Recomputation" (2205.05198), equations 1 and 2, taken apart by
  tensor, so that gated layers, grouped heads and RMSNorm count as PyTorch keeps them; attention's scores only for
  `eager`. With checkpointing a layer's input stays, and the rest exists for one layer at a time.
- operations: 2 a weight and token forwards, 2 for the gradient of inputs, 2 for that of trained weights, 2 more for
  recomputing; attention as in PaLM (Chowdhery et al., 2204.02311, appendix B).
- QLoRA: 4.127 bits a weight of the linear layers (Dettmers et al., 2305.14314, section 3).
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...modeling.solami.vocabulary import DEFAULT_SIZES, MARKERS
from ...processing.files.text_files import read_json
from .chunked_loss import ROWS

GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """Devices of one kind; sizes in bytes."""

    name: str
    memory: float  # of a device
    tflops: dict[str, float]  # "fp32", "fp16", "bf16" -> dense peak of a device in TFLOP/s; a missing one is not there
    utilisation: float  # share of the peak that training reaches, recomputing counted as work
    devices: int = 1
    devices_per_node: int = 8  # that share a host
    host_memory: float = 0  # RAM of a host, 0 when unknown; a CPU has its `memory` from it
    reserve: float = 2 * GIB  # of a device, for the driver's context, libraries and fragments


@dataclass(frozen=True)
class Counts:
    """Of a model: numbers of parameters, and what shapes its activations."""

    total: int
    linear: int  # of the layers' matrices, without the head
    ends: int  # of the input embedding and, where it is not the same, the head
    head: int  # also when it is the embedding
    adapters: int
    adapter_inputs: int  # channels that all adapters read together
    rows: int  # what is trained of embedding and head beside adapters
    layers: int
    hidden: int
    heads: int
    query: int  # channels of all heads
    keys: int
    intermediate: int
    intermediates_kept: int  # tensors of the feed-forward part's inner width that its backward pass needs
    vocabulary: int
    rms_norm: bool
    dropout: bool
    eager: bool


@dataclass(frozen=True)
class Settings:
    """The part of a run's arguments that memory and time hang on."""

    batch: int
    accumulation: int
    length: int
    precision: str
    checkpointing: bool
    chunked_loss: bool | None = None  # None: not said, so all logits are counted
    deepspeed: dict = field(default_factory=dict)
    lora: bool = False  # or rows alone
    bits: int = 0
    half_frozen: bool = False

    @property
    def zero(self) -> dict:
        return self.deepspeed.get("zero_optimization", {})

    @property
    def zero_stage(self) -> int:
        return int(self.zero.get("stage", 0))

    def offloads(self, part: str) -> bool:
        """True if "optimizer" or "param" (the weights) lies in the host's memory."""
        return self.zero.get(f"offload_{part}", {}).get("device", "none") != "none"


def read_settings(arguments, lora=None) -> Settings:
    """`Settings` of training arguments. ValueError or FileNotFoundError when `deepspeed` names no configuration."""
    deepspeed = arguments.deepspeed or {}
    if isinstance(deepspeed, (str, Path)):
        deepspeed = read_json(deepspeed)
    if deepspeed and "zero_optimization" not in deepspeed:
        raise ValueError(f"{arguments.deepspeed} has no zero_optimization, expected a DeepSpeed configuration")
    return Settings(
        batch=arguments.per_device_train_batch_size,
        accumulation=arguments.gradient_accumulation_steps,
        length=arguments.max_length,
        precision="fp16" if arguments.fp16 else "bf16" if arguments.bf16 else "fp32",
        checkpointing=bool(arguments.activation_checkpointing or arguments.gradient_checkpointing),
        chunked_loss=None if lora is None else lora.chunked_loss,
        deepspeed=deepspeed,
        lora=lora is not None and lora.trained != "all",
        bits=lora.bits if lora is not None else 0,
        half_frozen=lora is not None and lora.frozen_dtype != "float32",
    )


def count_parameters(config, lora=None) -> tuple[Counts, list[str]]:
    """`Counts` of a model that is built on the meta device, with the adapters of `lora`, and notes. Raises
    ValueError: adapters are asked for and no layer of the model has one of the names."""
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    config, notes = copy.deepcopy(config), []
    if not getattr(config, "modalities", None):
        more = len(MARKERS) + sum(DEFAULT_SIZES.values())
        config.vocab_size += more
        notes.append(f"the model has no modality tokens yet; {more:,} rows are planned for them")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    linear = {n: m.weight for n, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m != head}
    targets = tuple(lora.lora_target_modules) if lora is not None and lora.trained != "new_tokens" else ()
    adapted = [w for name, w in linear.items() if targets == ("all-linear",) or name.rsplit(".")[-1] in targets]
    if lora is not None and lora.use_peft and not adapted:
        names = sorted({name.rsplit(".")[-1] for name in linear})
        raise ValueError(f"no layer is called {' or '.join(targets)}; set lora_target_modules among {names}")
    turned = any(isinstance(m, Conv1D) for m in model.modules())
    width = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    # gate, up, activation and product; or NewGELU's five steps; or the activation's input and output
    gated, slow = any("gate_proj" in n for n in linear), getattr(config, "activation_function", "") == "gelu_new"
    return Counts(
        total=sum(p.numel() for p in model.parameters()),
        linear=sum(weight.numel() for weight in linear.values()),
        ends=embedding.numel() + (0 if head.weight is embedding else head.weight.numel()),
        head=head.weight.numel(),
        adapters=sum(lora.lora_r * sum(w.shape) for w in adapted),
        adapter_inputs=sum(w.shape[0 if turned else 1] for w in adapted),
        rows=_trained_rows(config, lora) * config.hidden_size * (1 if head.weight is embedding else 2),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        query=heads * size,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * size,
        intermediate=width,
        intermediates_kept=4 if gated else 5 if slow else 2,
        vocabulary=config.vocab_size,
        rms_norm=hasattr(config, "rms_norm_eps"),
        dropout=getattr(config, "resid_pdrop", 0) > 0,
        eager=model.config._attn_implementation == "eager",
    ), notes


def _trained_rows(config, lora) -> int:
    """Rows of the embedding that are trained beside adapters, or alone."""
    words = () if lora is None else ("new_tokens",) if lora.trained == "new_tokens" else lora.lora_modules_to_save
    if "new_tokens" not in words:
        return config.vocab_size if lora is None or "embeddings" in words else 0
    spans = (getattr(config, "modalities", None) or {}).values()
    return len(MARKERS) + (sum(span["size"] for span in spans) or sum(DEFAULT_SIZES.values()))


def memory_of(c: Counts, s: Settings, hardware: Hardware) -> tuple[dict[str, float], float]:
    """Part -> bytes on each device, and bytes on each host for what is offloaded."""
    share = [1 / hardware.devices if s.zero_stage >= stage else 1.0 for stage in range(4)]
    half = s.precision != "fp32"
    each = 2 if half and s.deepspeed else 4
    trained = c.adapters + c.rows if s.lora else c.total
    still = 2 if s.half_frozen else each
    frozen = {0: still, 4: 4.127 / 8, 8: 1}[s.bits] * c.linear + still * (c.total - c.linear) if s.lora else 0.0
    weights = (each * trained + frozen) * share[3]
    # autocast casts every matrix; recomputed frozen ones are cast a layer at a time
    cast = 0 if not half or s.deepspeed else 2 * (c.head + (0 if s.lora and s.checkpointing else c.linear))
    gradients = each * trained * share[2]
    optimizer = (12 if s.deepspeed else 8) * trained * share[1]
    host = 0.0
    if s.offloads("optimizer"):
        host, gradients, optimizer = gradients + optimizer, 0.0, 0.0
    if s.offloads("param"):
        host, weights = host + weights, 0.0
    memory = {
        "weights": weights + cast,
        "gradients": gradients,
        "optimizer": optimizer,
        "communication buffers": _buffers(c, s, hardware, trained, each),
        "activations": activation_memory(c, s),
        "logits and loss": _logits(c, s),
        "context, fragments": hardware.reserve,
    }
    return memory, host * min(hardware.devices, hardware.devices_per_node)


def _buffers(c: Counts, s: Settings, hardware: Hardware, trained: int, each: int) -> float:
    """DeepSpeed's buckets and, in stage 3, the weights gathered at a time; DDP's buckets hold all gradients."""
    if not s.deepspeed:
        return 4.0 * trained if hardware.devices > 1 else 0.0
    bucket = s.zero.get("reduce_bucket_size", 5e8)
    bucket = c.hidden**2 if bucket == "auto" else bucket
    gathered = min(c.total, s.zero.get("stage3_max_live_parameters", 1e9)) if s.zero_stage == 3 else 0
    return 4.5 * 2 * each * min(bucket, trained) + each * gathered


def activation_memory(c: Counts, s: Settings) -> float:
    """Bytes on a device of what the backward pass needs, without the logits."""
    wide = 4 if s.precision == "fp32" else 2
    stream = 2 if wide == 2 and s.deepspeed else 4  # autocast keeps what runs past the layers in fp32
    norm = c.hidden * (4 + stream if c.rms_norm else stream)  # RMSNorm computes in fp32 and keeps both
    layer = 2 * norm + 2 * wide * c.hidden + 2 * wide * (c.query + c.keys)
    layer += wide * c.intermediates_kept * c.intermediate + (2 * c.hidden if c.dropout else 0)
    if c.eager:  # softmax, its dropout's mask and result
        layer += c.heads * s.length * (2 * wide + 1)
    if s.lora:  # each adapter reads a copy of its input with its own dropout
        layer += (wide + 1) * c.adapter_inputs / c.layers
    kept = c.layers * stream * c.hidden + layer if s.checkpointing else c.layers * layer
    return s.batch * s.length * (kept + norm + (stream * c.hidden if c.dropout else 0))


def _logits(c: Counts, s: Settings) -> float:
    """Logits, their fp32 version, its logarithm and two gradients; in parts (`chunked_loss`) those of some rows (a
    tile of the kernel on GPUs is as large), and the fp32 sums of the gradients of hidden states and head."""
    tokens, half = s.batch * s.length, 0 if s.precision == "fp32" else 2
    if not s.chunked_loss:
        return tokens * c.vocabulary * (12 + (half or 4))
    summed = tokens + (0 if s.lora and not c.rows else c.vocabulary)
    return min(ROWS, tokens) * c.vocabulary * (4 + half) + 4 * c.hidden * summed


def operations_per_token(c: Counts, s: Settings) -> float:
    """Floating-point operations of training on a token, forwards, backwards and recomputed."""
    attention = 4 * c.layers * c.query * s.length
    layers = 2 * c.linear + attention
    trained = 2 * (c.adapters + c.head if s.lora else c.linear + c.head)
    # torch stops recomputing before a layer's last product, unless dropout follows it
    again = layers - (0 if c.dropout else 2 * c.layers * c.hidden * c.intermediate)
    return 2 * layers + attention + 4 * c.head + trained + (again if s.checkpointing else 0)
