"""Cards of folders say what the folders hold, and pass what the Hub demands of a card."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, EvalResult, ModelCard, SpaceCard, constants
from huggingface_hub.utils import close_session

from solami_hf.hub_cards.card_facts import card_of_folder
from solami_hf.hub_cards.cards import dataset_card, metric_card, model_card, with_results, write_loss_plot
from solami_hf.metrics import folder_of

sys.path.append(str(Path(__file__).parents[1]))
from hub_card_rules import faults  # noqa: E402
from hub_server import hub_server  # noqa: E402

METRICS = sorted(path.parent.name for path in Path(folder_of("motion_fid")).parent.glob("*/app.py"))
ADAPTER = {
    "base_model_name_or_path": "org/solami", "peft_type": "LORA", "r": 8, "lora_alpha": 16,
    "target_modules": ["v_proj", "q_proj"], "modules_to_save": ["embed_tokens"], "revision": None,
}  # fmt: skip
RESULTS = [
    EvalResult("any-to-any", "custom", "rounds", "answer_validity", 0.95, metric_args={"mode": "corrected"}),
    EvalResult("any-to-any", "custom", "clips", "fid", "3.1 ± 0.2", dataset_split="test", metric_name="FID"),
]


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path) -> Path:
    tiny_model.config.codecs = {"motion": "0a1b", "speech": "2c3d"}
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def adapter_folder(folder: Path, **changes) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**ADAPTER, **changes}))
    return folder


def test_what_a_model_hears_and_says(checkpoint):
    text = card_of_folder(checkpoint, "org/solami")
    card = ModelCard(text)
    assert not faults(text, "model") and card.data.eval_results is None and "licen" not in text.lower()
    for line in (
        "| hears | speech | mono, 16 kHz | 50 | 32 |",
        "| sees | body | SMPL-X without face, 30 frames a second | 7.5 | 16 |",
        "| sees | trans | where the user stands and faces | 1 a motion | 8 |",
        "| answers | text, then motion and speech | of the same formats |  |  |",
        "| answer format | `text_motion_speech` |",
        "| characters | Ada |",
        "| motion codec | `motion_codec/` of the same revision, solami_motion_vq, fingerprint `0a1b` |",
        "| speech codec | `speech_codec/` of the same revision, solami_speech_codec, fingerprint `2c3d` |",
        'AutoProcessor.from_pretrained("org/solami")',
    ):
        assert line in text
    weights = sum(weight.numel() for weight in _model(checkpoint).parameters())
    assert f"| weights | {weights / 1e6:.4g} million, F32 |" in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## How to use it", "## What it reads and writes", "## What it is", "## Codecs"]


@pytest.mark.parametrize("hearing, verb", [("transcript", "says"), ("both", "hears")])
def test_what_a_model_that_reads_words_hears(checkpoint, hearing, verb):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "hearing": hearing}))
    text = card_of_folder(checkpoint, "org/solami")
    words = "| hears | words | the user's speech as a recogniser writes it down |  |  |"
    assert words in text and f"| {verb} | speech | mono, 16 kHz | 50 | 32 |" in text


def _model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_codecs_tell_their_rates_and_sizes(tiny_codecs, tmp_path):
    motion, speech = tiny_codecs
    motion.save_pretrained(tmp_path / "motion")
    speech.save_pretrained(tmp_path / "speech")
    text = card_of_folder(tmp_path / "motion", "org/motion")
    assert 'AutoModel.from_pretrained("org/motion")' in text and not faults(text, "model")
    assert "| both ways | body | SMPL-X without face, 30 frames a second | 7.5 | 16 |" in text
    assert "| quantizer | codebooks of moving averages |" in text
    text = card_of_folder(tmp_path / "speech")
    assert text.count("# speech\n") == 1 and not faults(text, "model")
    assert "| both ways | speech | mono, 16 kHz, 8 levels | 50 of each level | 32 of each level |" in text
    # files of the first version, before a field was added
    config = json.loads((tmp_path / "speech" / "config.json").read_text())
    del config["lm_levels"]
    (tmp_path / "speech" / "config.json").write_text(json.dumps(config))
    assert "| levels for the language model | 1 |" in card_of_folder(tmp_path / "speech")


def test_an_acoustic_model(tmp_path):
    from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig

    SolamiSoundStormConfig(num_quantizers=4, codebook_size=32).save_pretrained(tmp_path)
    text = card_of_folder(tmp_path, "org/storm")
    assert "| writes | levels 1 to 3 | codes |  | 32 of each level |" in text and "generate(semantic_codes" in text
    assert "weights" not in text.split("## What it is")[1]


def test_an_adapter_names_its_base_where_others_have_it(tmp_path):
    text = card_of_folder(adapter_folder(tmp_path / "a"), "org/adapter")
    data = ModelCard(text).data
    assert (data.library_name, data.base_model, data.base_model_relation) == ("peft", "org/solami", "adapter")
    assert "| layers | q_proj, v_proj |" in text and "| rank, alpha | 8, 16 |" in text and not faults(text, "model")
    assert "revision" not in text
    text = card_of_folder(adapter_folder(tmp_path / "b", base_model_name_or_path=str(tmp_path)))
    assert ModelCard(text).data.base_model is None and str(tmp_path) not in text


def test_results_keep_their_data_sets_and_failures_are_counted():
    text = model_card("org/x", eval_results=RESULTS, results={"loss": 1.5}, evaluated_on="a test split")
    assert not faults(text, "model")
    found = {(r.dataset_name, r.metric_type): r.metric_value for r in ModelCard(text).data.eval_results}
    assert found == {
        ("rounds", "answer_validity"): 0.95,
        ("clips", "fid"): "3.1 ± 0.2",
        ("a test split", "loss"): 1.5,
    }
    for line in (
        "| answer_validity | 0.95 | rounds | mode corrected |",
        "| Failed answers | 5.0% | rounds |  |",
        "| FID | 3.1 ± 0.2 | clips, test |  |",
        "## Measured\n\n| metric | value |\n|---|---|\n| loss | 1.5 |\n",
    ):
        assert line in text
    assert text.index("| loss |") < text.index("On a test split.")


def test_new_results_take_the_place_of_the_old_ones():
    first = model_card("org/x", training={"steps": 3}, limits=["It is small."], license="apache-2.0")
    newer = [EvalResult("any-to-any", "custom", "rounds", "valid", 0.5, metric_name="Well formed")]
    once, twice = with_results(first, RESULTS), with_results(with_results(first, RESULTS), newer)
    assert once.count("## Evaluation") == twice.count("## Evaluation") == 1 and not faults(twice, "model")
    assert "| FID | 3.1 ± 0.2 | clips, test |  |" in once and "FID" not in twice
    assert "| Well formed | 0.5 | rounds |  |\n| Failed answers | 50.0% | rounds |  |" in twice
    assert [(r.metric_type, r.metric_value) for r in ModelCard(twice).data.eval_results] == [("valid", 0.5)]
    for text in (once, twice):
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings == ["## How to use it", "## Training", "## Evaluation", "## Limits", "## Licence"]
        assert text.endswith("apache-2.0.\n") and ModelCard(text).data.model_name == "x"
    bare = with_results("# Mine\n\nText.\n", newer)
    assert bare.endswith("| Failed answers | 50.0% | rounds |  |\n") and ModelCard(bare).data.model_name == "Mine"


def test_the_loss_is_drawn_where_there_is_one(tmp_path):
    log = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.0, "eval_chat_loss": 1.5},
        {"step": 3, "loss": float("nan")},
    ]
    assert write_loss_plot(tmp_path, log) == "loss.png"
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert (
        write_loss_plot(tmp_path / "none", [{"step": 1, "grad_norm": 1.0}]) == "" and not (tmp_path / "none").exists()
    )
    text = model_card("x", training={"steps": 3}, plot="loss.png")
    assert "| steps | 3 |\n\n![Loss over the steps of training](loss.png)\n" in text


def test_licences_that_come_with_what_it_was_made_of():
    text = model_card("x", license="apache-2.0", inherited={"base model": "llama2"})
    assert "apache-2.0.\n" in text and "| base model | llama2 |" in text
    assert "## Licence" in model_card("x", inherited={"voices": "cc-by-4.0"})


@pytest.mark.parametrize("name", METRICS)
def test_metric_spaces_tell_what_they_need_to(name):
    text = (Path(folder_of("motion_fid")).parent / name / "README.md").read_text(encoding="utf-8")
    data = SpaceCard(text).data
    assert not faults(text, "space") and data.app_file == "app.py" and {"evaluate", "metric"} <= set(data.tags)
    assert len(data["description"]) > 20
    for heading in ("## Inputs", "## Output", "## Limits"):
        assert heading in text


def test_the_card_of_a_new_metric():
    text = metric_card("org/motion_joy", description="How glad a motion looks.", parts={"Output": "- `joy`: 0 to 1."})
    assert not faults(text, "space") and SpaceCard(text).data.title == "Motion joy"
    assert 'evaluate.load("org/motion_joy")' in text and "## Output\n\n- `joy`: 0 to 1." in text
    for wrong in ({"description": " ", "parts": {}}, {"description": "x", "parts": "y"}):
        with pytest.raises(ValueError, match="`description` is empty|`parts` is a str"):
            metric_card("m", **wrong)


@pytest.fixture
def validator(monkeypatch):
    """huggingface_hub asks a Hub on this machine."""
    with hub_server() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        close_session()
        yield hub
    close_session()


def test_the_hub_accepts_every_card(validator, checkpoint, tmp_path):
    full = {"license": "apache-2.0", "eval_results": RESULTS, "datasets": ["org/tokens"], "base_model": "org/base"}
    for text in (
        card_of_folder(checkpoint, "org/solami", **full),
        *(card_of_folder(checkpoint / part, f"org/{part}") for part in ("motion_codec", "speech_codec")),
        card_of_folder(adapter_folder(tmp_path / "a"), "org/a"),
        model_card("org/storm", kind="acoustic_model"),
    ):
        ModelCard(text).validate()
    DatasetCard(dataset_card("org/tokens", configs={"chat": {"train": "chat/train-*.parquet"}})).validate()
    SpaceCard(metric_card("org/m", description="It measures.", parts={})).validate()
    assert validator.requests.count("POST /api/validate-yaml") == 7
    with pytest.raises(ValueError, match="license"):
        ModelCard(model_card("org/x", license="my own")).validate()
