"""Trains in float32 where the recipe asks for bfloat16 and the CPU would compute that in software.

On x86 PyTorch's bfloat16 kernels need AVX-512 (with or without its bf16 units). On AVX2 a linear layer takes 4.5 times
and a convolution 13 times as long as in float32, so that the demo would take hours instead of minutes.
"""

from __future__ import annotations

import logging
import platform

import torch
from transformers import TrainingArguments

logger = logging.getLogger(__name__)


def cpu_has_fast_bf16() -> bool:
    """Whether bfloat16 is at least as fast as float32 on this machine's CPU; taken for granted beside x86."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not x86 or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def avoid_slow_bf16(args: TrainingArguments) -> None:
    """Turns `bf16` off, and says so, in a run on a CPU that has no fast bfloat16.

    A run under DeepSpeed keeps what its configuration says.
    """
    if args.bf16 and args.device.type == "cpu" and args.deepspeed is None and not cpu_has_fast_bf16():
        args.bf16, args.mixed_precision = False, "no"
        logger.warning("this CPU computes bfloat16 in software, many times slower: training in float32 instead")
