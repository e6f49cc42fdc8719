"""The whole way over HTTP, as users go it: push, load, fine-tune with TRL, push the adapter, load metrics."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from solami_hf.processing.datasets.messages_data import write_messages
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset

COMMANDS = """
import contextlib, io, json, sys
from solami_hf.cli import main
told, heard = [], io.StringIO()
with contextlib.redirect_stderr(heard):
    for argv in json.loads(sys.argv[1]):
        before = len(heard.getvalue())
        told.append([main(argv), heard.getvalue()[before:]])
print(json.dumps(told))
"""


@pytest.fixture
def solami(in_process):
    """`solami(["push", ...], ...)`: runs commands, one after the other; [exit code, what was said] of each."""
    return lambda *commands: in_process(COMMANDS, json.dumps([list(map(str, argv)) for argv in commands]))


def puts(hub):
    return sum(request.startswith("PUT /lfs") for request in hub.requests)


@pytest.mark.slow
def test_push_a_checkpoint(hub, solami, checkpoint):
    (checkpoint / "training_args.json").write_text(json.dumps({"output_dir": str(checkpoint)}))
    push = ["push", "checkpoint", checkpoint, "org/solami"]
    dry, first, again, tagged, pickled = solami(
        [*push, "--dry_run"], push, [*push, "--tag", "v1"], [*push, "--dtype", "bfloat16", "--revision", "bf16"],
        ["push", "dataset", checkpoint, "org/solami"],
    )  # fmt: skip
    assert dry[0] == 0 and "dry run: nothing was sent to org/solami" in dry[1]
    assert "model.safetensors" in dry[1] and "files for org/solami" in dry[1] and "acoustic_model/: missing" in dry[1]
    assert first[0] == 0 and again[0] == 0 and "had all of it already" in again[1], again[1]
    repo = hub.repos["models", "org/solami"]
    assert repo.private and repo.tags == {"v1": repo.branches["main"]} and tagged[0] == 0
    files = hub.files("org/solami")
    assert {"README.md", "processing_solami.py", "motion_codec/model.safetensors", "chat_template.jinja"} <= set(files)
    assert "training_args.json" not in files and b'from_pretrained("org/solami")' in files["README.md"]
    assert b'"dtype": "bfloat16"' in hub.files("org/solami", revision="bf16")["config.json"]
    assert len(repo.commits) == 3  # made, pushed, pushed as bf16
    assert pickled[0] == 2 and "is a checkpoint, no dataset" in pickled[1]


PUSH_TO_HUB = """
import json, sys
import solami_hf
from transformers import AutoModelForCausalLM, AutoProcessor
folder = sys.argv[1]
AutoModelForCausalLM.from_pretrained(folder).push_to_hub("org/parts", private=True)
AutoProcessor.from_pretrained(folder).push_to_hub("org/parts")
processor = AutoProcessor.from_pretrained(folder)
processor.motion_codec.push_to_hub("org/codec")
from solami_hf.hub_cards.doctor import examine
told = [[str(f) for f in examine(name).problems] for name in ("org/parts", "org/codec")]
print(json.dumps(told))
"""


@pytest.mark.slow
def test_push_to_hub_methods_leave_a_whole_repository(hub, in_process, checkpoint):
    whole, codec = in_process(PUSH_TO_HUB, checkpoint)
    # Random weights were given no statistics, and transformers' own card is an empty form; nothing else is wrong.
    known = ("was given no statistics", "[More Information Needed]")
    assert [told for told in whole + codec if not any(words in told for words in known)] == []
    assert {"modeling_solami.py", "processing_solami.py", "speech_codec/config.json"} <= set(hub.files("org/parts"))
    assert {"modeling_motion_vq.py", "quantizers.py", "config.json"} <= set(hub.files("org/codec"))


METRICS = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "solami_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
if sys.argv[2] == "absent":
    sys.meta_path.insert(0, Absent())
import evaluate, numpy as np
rng = np.random.default_rng(0)
motions = [rng.normal(size=(n, 55, 3)).cumsum(0) * 0.01 for n in (30, 40, 50)]
words = ["please wave your hand", "thank you"]
inputs = {
    "motion_fid": (motions, [m + 0.01 for m in motions]), "motion_diversity": (motions, motions),
    "motion_mpjpe": ([m * 1.1 for m in motions], motions), "speech_wer": (["please wave", None], words),
}
found = {}
for name in json.loads(sys.argv[1]):
    metric = evaluate.load(sys.argv[3] + name)
    if name in inputs:
        predictions, references = inputs[name]
        found[name] = metric.compute(predictions=predictions, references=references)
    else:
        found[name] = type(metric).__name__
print(json.dumps(found, default=float))
"""


