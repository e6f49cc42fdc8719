"""A text-motion evaluator on the Hub: its card, what the doctor says of it, and that it comes back as it was."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast

from solami_hf import SolamiMotionEvaluatorConfig, SolamiMotionEvaluatorModel, cli
from solami_hf.hub_cards.doctor import examine
from solami_hf.hub_cards.export import export_checkpoint

ROWS = {"": 0.75, "shuffled_": 0.125, "jittered_": 0.5, "round_trip_": 0.625}
TRUTH = {"beats_shuffled": True, "motions": 12} | {
    f"{row}{name}": value + more
    for row, value in ROWS.items()
    for name, more in (("r_precision_1", 0), ("low", -0.0625), ("high", 0.0625))
}


@pytest.fixture
def evaluator(tmp_path):
    """The folder of a small one of random weights, with what a training would have measured."""
    torch.manual_seed(0)
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "a", "person", "waves", "bows"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = BertConfig(vocab_size=len(words), intermediate_size=16, **sizes).to_dict()
    config = SolamiMotionEvaluatorConfig(text_config=text, embedding_size=8, ground_truth=TRUTH, **sizes)
    folder = tmp_path / "run"
    SolamiMotionEvaluatorModel(config).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(folder)
    (folder / "history.json").write_text(json.dumps({"arguments": {"data": str(tmp_path)}}))
    return folder


def problems(folder):
    return [str(found) for found in examine(folder, examine_code=False).problems]


def test_export_card_and_doctor(evaluator, tmp_path, caplog):
    export_checkpoint(evaluator, tmp_path / "out", "org/motion-evaluator")
    assert not (tmp_path / "out" / "history.json").exists() and problems(tmp_path / "out") == []
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'load_evaluator("org/motion-evaluator")' in card and "pipeline_tag" not in card
    line = "| R-precision 1, {} | {} | held-out motions with captions | low {}, high {}, count 12 |"
    assert line.format("real motions", 0.75, 0.6875, 0.8125) in card
    assert line.format("shuffled captions", 0.125, 0.0625, 0.1875) in card
    assert "| reads | motion | SMPL-X joints in metres, 30 frames a second, up to 1200 frames |" in card
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for truth, told in (
        (None, "config.json: was measured on no held-out pairs, so metrics refuse it"),
        ({**TRUTH, "beats_shuffled": False}, "config.json: finds held-out motions no better than by chance"),
    ):
        (tmp_path / "out" / "config.json").write_text(json.dumps({**config, "ground_truth": truth}))
        (problem,) = problems(tmp_path / "out")
        assert problem.startswith(told)
    (tmp_path / "out" / "tokenizer_config.json").unlink()
    assert "tokenizer_config.json: missing; `solami train-evaluator` writes it" in problems(tmp_path / "out")
    assert cli.main(["push", "checkpoint", str(evaluator), "org/x", "--dry_run"]) == 2
    assert cli.main(["push", "evaluator", str(evaluator), "org/x", "--dry_run"]) == 0
    assert "dry run: nothing was sent to org/x" in caplog.text


COMMANDS = """
import json, sys
import numpy as np
from solami_hf.cli import main
from solami_hf.metrics.evaluator_features import load_evaluator
codes = [main(argv) for argv in json.loads(sys.argv[1])]
joints = [np.random.default_rng(0).normal(size=(20, 55, 3)) * 0.1]
both = [load_evaluator(name) for name in ("org/motion-evaluator", sys.argv[2])]
told = [[e.embed_motions(joints).tolist(), e.embed_texts(["a person bows"]).tolist(), e.ground_truth] for e in both]
print(json.dumps([codes, told[0] == told[1], told[0][2]["r_precision_1"]]))
"""


@pytest.mark.slow
def test_it_comes_back_from_the_hub_as_it_was(hub, in_process, evaluator):
    push = ["push", "evaluator", str(evaluator), "org/motion-evaluator", "--results_dataset", "org/motions"]
    commands = [[*push, "--tag", "v1"], push, ["doctor", "org/motion-evaluator"]]
    assert in_process(COMMANDS, json.dumps(commands), evaluator) == [[0, 0, 0], True, 0.75]
    files, repo = hub.files("org/motion-evaluator"), hub.repos["models", "org/motion-evaluator"]
    assert {"modeling_motion_evaluator.py", "tokenizer.json", ".eval_results/solami.yaml", "README.md"} <= set(files)
    assert b"task_id: shuffled_r_precision_1" in files[".eval_results/solami.yaml"] and len(repo.commits) == 2
    assert b"[.eval_results/solami.yaml](.eval_results/solami.yaml)" in files["README.md"]
