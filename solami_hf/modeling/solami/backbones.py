"""Any decoder as a backbone, whatever its architecture, and a SOLAMI model as a stock Llama for vLLM and others."""

import hashlib
import os
import platform
from importlib.util import find_spec
from pathlib import Path

import jinja2
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from .configuration_solami import LAYOUT_FIELDS, SolamiConfig, require_layout
from .modeling_solami import SolamiForCausalLM, hub_kwargs
from .vocabulary_rows import add_modality_tokens


def extend_backbone(
    backbone, tokenizer=None, *, sizes=None, speech_codec=None, answer_format="motion_speech", **kwargs
) -> PreTrainedModel:
    """A decoder whose vocabulary is extended by the modality tokens, ready for `solami pretrain`.

    `backbone` is the hub id or folder of a checkpoint that `AutoModelForCausalLM` loads, a `.gguf` file, or a loaded
    model; one that is no Llama is changed in place. `tokenizer`, `sizes`, `speech_codec`, `answer_format`: see
    `SolamiForCausalLM.from_backbone`; `kwargs` go to `from_pretrained` when the backbone is a path (`revision`,
    `dtype`, ...).

    Returns a `SolamiForCausalLM` for the Llama architecture, for others (GPT-2, Qwen, ...) the stock model, whose
    config carries the same layout as a `SolamiConfig` does and keeps it in `config.json`. Raises ValueError: the model
    has no language-modelling head, or `sizes` does not fit the speech codec.
    """
    if gguf_file(backbone):
        backbone = read_gguf(backbone, **kwargs)
    is_path = isinstance(backbone, str | os.PathLike)
    config = AutoConfig.from_pretrained(backbone, **hub_kwargs(kwargs)) if is_path else backbone.config
    if config.model_type == "llama" or isinstance(config, SolamiConfig):
        layout = {"sizes": sizes, "speech_codec": speech_codec, "answer_format": answer_format}
        model = SolamiForCausalLM.from_backbone(backbone, tokenizer, **layout, **kwargs)
    else:
        model = AutoModelForCausalLM.from_pretrained(backbone, **kwargs) if is_path else backbone
        add_modality_tokens(model, tokenizer, sizes, speech_codec, answer_format)
    _keep_chat_habit(model, tokenizer)
    allow_cache(model)
    return model


@torch.no_grad()
def _keep_chat_habit(model: PreTrainedModel, tokenizer) -> None:
    """Starts the role markers from the rows of what a backbone's own chat template writes in their place, on average.
    So an instruction-tuned model finds its turns in our format, too. Without a chat template nothing is changed."""
    if not getattr(tokenizer, "chat_template", None):
        return
    user, answer = ({"role": role, "content": "word"} for role in ("user", "assistant"))
    try:
        written = tokenizer.apply_chat_template([user, answer, user, answer], tokenize=False)
        *_, before_answer, before_user, _, _ = written.split("word")
    except (jinja2.TemplateError, ValueError):  # a template of other roles or contents, or one that forgets turns
        return
    markers, rows = model.config.markers, model.get_input_embeddings().weight
    heads = [rows] if model.get_output_embeddings().weight is rows else [rows, model.get_output_embeddings().weight]
    for text, end, begin in ((before_answer, "eoh", "mmgpt"), (before_user, "eos", "human")):
        first, *rest = tokenizer(text, add_special_tokens=False)["input_ids"] or [None]
        for name, ids in ((end, [first]), (begin, rest)):
            for weight in heads if ids and first is not None else []:
                weight[markers[name]] = weight[ids].float().mean(0).to(weight.dtype)


def gguf_file(source) -> dict:
    """`{"gguf_file": its name}` of a `.gguf` file, for `from_pretrained` of its folder; of anything else nothing."""
    is_path = isinstance(source, str | os.PathLike)
    return {"gguf_file": Path(source).name} if is_path and Path(source).suffix.lower() == ".gguf" else {}


def read_gguf(path: str | os.PathLike, dtype: torch.dtype | str = torch.float32, **kwargs) -> PreTrainedModel:
    """The model of a GGUF file, its weights no longer quantised, as a model that can be saved and trained. Its
    architecture is one that transformers reads (Llama, Qwen, ...); its tokenizer comes from
    `AutoTokenizer.from_pretrained(folder, gguf_file=name)`. `dtype` "auto" is float32; `kwargs` are for
    `AutoModelForCausalLM.from_pretrained`. Raises FileNotFoundError: there is no such file; ImportError: the package
    `gguf` is missing."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no GGUF file {path}")
    if find_spec("gguf") is None:
        raise ImportError("GGUF files are read by the package gguf: pip install 'solami_hf[character]'")
    dtype = torch.float32 if dtype == "auto" else dtype
    read = AutoModelForCausalLM.from_pretrained(Path(path).parent, **gguf_file(path), dtype=dtype, **kwargs)
    fields = read.config.to_dict()
    fields.pop("quantization_config", None)  # with it a model cannot be saved
    model = type(read)(type(read.config)(**fields)).to(read.dtype)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    return model


def allow_cache(model: PreTrainedModel) -> None:
    """Takes back a `use_cache: false` that training left in a model's configs; whoever generates would be slow."""
    model.config.use_cache = True
    if model.generation_config.use_cache is False:
        model.generation_config.use_cache = True


def convert_lm_to_llama(source: str | os.PathLike, dtype: torch.dtype | str = "auto", **hub) -> LlamaForCausalLM:
    """The model of a checkpoint, the folder or hub id of a `SolamiForCausalLM`, as `LlamaForCausalLM`; its logits are
    the same. Weights are by default of the type that they are stored in; `hub` are `revision`, `token`, ... of the
    hub. Raises OSError: nothing to load there; ValueError: another architecture, which is stock already, or a config
    without modality tokens."""
    config = AutoConfig.from_pretrained(source, **hub)
    if not isinstance(config, SolamiConfig):
        raise ValueError(
            f"{source} is of model_type {config.model_type!r}, which engines read as it is; only `solami` is converted"
        )
    require_layout(config)
    fields = config.to_dict()
    for name in ("model_type", "architectures", "auto_map", "transformers_version"):
        fields.pop(name, None)
    llama = LlamaConfig(**fields, architectures=["LlamaForCausalLM"])
    for name in LAYOUT_FIELDS:
        setattr(llama, name, getattr(config, name))
    model = LlamaForCausalLM.from_pretrained(source, config=llama, dtype=dtype, **hub)
    allow_cache(model)
    return model


def model_fingerprint(model) -> str:
    """A short hash of names, shapes and a few values of all weights of a language model, quick for large ones."""
    digest = hashlib.sha256(f"{model.dtype} {type(model).__name__}".encode())
    for name, weight in sorted(model.state_dict().items()):
        if isinstance(weight, torch.Tensor):
            values = _in_memory(model, name, weight).reshape(-1)[:: max(1, weight.numel() // 16)]
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(values.float().cpu().numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def _in_memory(model, name: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight of a model, read where a device map has left it on a disk."""
    if not weight.is_meta:
        return weight.detach()
    from accelerate.utils import align_module_device

    parent, _, own = name.rpartition(".")
    module = model.get_submodule(parent)
    with align_module_device(module, "cpu"):
        return getattr(module, own).detach().clone()


# On x86 PyTorch's bfloat16 kernels need AVX-512. On AVX2 a linear layer takes 4.5 times and a convolution 13 times as
# long as in float32, so that the demo would take hours instead of minutes.
def cpu_has_fast_bf16() -> bool:
    """True if bfloat16 is at least as fast as float32 on this machine's CPU; taken for granted beside x86."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not x86 or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
