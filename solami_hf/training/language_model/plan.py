"""Memory and time of a run of `solami pretrain` or `solami sft`, before anything is started.

    solami pretrain --config pretrain_paper.yaml --model my_model --plan --plan_hardware v100-32gb --plan_devices 32 \
        --deepspeed zero3.json

No weights are read and no device is touched: parameters are counted on torch's meta device, from the model's
configuration. What the figures rest on stands in `plan_costs`.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...command_line import option, parse_arguments
from ...hub_cards.hub_jobs import JobArguments, job_line
from ...processing.files.output_folder import writing_to
from ...processing.files.text_files import read_json, read_yaml
from .chunked_loss import beyond_the_head
from .language_model_training import LanguageModelTrainingArguments
from .plan_costs import (
    GIB,
    Counts,
    Hardware,
    Settings,
    activation_memory,
    count_parameters,
    memory_of,
    operations_per_token,
    read_settings,
)

RECIPES = Path(__file__).parents[1] / "recipes"
PRESETS = {
    name: Hardware(**facts | {"name": name, "memory": facts["memory"] * GIB})
    for name, facts in read_yaml(Path(__file__).with_name("plan_hardware.yaml")).items()
}


@dataclass(frozen=True)
class Plan:
    """Result of `make_plan`; `str(plan)` is a readable table."""

    settings: Settings
    hardware: Hardware
    counts: Counts
    memory: dict[str, float]  # part -> bytes on each device
    host_memory: float  # bytes of offloaded states on each host
    activations: dict[str, float]  # bytes a device, "checkpointed" and "kept"
    tokens_per_step: int  # padding counted, as if every sample had full length
    steps: int
    flops: float  # of the whole run, as are the seconds
    seconds: float
    advice: tuple[str, ...]  # what would make it fit, one line each; empty when it does
    notes: tuple[str, ...]  # what to know about the figures

    @property
    def total_tokens(self) -> int:
        """Of the whole run."""
        return self.tokens_per_step * self.steps

    @property
    def fits(self) -> bool:
        """Whether device and host have room."""
        return _fits(self.memory, self.host_memory, self.hardware)

    def __str__(self) -> str:
        s, h, c = self.settings, self.hardware, self.counts
        trained = c.adapters + c.rows if s.lora else c.total
        peak, used = h.tflops[s.precision], sum(self.memory.values())
        lines = [
            f"model       {c.total / 1e6:,.1f} M parameters, {trained / 1e6:,.1f} M trained, {s.precision}"
            + (f", ZeRO-{s.zero_stage}" if s.deepspeed else "")
            + (f", {s.bits}-bit base" if s.bits else ""),
            f"hardware    {h.devices} x {h.name}, {peak:g} TFLOP/s each, {h.utilisation:.0%} of it taken as reached",
            "",
            f"memory of each device{'GiB':>19}",
            *(f"  {name:<28}{size / GIB:>10.2f}" for name, size in self.memory.items()),
            f"  {'total':<28}{used / GIB:>10.2f} of {h.memory / GIB:g}: {'fits' if self.fits else 'DOES NOT FIT'}",
            f"  activations {'with' if s.checkpointing else 'without'} checkpointing; with: "
            f"{self.activations['checkpointed'] / GIB:.2f}, without: {self.activations['kept'] / GIB:.2f}",
        ]
        if self.host_memory:
            room = f" of {h.host_memory / GIB:g}" if h.host_memory else ""
            lines.append(f"memory of each host, offloaded {self.host_memory / GIB:>9.2f}{room}")
        lines += [
            "",
            f"a step      {self.tokens_per_step:,} tokens: {s.batch} x {s.length:,} x {s.accumulation} accumulated x "
            f"{h.devices} devices",
            f"the run     {self.steps:,} steps, {self.total_tokens:,} tokens at most, {self.flops:.2g} operations",
            f"time        {_duration(self.seconds)}, {self.seconds / self.steps:.3g} s a step, "
            f"{self.total_tokens / self.seconds:,.0f} tokens/s",
        ]
        lines += [f"would fit: {line}" for line in self.advice] + [f"note: {line}" for line in self.notes]
        return "\n".join(lines)


def make_plan(config, arguments, hardware: Hardware, lora=None, samples: int | None = None) -> Plan:
    """Memory and time of a run. `config` is that of any decoder; modality tokens are added where it has none yet.
    `arguments` are `LanguageModelTrainingArguments`, also without its set-up (`PlannedTrainingArguments`); `lora`
    `LanguageModelArguments` with `trainable` and `chunked_loss`, by default all weights, and all logits at once;
    `samples` the length of the training set, needed where `max_steps` is not set. Raises ValueError: no number of
    steps, a precision that the hardware lacks, or a DeepSpeed file that is none."""
    settings = read_settings(arguments, lora)
    if settings.precision not in hardware.tflops:
        can = " or ".join(name for name in hardware.tflops if name != "fp32")
        raise ValueError(f"{hardware.name} has no {settings.precision}; set {can}: true instead")
    if settings.bits and not settings.lora:
        raise ValueError("weights of 4 or 8 bits cannot be trained themselves; set use_peft: true too")
    counts, notes = count_parameters(config, lora)
    if settings.chunked_loss and (own := beyond_the_head(config)):
        settings = replace(settings, chunked_loss=None)
        notes.append(f"the model keeps its own loss, which needs all logits: its config sets {', '.join(own)}")
    memory, host = memory_of(counts, settings, hardware)
    activations = {
        name: activation_memory(counts, replace(settings, checkpointing=checkpointing))
        for name, checkpointing in (("checkpointed", True), ("kept", False))
    }
    tokens = settings.batch * settings.accumulation * settings.length * hardware.devices
    steps = _steps(arguments, tokens // settings.length, samples)
    flops = operations_per_token(counts, settings) * tokens * steps
    seconds = flops / (hardware.devices * hardware.tflops[settings.precision] * 1e12 * hardware.utilisation)
    if settings.zero_stage and hardware.devices == 1 and not settings.offloads("optimizer"):
        notes.append("ZeRO divides nothing on one device, only offloading helps there")
    if settings.offloads("optimizer") or settings.offloads("param"):
        notes.append("moving offloaded states over the bus is not in the time; it can double it at small batches")
    notes.append("time and tokens take every sample at full length; data loading, evaluation and saving are left out")
    advice = () if _fits(memory, host, hardware) else tuple(_advice(counts, settings, hardware))
    sizes = (memory, host, activations, tokens, steps, flops, seconds)
    return Plan(settings, hardware, counts, *sizes, advice, tuple(notes))


def _steps(arguments, samples_per_step: int, samples: int | None) -> int:
    if arguments.max_steps > 0:
        return arguments.max_steps
    if not samples:
        raise ValueError(
            "how long the run is cannot be told: set max_steps, or give --plan_samples (training samples)"
        )
    return math.ceil(arguments.num_train_epochs * math.ceil(samples / samples_per_step))


def _fits(memory: dict[str, float], host: float, hardware: Hardware) -> bool:
    return sum(memory.values()) <= hardware.memory and (not hardware.host_memory or host <= hardware.host_memory)


def _advice(c: Counts, s: Settings, hardware: Hardware) -> list[str]:
    """Each single setting that makes it fit, its mildest value; without one, the first row of them that does."""
    changes: dict[str, dict] = {}
    if not s.checkpointing:
        changes["activation_checkpointing: true"] = {"checkpointing": True}
    if s.chunked_loss is False:
        changes["chunked_loss: true"] = {"chunked_loss": True}
    batch = s.batch
    while batch > 1:
        batch = batch // 2 if batch % 2 == 0 else 1
        more = s.accumulation * s.batch // batch
        text = f"per_device_train_batch_size: {batch} with gradient_accumulation_steps: {more}"
        changes[text] = {"batch": batch, "accumulation": more}
    divides = [f"zero{stage}.json" for stage in (2, 3) if hardware.devices > 1 and s.zero_stage < stage]
    # devices that have a host beside them
    offloads = ["zero3_offload.json"] if hardware.devices_per_node > 1 and not s.offloads("param") else []
    for name in divides + offloads:
        changes[f"--deepspeed recipes/{name}"] = {"deepspeed": read_json(RECIPES / name)}
    if not s.lora and c.adapters:
        changes["use_peft: true"] = {"lora": True}

    def fit(change: dict) -> bool:
        return _fits(*memory_of(c, replace(s, **change), hardware), hardware)

    single = [text for text, change in changes.items() if fit(change)]
    if mildest := {text.split(" ")[0]: text for text in reversed(single)}:
        return list(mildest.values())[::-1]
    taken: list[str] = []
    together: dict = {}
    for text, change in changes.items():
        kind = text.split(" ")[0]
        taken = [old for old in taken if old.split(" ")[0] != kind] + [text]
        together |= change
        if fit(together):
            return [" and ".join(taken)]
    return ["none of the settings: a smaller max_length, more devices, or larger ones"]


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


@dataclass
class PlannedTrainingArguments(LanguageModelTrainingArguments):
    """The same fields without their set-up, which looks for devices and starts DeepSpeed."""

    def __post_init__(self):
        pass


@dataclass
class PlanArguments:
    """Arguments of a plan."""

    plan: bool = option(False, "Print what the run needs and takes, and end.")
    plan_hardware: str = option("", f"One of {', '.join(PRESETS)}, or a name of your own.")
    plan_devices: int = option(1, "Devices, of all nodes together.")
    plan_memory_gib: float = option(0, "Memory of a device, instead of the preset's.")
    plan_host_memory_gib: float = option(0, "RAM of a node, for what is offloaded.")
    plan_tflops: float = option(0, "Peak of a device at the run's precision, likewise.")
    plan_utilisation: float = option(0, "Share of the peak that is reached, likewise.")
    plan_samples: int = option(0, "Training samples, where epochs are counted.")


def hardware_of(args: PlanArguments) -> Hardware:
    """A preset with the given numbers put in. ValueError when neither tells enough."""
    known = PRESETS.get(args.plan_hardware)
    if known is None and not (args.plan_memory_gib > 0 and args.plan_tflops > 0):
        raise ValueError(
            f"plan_hardware is {args.plan_hardware!r}, expected one of {', '.join(PRESETS)}; or give "
            "plan_memory_gib and plan_tflops"
        )
    if args.plan_devices < 1:
        raise ValueError(f"plan_devices is {args.plan_devices}, expected at least 1")
    hardware = known or Hardware(args.plan_hardware or "device", 0, {}, 0.3)
    peaks = dict.fromkeys(("fp32", "fp16", "bf16"), args.plan_tflops) if args.plan_tflops > 0 else hardware.tflops
    return replace(
        hardware,
        memory=args.plan_memory_gib * GIB or hardware.memory,
        tflops=peaks,
        utilisation=args.plan_utilisation or hardware.utilisation,
        devices=args.plan_devices,
        host_memory=args.plan_host_memory_gib * GIB or hardware.host_memory,
    )


def plan_command(argv: list[str], arguments_class, prog: str) -> int:
    """`solami pretrain --plan` and `solami sft --plan`: prints the table; 0, or 1 when the run does not fit."""
    from transformers import AutoConfig

    types = [arguments_class, PlannedTrainingArguments, PlanArguments]
    # The data are needed for the run, not for the plan
    args, training_args, plan_args = parse_arguments(types, argv, prog, defaults={"data": ""})
    config = AutoConfig.from_pretrained(args.model)
    plan = make_plan(config, training_args, hardware_of(plan_args), args, plan_args.plan_samples)
    sys.stdout.write(f"{plan}\n")
    return 0 if plan.fits else 1


def plan_or_train(argv: list[str] | None, arguments_class: type, train: Callable, name: str) -> int:
    """Runs `solami pretrain` or `solami sft` by `train(args, training_args)`, or with `--plan` or `--job` prints what
    it takes or the line that runs it on the Hub; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--plan" in argv:
        return plan_command(argv, arguments_class, name)
    if any(word.split("=")[0] == "--job" for word in argv):
        *_, job = parse_arguments([arguments_class, PlannedTrainingArguments, JobArguments], argv, name)
        sys.stdout.write(f"{job_line(name, argv, job, 'output_dir')}\n")
        return 0
    args, training_args = parse_arguments([arguments_class, LanguageModelTrainingArguments], argv, name)
    with writing_to(training_args.output_dir):
        train(args, training_args)
    return 0
