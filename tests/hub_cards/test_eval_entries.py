"""Measured results as the Hub's `.eval_results`, read by huggingface_hub's own parser."""

import pytest
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, parse_eval_result_entries

from solami_hf.hub_cards.cards import model_card, with_results
from solami_hf.hub_cards.eval_entries import FILE, check_eval_entries, write_eval_entries

FID = EvalResult(
    task_type="text-generation", task_name="Conversation", dataset_type="custom", dataset_config="chat",
    dataset_name="dialogues", dataset_split="test", metric_type="fid", metric_name="FID", metric_value=3.25,
    metric_args={"low": 3.0, "high": 3.51234, "count": 40},
)  # fmt: skip
WER = EvalResult(
    task_type="text-generation", dataset_type="org/speech", dataset_config="s2t", dataset_name="speech",
    metric_type="wer", metric_value=0.1, dataset_revision="abc123",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text(model_card("org/x", eval_results=[FID, WER], limits=["It is small."]))
    return tmp_path


def parsed(folder):
    return parse_eval_result_entries(yaml.safe_load((folder / FILE).read_text()))


def test_entries_of_a_card(folder):
    entries = write_eval_entries(folder, "org/solami_bench")
    assert (
        parsed(folder)
        == entries
        == [
            EvalResultEntry(
                "org/solami_bench", "chat_fid", 3.25, notes="95 % interval 3 to 3.512; n = 40; split test"
            ),
            EvalResultEntry("org/speech", "s2t_wer", 0.1, dataset_revision="abc123"),
        ]
    )
    card = (folder / "README.md").read_text()
    assert card.count(f"[{FILE}]({FILE})") == 1 and card.index(FILE) > card.index("## Evaluation")
    assert len(ModelCard(card).data.eval_results) == 2 and "It is small." in card  # `model-index` stays
    write_eval_entries(folder, "org/solami_bench")
    assert (folder / "README.md").read_text() == card
    renewed = with_results(card, [FID])
    assert "Also in" not in renewed and "It is small." in renewed  # the next push links it again


def test_results_on_folders_are_left_out_and_said(folder, caplog):
    caplog.set_level("INFO")
    assert (
        [entry.task_id for entry in write_eval_entries(folder)] == ["s2t_wer"] == [e.task_id for e in parsed(folder)]
    )
    assert "1 results name no data set of the Hub; --results_dataset OWNER/NAME" in caplog.text


def test_cards_without_results(tmp_path):
    assert write_eval_entries(tmp_path) == []
    (tmp_path / "README.md").write_text(model_card("org/x"))
    before = (tmp_path / "README.md").read_text()
    assert write_eval_entries(tmp_path, "org/data") == [] and not (tmp_path / FILE).exists()
    assert (tmp_path / "README.md").read_text() == before


def test_a_measured_hub_data_set_is_named(tmp_path):
    from solami_hf.metrics.evaluation.tables import eval_results

    summary = {"mean": 1.0, "std": None, "low": 0.5, "high": 1.5, "count": 4}
    evaluation = {"task": "t2m", "views": {"answers": {"fid": summary}}, "latency": {}}
    for source, kind in (("org/tokens", "org/tokens"), (str(tmp_path), "custom")):
        (result,) = eval_results({**evaluation, "run": {"input": source, "folder": "x", "split": "test"}})
        assert result.dataset_type == kind


def told(folder):
    return [str(finding) for finding in check_eval_entries(folder)]


def test_the_doctor_reads_them_as_the_hub_does(folder):
    assert told(folder) == []
    write_eval_entries(folder, "org/solami_bench")
    assert told(folder) == []
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(with_results(card, [FID]))
    assert told(folder) == [
        f"{FILE}: s2t_wer is not what the card's head says; `solami push` writes it anew from the card's results",
        f"README.md: does not link {FILE}; `solami push` writes it anew from the card's results",
    ]
    (folder / "README.md").write_text(card)
    other = folder / ".eval_results" / "other.yaml"
    other.write_text(yaml.safe_dump([{"dataset": {"id": "my folder", "task_id": "x"}, "value": "3 to 4"}]))
    assert [text.split("; ")[0] for text in told(folder)] == [
        ".eval_results/other.yaml: 'my folder' is no data set of the Hub",
        ".eval_results/other.yaml: the value of x is '3 to 4', no number",
    ]
    for damaged in ("- value: 3\n", "- [", "{}: {", "- dataset: {id: a/b, task_id: c}\n", "a: b\n"):
        other.write_text(damaged)
        (said,) = told(folder)
        assert said.startswith(".eval_results/other.yaml: huggingface_hub does not read it ("), (damaged, said)
