"""`trl sft`, unmodified and in a process that knows nothing of solami_hf, on our folders and dialogues."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from solami_hf.modeling.solami.backbones import extend_backbone
from solami_hf.processing.datasets.messages_data import write_messages
from solami_hf.processing.datasets.tasks import chat_messages
from solami_hf.processing.datasets.token_dataset import load_tokens

FLAGS = """
--assistant_only_loss true --max_steps 2 --per_device_train_batch_size 3 --learning_rate 1e-2
--use_cpu true --bf16 false --gradient_checkpointing false --logging_steps 1 --save_steps 2 --report_to none
"""


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["solami", "gpt2"])
def test_trl_sft_learns_the_answers_only(start, token_data, tiny_processor, tmp_path, model_type):
    write_messages(token_data, tiny_processor, tmp_path / "messages")
    # Of a stock model the processor alone brings code along
    flags = [*FLAGS.split(), "--trust_remote_code", "true"]
    if model_type == "gpt2":
        no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = GPT2Config(vocab_size=tiny_processor.markers["pad"], n_embd=16, n_layer=2, n_head=2, **no_dropout)
        sizes = {name: span["size"] for name, span in tiny_processor.modalities.items()}
        model = extend_backbone(GPT2LMHeadModel(config), tiny_processor.tokenizer, sizes=sizes)
        shutil.rmtree(start)
        model.save_pretrained(start)
        tiny_processor.save_pretrained(start)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    paths = ["--model_name_or_path", "start", "--dataset_name", "messages", "--output_dir", "tuned"]
    trl = Path(sys.executable).with_name("trl")
    done = subprocess.run(
        [trl, "sft", *paths, *flags],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "chat template" not in done.stderr

    before = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).eval()
    losses = []
    for row in load_tokens(token_data, "chat", "train", tiny_processor):
        sample = tiny_processor.renderer.chat(chat_messages(row, tiny_processor.answer_format))
        ids, labels = (torch.tensor(sample[name])[None] for name in ("input_ids", "labels"))
        losses.append(before(ids, labels=labels).loss.item())
    history = json.loads((tmp_path / "tuned" / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert history[0]["loss"] == pytest.approx(sum(losses) / 3, abs=2e-4)
    assert history[1]["loss"] < history[0]["loss"]

    after = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    assert type(after) is type(before) and after.config.modalities == before.config.modalities
    assert not torch.equal(after.lm_head.weight, before.lm_head.weight)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "tuned")) == len(tiny_processor.tokenizer)
