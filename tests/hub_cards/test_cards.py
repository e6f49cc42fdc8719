"""Cards parse as the Hub parses them, and say what was measured and nothing else."""

import pytest
from huggingface_hub import DatasetCard, ModelCard

from solami_hf.hub_cards.cards import dataset_card, model_card, write_loss_plot


def test_model_card_says_what_was_measured():
    text = model_card(
        "org/solami-tiny",
        facts={"parameters": 3_900_000, "answer format": "motion | speech"},
        training={"seconds": 481.23456},
        results={"answer_validity": 0.98, "speech_wer": 0.1234567},
        evaluated_on="the demo's held-out split",
        limits=["Knows 20 actions."],
        license="apache-2.0",
    )
    card = ModelCard(text)
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert card.data.model_name == "solami-tiny"
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results] == [
        ("answer_validity", 0.98),
        ("speech_wer", 0.1234567),
    ]
    assert card.text.strip().startswith("# solami-tiny")
    for line in (
        'AutoModelForCausalLM.from_pretrained("org/solami-tiny")',
        "| parameters | 3900000 |",
        "| answer format | motion \\| speech |",
        "| seconds | 481.2 |",
        "| speech_wer | 0.1235 |",
        "On the demo's held-out split.",
        "- Knows 20 actions.",
    ):
        assert line in text


@pytest.mark.parametrize("kind", ["model", "motion_codec"])
def test_an_empty_card_claims_nothing(kind):
    text = model_card("x", kind=kind)
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## How to use it"]
    assert ModelCard(text).data.eval_results is None
    assert "license" not in text


def test_motion_codec_card_loads_with_automodel():
    text = model_card("org/codec", kind="motion_codec", results={"pa_mpjpe": 88})
    assert 'AutoModel.from_pretrained("org/codec")' in text
    assert "| pa_mpjpe | 88 |" in text
    # Without a word on the data, a number is not fit for the Hub's leaderboards.
    assert ModelCard(text).data.eval_results is None


def test_dataset_card_makes_the_folder_loadable():
    text = dataset_card(
        "org/tokens",
        configs={"motion": {"train": "motion/train-*.parquet", "test": "motion/test-*.parquet"}},
        codecs={"motion": "org/codec@abc"},
        splits={"motion/train": 400},
        columns={"body": "codes, int16"},
        sources=["pybullet's DeepMimic clips (zlib)"],
    )
    card = DatasetCard(text)
    assert card.data.pretty_name == "tokens"
    assert card.data.configs == [
        {
            "config_name": "motion",
            "data_files": [
                {"split": "train", "path": "motion/train-*.parquet"},
                {"split": "test", "path": "motion/test-*.parquet"},
            ],
        }
    ]
    for line in ("| motion | org/codec@abc |", "| motion/train | 400 |", "| body | codes, int16 |", "- pybullet's"):
        assert line in text


def test_an_empty_dataset_card_claims_nothing():
    assert "\n## " not in dataset_card("tokens")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model_card(""), "`model_id` is '', expected a Hub id"),
        (lambda: dataset_card(" "), "`dataset_id` is ' '"),
        (lambda: model_card("x", kind="voice"), "`kind` is 'voice', expected one of: model, motion_codec"),
        (lambda: model_card("x", facts=["a"]), "`facts` is a list, expected a dict"),
        (lambda: model_card("x", results={"fid": float("nan")}), "`results` holds nan for 'fid'"),
        (lambda: model_card("x", results={"fid": "good"}), "`results` holds 'good' for 'fid'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_matplotlib_a_card_has_no_curves(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("solami_hf.hub_cards.cards.find_spec", lambda name: None)
    with caplog.at_level("INFO"):
        assert write_loss_plot(tmp_path, [{"step": 1, "loss": 2.0}]) == ""
    assert "solami_hf[plots]" in caplog.text and list(tmp_path.iterdir()) == []
