"""The card of a run says what it was made of: data, the codecs of the data, and the licences that come with them."""

from types import SimpleNamespace

from huggingface_hub import ModelCard

from solami_hf.training.language_model.complete_folder import run_card

HISTORY = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "eval_chat_loss": 1.5}]
DATA_CARD = """---
license: [cc0-1.0, mit]
codecs: {motion: 0a1b}
codec_sources: {motion: {id: org/codec, revision: v1}}
---
"""


def arguments(model, data, trained="all"):
    names = ("learning_rate", "lr_scheduler_type", "warmup_steps", "max_length", "packing", "world_size", "bf16")
    names += ("fp16", "seed", "per_device_train_batch_size", "gradient_accumulation_steps")
    return SimpleNamespace(model=str(model), data=str(data), trained=trained), SimpleNamespace(
        **dict.fromkeys(names, 1)
    )


def folder_with(path, card):
    path.mkdir()
    (path / "README.md").write_text(card)
    return path


def test_data_codecs_licences_and_plot(tmp_path):
    model = folder_with(tmp_path / "base", "---\nlicense: llama2\n---\n")
    data = folder_with(tmp_path / "tokens", DATA_CARD)
    text = run_card(tmp_path, *arguments(model, data), HISTORY)
    for line in (
        "| data | tokens |",
        "| its motion codes by | org/codec at v1 (fingerprint `0a1b`) |",
        "| base model, base | llama2 |",
        "| training data, tokens | cc0-1.0, mit |",
        "![Loss over the steps of training](loss.png)",
        "On the test split of tokens.",
    ):
        assert line in text
    assert (tmp_path / "loss.png").is_file() and str(tmp_path) not in text
    assert ModelCard(text).data.base_model is None


def test_the_card_tells_the_splits_that_were_evaluated(tmp_path):
    text = run_card(tmp_path, *arguments("org/base", "org/tokens"), HISTORY, ["test", "validation"])
    assert "On the test and the validation split of tokens." in text


def test_names_of_the_hub_go_into_the_head(tmp_path):
    data = ModelCard(run_card(tmp_path, *arguments("org/base", "org/tokens"), HISTORY)).data
    assert data.base_model == "org/base" and data.datasets == ["org/tokens"]


def test_a_card_without_a_readable_head_stops_nothing(tmp_path):
    broken = folder_with(tmp_path / "base", "---\nlicense: [\n---\n")
    text = run_card(tmp_path, *arguments(broken, tmp_path / "none"), [])
    assert "## Licence" not in text and "loss.png" not in text


def test_an_adapter_has_a_card_of_its_own(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    text = run_card(tmp_path, *arguments("org/base", "org/tokens", "lora"), HISTORY)
    assert "| rank, alpha | 4, 8 |" in text and 'from_pretrained("org/base")' in text and "merged;" not in text
