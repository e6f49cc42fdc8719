"""Language models for answering: whole checkpoints and adapters, in any dtype, in 8 bits, on any device map."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import cached_file

from ..modeling.solami.modeling_solami import hub_kwargs
from ..processing.checkpoint_models import CODECS
from ..processing.files.folder_or_hub import hub_id


def load_model(
    path, dtype=torch.float32, quantization: str | None = None, base=None, merge: bool = False, **kwargs
) -> PreTrainedModel:
    """The language model of a checkpoint, or of an adapter on its base.

    `path` is a folder or hub id of a checkpoint, or of a PEFT adapter (with `adapter_config.json`); `dtype` a
    `torch.dtype`, its name, or "auto" (`torch_dtype` among the others is the same); `quantization` "int8" for linear
    layers in 8 bits by bitsandbytes, on a GPU or CPU. `base` is the model that the adapter was trained on, by default
    the one that it names; `merge` adds the adapter to its weights, else it is computed beside them, in its layers.
    `kwargs` go to `from_pretrained` (`device_map`, `revision`, `attn_implementation`, ...).

    Raises FileNotFoundError: the adapter's base is gone; OSError: nothing to load there; ValueError: two dtypes,
    unknown or missing quantisation, `base` or `merge` without an adapter, or merging into quantised weights, or an
    adapter that does not fit.
    """
    named = kwargs.pop("torch_dtype", dtype)
    if dtype not in (torch.float32, named):
        raise ValueError(f"dtype is {dtype} and torch_dtype {named}; they mean the same, leave one of them out")
    dtype = named
    options = {"dtype": dtype, **_quantized(quantization), **kwargs}
    hub = hub_kwargs(kwargs)
    named = _base_of(path, **hub)
    if named is None:
        if base is not None or merge:
            raise ValueError(f"{path} is no adapter: it has no adapter_config.json; leave `base` and `merge` out")
        _check_device_map(path, options.get("device_map"), hub)
        return AutoModelForCausalLM.from_pretrained(path, **options)
    if merge and quantization:
        raise ValueError("an adapter cannot be merged into quantised weights; leave `merge` or `quantization` out")
    from peft import PeftModel

    of_base = {name: value for name, value in options.items() if name != "revision"}  # that is the adapter's
    source = _there(base or named, path)
    _check_device_map(source, options.get("device_map"), {})
    model = AutoModelForCausalLM.from_pretrained(source, **of_base)
    try:
        adapted = PeftModel.from_pretrained(model, str(path), **hub)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {base or named}, it was trained on another model ({error})") from None
    return adapted.merge_and_unload() if merge else adapted.get_base_model()


def _check_device_map(path, device_map, hub: dict) -> None:
    """ValueError where one of two tied matrices would be on a disk and the other not, which accelerate cannot do."""
    if not isinstance(device_map, dict):
        return
    on_disk = {name.rsplit(".", 1)[-1] for name, place in device_map.items() if place == "disk"}
    if len(on_disk & {"embed_tokens", "lm_head"}) == 1 and AutoConfig.from_pretrained(path, **hub).tie_word_embeddings:
        raise ValueError(
            f"device_map puts one of embed_tokens and lm_head on a disk, but in {path} they are one matrix; put both "
            "there, or neither"
        )


def input_device(model: PreTrainedModel) -> torch.device:
    """Device of a model's input: with its first weights, or on the CPU where those are read from a disk."""
    return torch.device("cpu") if model.device.type == "meta" else model.device


@contextmanager
def answering(model: PreTrainedModel) -> Iterator[None]:
    """Takes a model that is in training out of it for the while: there is no dropout in answers, and layers with
    gradient checkpointing would leave their cache alone."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def processor_source(path, base=None, **kwargs) -> tuple[str, dict]:
    """Source of the processor of a checkpoint or adapter, and the keyword arguments for the hub. An adapter's is
    beside it, in the folder of its run, or with its base."""
    hub = hub_kwargs(kwargs)
    named = _base_of(path, **hub)
    if named is None:
        return path, hub
    for folder in (Path(path), Path(path).parent):
        if (folder / "processor_config.json").is_file():
            return str(folder), {}
    if not Path(path).is_dir() and _has_file(path, "processor_config.json", **hub):
        return path, hub
    return _there(base or named, path), {name: value for name, value in hub.items() if name != "revision"}


def is_adapter(path, **kwargs) -> bool:
    """True if a folder or hub id holds an adapter, not a whole checkpoint; keyword arguments as for the hub."""
    return _base_of(path, **hub_kwargs(kwargs)) is not None


def _base_of(path, **hub) -> str | None:
    """The base that an adapter names, None where there is no adapter."""
    if (Path(path) / "config.json").is_file():  # a run's folder is whole, whatever it has trained
        return None
    if not _has_file(path, "adapter_config.json", **hub):
        return None
    from peft import PeftConfig

    return PeftConfig.from_pretrained(str(path), **hub).base_model_name_or_path


def _has_file(path, name: str, **hub) -> bool:
    """True if a folder or repository has this file; whoever loads the rest says why nothing can be read."""
    try:
        return cached_file(path, name, **hub) is not None
    except OSError:
        return False


def _there(base, adapter) -> str:
    base = str(base)
    if not Path(base).is_dir() and hub_id(base) is None:
        raise FileNotFoundError(f"{adapter} was trained on {base}, which is not there; say where it is with `base`")
    return base


def _quantized(quantization: str | None) -> dict:
    """Keyword arguments of `from_pretrained`."""
    if quantization is None:
        return {}
    if quantization != "int8":
        raise ValueError(f"quantization is {quantization!r}, expected int8 or None")
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"quantization {quantization} needs bitsandbytes; pip install 'solami_hf[qlora]'")
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}


SMALL = 20_000_000
"""Weights of all models together; the demo's character has about 14 million."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch's operations of this thread run on `count` threads for the while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fitting_threads(pipeline) -> Iterator[None]:
    """Small models answer on one thread, larger ones on all. Small ones gain nothing by more: one of 3.9M weights took
    2.4 s for an answer on two threads and 2.6 s on one. But where another program keeps a core busy, each of their
    thousands of short shared steps waits until the thread on that core has its turn: that answer took 8.3 s on two
    threads and 3.1 s on one."""
    processor = pipeline.processor
    models = pipeline.model, *(getattr(processor, name, None) for name in CODECS)
    weights = sum(weight.numel() for model in models if model is not None for weight in model.parameters())
    with torch_threads(1 if weights <= SMALL else torch.get_num_threads()):
        yield
