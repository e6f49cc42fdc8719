"""from_backbone: the vocabulary grows, the old model stays, the layout is where the config says."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from solami_hf.modeling.solami.configuration_solami import SolamiConfig
from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM, SolamiModel
from solami_hf.modeling.solami.vocabulary import MARKERS, build_layout, extend_tokenizer
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig

SIZES = {"speech": 32, "body": 16, "hand": 8, "trans": 4}


def llama(tied: bool, vocab_size: int = 50) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    ).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_old_logits_stay_and_new_rows_are_the_mean(tied):
    backbone = llama(tied)
    model = SolamiForCausalLM.from_backbone(backbone, sizes=SIZES).eval()
    ids = torch.arange(10)[None]
    assert torch.equal(model(ids).logits[..., :50], backbone(ids).logits)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        new = layer.weight[50:]
        assert new.shape[0] == len(MARKERS) + 60
        assert torch.allclose(new, layer.weight[:50].mean(0).expand_as(new), atol=1e-6)


def test_layout_is_contiguous_and_in_the_config():
    config = SolamiForCausalLM.from_backbone(llama(True), sizes=SIZES).config
    first = 50 + len(MARKERS)
    assert config.modalities == {
        "speech": {"first_id": first, "size": 32},
        "body": {"first_id": first + 32, "size": 16},
        "hand": {"first_id": first + 48, "size": 8},
        "trans": {"first_id": first + 56, "size": 4},
    }
    assert config.vocab_size == first + 60
    assert config.eos_token_id == config.markers["eos"]


def test_a_padded_embedding_is_filled_before_it_grows(tiny_tokenizer):
    rows = len(tiny_tokenizer) + 5
    model = SolamiForCausalLM.from_backbone(llama(True, rows), tiny_tokenizer, sizes=SIZES)
    assert model.config.markers["pad"] == rows - 5
    assert model.config.vocab_size == len(tiny_tokenizer)
    assert tiny_tokenizer.convert_tokens_to_ids("<🕺3>") == model.config.modalities["body"]["first_id"] + 3


def test_every_auto_class_loads_the_saved_folder(tmp_path):
    model = SolamiForCausalLM.from_backbone(llama(False), sizes=SIZES).eval()
    model.save_pretrained(tmp_path)
    ids = torch.arange(12)[None]
    assert isinstance(AutoConfig.from_pretrained(tmp_path), SolamiConfig)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, SolamiForCausalLM)
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    headless = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(headless, SolamiModel)
    assert torch.equal(headless(ids).last_hidden_state, model.model(ids).last_hidden_state)
    assert LlamaForCausalLM.from_pretrained(tmp_path).config.vocab_size == model.config.vocab_size


def test_from_a_folder_equals_from_the_model(tmp_path):
    backbone = llama(True)
    backbone.save_pretrained(tmp_path)
    ids = torch.arange(10)[None]
    loaded = SolamiForCausalLM.from_backbone(tmp_path, sizes=SIZES).eval()
    assert torch.equal(loaded(ids).logits[..., :50], backbone(ids).logits)


def test_other_architectures_are_refused_with_the_way_out():
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20))
    with pytest.raises(ValueError, match="extend_backbone"):
        SolamiForCausalLM.from_backbone(gpt2)


@pytest.mark.parametrize("sizes", [{"voice": 3}, {"body": 0}, {"body": "many"}])
def test_bad_sizes(sizes):
    with pytest.raises(ValueError, match="modalit"):
        build_layout(sizes, 0)


def test_extending_twice_changes_nothing(tiny_tokenizer):
    first = extend_tokenizer(tiny_tokenizer, SIZES)
    size = len(tiny_tokenizer)
    assert extend_tokenizer(tiny_tokenizer, SIZES) == first
    assert len(tiny_tokenizer) == size


def test_scattered_modality_tokens_are_refused(tiny_tokenizer):
    tiny_tokenizer.add_tokens(["<🕺1>", "<🕺0>"])
    with pytest.raises(ValueError, match="not consecutive"):
        extend_tokenizer(tiny_tokenizer, SIZES)


def test_config_refuses_a_layout_outside_the_vocabulary():
    with pytest.raises(StrictDataclassClassValidationError, match="outside a vocabulary"):
        SolamiConfig(vocab_size=10, modalities={"body": {"first_id": 5, "size": 6}})
    with pytest.raises(ValueError, match="from_backbone"):
        SolamiConfig(vocab_size=10).require_layout()


def test_the_speech_codec_decides_about_speech_codes():
    codec = SolamiSpeechCodecConfig(codebook_size=16, num_quantizers=4, lm_levels=3, sampling_rate=24000)
    config = SolamiForCausalLM.from_backbone(llama(True), speech_codec=codec).config
    assert config.speech_levels == 3 and config.sampling_rate == 24000 and config.modalities["speech"]["size"] == 48
    assert config.frame_rates == {"speech": 225.0, "body": 7.5, "hand": 7.5}
    plain = SolamiForCausalLM.from_backbone(llama(True)).config
    paper = SolamiForCausalLM.from_backbone(llama(True), speech_codec=SolamiSpeechCodecConfig()).config
    assert paper.to_dict() == plain.to_dict() and plain.speech_levels == 1
    for speech in (32, 1024):
        with pytest.raises(ValueError, match=f"sizes has {speech} speech codes, but the speech codec needs 48"):
            SolamiForCausalLM.from_backbone(llama(True), speech_codec=codec, sizes={"speech": speech})
    with pytest.raises(StrictDataclassClassValidationError, match="6 speech codes cannot be shared by 4 levels"):
        SolamiConfig(vocab_size=20, modalities={"speech": {"first_id": 5, "size": 6}}, speech_levels=4)
