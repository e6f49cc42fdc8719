"""Plans against what is known: the paper's runs, measured operations, and what PyTorch really keeps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from solami_hf.modeling.solami.vocabulary import MARKERS
from solami_hf.training.language_model import plan as planning
from solami_hf.training.language_model.plan import PRESETS, PlannedTrainingArguments, make_plan, plan_command
from solami_hf.training.language_model.plan_costs import (
    GIB,
    Hardware,
    activation_memory,
    count_parameters,
    operations_per_token,
    read_settings,
)
from solami_hf.training.pretrain import PretrainArguments
from solami_hf.training.sft import SftArguments

RECIPES = Path(planning.__file__).parents[1] / "recipes"
LAYOUT = {"modalities": {"speech": {"first_id": 0, "size": 1}}}  # so that no rows are added
SMALL = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def llama_7b():
    """AnyGPT-base is a Llama 2 of 7 billion with more rows; how many is not in the facts: 50,000 here."""
    return LlamaConfig(vocab_size=50_000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, **LAYOUT)


def small_llama(**more):
    return LlamaConfig(**SMALL, intermediate_size=160, num_key_value_heads=2, **LAYOUT, **more)


def small_gpt2():
    # on a CPU attention with dropout has no kernel that leaves the scores out
    sizes = {"vocab_size": 96, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "attn_pdrop": 0.0}
    return GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, **LAYOUT)


def recipe(name, **more):
    """A recipe as arguments. `warmup_ratio` is no argument of transformers 5 and means nothing to a plan."""
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    known = PlannedTrainingArguments.__dataclass_fields__
    return PlannedTrainingArguments(**{k: v for k, v in {**values, **more}.items() if k in known})


def on(name, devices, **more):
    return planning.hardware_of(planning.PlanArguments(plan_hardware=name, plan_devices=devices, **more))


def lora(**more):
    return SftArguments(model="", data="", use_peft=True, **more)


def test_the_papers_stage_2_takes_a_day_on_32_v100():
    plan = make_plan(llama_7b(), recipe("pretrain_paper", deepspeed=str(RECIPES / "zero3.json")), on("v100-32gb", 32))
    assert plan.tokens_per_step == 256 * 1024
    assert (plan.steps, plan.total_tokens) == (4097, 4097 * 262_144)
    assert 0.7 * 86_400 < plan.seconds < 1.3 * 86_400
    assert 6.7e9 < plan.counts.total < 7.0e9
    states = sum(plan.memory[part] for part in ("weights", "gradients", "optimizer"))
    assert states == pytest.approx(16 * plan.counts.total / 32)
    assert plan.fits and plan.advice == ()
    assert plan.activations["kept"] > 5 * plan.activations["checkpointed"]
    assert plan.memory["activations"] == plan.activations["checkpointed"]
    assert "ZeRO-3" in str(plan) and "fits" in str(plan) and "262,144 tokens" in str(plan)


def test_the_papers_stage_3_needs_zero_3():
    hardware = on("v100-32gb", 16)
    plan = make_plan(llama_7b(), recipe("sft_paper", deepspeed=str(RECIPES / "zero3.json")), hardware)
    assert plan.fits and plan.steps == 1290
    assert plan.tokens_per_step == 16 * 3 * 4096
    alone = make_plan(llama_7b(), recipe("sft_paper"), hardware)
    assert not alone.fits and "DOES NOT FIT" in str(alone)
    assert alone.advice == ("--deepspeed recipes/zero2.json",)
    assert "would fit: --deepspeed recipes/zero2.json" in str(alone)
    smaller = make_plan(llama_7b(), recipe("sft_paper"), on("v100-16gb", 16))
    assert smaller.advice == ("--deepspeed recipes/zero3.json",)  # ZeRO-2 leaves 2 bytes of 7 billion weights


def test_lora_with_offload_needs_little_of_a_device():
    arguments = recipe("sft_lora_paper", deepspeed=str(RECIPES / "zero3_offload.json"))
    plan = make_plan(llama_7b(), arguments, on("v100-16gb", 1, plan_host_memory_gib=64), lora())
    assert plan.memory["weights"] == plan.memory["optimizer"] == 0 and plan.fits
    assert 13 * GIB < plan.host_memory < 32 * GIB  # 2 bytes a weight, and 16 of the token rows
    assert not make_plan(llama_7b(), arguments, on("v100-16gb", 1, plan_host_memory_gib=8), lora()).fits


def test_the_demos_model_on_two_cores():
    """8,000 to 9,000 tokens a second were seen, from which the preset's utilisation comes."""
    config = LlamaConfig(
        vocab_size=2600, hidden_size=256, intermediate_size=683, num_hidden_layers=4, num_attention_heads=4, **LAYOUT
    )
    plan = make_plan(config, recipe("pretrain_tiny"), PRESETS["cpu-2core"])
    assert 6_000 < plan.total_tokens / plan.seconds < 12_000
    assert plan.fits


