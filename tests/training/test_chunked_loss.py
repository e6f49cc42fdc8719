"""The chunked loss against the plain one: loss and gradients, for every head that a run may have."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, CohereConfig, GPT2Config, LlamaConfig, Qwen3Config

from solami_hf.training.language_model import chunked_loss
from solami_hf.training.language_model.chunked_loss import add_chunked_loss, token_scores

LLAMA = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**LLAMA),
    "llama_tied": LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "gpt2": GPT2Config(vocab_size=97, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "qwen3": Qwen3Config(**LLAMA, head_dim=8),
}
ADAPTERS = {
    "modules_to_save": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "on_the_head": {"target_modules": ["q_proj", "lm_head"], "init_lora_weights": False},
    "new_rows": {"target_modules": ["q_proj"], "trainable_token_indices": [90, 91]},
}


@pytest.fixture(autouse=True)
def _several_tiles(monkeypatch):
    """Tiles narrower than the vocabulary of 97, and fewer rows than labels, each with a remainder."""
    monkeypatch.setattr(chunked_loss, "TILE_WIDTH", 40)
    monkeypatch.setattr(chunked_loss, "ROWS", 8)


@pytest.fixture
def batch():
    """Two rows of 12 tokens, about half of them labelled."""
    ids = torch.randint(0, 97, (2, 12))
    labels = torch.where(torch.rand(ids.shape) < 0.6, ids, -100)
    return {"input_ids": ids, "labels": labels, "position_ids": torch.arange(12).expand(2, 12), "use_cache": False}


def gradients(model, batch, **kwargs):
    outputs = model(**batch, **kwargs)
    outputs.loss.backward()
    return outputs, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(plain, chunked, batch, **kwargs):
    """Loss and every gradient of the two models are equal; returns the chunked outputs."""
    wanted, wanted_gradients = gradients(plain, batch, **kwargs)
    outputs, found = gradients(chunked, batch, **kwargs)
    assert torch.allclose(outputs.loss, wanted.loss, atol=1e-5)
    assert found.keys() == wanted_gradients.keys()
    for name, gradient in wanted_gradients.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name
    return wanted, outputs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_items", [None, 40])
@pytest.mark.parametrize("tiles", [False, True])
def test_loss_and_gradients_of_architectures(name, num_items, tiles, batch, monkeypatch):
    monkeypatch.setattr(chunked_loss, "is_deepspeed_zero3_enabled", lambda: tiles)
    plain = AutoModelForCausalLM.from_config(CONFIGS[name])
    chunked = copy.deepcopy(plain)
    assert add_chunked_loss(chunked)
    wanted, outputs = assert_same(plain, chunked, batch, num_items_in_batch=num_items)
    targets = batch["labels"][:, 1:]
    scores = wanted.logits[:, :-1][targets != -100]
    assert outputs.targets.tolist() == targets[targets != -100].tolist()
    assert outputs.is_top1.tolist() == (scores.argmax(-1) == outputs.targets).tolist()
    picked = scores.log_softmax(-1).gather(-1, outputs.targets[:, None])[:, 0]
    assert torch.allclose(outputs.log_probs, picked, atol=1e-5)
    with torch.no_grad():
        assert chunked(input_ids=batch["input_ids"]).logits.shape == (2, 12, 97)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters(kind, tied, batch):
    base = AutoModelForCausalLM.from_config(CONFIGS["llama_tied" if tied else "llama"])
    models = [copy.deepcopy(base) for _ in range(2)]
    assert add_chunked_loss(models[1])
    adapters = []
    for model in models:
        torch.manual_seed(1)
        adapters.append(get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **ADAPTERS[kind])))
    assert_same(*adapters, batch)


@pytest.mark.parametrize("bias", [False, True])
def test_a_head_by_itself(bias, monkeypatch):
    head = torch.nn.Linear(16, 97, bias=bias)
    hidden, targets = torch.randn(20, 16, requires_grad=True), torch.randint(0, 97, (20,))
    by_rows = token_scores(hidden, head, targets)
    # As on GPUs and under ZeRO-3
    monkeypatch.setattr(chunked_loss, "is_deepspeed_zero3_enabled", lambda: True)
    by_tiles = token_scores(hidden, head, targets)
    assert "ChunkedLogProb" in by_tiles[0].grad_fn.name() and by_tiles[0].grad_fn.name() != by_rows[0].grad_fn.name()
    assert torch.equal(by_tiles[1], by_rows[1])
    sources = [hidden, *head.parameters()]
    weights = torch.randn(20)  # each position has a gradient of its own
    wanted = torch.autograd.grad(head(hidden).log_softmax(-1).gather(-1, targets[:, None])[:, 0] @ weights, sources)
    for scores, _ in (by_tiles, by_rows):
        found = torch.autograd.grad(scores @ weights, sources)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))


def test_bf16_autocast(batch):
    plain = AutoModelForCausalLM.from_config(CONFIGS["llama_tied"])
    chunked = copy.deepcopy(plain)
    add_chunked_loss(chunked)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (wanted, slopes), (outputs, found) = (gradients(model, batch) for model in (plain, chunked))
    assert torch.allclose(outputs.loss, wanted.loss, atol=1e-3)
    for name, gradient in slopes.items():
        assert found[name].dtype == gradient.dtype
        assert torch.allclose(found[name], gradient, atol=2e-3), name


def test_a_batch_without_labels_has_no_loss_and_no_gradient(batch):
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"])
    add_chunked_loss(model)
    outputs, found = gradients(model, {**batch, "labels": torch.full((2, 12), -100)})
    assert outputs.loss.item() == 0 and len(outputs.targets) == 0
    assert all(not gradient.any() for gradient in found.values())


def test_a_model_that_scales_its_logits_keeps_its_own_loss(batch, caplog):
    model = AutoModelForCausalLM.from_config(CohereConfig(**LLAMA, logit_scale=0.5, pad_token_id=0))
    assert not add_chunked_loss(model)
    assert "logit_scale" in caplog.text and model(**batch).logits is not None
