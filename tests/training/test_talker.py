"""`solami train-talker`: data, batches, a run that is resumed, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

import solami_hf
from solami_hf.command_line import parse_arguments
from solami_hf.processing.datasets.token_dataset import write_token_dataset
from solami_hf.training.speech.talker_data import SpokenClips, TalkerBatches, collate, read_clips
from solami_hf.training.speech.train_talker import TalkerArguments, TrainingArguments, evaluate_talker, main

RECIPES = Path(solami_hf.__file__).parent / "training" / "recipes"
ALPHABET = " abcdefghijklmnopqrstuvwxyz'.,?!-:;"
TINY = {
    "hidden_size": 16, "intermediate_size": 16, "num_encoder_layers": 1, "num_attention_heads": 2,
    "num_decoder_layers": 1, "conv_channels": 16, "conv_kernel_size": 3, "codebook_size": 32, "dropout": 0.1,
    "alignment_steps": 2, "batch_seconds": 2.0, "averaging_decay": 0.8,
}  # fmt: skip
RUN = {
    "max_steps": 6, "per_device_train_batch_size": 1, "learning_rate": 1e-2, "logging_steps": 2, "save_steps": 2,
    "eval_strategy": "steps", "eval_steps": 3, "use_cpu": True, "report_to": "none", "disable_tqdm": True,
}  # fmt: skip


def write_tokens(folder, counts=(("train", 20), ("validation", 3)), highest=32, words=(1, 6)):
    """Turns that say words in random codes, four frames a character."""
    rng, splits = np.random.default_rng(0), {}
    for split, count in counts:
        texts = [" ".join(rng.choice(["wave", "hello", "now", "and"], rng.integers(*words))) for _ in range(count)]
        splits[split] = [
            {
                "id": f"{split}{i}",
                "source": "",
                "turns": [{"text": text, "speech": rng.integers(0, highest, 4 * len(text)).tolist(), "speaker": "a"}],
            }
            for i, text in enumerate(texts)
        ]
    write_token_dataset(folder, "speech", splits, {"speech": "none"})


def clips(lengths):
    """Clips of two characters with codes that tell which clip they are of."""
    codes = [np.full(length, number) for number, length in enumerate(lengths)]
    durations = [np.array([1, length - 1]) for length in lengths]
    return SpokenClips.join([""] * len(lengths), [[2, 3]] * len(lengths), durations, codes)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """`run(name, **options)` trains into a folder of that name by the command."""
    root = tmp_path_factory.mktemp("talker")
    write_tokens(root / "tokens")

    def run(name, data="tokens", **options):
        options = {"data": root / data, "output_dir": root / name, **TINY, **RUN, **options}
        main([word for option, value in options.items() for word in (f"--{option}", str(value))])
        return root / name

    return run


@pytest.fixture(scope="module")
def whole(command):
    return command("whole")


def test_a_run_leaves_a_model_that_speaks(whole):
    talker = AutoModel.from_pretrained(whole).eval()
    spoken = talker.generate(**talker.encode_text("hello"))
    assert spoken.codes.shape[1] == spoken.durations.sum() > 0
    history = json.loads((whole / "history.json").read_text())
    assert {"accuracy", "code_loss", "duration_loss", "loss"} <= set(history["log"][0])
    assert {"eval_accuracy", "eval_duration_error"} <= set(history["evaluation"])
    assert "Talker" in (whole / "report.html").read_text()
    with np.load(whole / "alignment.npz", allow_pickle=False) as file:
        assert len(file["ends"]) == 23 and file["durations"].min() >= 1


@pytest.mark.parametrize("step", [2, 6])
def test_resumed_from_any_checkpoint(command, whole, step, assert_same_run):
    name = f"from-{step}"
    shutil.copytree(whole / f"checkpoint-{step}", whole.parent / name / f"checkpoint-{step}")
    torch.manual_seed(step)
    assert_same_run(command(name), whole)


def test_the_alignment_is_kept_for_the_same_data_alone(command, whole, monkeypatch):
    def not_again(*args, **kwargs):
        raise AssertionError("it is aligned anew")

    monkeypatch.setattr("solami_hf.training.speech.talker_data.train_reader", not_again)
    shutil.copytree(whole, whole.parent / "kept", ignore=shutil.ignore_patterns("checkpoint-*"))
    command("kept", max_steps=1)
    with pytest.raises(ValueError, match=r"alignment.npz was made from other data or settings; remove it"):
        command("kept", alignment_steps=3)


def test_goes_on_from_a_talker(command, whole):
    found = AutoModel.from_pretrained(command("on", start_from=whole, learning_rate=0, max_steps=1, hidden_size=64))
    assert torch.equal(found.code_head.weight, AutoModel.from_pretrained(whole).code_head.weight)


def test_half_precision_files_load_as_float32(command):
    folder = command("half", half=True, bf16=True, max_steps=1)
    assert AutoModel.from_pretrained(folder).dtype == torch.float32
    assert (folder / "model.safetensors").stat().st_size < 40_000


def test_without_a_held_out_split_nothing_is_evaluated(command, whole, caplog):
    write_tokens(whole.parent / "train_only", counts=[("train", 8)])
    folder = command("unjudged", data="train_only", max_steps=1, eval_strategy="no")
    assert json.loads((folder / "history.json").read_text())["evaluation"] == {}
    assert "no validation split: nothing will be evaluated" in caplog.text


def test_an_epoch_has_each_clip_once_in_batches_of_like_length():
    lengths = [4, 30, 6, 28, 5, 9, 31, 7, 12, 20]
    batches = TalkerBatches(clips(lengths), space=1, frames=40, most_joined=2)
    assert len(batches) == 4
    for epoch in range(3):
        rows = [row for i in range(4) for row in batches[epoch * 4 + i]["labels"]]
        found = sorted(int(code) for row in rows for code in row.unique() if code >= 0)
        assert found == list(range(10))
    again = TalkerBatches(clips(lengths), space=1, frames=40, most_joined=2)
    assert torch.equal(again[9]["labels"], batches[9]["labels"])  # by its number, whatever was asked for before
    assert any(batches[i]["labels"].shape != batches[4 + i]["labels"].shape for i in range(4))


def test_joined_clips_have_a_space_between_and_lose_no_frame():
    batch = TalkerBatches(clips([3, 4]), space=1, frames=100, most_joined=1)[0]
    assert batch["input_ids"].tolist() == [[2, 3], [2, 3]] and batch["durations"].tolist() == [[1, 2], [1, 3]]
    joined = next(
        batch
        for seed in range(20)
        if len((batch := TalkerBatches(clips([3, 4]), 1, 100, most_joined=2, seed=seed)[0])["labels"]) == 1
    )
    assert joined["input_ids"].tolist() == [[2, 3, 1, 2, 3]]
    assert joined["durations"].sum() == 7 and joined["durations"][0, 2] == 1


def test_padding_has_no_label():
    batch = collate([(np.array([2]), np.array([1]), np.array([7])), (np.array([3, 4]), np.array([1, 2]), np.zeros(3))])
    assert batch["labels"].tolist() == [[7, -100, -100], [0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[True, False], [True, True]]
    assert batch["durations"].tolist() == [[1, 0], [1, 2]]


def test_an_evaluation_is_over_frames_not_batches(whole):
    model, held_out = AutoModel.from_pretrained(whole), clips([3, 9, 5])
    together, apart = (evaluate_talker(model, held_out, batch_size=size) for size in (16, 1))
    assert together == pytest.approx(apart, rel=1e-4) and together["duration_error"] > 0


def test_turns_that_cannot_be_aligned_are_left_out(tmp_path, caplog):
    write_tokens(tmp_path / "tokens")
    rows = [{"id": "a", "source": "", "turns": [{"text": text, "speech": [1, 2, 3], "speaker": ""}]} for text in
            ("far more characters than frames", "now", "...")]  # fmt: skip
    write_token_dataset(tmp_path / "tokens", "speech", {"train": rows}, {"speech": "none"})
    found = read_clips(str(tmp_path / "tokens"), ("train",), tmp_path / "a.npz", ALPHABET, 32, steps=1)[0]
    assert found.texts == ["now"] and found[0][1].tolist() == [1, 1, 1]
    assert "left out 2 of 3 clips" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_device_train_batch_size": 8}, "`per_device_train_batch_size` is 8, expected 1: `batch_seconds`"),
        ({"alignment_steps": 0}, "`alignment_steps` is 0, expected at least 1"),
        ({"batch_seconds": 0}, "`batch_seconds` is 0.0, expected more than 0"),
        ({"averaging_decay": 1}, "`averaging_decay` is 1.0"),
        ({"codebook_size": 8}, "has codes from 0 to 31, expected 0 to 7"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_what_it_refuses(command, options, message):
    with pytest.raises((ValueError, OSError), match=message):
        command("refused", **options)


def test_the_recipe_is_understood(tmp_path):
    argv = ["--config", str(RECIPES / "talker_small.yaml"), "--data", "d", "--output_dir", str(tmp_path)]
    args, training_args = parse_arguments([TalkerArguments, TrainingArguments], argv)
    assert training_args.per_device_train_batch_size == 1 and args.to_config().codebook_size == 1024
