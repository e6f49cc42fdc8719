"""bfloat16 is not trained with on a CPU that computes it in software."""

import platform

import pytest
import torch
from transformers import TrainingArguments

from solami_hf.training.trainer import avoid_slow_bf16


@pytest.fixture
def on_machine(monkeypatch):
    """Sets the processor that this machine seems to have."""

    def machine(name: str, capability: str):
        monkeypatch.setattr(platform, "machine", lambda: name)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    return machine


@pytest.mark.parametrize(
    ("machine", "capability", "bf16"),
    [("x86_64", "AVX2", False), ("AMD64", "DEFAULT", False), ("x86_64", "AVX512", True), ("aarch64", "DEFAULT", True)],
)
def test_bf16_stays_only_where_the_cpu_has_it(on_machine, tmp_path, caplog, machine, capability, bf16):
    on_machine(machine, capability)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=True)
    avoid_slow_bf16(args)
    assert (args.bf16, args.mixed_precision) == ((True, "bf16") if bf16 else (False, "no"))
    assert ("computes bfloat16 in software" in caplog.text) is not bf16


def test_float32_is_left_as_it_is(on_machine, tmp_path, caplog):
    on_machine("x86_64", "AVX2")
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    avoid_slow_bf16(args)
    assert not args.bf16 and not caplog.text
