import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, TrainingArguments

from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.training.soundstorm.train_soundstorm import (
    SoundStormArguments,
    evaluate_soundstorm,
    main,
    make_trainer,
    train_soundstorm,
)

RECIPES = Path(__file__).parents[2] / "solami_hf" / "training" / "recipes"
TINY = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8, "intermediate_size": 32,
    "conv_channels": 16, "conv_kernel_size": 3, "codebook_size": 8, "window_seconds": 0.4, "held_out": 2,
}  # fmt: skip


def write_codes(path, levels=3, clips=12, frames=30, **changes):
    """Level 0 is random; the others are functions of it."""
    rng = np.random.default_rng(0)
    level0 = rng.integers(0, 8, clips * frames)
    codes = np.stack([(level * level0 + level) % 8 for level in range(1, levels + 1)]).astype(np.int16)
    codes[0] = level0
    np.savez(path, **{"codes": codes, "ends": frames * np.arange(1, clips + 1)} | changes)
    return str(path)


@pytest.fixture
def codes(tmp_path):
    return write_codes(tmp_path / "codes.npz")


def training_arguments(folder, **overrides) -> TrainingArguments:
    defaults = {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 2, "learning_rate": 1e-3}
    return TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, **defaults | overrides
    )


def test_train_saves_a_model_that_loads_its_history_and_its_page(codes, tmp_path):
    out = tmp_path / "out"
    metrics = train_soundstorm(SoundStormArguments(data=[codes], averaging_decay=0.9, **TINY), training_arguments(out))
    model = AutoModel.from_pretrained(out)
    assert isinstance(model, SolamiSoundStormModel) and model.config.num_quantizers == 3
    assert model.config.codebook_size == model.config.num_semantic_codes == 8
    assert "use_cache" not in (out / "config.json").read_text()  # Trainer's word, of which the model knows nothing
    averages = load_file(out / "checkpoint-4" / "averaged.safetensors")
    weights = load_file(out / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(value, averages[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, averages[name]) for name, value in weights.items())
    history = json.loads((out / "history.json").read_text())
    assert [row["step"] for row in history["log"] if "accuracy" in row] == [2, 4]
    assert history["evaluation"] == metrics and metrics["eval_windows"] == 3
    assert (out / "report.html").is_file() and not (out / ".staging").exists()


@pytest.mark.parametrize("options", [{}, {"label_smoothing_factor": 0.01}, {"bf16": True}])
def test_learns_levels_that_follow_from_level_0(codes, tmp_path, options):
    arguments = training_arguments(
        tmp_path / "out", max_steps=150, logging_steps=50, learning_rate=2e-2, save_strategy="no",
        per_device_train_batch_size=16, **options,
    )  # fmt: skip
    metrics = train_soundstorm(SoundStormArguments(data=[codes], **TINY), arguments)
    first, *_, last = [row for row in json.loads((tmp_path / "out/history.json").read_text())["log"] if "loss" in row]
    assert first["loss"] > 5 * last["loss"]
    assert last["accuracy"] > 0.99 and metrics["eval_accuracy"] > 0.99 and metrics["eval_loss"] < 0.1
    assert ("label_smoothing_factor" in options) == (last["loss"] > 0.03)


def test_smoothing_is_that_of_cross_entropy(codes, tmp_path):
    args = SoundStormArguments(data=[codes], **TINY)
    plain, smooth = (
        make_trainer(args, training_arguments(tmp_path / "out", label_smoothing_factor=factor))
        for factor in (0.0, 1e-9)
    )
    smooth.model.load_state_dict(plain.model.state_dict())
    inputs = {
        name: torch.stack([plain.train_dataset[i][name] for i in range(5)]) for name in ("audio_codes", "labels")
    }
    losses = [trainer.compute_loss(trainer.model.eval(), inputs) for trainer in (plain, smooth)]
    torch.testing.assert_close(*losses)
    assert torch.equal(plain.parts["accuracy"][0], smooth.parts["accuracy"][0])


def test_half_precision_loads_as_float32(codes, tmp_path):
    arguments = training_arguments(tmp_path / "out", save_strategy="no")
    train_soundstorm(SoundStormArguments(data=[codes], half=True, **TINY), arguments)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float32
    assert all(torch.equal(value, stored[name].float()) for name, value in model.state_dict().items())


def test_evaluation_of_a_model_that_knows_nothing_and_of_one_that_always_says_3():
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY.items() if name not in ("window_seconds", "held_out")}
    model = SolamiSoundStormModel(SolamiSoundStormConfig(num_quantizers=3, num_semantic_codes=8, **sizes)).train()
    windows = torch.randint(0, 8, (5, 3, 20))
    windows[:, 2, 8:] = 3  # behind the prompt
    with torch.no_grad():
        model.head_weight.zero_()
    flat = evaluate_soundstorm(model, windows, 2)
    assert model.training and flat["loss"] == pytest.approx(np.log(8)) and flat["windows"] == 5
    assert set(flat) == {"loss", "accuracy", "windows"} | {
        f"{name}_level{level}_{share}" for name in ("loss", "accuracy") for level in (1, 2) for share in (100, 50, 20)
    }
    with torch.no_grad():
        model.head_bias[:, 3] = 5.0
    always = evaluate_soundstorm(model, windows, 2)
    assert always["accuracy_level2_100"] == always["accuracy_level2_20"] == 1.0
    expected = (windows[:, 1, 8:] == 3).float().mean()
    assert always["accuracy_level1_100"] == pytest.approx(float(expected))
    assert always == pytest.approx(evaluate_soundstorm(model, windows, 5))


