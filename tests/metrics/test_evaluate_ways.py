"""Batches, `evaluate.combine`, two processes, doctests, and the page of the Space, for each module."""

import doctest
import multiprocessing
import sys
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest

from solami_hf.metrics import NAMES, folder_of
from solami_hf.metrics.metric_app import compute_json, launch
from solami_hf.processing.motion.visemes import face_of_phones

SOUND = [np.random.default_rng(i).normal(size=9000).astype(np.float32) * 0.1 for i in range(4)]
SPEECH = {"sampling_rate": 16000}


CLICKS = np.zeros(16000, np.float32)
CLICKS.reshape(8, 2000)[1:, :300] = 0.3  # every eighth of a second


@pytest.fixture
def inputs(motions, tiny_xvector, known_motions):
    """Inputs and options by module; the first prediction is missing."""
    real = [motion - motion[:, [10], :] for motion in (*motions, motions[0][:8])]
    made = [None, real[0], real[3] + 0.01, real[1]]
    captions = ["a person walks", "a man jumps high", "she waves", "he kicks with the left leg"]
    joints = {"predictions": made, "references": real}
    paired = ("motion_fid", "motion_diversity", "motion_mpjpe", "rotation_error", "gesture_diversity")
    given = {name: (joints, {}) for name in paired}
    evaluator = {"evaluator": known_motions(real)}
    faces = [face_of_phones([("m", 0.2), ("aa", 0.4 + i / 20), ("m", 0.7), ("iy", 1.0)], 1.0) for i in range(4)]
    beating = [None, *(np.cos(np.arange(40) * k / 5)[:, None, None] * np.ones((55, 3)) for k in (1, 2, 3))]
    spoken = [[[4.5, 7.0]], [[1.0, 1.5], [4.2, 6.0]], [[5.0, 6.5]], [[2.0, 2.4], [4.4, 9.0]]]
    return {
        **given,
        "motion_multimodality": ({**joints, "prompts": ["a", "a", "b", "b"]}, {}),
        "foot_skating": ({"predictions": made}, {}),
        "lip_sync": ({"predictions": [None, *faces[1:]], "references": faces}, {}),
        "motion_retrieval": ({**joints, "texts": ["0", "1", "2", "3"]}, evaluator),
        "frechet_gesture": (joints, evaluator),
        "beat_alignment": ({"predictions": beating, "references": [CLICKS[i * 300 :] for i in range(4)]}, {}),
        "response_timing": (
            {"predictions": [None, *spoken[1:]], "references": spoken, "partners": [[[0.0, 4.0]]] * 4},
            {},
        ),
        "motion_caption": ({"predictions": [None, *captions[:3]], "references": captions}, {}),
        "speech_wer": ({"predictions": [None, *captions[:3]], "references": captions}, {}),
        "speaker_similarity": ({"predictions": [None, *SOUND[1:]], "references": SOUND}, {"model_id": tiny_xvector}),
        "answer_validity": ({"predictions": [None, True, False, True]}, {}),
    }


def test_every_module_is_tried(inputs):
    assert set(inputs) == set(NAMES) - {"dialogue_judge"}  # which is in a test of its own


def same(ours, theirs):
    """Results are equal up to the float32 of a cache file."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, str) or value is None:
            assert ours[name] == value
        else:
            assert ours[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"dialogue_judge"}))
def test_batches(load, inputs, name):
    columns, options = inputs[name]
    module = load(name)
    whole = module.compute(**columns, **options)
    module.add_batch(**{key: values[:2] for key, values in columns.items()})
    module.add_batch(**{key: values[2:] for key, values in columns.items()})
    same(module.compute(**options), whole)


def _second_process(cache, inputs):
    for name, (columns, _) in inputs.items():
        module = evaluate.load(folder_of(name), cache_dir=cache, num_process=2, process_id=1, experiment_id=name)
        if module.compute(**{key: values[2:] for key, values in columns.items()}) is not None:
            raise SystemExit(1)


def test_two_processes(load, inputs, tmp_path):
    other = multiprocessing.get_context("fork").Process(target=_second_process, args=(str(tmp_path), inputs))
    other.start()
    for name, (columns, options) in inputs.items():
        module = evaluate.load(
            folder_of(name), cache_dir=str(tmp_path), num_process=2, process_id=0, experiment_id=name
        )
        part = {key: values[:2] for key, values in columns.items()}
        same(module.compute(**part, **options), load(name).compute(**columns, **options))
    other.join(60)
    assert other.exitcode == 0


def test_combine(load, inputs):
    joints = inputs["motion_fid"][0]
    motion = evaluate.combine([load(n) for n in ("motion_fid", "motion_diversity", "motion_mpjpe", "foot_skating")])
    result = motion.compute(**joints)
    assert {"fid", "diversity", "mpjpe", "foot_skating", "motion_fid_valid", "foot_skating_valid"} <= result.keys()
    assert result["fid"] == load("motion_fid").compute(**joints)["fid"]
    columns = inputs["motion_multimodality"][0]
    motion = evaluate.combine([load(name) for name in ("motion_multimodality", "rotation_error", "answer_validity")])
    motion.evaluation_modules[2:] = []  # its predictions are no motions
    motion.add_batch(**columns)
    assert {"multimodality", "rotation_error"} <= motion.compute().keys()
    text = evaluate.combine([load(name) for name in ("speech_wer", "motion_caption")])
    assert {"wer", "bleu_4", "cider"} <= text.compute(**inputs["speech_wer"][0]).keys()
    twice = evaluate.combine({"own": load("speaker_similarity"), "again": load("speaker_similarity")})
    columns, options = inputs["speaker_similarity"]
    result = twice.compute(**columns, **options)
    assert result["own_speaker_similarity"] == result["again_speaker_similarity"]
    both = evaluate.combine({"a": load("answer_validity"), "b": load("answer_validity")})
    assert both.compute(**inputs["answer_validity"][0])["a_valid"] == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_doctests(load, name):
    module = sys.modules[type(load(name)).__module__]
    results = doctest.testmod(module)
    assert results.failed == 0 and results.attempted > 1


def test_the_page_of_a_space(monkeypatch):
    pages = []

    class Page(SimpleNamespace):
        def launch(self):
            pages.append(self)

    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(Interface=Page, Textbox=lambda **kw: kw["label"]))
    launch(folder_of("answer_validity") + "/answer_validity.py")
    (page,) = pages
    assert page.inputs == ["predictions (JSON)", "options (JSON)"] and page.article.lstrip().startswith("# Answer")
    assert '"valid": 0.5' in page.fn("[true, false]", "")
    with pytest.raises(ValueError):
        page.fn("[true", "")


def test_json_inputs(load):
    result = compute_json(load("speech_wer"), ['["hello there"]', '["hello you"]'], '{"mode": "upstream"}')
    assert result["wer"] == 0.5 and result["mode"] == "upstream"
