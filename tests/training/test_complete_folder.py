"""What a run leaves in its folder, the losses of each held-out data set, and a disk that is full in between."""

import errno
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoProcessor

from solami_hf.command_line import parse_arguments
from solami_hf.processing.rendering import TASKS
from solami_hf.training import pretrain, sft
from solami_hf.training.language_model.complete_folder import last_evaluations, run_card, write_page

QUICK = {
    "max_length": 256, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "learning_rate": 1e-3,
    "use_cpu": True, "bf16": False, "logging_steps": 1, "save_steps": 2, "report_to": "none", "disable_tqdm": True,
    "max_steps": 4,
}  # fmt: skip


def arguments(folder, output, model="model", **more):
    flags = {"model": folder / model, "data": folder / "data", "output_dir": folder / output} | QUICK | more
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def history_of(folder):
    return json.loads((folder / "history.json").read_text())


def test_a_pretraining_run_from_start_to_page(training_folder):
    evaluated = {"eval_strategy": "steps", "eval_steps": 2, "eval_samples": 3}
    pretrain.main(arguments(training_folder, "run", **evaluated))
    out = training_folder / "run"
    settings = json.loads((out / "training_args.json").read_text())
    assert settings["training"]["learning_rate"] == 1e-3 and settings["command"]["motion_share"] == 0.4
    code = {path.name for path in (training_folder / "model").glob("*.py")}  # for who has it not installed
    assert "modeling_solami.py" in code and {path.name for path in out.glob("*.py")} == code
    assert not list(out.rglob("training_args.bin")) and not (out / ".staging").exists()
    assert "svg" in (page := (out / "report.html").read_text()) or "curve" in page
    assert "Held-out loss" in page and "loss body" in page
    card = (out / "README.md").read_text()
    losses = last_evaluations(history_of(out))
    assert set(losses) == {f"eval_{task}_loss" for task in TASKS}
    assert f"| loss, motion to text | {losses['eval_motion_to_text_loss']:.4g} |" in card
    assert "the test split of data" in card and "| trained from | model |" in card
    assert json.loads((out / "checkpoint-4" / "mixture.json").read_text())["first_rows"][0] == 0


def test_evaluation_loss_is_the_mean_over_the_tokens_of_the_data_set(training_folder):
    sft.main(arguments(training_folder, "run", eval_strategy="steps", eval_steps=4, max_steps=4))
    args, training_args = sft_arguments(training_folder)
    processor = AutoProcessor.from_pretrained(training_folder / "run")
    model = AutoModelForCausalLM.from_pretrained(training_folder / "run")
    losses = []
    for row in sft.chat_samples(args, processor, "test", training_args):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        losses += [-scores[i, label].item() for i, label in enumerate(labels.tolist()) if label != -100]
    found = last_evaluations(history_of(training_folder / "run"))
    assert found == {"eval_chat_loss": pytest.approx(sum(losses) / len(losses), abs=1e-4)}


def sft_arguments(folder):
    return parse_arguments([sft.SftArguments, sft.LanguageModelTrainingArguments], arguments(folder, "run"))


def test_a_full_disk_leaves_the_checkpoint_before(training_folder, stops_writing):
    pretrain.main(arguments(training_folder, "whole"))
    writable = stops_writing("checkpoint-4/optimizer.pt", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="checkpoint-4 could not be written .*No space left.*run again"):
        pretrain.main(arguments(training_folder, "parts"))
    assert [path.name for path in (training_folder / "parts").glob("checkpoint-*")] == ["checkpoint-2"]
    writable()
    pretrain.main(arguments(training_folder, "parts"))
    whole, parts = (training_folder / name for name in ("whole", "parts"))
    assert history_of(parts) == history_of(whole)
    ours, theirs = load_file(parts / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_page_and_card_of_a_log_with_gaps(tmp_path):
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "eval_chat_loss": math.nan, "eval_chat_runtime": 1.0}]
    page = write_page(tmp_path, history).read_text()
    assert "2 steps, the loss fell from 2.000 to 2.000." in page
    assert last_evaluations(history) == {} and "0 steps." in write_page(tmp_path, []).read_text()
    args, training_args = sft_arguments(tmp_path)
    assert "## Measured" not in run_card(tmp_path, args, training_args, history)


def test_epochs_are_counted_over_the_packed_rows(training_folder):
    flags = {"max_steps": -1, "num_train_epochs": 2, "save_strategy": "epoch", "packing": False}
    sft.main(arguments(training_folder, "epochs", **flags))
    steps = [row["step"] for row in history_of(training_folder / "epochs")]
    assert steps[-1] == 24 and len(steps) == 24  # twice 24 dialogues, two a step
    assert {path.name for path in (training_folder / "epochs").glob("checkpoint-*")} == {
        "checkpoint-12",
        "checkpoint-24",
    }
    sft.main(arguments(training_folder, "epochs", **flags))
    assert len(history_of(training_folder / "epochs")) == 24
