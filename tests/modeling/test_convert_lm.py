"""`solami convert lm --to llama`: stock Llama with the same logits, and one that an engine can serve."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from solami_hf.processing.convert_command import main


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path):
    tiny_model.config.use_cache = tiny_model.generation_config.use_cache = False  # as some trainings leave it
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def llama(checkpoint, tmp_path):
    assert main(["lm", str(checkpoint), "--to", "llama", "--output", str(tmp_path / "llama")]) == 0
    return tmp_path / "llama"


def test_stock_llama_has_the_same_logits(tiny_model, tiny_processor, llama):
    model = AutoModelForCausalLM.from_pretrained(llama)
    assert type(model) is LlamaForCausalLM and model.config.model_type == "llama"
    config = json.loads((llama / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and "auto_map" not in config
    ids = torch.randint(0, tiny_model.config.vocab_size, (2, 9))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tiny_model(ids).logits)
    assert model.config.modalities == tiny_model.config.modalities
    assert model.config.markers == tiny_model.config.markers
    assert model.config.use_cache and model.generation_config.use_cache  # engines do as they are told
    assert model.generation_config.eos_token_id == tiny_model.config.eos_token_id
    assert not list(llama.glob("*.py")) and not (llama / "processor_config.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(llama)
    messages = [{"role": "user", "content": "hi"}]
    ours = tiny_processor.apply_chat_template([messages], tokenize=True, add_generation_prompt=True)[0]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(theirs) == list(ours)


def test_what_is_not_converted(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        main(["lm", str(tmp_path / "gone"), "--output", str(tmp_path / "out")])
    with pytest.raises(FileExistsError, match="is there already"):
        main(["lm", str(checkpoint), "--output", str(checkpoint)])
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="model_type 'gpt2', which engines read as it is"):
        main(["lm", str(tmp_path / "gpt2"), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_transformers_serve_answers_over_http(llama):
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(llama), "--port", str(port)]
    server = subprocess.Popen([*command, "--device", "cpu"], env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        body = {"model": str(llama), "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stream": False}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        answer, patience = None, time.time() + 120
        while answer is None and time.time() < patience and server.poll() is None:
            try:
                answer = json.loads(urllib.request.urlopen(request, timeout=60).read())
            except (ConnectionError, urllib.error.URLError):
                time.sleep(0.5)
        assert answer is not None, "the server did not answer"
        assert answer["choices"][0]["message"]["role"] == "assistant" and answer["usage"]["completion_tokens"] == 5
    finally:
        server.terminate()
        server.wait(30)