def test_without_held_out_codes_nothing_is_evaluated(tmp_path):
    source = write_codes(tmp_path / "one.npz", clips=1, frames=60)
    arguments = training_arguments(tmp_path / "out", eval_strategy="steps", eval_steps=2)
    assert train_soundstorm(SoundStormArguments(data=source, **TINY), arguments) == {}
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_held_out_data_of_its_own(codes, tmp_path):
    other = write_codes(tmp_path / "other.npz", clips=2)
    trainer = make_trainer(SoundStormArguments(data=[codes], held_out_data=[other], **TINY), training_arguments("out"))
    assert len(trainer.held_out) == 2 and trainer.train_dataset.sources[0].shape == (3, 360)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": 1}, "one level only, expected at least 2"),
        ({"codes": np.full((3, 30), 8), "ends": [30]}, "go from 8 to 8, expected 0 to 7"),
        ({"codes": np.full((3, 30), -1), "ends": [30]}, "go from -1 to -1, expected 0 to 7"),
    ],
)
def test_unusable_codes_are_named(tmp_path, changes, message):
    source = write_codes(tmp_path / "codes.npz", **changes)
    with pytest.raises(ValueError, match=message):
        train_soundstorm(SoundStormArguments(data=[source], **TINY), training_arguments(tmp_path / "out"))


def test_goes_on_from_a_trained_model(codes, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train_soundstorm(SoundStormArguments(data=[codes], **TINY), training_arguments(first))
    start = SoundStormArguments(data=[codes], start_from=str(first), spoken_levels=2, **TINY | {"hidden_size": 8})
    train_soundstorm(start, training_arguments(second, learning_rate=0.0))
    before, after = (SolamiSoundStormModel.from_pretrained(folder) for folder in (first, second))
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in after.state_dict().items())
    assert before.config.spoken_levels is None and after.config.spoken_levels == 2
    other = write_codes(tmp_path / "other.npz", levels=4)
    with pytest.raises(ValueError, match="`start_from` has 3 levels of 8 codes, but the data have 4 of 8"):
        train_soundstorm(SoundStormArguments(data=[other], start_from=str(first), **TINY), training_arguments(second))


def test_held_out_codes_have_to_fit(codes, tmp_path):
    other = write_codes(tmp_path / "other.npz", levels=2)
    args = SoundStormArguments(data=[codes], held_out_data=[other], **TINY)
    with pytest.raises(ValueError, match="`held_out_data` has codes of 2 levels, but `data` of 3"):
        train_soundstorm(args, training_arguments(tmp_path / "out"))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"window_seconds": 0}, "`window_seconds` is 0"),
        ({"frame_rate": -1.0}, "`frame_rate` is -1"),
        ({"averaging_decay": 1.0}, "`averaging_decay` is 1"),
        ({"held_out": -1}, "`held_out` is -1"),
        ({"eval_windows": 0}, "`eval_windows` is 0"),
    ],
)
def test_bad_arguments_are_named(field, message):
    with pytest.raises(ValueError, match=message):
        SoundStormArguments(**field)


@pytest.mark.parametrize("recipe", ["soundstorm_small.yaml", "soundstorm_paper.yaml"])
def test_recipes_run_from_the_command_line(codes, tmp_path, recipe):
    flags = ["--config", str(RECIPES / recipe), "--data", codes, "--output_dir", str(tmp_path / "out")]
    flags += ["--max_steps", "2", "--disable_tqdm", "true", "--use_cpu", "true", "--dataloader_num_workers", "0"]
    for name, size in TINY.items():
        flags += [f"--{name}", str(size)]
    main(flags)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["head_bias"].dtype == (torch.float16 if "small" in recipe else torch.float32)
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_small_recipe_fits_into_seven_megabytes():
    import yaml

    recipe = yaml.safe_load((RECIPES / "soundstorm_small.yaml").read_text())
    names = set(SolamiSoundStormConfig().to_dict()) & set(recipe)
    with torch.device("meta"):
        model = SolamiSoundStormModel(SolamiSoundStormConfig(**{name: recipe[name] for name in names}))
    assert 2 * model.num_parameters() < 6.95e6 and recipe["half"] is True


def test_the_paper_recipe_has_the_configuration_of_the_original():
    import yaml

    recipe = yaml.safe_load((RECIPES / "soundstorm_paper.yaml").read_text())
    config = SolamiSoundStormConfig().to_dict()
    sizes = {name: recipe[name] for name in set(config) & set(recipe) if name != "dropout"}
    assert len(sizes) == 7 and sizes == {name: config[name] for name in sizes}
