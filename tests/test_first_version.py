"""What version 0.1.0 wrote still loads, and gives what it gave then; `fixtures/write_checkpoint.py` made the files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from solami_hf.generation import SolamiPipeline
from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM, SolamiModel
from solami_hf.processing.datasets.token_dataset import load_tokens, split_names

FIXTURES = Path(__file__).parent / "fixtures"
FOLDER = FIXTURES / "first_version"
MODEL = FOLDER / "model"
_spec = importlib.util.spec_from_file_location("write_checkpoint", FIXTURES / "write_checkpoint.py")
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


def close(found, expected, name=""):
    np.testing.assert_allclose(np.asarray(found), expected, atol=2e-4, rtol=2e-4, err_msg=name)


@pytest.fixture(scope="module")
def expected() -> dict:
    with np.load(FOLDER / "expected.npz", allow_pickle=False) as arrays:
        return {**arrays, **json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))}


@pytest.fixture
def processor():
    return AutoProcessor.from_pretrained(MODEL)


def test_everything_gives_what_it_gave(processor, expected):
    model = AutoModelForCausalLM.from_pretrained(MODEL).eval()
    assert isinstance(model, SolamiForCausalLM)
    base = AutoModelForCausalLM.from_pretrained(MODEL)
    adapted = PeftModel.from_pretrained(base, FOLDER / "adapter").eval()
    arrays, told = writer.outputs(processor, model, adapted)
    for name, value in arrays.items():
        if value.dtype.kind == "f":
            close(value, expected[name], name)
        else:
            assert np.array_equal(value, expected[name]), name
    assert not np.allclose(arrays["logits"], arrays["adapted_logits"])
    assert {**told, "version": "0.1.0"} == {name: expected[name] for name in told}


def test_its_parts_load_alone(expected):
    ids = torch.from_numpy(expected["prompt"])
    headless = AutoModel.from_pretrained(MODEL).eval()
    assert isinstance(headless, SolamiModel)
    with torch.no_grad():
        close(headless(ids).last_hidden_state[0, -1] @ headless.embed_tokens.weight.T, expected["logits"])
    codec = AutoModel.from_pretrained(MODEL / "motion_codec")
    close(codec.decode_transform(torch.arange(8)).detach(), expected["transform"])
    assert AutoModel.from_pretrained(MODEL / "speech_codec").config.frame_rate == 50
    assert AutoModel.from_pretrained(MODEL / "acoustic_model").config.num_quantizers == 3


def test_saved_again_it_is_the_same(processor, expected, tmp_path):
    model = SolamiForCausalLM.from_pretrained(MODEL)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    arrays, _ = writer.outputs(AutoProcessor.from_pretrained(tmp_path), model.eval(), model)
    close(arrays["logits"], expected["logits"])
    close(arrays["decoded_speech"], expected["decoded_speech"])
    assert np.array_equal(arrays["voice"], expected["voice"])


def test_its_tokens_are_read_and_fit_its_codecs(processor):
    assert split_names(str(FOLDER / "tokens"), "motion") == ["train"]
    motions = load_tokens(str(FOLDER / "tokens"), "motion", "train", processor)
    codes = processor.encode_motion([writer.motion()])[0]
    assert motions["text"] == [["sways 0"], ["sways 1"]] and motions[0]["body"] == codes["body"].tolist()
    (chat,) = load_tokens(str(FOLDER / "tokens"), "chat", "train", processor)
    assert [(turn["role"], turn["text"]) for turn in chat["turns"]] == list(writer.SPOKEN)
    assert np.array_equal(chat["turns"][0]["speech"], processor.encode_speech([writer.sound()])[0])


def test_it_talks():
    pipeline = SolamiPipeline.from_pretrained(MODEL)
    reply = pipeline([{"role": "user", "content": writer.TEXTS[1]}], max_new_tokens=60)
    assert reply.valid and reply.audio is not None and reply.motion is not None


def test_its_own_code_loads_it_where_we_are_not_installed(expected, tmp_path):
    script = (
        "import sys, json, torch; sys.modules['solami_hf'] = None\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()\n"
        "assert 'solami_hf' not in type(model).__module__.split('.')[0]\n"
        "print(json.dumps(model(torch.tensor([json.loads(sys.argv[2])])).logits[0, -1].tolist()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(MODEL), json.dumps(expected["prompt"][0].tolist())],
        env=os.environ | {"HF_HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    close(json.loads(done.stdout.splitlines()[-1]), expected["logits"])
