"""A codec's run that is resumed from any of its checkpoints ends where the uninterrupted one did, bit for bit."""

import json
import logging
import shutil

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.training.speech.speech_codec_arguments import SpeechCodecArguments, SpeechCodecTrainingArguments
from solami_hf.training.speech.speech_codec_losses import MelLoss
from solami_hf.training.speech.speech_codec_report import clips_to_measure, evaluate_speech_codec
from solami_hf.training.speech.train_speech_codec import train_speech_codec
from solami_hf.training.speech_recordings import Recordings

# more codes than latents to start from: many are dead and drawn anew at random
TINY = {
    "num_filters": 2, "hidden_size": 8, "codebook_size": 64, "num_quantizers": 2, "window_seconds": 0.2,
    "unquantized_steps": 3, "kmeans_windows": 4, "held_out": 2,
}  # fmt: skip
STEPS, SAVE_STEPS = 8, 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    (root / "data").mkdir()
    for index in range(24):
        values = 0.1 * np.random.default_rng(index).standard_normal(4800)
        soundfile.write(root / "data" / f"{index:02}.wav", values, 16000)
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 3,
        conv_kernel=(10, 8, 4), conv_stride=(8, 8, 5), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    HubertModel(config).save_pretrained(root / "teacher")
    Wav2Vec2FeatureExtractor().save_pretrained(root / "teacher")
    return root


@pytest.fixture(scope="module")
def run(root):
    """`run(name)` trains with everything switched on into a folder of that name."""

    def train(name, **options):
        everything = {
            "semantic_teacher": str(root / "teacher"), "stft_weight": 0.5, "adversarial_weight": 0.1,
            "adversarial_start": 4, "adversarial_every": 3,
        }  # fmt: skip
        arguments = SpeechCodecArguments(data=[str(root / "data")], **(TINY | everything | options))
        training = SpeechCodecTrainingArguments(
            output_dir=str(root / name), max_steps=STEPS, per_device_train_batch_size=2, warmup_steps=2,
            gradient_accumulation_steps=2, logging_steps=3, save_steps=SAVE_STEPS, save_total_limit=None, use_cpu=True,
            disable_tqdm=True,
        )  # fmt: skip
        train_speech_codec(arguments, training)
        return root / name

    return train


@pytest.fixture(scope="module")
def whole(run):
    return run("whole")


def start_from(whole, name, step):
    shutil.copytree(whole / f"checkpoint-{step}", whole.parent / name / f"checkpoint-{step}")


def differences(first, second, file):
    ours, theirs = load_file(first / file), load_file(second / file)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


def assert_same(ours, theirs):
    for file in ("model", "averaged", "adversary"):
        assert differences(ours, theirs, f"checkpoint-{STEPS}/{file}.safetensors") == [], file
    assert differences(ours, theirs, "codec/model.safetensors") == []
    histories = [json.loads((folder / "codec" / "history.json").read_text()) for folder in (ours, theirs)]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("step", [4, 6])  # at the discriminator's start, and between two turns of it
def test_resumed_from_any_checkpoint(run, whole, step):
    start_from(whole, f"from-{step}", step)
    assert_same(run(f"from-{step}"), whole)


