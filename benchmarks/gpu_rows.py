"""What the parts of `gpu.py` share: the device, their time, the rows that a part prints, how they are collected."""

import gc
import json
import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from transformers import LlamaConfig

from solami_hf.modeling.solami.vocabulary import DEFAULT_SIZES, MARKERS
from solami_hf.training.language_model.plan import PRESETS
from solami_hf.training.language_model.plan_costs import Hardware

# Seconds of each part, starting Python included; together under ten minutes, and under four
SECONDS = {"equality": 60, "training": 220, "decoding": 150, "streaming": 60, "speech": 45, "motion": 40}
QUICK = {"equality": 35, "training": 70, "decoding": 60, "streaming": 30, "speech": 20, "motion": 20}
ON_CPU = 150  # of each part without a GPU; on two quiet cores none takes so long

MODALITY_ROWS = len(MARKERS) + sum(DEFAULT_SIZES.values())
LLAMAS = {  # SmolLM2-135M, TinyLlama-1.1B and Llama-2-7B, which AnyGPT is; "tiny" is for machines without a GPU
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
           "num_key_value_heads": 4, "vocab_size": 32_000},
    "7b": {"hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "vocab_size": 32_000},
    "tiny": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
             "vocab_size": 2_000, "tie_word_embeddings": True},
}  # fmt: skip


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """Where a part runs and until when.

    Args:
        device: the GPU, or the CPU where there is none.
        quick: measure less.
        end: `time.monotonic()` at which the part's process is ended.
    """

    device: torch.device
    quick: bool
    end: float

    @property
    def has_gpu(self) -> bool:
        """Whether there is one."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()


def make_setup(quick: bool, seconds: float) -> Setup:
    """The set-up of a part that has just begun and has so many seconds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Setup(device, quick, time.monotonic() + seconds)


def show(name: str, value: float, unit: str) -> None:
    """Prints a row."""
    print(json.dumps({"name": name, "value": float(value), "unit": unit}), flush=True)


def skip(name: str, reason: str) -> None:
    """Prints that a row is not there, and why."""
    print(json.dumps({"name": name, "skipped": reason}), flush=True)


def measure(setup: Setup, name: str, function: Callable, needs: float, *args) -> None:
    """Calls a function that shows rows; shows why where it cannot, or where less than `needs` seconds are left."""
    if setup.left < needs:
        skip(name, f"{setup.left:.0f} s were left, it needs about {needs:.0f} s")
        return
    try:
        function(*args)
    except torch.OutOfMemoryError:
        skip(name, "out of memory")
    except Exception as error:  # the other rows are worth having
        text = str(error).strip() or "no message"
        skip(name, f"{type(error).__name__}: {text.splitlines()[0][:200]}")
    gc.collect()
    if setup.has_gpu:
        torch.cuda.empty_cache()


def seconds_of(function: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of some calls after one that is not counted, the device waited for."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[repeats // 2]


def config_of(size: str, modality_rows: bool = True, **more) -> LlamaConfig:
    """The configuration of a size, with rows for the modality tokens where they are not added later."""
    sizes = dict(LLAMAS[size])
    sizes["vocab_size"] += MODALITY_ROWS if modality_rows else 0
    return LlamaConfig(**sizes, max_position_embeddings=4096, **more)


@cache
def matrix_peak(device: torch.device) -> float:
    """FLOP/s of a product of two large bfloat16 matrices: what the device reaches at best."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: left @ right, 5)


def hardware(setup: Setup) -> Hardware:
    """What `--plan` knows of the device; of one that it does not know, the peak that was measured."""
    if not setup.has_gpu:
        return PRESETS["cpu-2core"]
    properties = torch.cuda.get_device_properties(setup.device)
    name = properties.name.lower()
    known = [preset for preset in PRESETS.values() if all(word in name for word in preset.name.split("-")[:-1])]
    if known:
        near = min(known, key=lambda preset: abs(preset.memory - properties.total_memory))
        return replace(near, memory=properties.total_memory)
    tflops = {"bf16": matrix_peak(setup.device) / 1e12}
    return Hardware(properties.name, properties.total_memory, tflops, 0.3)


def collect(command: list[str], seconds: float, part: str) -> list[dict]:
    """Rows that a part's process prints, one JSON object a line, until it ends or its time is up.

    Returns:
        its rows, and one of what the part failed of, if it did.
    """
    rows = []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )  # its compilers' processes end with it
        late = threading.Event()

        def stop():
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        for line in process.stdout:
            if line.startswith('{"name"'):
                rows.append(json.loads(line))
                log(rows[-1])
        process.wait()
        timer.cancel()
        errors.seek(0)
        said = [line.strip() for line in errors if line.strip()]
    failure = None
    if late.is_set():
        failure = f"the rest was stopped after {seconds:.0f} s"
    elif process.returncode:
        failure = f"failed: {said[-1] if said else f'exit code {process.returncode}'}"
    if failure:
        rows.append({"name": part, "skipped": failure})
        log(rows[-1])
    return rows


def log(row: dict) -> None:
    """A line of the table."""
    if "skipped" in row:
        logger.info("%-46s skipped: %s", row["name"], row["skipped"])
    else:
        logger.info("%-46s %12.4g %s", row["name"], row["value"], row["unit"])
