"""`mode="upstream"` gives what the original gave: 60 clips of unequal lengths, five of them without a prediction."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def clips(golden):
    """Predictions (some None), references and the original's results."""
    with np.load(golden / "metrics/mtmetrics_var.npz", allow_pickle=False) as data:
        data = dict(data)
    references = np.split(data["ref"], np.cumsum(data["ref_lengths"])[:-1])
    lengths = data["pred_lengths"]
    predictions = iter(np.split(data["rst"], np.cumsum(lengths[lengths > 0])[:-1]))
    predictions = [next(predictions) if length > 0 else None for length in lengths]
    return predictions, references, {name: value.item() for name, value in data.items() if value.ndim == 0}


def test_position_errors(load, clips):
    predictions, references, theirs = clips
    ours = load("motion_mpjpe").compute(predictions=predictions, references=references, mode="upstream")
    for name, original in (("mpjpe", "MPJPE"), ("pa_mpjpe", "PAMPJPE"), ("accel", "ACCEL")):
        assert ours[name] == pytest.approx(theirs[f"result/{original}"], rel=1e-5), name
    assert ours["angle_error"] == pytest.approx(theirs["result/angle_error"], rel=1e-5)
    assert ours["valid"] == pytest.approx(theirs["result/pred_valid"])
    assert ours["num_frames"] < theirs["state/count"] == 546


def test_angle_error(load, clips):
    predictions, references, theirs = clips
    ours = load("rotation_error").compute(predictions=predictions, references=references, mode="upstream")
    assert ours["angle_error"] == pytest.approx(theirs["result/angle_error"], rel=1e-5)


def test_fid(load, clips):
    predictions, references, theirs = clips
    ours = load("motion_fid").compute(predictions=predictions, references=references, mode="upstream")
    assert ours["fid"] == pytest.approx(theirs["result/FID"], rel=1e-5)
    assert ours["num_references"] == 55


def test_diversity(load, clips):
    predictions, references, theirs = clips
    ours = load("motion_diversity").compute(predictions=predictions, references=references, mode="upstream", seed=78)
    assert ours["diversity"] == pytest.approx(theirs["result/Diversity"], rel=1e-5)
    assert ours["reference_diversity"] == pytest.approx(theirs["result/gt_Diversity"], rel=1e-5)


def test_corrected_differs_where_the_original_is_wrong(load, clips):
    predictions, references, theirs = clips
    ours = load("motion_mpjpe").compute(predictions=predictions, references=references)
    assert ours["mpjpe"] > 1.05 * theirs["result/MPJPE"]  # what was compared is fewer frames than the references have
    fid = load("motion_fid").compute(predictions=predictions, references=references)
    assert fid["num_references"] == 60 and abs(fid["fid"] - theirs["result/FID"]) > 1
