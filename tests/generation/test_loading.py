"""Checkpoints, adapters beside or in their base, dtypes, 8 and 4 bits, device maps: all answer, validly."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from solami_hf.generation import DialogueSession, SolamiPipeline
from solami_hf.generation.loading import load_model

TURN = [{"role": "user", "content": "hi"}]


@pytest.fixture
def base(talker, tmp_path):
    talker.model.save_pretrained(tmp_path / "base")
    talker.processor.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(talker, base, tmp_path):
    """An adapter that changes what is said, as a run leaves it: without a processor."""
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(load_model(base), config)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(tmp_path / "run/adapter")
    return tmp_path / "run/adapter"


def says(pipeline):
    reply = pipeline(TURN, decode=False, max_new_tokens=30)
    assert reply.valid
    return reply.answer.text_ids


def test_an_adapter_beside_or_in_its_base(base, adapter):
    plain, beside, merged = (
        SolamiPipeline.from_pretrained(base),
        SolamiPipeline.from_pretrained(adapter),
        SolamiPipeline.from_pretrained(adapter, merge=True),
    )
    prompt = torch.tensor([plain.chat_prompt(TURN)])
    with torch.inference_mode():
        logits = [pipeline.model(prompt).logits for pipeline in (plain, beside, merged)]
    assert torch.allclose(logits[1], logits[2], atol=1e-4) and not torch.allclose(logits[0], logits[1], atol=1e-2)
    assert says(beside) == says(merged)
    assert type(beside.model) is type(plain.model)  # PEFT's wrapper is gone, its layers are there
    assert any("lora" in name for name, _ in beside.model.named_modules())
    assert not any("lora" in name for name, _ in merged.model.named_modules())
    session = DialogueSession(beside, character="ada")
    assert session.answer("hi", decode=False).valid and session.answer("hi", decode=False).valid


def test_an_adapter_whose_base_has_moved(base, adapter):
    moved = base.rename(base.with_name("moved"))
    with pytest.raises(FileNotFoundError, match="which is not there; say where it is with `base`"):
        SolamiPipeline.from_pretrained(adapter)
    assert says(SolamiPipeline.from_pretrained(adapter, base=moved))
    for options, told in (({"merge": True}, "is no adapter"), ({"base": moved}, "is no adapter")):
        with pytest.raises(ValueError, match=told):
            SolamiPipeline.from_pretrained(moved, **options)
    with pytest.raises(ValueError, match="cannot be merged into quantised"):
        SolamiPipeline.from_pretrained(adapter, base=moved, merge=True, quantization="int8")


@pytest.mark.parametrize(
    "options",
    [{"dtype": torch.bfloat16}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}, "dtype": "bfloat16"}],
    ids=["bf16", "device_map", "both"],
)
def test_dtypes_and_device_maps(base, options):
    pipeline = SolamiPipeline.from_pretrained(base, **options)
    expected = torch.float32 if "dtype" not in options else torch.bfloat16
    assert pipeline.model.dtype == expected and pipeline.processor.motion_codec.dtype == torch.float32
    assert pipeline(TURN, max_new_tokens=30).motion is not None


def test_quantised_answers_are_valid(base, adapter):
    pipeline = SolamiPipeline.from_pretrained(base, quantization="int8")
    assert pipeline.model.model.layers[0].mlp.up_proj.weight.dtype == torch.int8 and says(pipeline)
    prompt = torch.tensor([pipeline.chat_prompt(TURN)])
    with torch.inference_mode():
        exact, close = (p.model(prompt).logits for p in (SolamiPipeline.from_pretrained(base), pipeline))
    assert 0 < (exact - close).norm() / exact.norm() < 0.1
    assert says(SolamiPipeline.from_pretrained(adapter, quantization="int8"))


def test_unknown_quantisation(base):
    with pytest.raises(ValueError, match="quantization is 'int3', expected int8 or None"):
        SolamiPipeline.from_pretrained(base, quantization="int3")
