"""Pretraining and SFT as a user runs them, on tiny models: complete folders, LoRA, resuming, bad input."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoProcessor, Trainer

from solami_hf.command_line import parse_arguments
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.prepare import prepare
from solami_hf.training import pretrain, sft
from solami_hf.training.language_model.language_model_training import (
    LanguageModelTrainingArguments,
    StopOnNan,
    _blocks,
    rendered_dataset,
)

QUICK = """
max_length: 512
per_device_train_batch_size: 1
packing: true
learning_rate: 1.0e-3
activation_checkpointing: false
use_cpu: true
bf16: false
logging_steps: 1
save_strategy: steps
save_steps: 2
report_to: none
"""


@pytest.fixture
def run(tmp_path, tiny_model, tiny_processor, small_motion, small_sound):
    """A model folder, token data and a recipe."""
    source = tmp_path / "source"
    source.mkdir()
    write_motion(source / "a.npz", small_motion)
    soundfile.write(source / "a.wav", small_sound, 16000)
    user = {"role": "user", "text": "hi", "audio": "a.wav", "motion": "a.npz"}
    answer = {**user, "role": "assistant", "text": "hello"}
    rows = {
        "motion": {"motion": "a.npz", "text": ["waves"]},
        "speech": {"turns": [{"text": "hi", "audio": "a.wav", "speaker": "me"}] * 2},
        "chat": {"topic": "t", "character": "ada", "turns": [{"role": "system", "text": "Be."}, user, answer]},
    }
    for kind, row in rows.items():
        manifest = [{"id": f"{split}{i}", "split": split, **row} for split in ("train", "test") for i in range(2)]
        (source / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in manifest))
        prepare(kind, source, tiny_processor, tmp_path / "data")
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(QUICK)
    return tmp_path


def arguments(run, output, *more, model="model"):
    paths = ["--model", str(run / model), "--data", str(run / "data"), "--output_dir", str(run / output)]
    return ["--config", str(run / "recipe.yaml"), *paths, *more]


@pytest.mark.parametrize("weights, share", [("chat=6,motion_to_motion=0", 0.75), ("", 0.0)])
def test_dialogues_among_the_tasks(run, tiny_processor, weights, share):
    kinds = [pretrain.PretrainArguments, LanguageModelTrainingArguments]
    more = ["--max_steps", "9", "--motion_share", "1", *(["--task_weights", weights] if weights else [])]
    args, training_args = parse_arguments(kinds, arguments(run, "out", *more), "test", "")
    rows = pretrain.training_rows(args, tiny_processor, training_args)
    late = [rows.mixture[number] for number in range(600, 1000)]  # when the motion share has grown
    assert np.isclose(sum(sample["task"] == "chat" for sample in late) / len(late), share, atol=0.08)


def test_pretrain_then_sft_give_complete_folders(run):
    assert pretrain.main(arguments(run, "pretrained", "--max_steps", "2")) == 0
    assert sft.main(arguments(run, "checkpoint", "--max_steps", "2", model="pretrained")) == 0
    before = AutoModelForCausalLM.from_pretrained(run / "model")
    after = AutoModelForCausalLM.from_pretrained(run / "checkpoint")
    assert not torch.equal(before.model.embed_tokens.weight, after.model.embed_tokens.weight)
    processor = AutoProcessor.from_pretrained(run / "checkpoint")
    assert processor.speech_codec is not None and processor.characters
    assert after.generation_config.eos_token_id == processor.markers["eos"]
    for folder in ("pretrained", "pretrained/checkpoint-2", "checkpoint/checkpoint-2", "checkpoint"):
        settings = json.loads((run / folder / "generation_config.json").read_text())
        assert settings["eos_token_id"] == processor.markers["eos"] and settings.get("use_cache") is not False
        assert json.loads((run / folder / "config.json").read_text())["use_cache"] is True
    history = json.loads((run / "checkpoint" / "history.json").read_text())
    assert [e["step"] for e in history if "loss" in e] == [1, 2]


def test_a_run_continues_from_its_checkpoint(run):
    whole = arguments(run, "whole", "--max_steps", "4")
    sft.main(whole)
    sft.main(arguments(run, "parts", "--max_steps", "4", "--save_steps", "2"))
    final = run / "parts"
    expected = {p.name: p for p in (run / "whole").glob("checkpoint-*")}
    assert {p.name for p in final.glob("checkpoint-*")} == set(expected) == {"checkpoint-2", "checkpoint-4"}
    # Take away what came after step 2 and run again: the same weights must come out.
    shutil.rmtree(final / "checkpoint-4")
    (final / "model.safetensors").unlink()
    sft.main(arguments(run, "parts", "--max_steps", "4", "--save_steps", "2"))
    a, b = (AutoModelForCausalLM.from_pretrained(run / name) for name in ("whole", "parts"))
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_run_that_continues_has_the_same_log(run):
    more = ["--max_steps", "5", "--logging_steps", "3"]
    sft.main(arguments(run, "whole", *more))
    wanted = json.loads((run / "whole" / "history.json").read_text())
    # Logs at the checkpoints too; without Trainer's summary, which is of one call
    assert [row["step"] for row in wanted] == [2, 3, 4, 5]
    shutil.rmtree(run / "whole" / "checkpoint-4")
    shutil.rmtree(run / "whole" / "checkpoint-5")
    sft.main(arguments(run, "whole", *more))
    assert json.loads((run / "whole" / "history.json").read_text()) == wanted


def test_the_loss_is_split_by_modality(run):
    sft.main(arguments(run, "split", "--max_steps", "2"))
    row = json.loads((run / "split" / "history.json").read_text())[-1]
    kinds = {name[5:] for name in row if name.startswith("loss_")}
    assert kinds == {"text", "speech", "body", "hand", "end"}  # an answer has no transform token
    parts = [row[f"loss_{kind}"] for kind in kinds]
    assert min(parts) <= row["loss"] <= max(parts) and 0 <= row["accuracy"] <= 1


def files_and_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_run_says_so_and_changes_nothing(run, caplog):
    sft.main(arguments(run, "done", "--max_steps", "3"))
    before = files_and_times(run / "done")
    caplog.set_level("INFO", logger="solami_hf")
    sft.main(arguments(run, "done", "--max_steps", "3"))
    assert "finished at step 3, nothing is left to train" in caplog.text
    assert files_and_times(run / "done") == before


@pytest.mark.parametrize("more", [[], ["--use_peft"]])
def test_a_run_stopped_while_its_folder_was_written_completes_it(run, more):
    sft.main(arguments(run, "done", "--max_steps", "3", *more))
    wanted = load_file(run / "done" / "model.safetensors")
    history = json.loads((run / "done" / "history.json").read_text())
    (run / "done" / "model.safetensors").unlink()
    (run / "done" / "history.json").unlink()
    checkpoint = files_and_times(run / "done" / "checkpoint-3")
    sft.main(arguments(run, "done", "--max_steps", "3", *more))
    found = load_file(run / "done" / "model.safetensors")
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert json.loads((run / "done" / "history.json").read_text()) == history
    assert files_and_times(run / "done" / "checkpoint-3") == checkpoint


def test_a_run_that_diverges_stops_before_it_is_saved(run):
    more = ["--learning_rate", "1e30", "--logging_steps", "100", "--save_steps", "4"]
    with pytest.raises(ValueError, match="the loss became (nan|inf) at step 4; lower learning_rate"):
        sft.main(arguments(run, "wild", "--max_steps", "8", *more))
    assert not list((run / "wild").glob("checkpoint-*"))


def test_lora_comes_out_merged_and_as_an_adapter(run):
    sft.main(arguments(run, "lora", "--max_steps", "2", "--use_peft"))
    assert (run / "lora" / "adapter" / "adapter_config.json").is_file()
    before = AutoModelForCausalLM.from_pretrained(run / "model")
    merged = AutoModelForCausalLM.from_pretrained(run / "lora")
    names = [n for n, p in merged.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    assert any("q_proj" in n for n in names) and any("embed_tokens" in n for n in names)
    assert not any("mlp" in n for n in names)


def test_evaluation_loss_is_logged(run):
    more = ["--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "2"]
    sft.main(arguments(run, "evaluated", *more))
    history = json.loads((run / "evaluated" / "history.json").read_text())
    assert any("eval_chat_loss" in entry for entry in history)


def test_bad_input(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        sft.main(arguments(run, "x", "--max_steps", "2", model="gone"))
    with pytest.raises(ValueError, match="set max_steps"):
        pretrain.main(arguments(run, "x"))
    with pytest.raises(ValueError, match="max_length=8"):
        sft.main(arguments(run, "x", "--max_steps", "2", "--max_length", "8"))
    (run / "model" / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="no processor_config.json"):
        sft.main(arguments(run, "x", "--max_steps", "2"))


def test_rows_in_pieces_are_refused(run, monkeypatch):
    monkeypatch.setattr(Trainer, "get_cp_size", lambda trainer: 2)
    with pytest.raises(ValueError, match="need whole rows; set cp_size and sp_size to 1"):
        sft.main(arguments(run, "x", "--max_steps", "2"))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(loss):
    state = SimpleNamespace(global_step=3)
    with pytest.raises(ValueError, match="at step 3; lower learning_rate"):
        StopOnNan().on_log(SimpleNamespace(output_dir="runs/x"), state, None, logs={"loss": loss})
    StopOnNan().on_log(SimpleNamespace(output_dir="runs/x"), state, None, logs={"loss": 1.0})


def test_packing_keeps_every_sample_and_refuses_attention_without_mask(tmp_path):
    tokens = [[i] * (i % 7 + 1) for i in range(50)]
    samples = [{"input_ids": t, "labels": t, "task": "t", "id": "x"} for t in tokens]
    arguments = LanguageModelTrainingArguments(output_dir=str(tmp_path), max_length=16, use_cpu=True)
    blocks = _blocks(rendered_dataset(samples), arguments, "sdpa")
    packed = sorted(token for block in blocks["input_ids"] for token in block)
    assert packed == sorted(token for s in samples for token in s["input_ids"])
    assert all(sum(lengths) <= 16 for lengths in blocks["seq_lengths"])
    assert len(_blocks(rendered_dataset(samples), arguments, "flash_attention_2")) == len(blocks)
    with pytest.raises(
        ValueError, match="knows no attention 'paged'; attn_implementation takes sdpa, eager, flex_att"
    ):
        _blocks(rendered_dataset(samples), arguments, "paged")
