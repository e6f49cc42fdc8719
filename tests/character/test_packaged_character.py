"""The packaged character: what a run's parts give together is what was trained, and what is there without a name."""

import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from research.packaged_character.write_package import write_adapter, write_package
from solami_hf.character import packaged_character
from solami_hf.character.packaged_character import (
    ADAPTER,
    ROWS,
    base_is_here,
    base_model,
    character_folder,
    pack,
    unpack,
)
from solami_hf.generation import SolamiPipeline
from solami_hf.modeling.talker.configuration_talker import SolamiTalkerConfig
from solami_hf.modeling.talker.modeling_talker import SolamiTalkerModel
from solami_hf.processing.files.text_files import write_json
from solami_hf.training.init import InitArguments, init


def trained_further(model, folder, seed):
    """The model with a random adapter added, which is saved."""
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", lora_dropout=0.0))
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload()


@pytest.fixture
def run(tmp_path, tiny_tokenizer, tiny_codecs):
    """A run's folders as the recipe writes them, of random weights."""
    folder = tmp_path / "run"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    tiny_tokenizer.save_pretrained(folder / "base")
    tiny_codecs[0].save_pretrained(folder / "motion_codec")
    write_json(folder / "characters.json", {"ada": {"name": "Ada", "system": "You are Ada.", "voice": "heart"}})
    start = folder / "checkpoint"
    init(InitArguments(str(folder / "base"), str(folder / "motion_codec"), str(start),
                       characters=str(folder / "characters.json"), answer_format="text_motion",
                       hearing="transcript"))  # fmt: skip
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}
    SolamiTalkerModel(
        SolamiTalkerConfig(**sizes, num_attention_heads=2, conv_channels=16, codebook_size=1024)
    ).save_pretrained(folder / "talker")
    model = AutoModelForCausalLM.from_pretrained(start)
    with torch.no_grad():
        model.get_input_embeddings().weight[len(tiny_tokenizer) :].normal_(std=0.3)
    for number, name in enumerate(("pretrained", "checkpoint")):
        model = trained_further(model, folder / name / "adapter", number)
    model.save_pretrained(start)
    return folder


def test_the_parts_are_the_trained_model(run, tmp_path, monkeypatch):
    package = tmp_path / "package"
    write_package(run, package)
    monkeypatch.setattr(packaged_character, "FOLDER", package)
    monkeypatch.setattr(packaged_character, "base_model", lambda: str(run / "base"))
    monkeypatch.setattr(packaged_character, "HF_HOME", str(tmp_path / "cache"))
    pipeline = SolamiPipeline.from_pretrained()
    trained = AutoModelForCausalLM.from_pretrained(run / "checkpoint", dtype=torch.float32).eval()
    span = trained.config.modalities["speech"]
    known = [i for i in range(trained.config.vocab_size) if not 0 <= i - span["first_id"] < span["size"]]
    ids = torch.tensor(known[:300]).reshape(2, 150)
    with torch.no_grad():
        ours, theirs = (model(input_ids=ids).logits[..., known] for model in (pipeline.model, trained))
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)
    assert theirs.std() > 0.2
    assert pipeline.processor.hearing == "transcript" and pipeline.processor.characters["ada"]["voice"] == "heart"
    system = {"role": "system", "content": "You are Ada."}
    reply = pipeline([system, {"role": "user", "content": "please wave"}], max_new_tokens=40)
    assert reply.valid and reply.text and np.array_equal(reply.speech, pipeline.processor.say(reply.text))
    assert reply.motion.num_frames == 4 * len(reply.answer.body)
    (made,) = (tmp_path / "cache/solami_hf").iterdir()
    before = (made / "model.safetensors").stat().st_mtime_ns
    assert character_folder() == made and (made / "model.safetensors").stat().st_mtime_ns == before
    (package / ROWS).write_bytes(b"other")
    monkeypatch.setattr(packaged_character, "write_checkpoint", lambda *_: None)
    assert character_folder() != made  # other parts are another character
    shutil.rmtree(package / ADAPTER)
    with pytest.raises(FileNotFoundError, match="name a checkpoint"):
        SolamiPipeline.from_pretrained()


def test_packed_weights_are_near_and_codebooks_exact():
    torch.manual_seed(0)
    weights = {
        "conv.weight": torch.randn(64, 32, 7) * torch.logspace(-3, 2, 64)[:, None, None],
        "norm.weight": torch.randn(300),
        "quantizer.codebook": torch.randn(512, 64),
        "steps": torch.tensor(7),
    }
    packed = pack(weights)
    again = unpack(packed)
    assert packed["conv.weight"].dtype == torch.int8 and set(again) == set(weights)
    assert torch.equal(again["quantizer.codebook"], weights["quantizer.codebook"]) and again["steps"] == 7
    error = (again["conv.weight"] - weights["conv.weight"]).abs().amax((1, 2))
    assert (error <= weights["conv.weight"].abs().amax((1, 2)) / 253).all()
    assert torch.equal(again["norm.weight"], weights["norm.weight"])


def test_a_lost_adapter_is_noticed(run, tmp_path):
    shutil.copytree(run / "checkpoint" / "adapter", run / "pretrained" / "adapter", dirs_exist_ok=True)
    with pytest.raises(ValueError, match="the packaged parts give another model"):
        write_package(run, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_adapters_of_other_scales_are_not_joined(run, tmp_path):
    config = run / "pretrained/adapter/adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8'))
    with pytest.raises(ValueError, match=r"scales \[2.0, 4.0\]"):
        write_adapter([run / "pretrained/adapter", run / "checkpoint/adapter"], tmp_path / "joined")


def test_where_the_base_comes_from(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged_character, "find_spec", lambda name: None)
    monkeypatch.setattr(packaged_character, "try_to_load_from_cache", lambda *_: None)
    assert base_model() == "HuggingFaceTB/SmolLM2-135M-Instruct" and not base_is_here()
    (tmp_path / "small.gguf").touch()
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(packaged_character, "find_spec", lambda name: spec)
    assert base_model() == str(tmp_path / "small.gguf") and base_is_here()
