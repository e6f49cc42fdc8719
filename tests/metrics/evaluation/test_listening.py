"""Listening measured on models that are constructed: what they read of the partner is known, so is the figure."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from solami_hf.metrics.evaluation.command import main
from solami_hf.metrics.evaluation.listening import body_likelihood, listening, listening_ticks
from solami_hf.modeling.solami.vocabulary import build_layout
from solami_hf.processing.datasets.duplex import DuplexFormat, DuplexRenderer
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset

BOOST, TICKS, ROWS = 3.0, 11, 4


class Mirror:
    """Expects of each body code that it is what the partner showed `late` ticks before; of the own past if `own`."""

    def __init__(self, own=False):
        modalities, markers = build_layout({"body": 64, "hand": 4, "speech": 4, "trans": 4}, 4)
        self.config = SimpleNamespace(modalities=modalities, markers=markers, duplex=None)
        parts = DuplexFormat.of(self.config, ["body"], ["body"])
        self.config.duplex = {**parts.to_dict(), "max_ticks": 4}
        self.own, self.device, self.size = own, torch.device("cpu"), 128

    def __call__(self, input_ids):
        logits = torch.zeros(*input_ids.shape, self.size)
        for row in range(len(input_ids)):
            for at in range(input_ids.shape[1]):
                told = at + 1 - (8 if self.own else 4)  # the partner's code of the tick before stands 4 places back
                if told >= 0:
                    logits[row, at, input_ids[row, told]] += BOOST
        return SimpleNamespace(logits=logits)


def rows():
    """Listener 0 shows what person 1 showed a tick before; no two rows have a code of the body in common."""
    made = []
    for i in range(ROWS):
        partner = 16 * i + np.random.default_rng(i).permutation(16)[np.arange(3 * TICKS) % 16]
        listener = np.concatenate([partner[-3:], partner[:-3]])
        people = [
            {
                "person": "",
                "body": body,
                "hand": np.zeros(33, int),
                "speech": np.zeros(220, int),
                "trans": [0],
                "talks": t,
            }
            for body, t in ((listener, []), (partner, [[0.4, 4.4]]))
        ]
        made.append({"id": f"r{i}", "people": people, "source": ""})
    return made


def test_a_mirror_gains_what_it_was_built_to_gain():
    found = listening(Mirror(), rows())["listening"]
    assert found["difference"]["mean"] == pytest.approx(BOOST) and found["difference"]["low"] == pytest.approx(BOOST)
    assert found["true"]["mean"] == pytest.approx(BOOST - np.log(127 + np.exp(BOOST)), abs=1e-5)
    assert (found["rows_better"], found["rows"], found["codes"]) == (ROWS, ROWS, ROWS * 3 * (TICKS - 1))


def test_a_model_that_reads_no_partner_gains_nothing():
    found = listening(Mirror(own=True), rows())["listening"]
    assert found["difference"]["mean"] == found["difference"]["high"] == 0 and found["rows_better"] == 0


def test_only_the_ticks_of_a_mask_count():
    masks = {
        "late": {(f"r{i}", 0): np.arange(TICKS) == 7 for i in range(ROWS)},
        "never": {("r0", 1): np.zeros(TICKS, bool)},
    }
    found = listening(Mirror(), rows(), masks)
    assert list(found) == ["late"] and found["late"]["codes"] == 3 * ROWS
    with pytest.raises(ValueError, match="nobody listens"):
        listening(Mirror(), rows(), {"never": masks["never"]})
    with pytest.raises(ValueError, match="at least two rows"):
        listening(Mirror(), rows()[:1])


def test_who_listens_follows_from_who_talks():
    row = rows()[0]
    row["people"][0]["talks"], row["people"][1]["talks"] = [[2.0, 2.4]], [[0.5, 1.2]]
    assert np.flatnonzero(listening_ticks(row, 0, TICKS, 0.4)).tolist() == [1, 2, 3, 4]  # 5 is its own
    assert np.flatnonzero(listening_ticks(row, 1, TICKS, 0.4)).tolist() == [5, 6, 7, 8]
    row["people"][0]["talks"] = row["people"][1]["talks"] = None
    assert listening_ticks(row, 0, TICKS, 0.4).all()


def test_pieces_overlap_and_every_tick_counts_once():
    model = Mirror()
    renderer = DuplexRenderer(model.config)
    pair = renderer.streams(rows()[0])
    whole, pieces = (body_likelihood(model, renderer, [pair], most)[0] for most in (TICKS, 4))
    assert whole.shape == (TICKS,) and np.allclose(whole, pieces)
    assert np.allclose(whole[1:], 3 * (BOOST - np.log(127 + np.exp(BOOST)))) and whole[0] < whole[1]


def test_the_command_writes_the_figures(tmp_path, tiny_model, tiny_processor):
    data = rows()
    for row in data:
        for person in row["people"]:
            person["body"] = person["body"] % 16
    write_token_dataset(tmp_path / "data", "duplex", {"test": data}, fingerprints(tiny_processor, "duplex"))
    tiny_processor.save_pretrained(tmp_path / "model")
    tiny_model.save_pretrained(tmp_path / "model")
    words = ["duplex", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="was not trained on duplex rows"):
        main(words)
    with pytest.raises(ValueError, match="name their token dataset with --data"):
        main(words[:2])
    tiny_model.config.duplex = {**DuplexFormat.of(tiny_model.config).to_dict(), "max_ticks": 4}
    tiny_model.save_pretrained(tmp_path / "model")
    assert main(words) == 0
    (found,) = json.loads((tmp_path / "out/evaluation.json").read_text())["evaluations"]
    assert found["rows"] == ROWS and found["difference"]["low"] is not None
    assert "shuffled partner" in (tmp_path / "out/evaluation.md").read_text()
