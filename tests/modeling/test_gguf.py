"""A GGUF file as a backbone: read, extended, saved; its weights are those that were written."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from solami_hf.modeling.solami.backbones import extend_backbone, gguf_file

gguf = pytest.importorskip("gguf", reason="the package gguf, of the extra `character`, is not installed")
CONFIG = LlamaConfig(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
)  # fmt: skip
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """A Llama with random weights, and the same as a GGUF file with a tokenizer of bytes."""
    model, path = LlamaForCausalLM(CONFIG), tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(300)
    writer.add_tokenizer_model("gpt2")
    signs = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    signs += ["ab", "ba"]
    writer.add_token_list([*signs, *(f"<extra{i}>" for i in range(300 - len(signs)))])
    writer.add_token_types([1] * len(signs) + [3] * (300 - len(signs)))
    writer.add_token_merges(["a b", "b a"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    for name, weight in model.state_dict().items():
        layer, _, part = name.removeprefix("model.layers.").partition(".")
        short, known = name.removesuffix(".weight"), part.removesuffix(".weight")
        if name == "lm_head.weight":
            continue
        weight = weight.numpy()
        if known in ("self_attn.q_proj", "self_attn.k_proj"):  # GGUF has the halves of rotary pairs interleaved
            heads = 4 if "q_proj" in known else 2
            weight = weight.reshape(heads, 2, -1, 32).swapaxes(1, 2).reshape(weight.shape)
            target = f"blk.{layer}.attn_{known[10]}"
        else:
            target = NAMES[short] if short in NAMES else f"blk.{layer}.{NAMES[known]}"
        writer.add_tensor(f"{target}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, path


def test_a_gguf_file_is_extended_and_saved(written, tmp_path):
    plain, path = written
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **gguf_file(path))
    old = min(len(tokenizer), CONFIG.vocab_size)
    model = extend_backbone(path, tokenizer, sizes={"speech": 8, "body": 4, "hand": 4, "trans": 2})
    assert model.config.model_type == "solami" and model.config.tie_word_embeddings
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits[..., :old], plain(ids).logits[..., :old])
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert not hasattr(again.config, "quantization_config")


def test_a_gguf_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no GGUF file"):
        extend_backbone(tmp_path / "gone.gguf")
    assert gguf_file("org/model") == {} and gguf_file(tmp_path) == {} and gguf_file(None) == {}
