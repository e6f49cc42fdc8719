"""The text-motion evaluator: its networks, its training to the end, its measure, and what metrics refuse."""

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, TrainingArguments

from solami_hf import SolamiMotionEvaluatorConfig, SolamiMotionEvaluatorModel
from solami_hf.demo.corpus.captions import CAPTIONS
from solami_hf.metrics import frechet_gesture, motion_retrieval
from solami_hf.metrics.evaluator_features import Evaluator, load_evaluator
from solami_hf.modeling.motion_evaluator.evaluator_scores import beats, chances_to_find, shuffled_order
from solami_hf.training.train_evaluator import EvaluatorArguments, train_evaluator


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Waves, bows and nods: twelve clips each to train on and four held out, with three captions."""
    from solami_hf.demo.corpus.captions import captions_for
    from solami_hf.demo.corpus.gestures import make_gesture
    from solami_hf.processing.motion.motion_io import write_motion

    folder, rows = tmp_path_factory.mktemp("corpus"), []
    for number in range(48):
        rng = np.random.default_rng(number)
        action, split = ("wave", "bow", "nod")[number % 3], "validation" if number >= 36 else "train"
        write_motion(folder / f"{number}.npz", make_gesture(action, rng)[0])
        texts = captions_for(action, rng, count=3)
        rows.append({"id": str(number), "motion": f"{number}.npz", "text": texts, "split": split, "action": action})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A sentence encoder of random weights: a bag of words, each one a token (a trained vocabulary is another each
    time, and so is what is learnt from it)."""
    from tokenizers import BertWordPieceTokenizer, Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    folder, known = tmp_path_factory.mktemp("sentences"), " ".join(sum(map(list, CAPTIONS.values()), [])).lower()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(re.findall(r"\w+|[^\w\s]", known)))]
    words = BertWordPieceTokenizer({word: number for number, word in enumerate(vocabulary)})
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(words.to_str()), **names)
    tokenizer.model_max_length = 64
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(corpus, output, sentences, steps=120, **more):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "embedding_size": 16, "dropout": 0.0}
    settings = {"max_steps": steps, "per_device_train_batch_size": 24, "learning_rate": 3e-3, "use_cpu": True}
    training = TrainingArguments(
        output_dir=str(output), report_to="none", save_steps=30, logging_steps=10, seed=3, **settings
    )
    return train_evaluator(
        EvaluatorArguments(data=str(corpus), text_encoder=str(sentences), **{**sizes, **more}), training
    )


