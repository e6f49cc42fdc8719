"""Tokens a second of a 135M model on a CPU: eager, compiled, in bfloat16, in 8 bits, on ONNX Runtime.

A Llama of SmolLM2-135M's shape with random weights gives one answer in each way, in turns, so that what else runs on
the machine slows all of them alike. Theirs is the first way, eager decoding in float32; only tokens behind the first
count. `sliced_head` is eager decoding with the rows that the grammar may let pass over that with all rows, `compiled`
that with a static cache, `int8` that with PyTorch's dynamic quantization of all layers but the head, `int8_compiled`
both, with torchao where it is installed, `onnx` ONNX Runtime with weights of 8 bits (`engine="onnx"`). `--ways` names
those that are wanted beside eager decoding. With `--cpu_time`, for a machine that others use too, the time that the
process computes counts instead of that on the wall; then set OMP_NUM_THREADS=1. `compiled_same_tokens` is 1 where the
compiled model says what the eager one does, `forced` the share of markers, of which the grammar leaves mostly one.
"""

import copy
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from tempfile import TemporaryDirectory

import timing
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import CompileConfig, LlamaConfig

from solami_hf.generation import SolamiPipeline
from solami_hf.generation.serving.onnx_engine import onnx_model

WAYS = ("whole_head", "compiled", "bfloat16", "int8", "int8_compiled", "onnx")
STATIC = {"cache_implementation": "static", "compile_config": CompileConfig(mode="default")}
OPERATIONS = 12
"""Rows of the profile."""

logger = logging.getLogger(__name__)


def smollm(layers: int = 30) -> LlamaConfig:
    """The shape of SmolLM2-135M."""
    return LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )


class Clock:
    """A streamer that notes when each token came, by a clock of `time`."""

    def __init__(self, clock: Callable[[], float]):
        self.clock, self.times = clock, []

    def put(self, value):
        """The prompt comes first, then each token."""
        self.times.append(self.clock())

    def end(self):
        """Nothing is left to do."""


def answer(pipeline: SolamiPipeline, prompt: list[int], settings: dict, clock) -> tuple[float, list[int]]:
    """Seconds a token of an answer, behind its first, and its ids."""
    clock = Clock(clock)
    (ids,) = pipeline.generate_prompts([prompt], streamer=clock, **settings)
    return (clock.times[-1] - clock.times[1]) / (len(ids) - 1), ids


def with_model(pipeline: SolamiPipeline, change: Callable) -> SolamiPipeline:
    """A pipeline of a changed copy of the model, with the same grammar."""
    other = SolamiPipeline(change(copy.deepcopy(pipeline.model)), pipeline.processor, pipeline.max_new_tokens)
    other.grammar = pipeline.grammar
    return other


def in_8_bits(model):
    """PyTorch's own dynamic quantization of the linear layers below the head."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, which has no eager kernels for a CPU
        model.model = torch.ao.quantization.quantize_dynamic(model.model, {torch.nn.Linear}, dtype=torch.qint8)
    return model


def in_8_bits_by_torchao(model):
    """Weights and activations in 8 bits, for the compiler."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model.model, Int8DynamicActivationInt8WeightConfig())
    return model


def log_profile(pipeline: SolamiPipeline, prompt: list[int]) -> None:
    """Where the time of an eager answer goes."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        answer(pipeline, prompt, {}, time.perf_counter)
    rows = sorted(profiled.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    logger.info("an eager answer in %d calls of operations:", sum(row.count for row in rows))
    for row in rows[:OPERATIONS]:
        logger.info("%-48s %8d calls %5.1f %%", row.key, row.count, 100 * row.self_cpu_time_total / total)


def ways_of(pipeline: SolamiPipeline, names: list[str]) -> dict[str, tuple[SolamiPipeline, dict]]:
    """Of each way the pipeline and the settings of an answer."""
    makers = {
        "whole_head": lambda: (pipeline, {"logits_processor": [pipeline.grammar()]}),
        "compiled": lambda: (pipeline, STATIC),
        "bfloat16": lambda: (with_model(pipeline, lambda model: model.bfloat16()), {}),
        "int8": lambda: (with_model(pipeline, in_8_bits), {}),
        "int8_compiled": lambda: (with_model(pipeline, in_8_bits_by_torchao), STATIC),
        "onnx": lambda: (with_model(pipeline, lambda model: converted(model, pipeline.processor.tokenizer)), {}),
    }
    needed = {"int8_compiled": "torchao", "onnx": "onnxruntime_genai"}
    ways = {"eager": (pipeline, {})}
    for name in names:
        if find_spec(needed.get(name, "torch")) is None:
            logger.info("%s is left out: %s is not installed", name, needed[name])
        else:
            ways[name] = makers[name]()
    return ways


def converted(model, tokenizer):
    """The model on ONNX Runtime; its file is read whole, and not kept."""
    with TemporaryDirectory() as folder:
        return onnx_model(model, tokenizer, cache=folder)


def rows(
    pipeline: SolamiPipeline, user: dict, cpu_time: bool = False, names: list[str] = WAYS, repeats: int = 3
) -> dict[str, float]:
    """The ratios; each way answers once before it counts."""
    prompt, clock = pipeline.chat_prompt([user]), time.process_time if cpu_time else time.perf_counter
    ways = ways_of(pipeline, names)
    log_profile(pipeline, prompt)
    seconds, ids = {name: [] for name in ways}, {}
    for number in range(repeats + 1):
        for name, (one, settings) in ways.items():
            took, ids[name] = answer(one, prompt, settings, clock)
            seconds[name] += [took] * (number > 0)
    timing.log_header()
    eager = seconds["eager"]
    results = {name: timing.log_row(f"a token, {name}", eager, took) for name, took in seconds.items()}
    results.pop("eager")
    if "whole_head" in results:
        results["sliced_head"] = 1 / results.pop("whole_head")
    if "compiled" in results:
        results["compiled_same_tokens"] = ids["compiled"] == ids["eager"]
    markers = set(pipeline.model.config.markers.values())
    results["forced"] = sum(token in markers for token in ids["eager"]) / len(ids["eager"])
    best = min(seconds, key=lambda name: statistics.median(seconds[name]))
    for name in dict.fromkeys(("eager", best)):
        logger.info("%s: %.1f tokens a second", name, 1 / statistics.median(seconds[name]))
    return results
