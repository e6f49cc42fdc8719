"""Results of several models on the same inputs, in one table."""

import json

import pytest

from solami_hf.metrics.evaluation.answer_pairs import Results
from solami_hf.metrics.evaluation.command import EvaluateArguments, model_names, run


def test_models_stand_side_by_side(write_results, chat, tmp_path):
    rows = [json.loads(line) for line in (chat / "results.jsonl").read_text().splitlines()]
    # A model that hears nothing: always the same line.
    deaf = write_results("chat", [{**row, "text": "welcome aboard my friend 1"} for row in rows], "deaf",
                         checkpoint="models/deaf")  # fmt: skip
    output = run(EvaluateArguments("chat", [str(chat), str(deaf)], output=str(tmp_path / "out")))
    text, page = ((output / f"evaluation.{suffix}").read_text() for suffix in ("md", "html"))
    table = text.split("## ")[1].splitlines()
    assert table[0] == "Conversation: 2 models" and len([line for line in table if "answers to 4 items" in line]) == 2
    head, cells = (next(line for line in table if line.startswith(f"| {name}|")).split("|") for name in ("", "deaf "))
    assert cells[head.index(" Listening, points ↑ ")].startswith(" 0.000 ")
    assert [line.split(" | ")[0] for line in table if line.startswith("| ")][1:] == ["| tiny", "| deaf", "| halves",
                                                                                     "| jittered"]  # fmt: skip
    assert page.split("</table>")[0].count('<tr class="own">') == 2
    content = json.loads((output / "evaluation.json").read_text())
    assert [entry["name"] for entry in content["model_index"]] == ["tiny", "deaf"]
    with pytest.raises(ValueError, match="the card of one model"):
        run(EvaluateArguments("chat", [str(chat), str(deaf)], card=str(tmp_path)))
    other = write_results("chat", rows, "other", checkpoint="models/other", inputs="0123")
    with pytest.raises(ValueError, match="answer different inputs of the task chat"):
        run(EvaluateArguments("chat", [str(chat), str(other)]))


def test_names_of_models_are_told_apart(write_results):
    def names(*checkpoints):
        folders = [write_results("s2t", [{"id": "a"}], f"{n}-{len(checkpoints)}", checkpoint=checkpoint)
                   for n, checkpoint in enumerate(checkpoints)]  # fmt: skip
        return model_names([Results(folder) for folder in folders]), folders

    assert names("runs/a/checkpoint")[0] == ["checkpoint"]
    assert names("runs/a/checkpoint", "runs/b/checkpoint")[0] == ["a/checkpoint", "b/checkpoint"]
    found, folders = names("runs/a", "runs/a", "runs/b")  # one of them in two ways
    assert found == [str(folder) for folder in folders]
