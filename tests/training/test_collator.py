"""Packed rows on literal tensors, and packed loss equal to unpacked loss."""

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import flash_attention_mask

from solami_hf.training.language_model.packed_mixture import PackedRowsCollator


def test_rows_positions_and_labels():
    batch = PackedRowsCollator(9)(
        [
            {"input_ids": [1, 2, 3, 4, 5], "labels": [1, -100, 3, 4, 5], "seq_lengths": [2, 3]},
            {"input_ids": [6, 7], "labels": [6, 7]},
        ]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 9, 9, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 1, 2]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 4, 5], [-100, 7, -100, -100, -100]]


def test_packed_loss_equals_unpacked_loss(tiny_model):
    documents = [torch.randint(0, 200, (n,)).tolist() for n in (7, 12, 5, 9)]
    rows = [{"input_ids": d, "labels": d} for d in documents]
    packed = [
        {"input_ids": a + b, "labels": a + b, "seq_lengths": [len(a), len(b)]}
        for a, b in (documents[:2], documents[2:])
    ]
    collate = PackedRowsCollator(0)
    with torch.no_grad():
        alone = [tiny_model(**collate([row])).loss * (len(row["labels"]) - 1) for row in rows]
        together = tiny_model(**collate(packed)).loss
        padded = tiny_model(**collate(rows)).loss
    expected = sum(alone) / sum(len(d) - 1 for d in documents)
    assert torch.allclose(together, expected, atol=1e-5)
    assert torch.allclose(padded, expected, atol=1e-5)


ROWS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [5, 6, -100, 8, 9], "seq_lengths": [3, 2]},
    {"input_ids": [1, 2, 3], "labels": [1, 2, 3], "seq_lengths": [3]},
]


def test_without_padding_documents_lie_end_to_end():
    batch = PackedRowsCollator(0, padding_free=True)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 1, 2, 3]]
    assert batch["labels"].tolist() == [[-100, 6, -100, -100, 9, -100, 2, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]] and batch["use_cache"] is False
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 3, 5, 8]
    assert batch["cu_seq_lens_q"].dtype == torch.int32 and batch["max_length_q"] == batch["max_length_k"] == 3


def by_documents(module, query, key, value, attention_mask, scaling, cu_seq_lens_q, max_length_q, **kwargs):
    """Stands for a kernel of flash attention: no mask, and the ends of the documents."""
    assert attention_mask is None and max_length_q == int(cu_seq_lens_q.diff().max())
    ends = cu_seq_lens_q.tolist()
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True, scale=scaling
        )
        for a, b in zip(ends, ends[1:], strict=False)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def losses(model, attention, padding_free=False):
    """Loss of the rows, and logits of their documents, under an attention."""
    model.set_attn_implementation(attention)
    batch = PackedRowsCollator(0, padding_free)(ROWS)
    with torch.no_grad():
        out = model(**batch)
    real = out.logits if padding_free else torch.cat([out.logits[0], out.logits[1, :3]])[None]
    return out.loss, real


def small_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_rows_for_flash_attention_give_the_loss_of_masked_rows():
    AttentionInterface.register("by_documents", by_documents)
    AttentionMaskInterface.register("by_documents", flash_attention_mask)
    model = small_llama()
    for wanted, found in zip(losses(model, "sdpa"), losses(model, "by_documents", padding_free=True), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_rows_under_flex_attention_give_the_loss_of_masked_rows():
    model = small_llama()
    for wanted, found in zip(losses(model, "sdpa"), losses(model, "flex_attention"), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