@pytest.fixture(scope="module")
def trained(corpus, sentences, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluator")
    return output, run(corpus, output, sentences)


def test_chances_by_hand():
    texts = np.array([[0.0], [1.0], [2.0], [9.0]])
    motions = np.array([[0.0], [1.9], [2.0], [9.1]])
    # Nearer than their own: none, none but "2.0" at 1.0 against 0.9, "1.9" not, none; two to choose from.
    assert chances_to_find(texts, motions, "abcd", gallery=2) == pytest.approx(np.ones((4, 3)))
    motions[1] = 3.5  # 2.5 away, farther than the motions at 0 and 2, nearer than 9.1
    assert chances_to_find(texts, motions, "abcd", gallery=2)[:, 0] == pytest.approx([1, 1 / 3, 1, 1])
    assert chances_to_find(texts, motions, "abcd")[1] == pytest.approx([0, 0, 1])
    assert chances_to_find(texts, motions, "abad")[1] == pytest.approx([0, 0, 1])
    assert chances_to_find(texts, np.ones((4, 1)), "abcd")[:, 0] == pytest.approx(0)  # all alike: nothing is found
    assert chances_to_find(texts, motions, "bbab")[1, 0] == 0 and chances_to_find(texts, motions, "aabb")[1, 0] == 0
    with pytest.raises(ValueError, match="all 4 motions have the same text"):
        chances_to_find(texts, motions, "aaaa")


def test_shuffled_texts_are_those_of_others():
    order = shuffled_order("aabbcc")
    assert sorted(order) == list(range(6)) and all(
        "aabbcc"[i] != label for i, label in zip(order, "aabbcc", strict=True)
    )
    assert beats(np.ones(9), np.zeros(9)) and not beats(np.zeros(9), np.zeros(9))
    assert not beats(np.array([1.0, 0, 0, 0, 0, 0, 0, 0, 0]), np.zeros(9))


def test_padding_place_and_facing_are_of_no_account():
    torch.manual_seed(0)
    small = {
        "model_type": "bert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "text_config": small}
    model = SolamiMotionEvaluatorModel(SolamiMotionEvaluatorConfig(**sizes)).eval()
    joints = (torch.randn(2, 41, 55, 3) * 0.05).cumsum(1)
    mask = torch.arange(41) < torch.tensor([[41], [30]])
    turn = torch.tensor([[0.6, 0, 0.8], [0, 1, 0], [-0.8, 0, 0.6]])
    with torch.no_grad():
        whole = model.encode_motion(joints, mask)
        alone, moved = model.encode_motion(joints[1:, :30]), model.encode_motion(joints @ turn.T + 3 * turn[0], mask)
        raised = model.encode_motion(joints * 1.5, mask)
    torch.testing.assert_close(whole[1:], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(2))
    assert (moved - whole).abs().max() > 0  # a fall is none of place
    level = joints @ turn.T + torch.tensor([3.0, 0.0, -2.0])
    torch.testing.assert_close(model.encode_motion(level, mask).detach(), whole, atol=1e-5, rtol=0)
    assert (raised - whole).abs().max() > 1e-3
    for wrong in (joints[0], joints[:, :2], joints[..., :2]):
        with pytest.raises(ValueError, match="expected .B, T, 55, 3. of 3 to 1200 frames"):
            model.encode_motion(wrong)


def test_it_learns_measures_and_loads_again(trained, corpus):
    output, measured = trained
    assert measured["eval_motions"] == 12 and measured["eval_beats_shuffled"] == 1
    assert measured["eval_r_precision_1"] > 0.8 > measured["eval_shuffled_r_precision_1"]
    assert measured["eval_low"] <= measured["eval_r_precision_1"] <= measured["eval_high"]
    assert measured["eval_round_trip_r_precision_1"] > measured["eval_shuffled_r_precision_1"]
    assert {"model.safetensors", "tokenizer.json", "history.json", "modeling_motion_evaluator.py"} <= {
        path.name for path in output.iterdir()
    }
    evaluator = load_evaluator(str(output))
    assert evaluator.ground_truth["r_precision_1"] == pytest.approx(measured["eval_r_precision_1"])
    texts = evaluator.embed_texts(["a person waves", "somebody is waving and waving at us for a long time", "he bows"])
    assert texts.shape == (3, 16) and np.linalg.norm(texts, axis=1) == pytest.approx(1)
    # In batches of different lengths, each text and motion is embedded as by itself.
    assert texts[0] == pytest.approx(evaluator.embed_texts(["a person waves"])[0], abs=1e-5)
    clips = [np.cumsum(np.random.default_rng(n).normal(size=(n, 55, 3)), axis=0) * 0.01 for n in (40, 12, 25)]
    assert evaluator.embed_motions(clips)[1] == pytest.approx(evaluator.embed_motions(clips[1:2])[0], abs=1e-5)
    with pytest.raises(ValueError, match="`fps` is 20, expected motions at the evaluator's 30"):
        evaluator.embed_motions(clips, fps=20)


def test_a_stopped_run_goes_on_to_the_same_measure(trained, corpus, sentences, tmp_path):
    run(corpus, tmp_path, sentences, steps=30)
    assert run(corpus, tmp_path, sentences)["eval_r_precision_1"] == pytest.approx(trained[1]["eval_r_precision_1"])


def test_metrics_score_with_it_and_fall_with_noise(trained, corpus):
    from solami_hf.training.train_evaluator import Pairs

    pairs = Pairs.read(str(corpus), "validation", "action")
    real, texts = [joints.numpy() for joints in pairs.joints], [captions[0] for captions in pairs.captions]
    fixed = {"references": real, "evaluator": str(trained[0])}
    retrieval, fgd, rng = [], [], np.random.default_rng(0)
    for sigma in (0.0, 0.05, 0.5):
        made = [motion + rng.normal(size=motion.shape) * sigma for motion in real]
        retrieval.append(motion_retrieval(predictions=made, texts=texts, labels=pairs.labels, gallery=4, **fixed))
        fgd.append(frechet_gesture(predictions=made, **fixed)["fgd"])
    assert retrieval[0]["r_precision_1"] == retrieval[0]["reference_r_precision_1"] > 0.8
    assert retrieval[0]["r_precision_1"] > retrieval[-1]["r_precision_1"]
    for values in (fgd, [row["fid"] for row in retrieval]):
        assert values[0] == pytest.approx(0, abs=1e-6) and values[0] < values[1] < values[2]
    with pytest.raises(ValueError, match="no better than with shuffled ones"):
        wrong = [texts[i] for i in shuffled_order(pairs.labels)]
        motion_retrieval(predictions=real, texts=wrong, labels=pairs.labels, **fixed)


def test_evaluators_that_cannot_judge_are_refused(trained, tmp_path):
    motions = [np.zeros((9, 55, 3))] * 2
    with pytest.raises(ValueError, match="`evaluator` is missing: a folder of `solami train-evaluator`"):
        frechet_gesture(predictions=motions, references=motions)
    model = AutoModel.from_pretrained(trained[0])
    for truth, told in (
        (None, "was never measured"),
        ({"beats_shuffled": False, "r_precision_1": 0.03}, "by chance .R@1 0.03"),
    ):
        model.config.ground_truth = truth
        model.save_pretrained(tmp_path / told[:3])
        AutoTokenizer.from_pretrained(trained[0]).save_pretrained(tmp_path / told[:3])
        with pytest.raises(ValueError, match=told):
            frechet_gesture(predictions=motions, references=motions, evaluator=str(tmp_path / told[:3]))
    assert isinstance(load_evaluator(str(trained[0])), Evaluator)


def test_the_sentence_encoder_stays_as_it_is(trained, sentences):
    model, before = AutoModel.from_pretrained(trained[0]), AutoModel.from_pretrained(sentences).state_dict()
    assert before.keys() == model.text_model.state_dict().keys()
    for name, value in model.text_model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bad_data(tmp_path, corpus, sentences):
    with pytest.raises(ValueError, match="`data` is empty"):
        run("", tmp_path, sentences)
    with pytest.raises(FileNotFoundError, match="manifest.jsonl does not exist"):
        run(tmp_path / "none", tmp_path, sentences)
    rows = [json.loads(line) | {"text": []} for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for row in rows:
        (tmp_path / row["motion"]).write_bytes((corpus / row["motion"]).read_bytes())
    with pytest.raises(ValueError, match="has 0 captioned motions of the split train"):
        run(tmp_path, tmp_path / "out", sentences)
