import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from solami_hf.command_line import parse_arguments
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel, SpeechCodecWeightNorm
from solami_hf.processing.audio.speech_sentences import SLOTS, TEMPLATES, fill, sentences
from solami_hf.training.speech.speech_codec_arguments import SpeechCodecArguments, SpeechCodecTrainingArguments
from solami_hf.training.speech.speech_codec_trainer import (
    LevelChoice,
    SpeechCodecTrainer,
    kmeans,
    start_with_unit_variance,
)
from solami_hf.training.speech.train_speech_codec import train_speech_codec
from solami_hf.training.speech_recordings import RandomCrops, Recordings, read_recordings

RECIPES = Path(__file__).parents[2] / "solami_hf" / "training" / "recipes"
TINY = {
    "num_filters": 2, "hidden_size": 8, "codebook_size": 8, "num_quantizers": 2, "window_seconds": 0.2,
    "unquantized_steps": 1, "kmeans_windows": 4, "held_out": 1,
}  # fmt: skip


def noise(seconds, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(int(16000 * seconds))).astype(np.float32)


@pytest.fixture
def recordings_folder(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(3):
        soundfile.write(folder / f"{index}.wav", noise(0.5, index), 16000)
    return folder


def train(folder, output_dir, max_steps):
    arguments = SpeechCodecArguments(data=[str(folder)], **TINY)
    training = SpeechCodecTrainingArguments(
        output_dir=str(output_dir), max_steps=max_steps, per_device_train_batch_size=2, save_steps=2, logging_steps=1,
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    return train_speech_codec(arguments, training)


def test_trains_exports_and_resumes(recordings_folder, tmp_path, monkeypatch):
    output_dir = tmp_path / "run"
    train(recordings_folder, output_dir, 2)
    steps, compute_loss = [], SpeechCodecTrainer.compute_loss

    def counted(trainer, *args, **kwargs):
        steps.append(trainer.state.global_step + 1)
        return compute_loss(trainer, *args, **kwargs)

    monkeypatch.setattr(SpeechCodecTrainer, "compute_loss", counted)
    assert (output_dir / "checkpoint-2/averaged.safetensors").is_file()
    model = train(recordings_folder, output_dir, 4)
    state = json.loads((output_dir / "checkpoint-4/trainer_state.json").read_text())
    assert steps == [3, 4]
    assert [row["step"] for row in state["log_history"] if "mel" in row] == [1, 2, 3, 4]
    assert all(level.initialised for level in model.quantizer.levels)
    assert json.loads((output_dir / "codec/config.json").read_text())["dtype"] == "float32"
    loaded = SolamiSpeechCodecModel.from_pretrained(output_dir / "codec")
    assert loaded.dtype == torch.float32
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name


def test_several_gpus_need_a_process_each(recordings_folder, tmp_path):
    training = SpeechCodecTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert training.n_gpu <= 1
    training._n_gpu = 2
    with pytest.raises(ValueError, match="sees 2 GPUs, expected 1: start one for each with torchrun"):
        train_speech_codec(SpeechCodecArguments(data=[str(recordings_folder)], **TINY), training)


def test_bad_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder or list"):
        read_recordings(tmp_path / "nothing", 16000)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no recordings"):
        read_recordings(tmp_path / "empty", 16000)
    (tmp_path / "list.txt").write_text("gone.wav\n")
    with pytest.raises(FileNotFoundError, match="gone.wav"):
        read_recordings(tmp_path / "list.txt", 16000)


@pytest.mark.parametrize(
    "bad",
    [
        {"first_level_share": 0.3}, {"all_levels_share": -0.5},
        {"window_seconds": 0.1}, {"averaging_decay": 1.0}, {"stft_weight": -1.0},
        {"adversarial_weight": float("nan")}, {"adversarial_every": 0}, {"adversarial_start": -1},
        {"kmeans_windows": 0}, {"eval_clips": -1},
    ],
)  # fmt: skip
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} is .*, expected"):
        SpeechCodecArguments(**bad)


@pytest.mark.parametrize("recipe", ["small", "paper"])
def test_recipes_can_be_read(recipe, tmp_path):
    recipe_args = [
        "--config",
        str(RECIPES / f"speech_codec_{recipe}.yaml"),
        "--output_dir",
        str(tmp_path),
        "--use_cpu",
    ]
    args, training_args = parse_arguments([SpeechCodecArguments, SpeechCodecTrainingArguments], recipe_args)
    config = args.to_config(768)
    if recipe == "paper":  # the original's sizes are the configuration's defaults
        assert config.to_dict() == SolamiSpeechCodecConfig().to_dict()
        assert args.semantic_teacher == "facebook/hubert-base-ls960" and args.adversarial_weight > 0
        assert training_args.learning_rate == 1e-4 and args.window_seconds == 3
    else:
        assert config.hidden_size == 128 and len(args.voices) >= 4 and args.data[0] == "tts"
        assert training_args.max_steps == 22000


def test_levels_are_drawn_by_their_share_and_seed():
    choice = LevelChoice(8, first_share=0.5, all_share=0.3)
    drawn = choice.draw(4000, (0, 1))
    shares = [(drawn == levels).float().mean().item() for levels in (1, 2, 4, 8)]
    np.testing.assert_allclose(shares, [0.5, 0.1, 0.1, 0.3], atol=0.03)
    assert not torch.equal(choice.draw(4000, (0, 1)), drawn)  # a second batch of the step
    assert torch.equal(LevelChoice(8, 0.5, 0.3).draw(4000, (0, 1)), drawn)
    assert not torch.equal(LevelChoice(8, 0.5, 0.3).draw(4000, (0, 2)), drawn)
    assert set(LevelChoice(3, 0.0, 0.5).draw(50, (0,)).tolist()) == {2, 3}
    assert set(LevelChoice(2, 0.5, 0.1).draw(50, (0,)).tolist()) == {1, 2}
    assert set(LevelChoice(1, 0.0, 0.0).draw(50, (0,)).tolist()) == {1}


def test_every_layer_starts_with_unit_variance():
    torch.manual_seed(0)
    model = SolamiSpeechCodecModel(SolamiSpeechCodecConfig(num_filters=4, hidden_size=16, num_lstm_layers=1))
    values = torch.from_numpy(np.stack([noise(0.3, seed) for seed in range(2)]))[:, None]
    start_with_unit_variance(model, values)
    deviations = []
    for module in model.modules():
        if isinstance(module, SpeechCodecWeightNorm):
            module.register_forward_hook(lambda *passed: deviations.append(passed[2].std().item()))
    model(values, quantize=False)
    np.testing.assert_allclose(deviations[:-1], 1, atol=1e-3)
    assert deviations[-1] == pytest.approx(values.std().item(), rel=1e-3)


def test_kmeans_finds_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = (centres[:, None] + 0.1 * torch.randn(3, 50, 2)).flatten(0, 1)
    found, counts = kmeans(vectors, 3, seed=6)  # draws one vector of each cluster
    assert torch.cdist(found, centres).min(0).values.max() < 0.1
    assert counts.tolist() == [50, 50, 50]


def test_kmeans_with_fewer_vectors_than_centres():
    found, counts = kmeans(torch.randn(3, 2), 8, seed=0)
    assert found.shape == (8, 2) and torch.isfinite(found).all() and counts.sum() == 3


def test_recordings_and_crops(tmp_path):
    recordings = Recordings.join([noise(0.1), noise(0.2, 1)], ["one", "two"])
    recordings.save(tmp_path / "speech.npz")
    loaded = Recordings.load(tmp_path / "speech.npz")
    assert loaded.texts == ["one", "two"] and [len(loaded[0]), len(loaded[1])] == [1600, 3200]
    np.testing.assert_allclose(loaded[1], noise(0.2, 1), atol=1e-4)
    for window in (640, 9600):  # the second is longer than all recordings
        crops = RandomCrops(loaded, window, count=5, seed=3)
        assert crops[4]["input_values"].shape == (1, window)
        assert torch.equal(crops[4]["input_values"], RandomCrops(loaded, window, 9, seed=3)[4]["input_values"])
        assert not torch.equal(crops[4]["input_values"], crops[3]["input_values"])


def test_sentences_are_many_different_and_repeatable():
    texts = sentences(2350, seed=0)
    assert len(set(texts)) == 2350 and texts == sentences(2350, seed=0) and texts != sentences(2350, seed=1)
    assert not any("{" in text or " a a" in text or " a e" in text for text in texts)
    assert all(text[0].isupper() and text[-1] in ".?!" and len(text.split()) <= 20 for text in texts)
    with pytest.raises(ValueError, match="expected at least 1"):
        sentences(0)


def test_every_template_can_be_filled():
    import random

    for template in [*TEMPLATES, *(f"X {value}." for values in SLOTS.values() for value in values)]:
        assert "{" not in fill(template, random.Random(0))