def test_parameters_are_those_of_the_model_and_of_peft():
    from peft import LoraConfig, get_peft_model

    for config, targets in (
        (small_llama(tie_word_embeddings=False), ["q_proj", "down_proj"]),
        (small_llama(tie_word_embeddings=True), ["v_proj"]),
        (small_gpt2(), ["c_attn"]),
    ):
        model = AutoModelForCausalLM.from_config(config)
        counts, notes = count_parameters(config, lora(lora_target_modules=targets, lora_r=4))
        assert counts.total == sum(p.numel() for p in model.parameters()) and notes == []
        wanted = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
        trained = [p for p in get_peft_model(model, wanted).parameters() if p.requires_grad]
        assert counts.adapters == sum(p.numel() for p in trained)
    plain = LlamaConfig(**SMALL, intermediate_size=160)
    counts, notes = count_parameters(plain)
    assert counts.vocabulary == 96 + 2316 and "2,316 rows" in notes[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_that_torch_counts(checkpointing):
    config = small_llama(attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    ids = torch.randint(96, (2, 48))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    arguments = PlannedTrainingArguments(max_length=48, activation_checkpointing=checkpointing)
    expected = operations_per_token(count_parameters(config)[0], read_settings(arguments)) * ids.numel()
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("config", [small_llama(), small_gpt2()], ids=["llama", "gpt2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_that_torch_keeps(config, checkpointing):
    model = AutoModelForCausalLM.from_config(config).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    ids, own, kept = torch.randint(96, (2, 64)), {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    real = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)
    arguments = PlannedTrainingArguments(
        max_length=64, per_device_train_batch_size=2, activation_checkpointing=checkpointing
    )
    counts, settings = count_parameters(config)[0], read_settings(arguments)
    planned = activation_memory(counts, settings)
    if checkpointing:  # the one layer that is recomputed at a time is not there yet
        last_norm = ids.numel() * counts.hidden * (8 if counts.rms_norm else 4)
        planned -= (activation_memory(counts, replace(settings, checkpointing=False)) - last_norm) / counts.layers
    assert hidden.requires_grad
    assert real == pytest.approx(planned, rel=0.15)


def test_autocast_and_quantised_weights():
    arguments = PlannedTrainingArguments(max_length=64, bf16=True, max_steps=1, activation_checkpointing=True)
    device = Hardware("d", GIB, {"bf16": 1.0}, 0.5)
    full = make_plan(small_llama(), arguments, device)
    c = full.counts
    assert full.memory["weights"] == 4 * c.total + 2 * (c.linear + c.head)
    assert full.memory["gradients"] + full.memory["optimizer"] == 12 * c.total
    adapted = lora(load_in_4bit=True)
    quantised = make_plan(small_llama(), arguments, device, adapted)
    assert quantised.memory["weights"] < make_plan(small_llama(), arguments, device, lora()).memory["weights"]
    assert quantised.memory["optimizer"] == 8 * (c.ends + quantised.counts.adapters)
    rows = lora(load_in_4bit=True, lora_modules_to_save=["new_tokens"])
    few = make_plan(small_llama(), arguments, device, rows)
    assert few.memory["optimizer"] == 8 * (2 * 64 * (len(MARKERS) + 1) + few.counts.adapters)
    alone = make_plan(small_llama(), arguments, device, SftArguments("", "", trainable="new_tokens"))
    assert alone.counts.adapters == 0 and alone.memory["optimizer"] == 8 * 2 * 64 * (len(MARKERS) + 1)
    half = make_plan(small_llama(), arguments, device, lora(frozen_dtype="bfloat16"))
    whole = make_plan(small_llama(), arguments, device, lora())
    assert whole.memory["weights"] - half.memory["weights"] == 2 * c.total
    adapted.use_peft = False
    with pytest.raises(ValueError, match="set use_peft: true"):
        make_plan(small_llama(), arguments, device, adapted)


def test_steps_by_epochs():
    arguments = PlannedTrainingArguments(max_length=64, num_train_epochs=2, per_device_train_batch_size=4)
    device = Hardware("d", GIB, {"fp32": 1.0}, 0.5, devices=2)
    with pytest.raises(ValueError, match="plan_samples"):
        make_plan(small_llama(), arguments, device)
    whole = make_plan(small_llama(), arguments, device, samples=17)
    assert whole.steps == 2 * 3


@pytest.mark.parametrize("command, arguments_class", [("pretrain", PretrainArguments), ("sft", SftArguments)])
def test_the_commands_plan_for_the_loss_that_they_will_use(tmp_path, capsys, command, arguments_class):
    """The default, as the run's; a device with room for that alone does not fit without."""
    config = LlamaConfig(**SMALL | {"vocab_size": 20_000}, intermediate_size=160, **LAYOUT)
    config.save_pretrained(tmp_path)
    argv = ["--model", str(tmp_path), "--output_dir", "x", "--max_steps", "1", "--max_length", "4096", "--plan"]
    argv += ["--activation_checkpointing", "true", "--plan_memory_gib", "2.5", "--plan_tflops", "1"]
    assert plan_command(argv, arguments_class, command) == 0
    chunked = capsys.readouterr().out
    assert plan_command([*argv, "--chunked_loss", "false"], arguments_class, command) == 1
    whole = capsys.readouterr().out
    logits, told = ([line.split()[-1] for line in text.splitlines() if "logits" in line] for text in (chunked, whole))
    assert float(told[0]) > 10 * float(logits[0]) > 0 and "DOES NOT FIT" in whole
    assert "would fit: chunked_loss: true" in whole and "chunked_loss" not in chunked


def test_the_loss_in_parts_holds_some_rows_and_the_sums_of_gradients():
    arguments = PlannedTrainingArguments(max_length=1024, per_device_train_batch_size=4, max_steps=1)
    device = Hardware("d", GIB, {"fp32": 1.0}, 0.5)
    plan = make_plan(small_llama(), arguments, device, SftArguments("", ""))
    c = plan.counts
    assert plan.memory["logits and loss"] == 256 * c.vocabulary * 4 + 4 * c.hidden * (4096 + c.vocabulary)
    frozen = make_plan(small_llama(), arguments, device, lora(lora_modules_to_save=[]))
    assert frozen.memory["logits and loss"] == 256 * c.vocabulary * 4 + 4 * c.hidden * 4096


def test_a_model_with_a_loss_of_its_own_is_planned_with_all_logits():
    config, device = small_llama(), Hardware("d", GIB, {"fp32": 1.0}, 0.5)
    config.final_logit_softcapping = 30.0
    arguments = PlannedTrainingArguments(max_length=1024, per_device_train_batch_size=1, max_steps=1)
    plan = make_plan(config, arguments, device, SftArguments("", ""))
    assert plan.memory["logits and loss"] == 1024 * plan.counts.vocabulary * 16
    assert "its config sets final_logit_softcapping" in plan.notes[0]


def test_what_cannot_be_planned():
    arguments = PlannedTrainingArguments(max_length=64, bf16=True, max_steps=1)
    with pytest.raises(ValueError, match="v100-32gb has no bf16; set fp16: true"):
        make_plan(small_llama(), arguments, PRESETS["v100-32gb"])
    with pytest.raises(ValueError, match="no layer is called c_attn; .*q_proj"):
        make_plan(small_llama(), arguments, PRESETS["a100-80gb"], lora(lora_target_modules=["c_attn"]))
    with pytest.raises(ValueError, match="'abacus', expected one of v100-16gb"):
        on("abacus", 1)
    assert on("abacus", 2, plan_memory_gib=1, plan_tflops=2).tflops["bf16"] == 2
    arguments.deepspeed = {"bf16": {}}
    with pytest.raises(ValueError, match="no zero_optimization"):
        make_plan(small_llama(), arguments, PRESETS["a100-80gb"])


def test_the_smallest_device_gets_advice():
    arguments = PlannedTrainingArguments(max_length=512, per_device_train_batch_size=8, max_steps=1)
    counts = count_parameters(small_llama())[0]
    states = 16 * counts.total
    tight = Hardware("d", states + 20 * 2**20, {"fp32": 1.0}, 0.5, reserve=0)
    plan = make_plan(small_llama(), arguments, tight)
    assert plan.advice == ("per_device_train_batch_size: 2 with gradient_accumulation_steps: 4",)
    none = make_plan(small_llama(), arguments, Hardware("d", 1, {"fp32": 1.0}, 0.5, reserve=0))
    assert none.advice == ("none of the settings: a smaller max_length, more devices, or larger ones",)


def test_the_command_needs_neither_weights_nor_data_nor_a_device(tmp_path, capsys):
    small_llama().save_pretrained(tmp_path)
    argv = ["--config", str(RECIPES / "pretrain_one_gpu.yaml"), "--model", str(tmp_path), "--plan"]
    argv += ["--deepspeed", str(RECIPES / "zero2.json"), "--plan_devices", "2"]
    assert plan_command([*argv, "--plan_hardware", "a100-80gb"], PretrainArguments, "solami pretrain") == 0
    out = capsys.readouterr().out
    assert "2 x a100-80gb" in out and "ZeRO-2" in out and "4,097 steps" in out
    tiny = ["--plan_memory_gib", "1", "--plan_tflops", "1"]
    assert plan_command([*argv, *tiny], PretrainArguments, "solami pretrain") == 1
    with pytest.raises(ValueError, match="plan_hardware is ''"):
        plan_command(argv, PretrainArguments, "solami pretrain")