@pytest.mark.slow
def test_every_metric_loads_from_the_hub(hub, solami, in_process):
    from solami_hf.metrics import NAMES, folder_of

    done = solami(
        *(["push", "metric", name, f"org/{name}", "--public"] for name in NAMES),
        ["push", "metric", "motion_fid", "org/fid"],
    )
    assert [code for code, _ in done] == [0] * len(NAMES) + [2], done
    assert "evaluate.load looks for fid.py in it" in done[-1][1]
    for name in NAMES:
        assert {f"{name}.py", "app.py", "requirements.txt", "README.md"} <= set(hub.files(f"org/{name}", "spaces"))
    needing_us = [name for name in NAMES if b"solami_hf" in hub.files(f"org/{name}", "spaces")["requirements.txt"]]
    alone = [name for name in NAMES if name not in needing_us]
    assert len(alone) >= 4
    found = in_process(METRICS, json.dumps(alone), "absent", "org/")
    found |= in_process(METRICS, json.dumps(needing_us), "there", "org/")
    ours = in_process(METRICS, json.dumps(NAMES), "there", str(Path(folder_of("motion_fid")).parent) + "/")
    assert set(found) == set(NAMES) and found == ours


ADAPTER = """
import json, sys
import torch
import solami_hf
from peft import PeftModel
from transformers import AutoModelForCausalLM
from solami_hf import SolamiPipeline
torch.set_num_threads(1)
base = AutoModelForCausalLM.from_pretrained("org/solami")
tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("org/solami"), "org/solami-lora").eval()
pipeline = SolamiPipeline.from_pretrained("org/solami-lora", max_new_tokens=80)
ids = torch.arange(5, 40)[None]
with torch.no_grad():
    scores = [model(ids).logits for model in (base.eval(), tuned, pipeline.model)]
reply = pipeline([{"role": "user", "content": "please wave"}])
print(json.dumps({
    "changed": (scores[0] - scores[1]).abs().max().item(), "same": (scores[1] - scores[2]).abs().max().item(),
    "valid": reply.valid, "reason": reply.answer.reason,
}))
"""
FLAGS = """
--trust_remote_code true --use_peft true --lora_target_modules all-linear --lora_r 4 --assistant_only_loss true
--max_steps 2 --per_device_train_batch_size 3 --learning_rate 1e-1 --use_cpu true --bf16 false --report_to none
--gradient_checkpointing false --logging_steps 1 --save_steps 2
"""


@pytest.fixture
def dialogues(tmp_path, tiny_processor):
    """`messages/` with three dialogues, for trainers that render them themselves."""
    motion = {"body": [1, 2, 3], "hand": [4, 5, 6], "trans": [7]}
    user = {"role": "user", "text": "hi", "motion_text": "", **motion, "speech": [8, 9, 10]}
    answer = {**user, "role": "assistant", "text": "please wave", "speech": [11] * 9}
    row = {"topic": "t", "character": "ada", "turns": [user, answer, user, answer]}
    rows = {
        split: [{**row, "id": f"{split}{i}", "source": f"{split}{i}"} for i in range(3)] for split in ("train", "test")
    }
    write_token_dataset(tmp_path / "tokens", "chat", rows, fingerprints(tiny_processor, "chat"))
    write_messages(tmp_path / "tokens", tiny_processor, tmp_path / "messages")
    return tmp_path / "messages"


@pytest.mark.slow
def test_trl_sft_over_the_hub_then_the_adapter(hub, solami, in_process, checkpoint, dialogues, tmp_path):
    done = solami(
        ["push", "checkpoint", checkpoint, "org/solami"],
        ["push", "dataset", dialogues, "org/solami-chat"],
    )
    assert [code for code, _ in done] == [0, 0], done
    trl = Path(sys.executable).with_name("trl")
    names = ["--model_name_or_path", "org/solami", "--dataset_name", "org/solami-chat", "--output_dir", "tuned"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= hub.environment(tmp_path / "home") | {"CUDA_VISIBLE_DEVICES": ""}
    tuned = subprocess.run(
        [trl, "sft", *names, *FLAGS.split()],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr[-4000:]
    assert "may not learn to stop" not in tuned.stderr
    history = json.loads((tmp_path / "tuned/checkpoint-2/trainer_state.json").read_text())["log_history"]
    assert history[1]["loss"] < history[0]["loss"]
    ((code, told),) = solami(["push", "adapter", tmp_path / "tuned", "org/solami-lora"])
    assert code == 0, told
    assert b"base_model: org/solami" in hub.files("org/solami-lora")["README.md"]
    assert "tokenizer.json" not in hub.files("org/solami-lora")
    found = in_process(ADAPTER)
    assert found["changed"] > 0.01 and found["same"] < 1e-5 and found["valid"], found
