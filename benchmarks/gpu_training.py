"""Training steps on packed rows: `training` of `gpu.py`.

All weights of 135M and 1B are trained in float32 with bfloat16 autocast, of 7B LoRA's beside embedding and head on
frozen bfloat16 weights, as the recipes do on one GPU.
"""

import statistics
from functools import cache
from importlib.util import find_spec

import data as data_benchmark
import torch
import training
import training_trainers
from datasets import Dataset
from gpu_rows import Setup, config_of, hardware, matrix_peak, measure, show, skip
from transformers import AutoModelForCausalLM
from trl import pack_dataset

from solami_hf.training.language_model.language_model_training import LanguageModelArguments
from solami_hf.training.language_model.plan import PlannedTrainingArguments, make_plan
from solami_hf.training.language_model.plan_costs import GIB

ROWS = {"135m": 16, "1b": 8, "7b": 4, "tiny": 2}  # of a step
LENGTH = {"135m": 2048, "1b": 2048, "7b": 2048, "tiny": 1024}
NEEDS = {"135m": 15, "1b": 20, "7b": 35, "tiny": 10}  # seconds of a row, about
COMPILING = 30  # seconds more where attention is compiled


def training_rows(setup: Setup) -> None:
    """The rows of all sizes, each with the attentions that are there, ours and TRL's."""
    show("matrix_peak_bf16", matrix_peak(setup.device) / 1e12, "TFLOP/s of a matrix product")
    sizes = ("135m", "1b", "7b") if setup.has_gpu else ("tiny",)
    if not setup.has_gpu:
        for size in ("135m", "1b", "7b"):
            skip(f"train_{size}", "no GPU; a tiny model is trained instead")
    flash = flash_attention()
    for ways in (["sdpa", flash, "trl"], ["flex_attention"]):  # what compiles comes last
        for size in sizes:
            for way in ways:
                name = f"train_{size}_{'flash' if way == flash else (way or 'flash').removesuffix('_attention')}"
                if way is None:
                    skip(name, "no flash attention is installed (flash-attn, or kernels)")
                elif way == "flex_attention" and not setup.has_gpu:
                    skip(name, "it is compiled, which takes minutes on a CPU")
                elif way == "flex_attention" and setup.quick and size != "135m":
                    skip(name, "left out with --quick")
                else:
                    needs = NEEDS[size] + COMPILING * (way == "flex_attention")
                    measure(setup, name, train, needs, setup, size, way, flash, name)


def flash_attention() -> str | None:
    """The flash attention that transformers can use here, None without any."""
    if find_spec("flash_attn_interface"):
        return "flash_attention_3"
    if find_spec("flash_attn"):
        return "flash_attention_2"
    return "kernels-community/flash-attn2" if find_spec("kernels") else None


@cache
def packed_rows(length: int) -> tuple[Dataset, object, object]:
    """Packed dialogues of 2 to 5 rounds, their tokenizer, and where the modalities lie."""
    _, tokenizer, layout = data_benchmark.make_tokenizers()
    return pack_dataset(training.render(training.chat_rows(None), length), length, "bfd"), tokenizer, layout


def train(setup: Setup, size: str, way: str, flash: str | None, name: str) -> None:
    """The rows of one size and way: tokens a second, share of the peak, memory and what `--plan` said."""
    rows, tokenizer, layout = packed_rows(LENGTH[size])
    attention = (flash or "sdpa") if way == "trl" else way
    lora = None
    if size == "7b":
        lora = LanguageModelArguments(model="", data="", use_peft=True, frozen_dtype="bfloat16", lora_r=16)
    config = config_of(size)
    config.modalities, config.markers = layout.modalities, layout.markers
    torch.manual_seed(0)
    with torch.device(setup.device):
        dtype = torch.float32 if lora is None else torch.bfloat16
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    steps = (6 if setup.quick else 12) if setup.has_gpu else 4
    options = {"bf16": True, "max_length": LENGTH[size], "activation_checkpointing": size == "7b"}
    if setup.has_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer = training_trainers.train_trl if way == "trl" else training_trainers.train_ours
    # without flash attention TRL's trainer would attend to all rows of a step as one
    batch = 1 if way == "trl" and flash is None else ROWS[size]
    run = trainer(model, tokenizer, rows, steps, lora, batch=batch, **options)
    rate = statistics.median(run.rates[1:] or run.rates)
    arguments = PlannedTrainingArguments("", max_steps=1, per_device_train_batch_size=batch, **options)
    plan = make_plan(config, arguments, hardware(setup), lora or LanguageModelArguments(model="", data=""))
    share = rate * plan.flops / plan.total_tokens / (plan.hardware.tflops["bf16"] * 1e12)
    show(f"{name}_tokens_per_second", rate, f"useful tokens/s, {batch} rows of {LENGTH[size]}")
    show(f"{name}_share_of_peak", share, f"of {plan.hardware.tflops['bf16']:.4g} TFLOP/s")
    if setup.has_gpu:
        free, total = torch.cuda.mem_get_info()
        beside = total - free - torch.cuda.memory_reserved()  # the driver's context
        show(f"{name}_peak_memory", (torch.cuda.max_memory_reserved() + beside) / GIB, "GiB")
        show(f"{name}_planned_memory", sum(plan.memory.values()) / GIB, "GiB by --plan")
