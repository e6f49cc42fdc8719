"""Stock Trainer knows `SolamiForCausalLM` for what it is."""

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother

from solami_hf import SolamiConfig, SolamiForCausalLM


def test_trainer_shifts_the_labels_that_it_smooths(tmp_path):
    config = SolamiConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = SolamiForCausalLM(config).eval()
    args = TrainingArguments(output_dir=str(tmp_path), label_smoothing_factor=0.1, use_cpu=True, report_to="none")
    ids = torch.arange(12).view(2, 6)
    loss = Trainer(model, args).compute_loss(model, {"input_ids": ids, "labels": ids.clone()})
    expected = LabelSmoother(0.1)({"logits": model(ids).logits[:, :-1]}, ids[:, 1:])
    torch.testing.assert_close(loss, expected)