def test_killed_while_it_wrote_a_checkpoint(run, whole, stops_writing):
    # behind weights, averages, discriminator and optimizer
    writable = stops_writing("checkpoint-4/rng_state.pth", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    writable()
    assert (whole.parent / "killed" / "checkpoint-4" / "adversary.safetensors").is_file()
    assert_same(run("killed"), whole)  # goes on at step 2, within the warm-up


def test_a_finished_run_says_so_and_trains_nothing(run, whole, caplog):
    start_from(whole, "done", STEPS)
    with caplog.at_level(logging.INFO, "solami_hf"):
        done = run("done")
    assert "all 8 steps were done already" in caplog.text
    assert [path.name for path in done.glob("checkpoint-*")] == [f"checkpoint-{STEPS}"]
    assert_same(done, whole)


def test_the_log_has_every_part_and_an_evaluation_with_each_checkpoint(whole):
    history = json.loads((whole / "codec" / "history.json").read_text())
    trained = {row["step"]: row for row in history["log"] if "loss" in row}
    assert list(trained) == [2, 3, 4, 6, 8]  # every three steps, and before each checkpoint
    assert {"mel", "waveform", "commitment", "semantic", "stft"} <= trained[2].keys()
    assert [step for step, row in trained.items() if "codes_used" in row] == [4, 6, 8]
    assert [step for step, row in trained.items() if {"adversarial", "feature_matching"} <= row.keys()] == [6, 8]
    assert [step for step, row in trained.items() if "discriminator" in row] == [6, 8]  # its turns: steps 5 and 8
    evaluated = {row["step"]: row for row in history["log"] if "eval_clips" in row}
    assert list(evaluated) == [2, 4, 6, 8]
    assert "eval_mel" in evaluated[2] and "eval_mel_level_0" not in evaluated[2]  # no codebooks yet
    assert {"eval_mel_level_0", "eval_semantic_cosine", "eval_perplexity_level_0"} <= evaluated[4].keys()
    assert history["evaluation"] == {name: value for name, value in evaluated[8].items() if name.startswith("eval_")}
    page = (whole / "report.html").read_text()
    assert "after 8 steps" in page and page.count("<audio") == 2 * 3
    assert "2 held-out clips at step 8" in page


def test_what_is_measured_and_kept_are_the_averages(whole):
    averaged = load_file(whole / f"checkpoint-{STEPS}" / "averaged.safetensors")
    exported = load_file(whole / "codec" / "model.safetensors")
    assert averaged.pop("steps") == STEPS - TINY["unquantized_steps"]
    assert all(torch.equal(value.half(), exported[name]) for name, value in averaged.items())
    clips = clips_to_measure(Recordings.load(whole / "speech_held_out.npz"), 16, 16000)
    model = SolamiSpeechCodecModel.from_pretrained(whole / f"checkpoint-{STEPS}")
    own = evaluate_speech_codec(model, clips, MelLoss(16000))["mel"]
    model.load_state_dict(averaged)
    measured = json.loads((whole / "codec" / "history.json").read_text())["evaluation"]["eval_mel"]
    assert measured == evaluate_speech_codec(model, clips, MelLoss(16000))["mel"] != own


def test_without_averages_and_adversary(run):
    plain = run("plain", averaging_decay=0.0, adversarial_weight=0.0, stft_weight=0.0, semantic_teacher=None)
    names = {path.name for path in (plain / f"checkpoint-{STEPS}").iterdir()}
    assert not {"averaged.safetensors", "adversary.safetensors"} & names
    row = [row for row in json.loads((plain / "codec" / "history.json").read_text())["log"] if "loss" in row][-1]
    assert {"mel", "waveform", "commitment", "codes_used"} <= row.keys()
    assert not {"stft", "semantic", "adversarial"} & row.keys()


def test_a_time_limit_saves_and_a_further_call_goes_on(run):
    for step in (1, 2):
        folder = run("limited", max_minutes=1e-9, unquantized_steps=0)
        assert sorted(path.name for path in folder.glob("checkpoint-*"))[-1] == f"checkpoint-{step}"
        log = json.loads((folder / "codec" / "history.json").read_text())["log"]
        assert [row["step"] for row in log if "loss" in row] == list(range(1, step + 1))


def test_too_few_steps_for_the_codebooks(run):
    with pytest.raises(ValueError, match="max_steps is 8, expected more than the 8 unquantized_steps"):
        run("few", unquantized_steps=8)
    with pytest.raises(ValueError, match="ended at step 1, before the codebooks were filled"):
        run("short", max_minutes=1e-9)
