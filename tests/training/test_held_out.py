"""Training is evaluated on the validation split, on the test split only where there is no other, never to choose."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from transformers import TrainingArguments

from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.training import pretrain, sft
from solami_hf.training.held_out import evaluation_split
from solami_hf.training.motion_vq.train_motion_vq import MotionVQArguments
from solami_hf.training.motion_vq.train_motion_vq import make_trainer as motion_trainer
from solami_hf.training.soundstorm.train_soundstorm import SoundStormArguments, _read_data
from solami_hf.training.speech_recordings import recorded

from .conftest import token_rows

SPLITS = ("train", "validation", "test")


def training_arguments(**more):
    defaults = {"load_best_model_at_end": False, "save_strategy": "steps", "max_length": 256, "seed": 0}
    return SimpleNamespace(**defaults | more)


@pytest.mark.parametrize(
    "splits, chosen, warns",
    [
        (SPLITS, "validation", False),
        (("train", "validation"), "validation", False),
        (("train", "test"), "test", True),
        (("train",), None, False),
        ((), None, False),
    ],
)
def test_which_split(splits, chosen, warns, caplog):
    assert evaluation_split(splits, training_arguments(), "data/tokens") == chosen
    told = ["data/tokens has no validation split, so training is evaluated on its test split"]
    assert [message.split(";")[0] for message in caplog.messages] == (told if warns else [])


@pytest.mark.parametrize("choice", [{"load_best_model_at_end": True}, {"save_strategy": "best"}])
def test_no_checkpoint_is_chosen_by_the_test_split(choice):
    assert evaluation_split(SPLITS, training_arguments(**choice), "data") == "validation"
    with pytest.raises(ValueError, match="data has no validation split, so .* --validation_share 0.05"):
        evaluation_split(("train", "test"), training_arguments(**choice), "data")


def token_data(folder, processor, kinds):
    """Kind -> its splits, into one folder."""
    rng = np.random.default_rng(0)
    for kind, splits in kinds.items():
        rows = {split: token_rows(kind, split, 3, rng) for split in splits}
        write_token_dataset(folder, kind, rows, fingerprints(processor, kind))
    return str(folder)


def test_the_language_model(tmp_path, tiny_processor, caplog):
    data = token_data(tmp_path, tiny_processor, {"motion": SPLITS, "speech": ("train", "test")})
    arguments = pretrain.PretrainArguments(model="", data=data)
    evals = pretrain.evaluation_samples(arguments, tiny_processor, training_arguments())
    splits = {task: str(samples.split) for task, samples in evals.items()}
    assert splits["text_to_motion"] == "validation" and splits["text_to_speech"] == "test"
    assert set(evals["motion_to_text"]["id"]) == {f"validation{i}" for i in range(3)}
    assert set(evals["speech_to_text"]["id"]) == {f"test{i}" for i in range(3)}
    assert [f"speech of {data} has no validation" in text for text in caplog.messages if "no valid" in text] == [True]


@pytest.mark.parametrize("splits, chosen", [(SPLITS, "validation"), (("train", "test"), "test")])
def test_sft(tmp_path, tiny_processor, monkeypatch, splits, chosen):
    data = token_data(tmp_path, tiny_processor, {"chat": splits})
    found = {}
    model = SimpleNamespace(config=SimpleNamespace())
    monkeypatch.setattr(sft, "load_model_and_processor", lambda *args: (model, tiny_processor))
    monkeypatch.setattr(sft, "train_language_model", lambda *args: found.update(args[-1]))
    sft.sft(sft.SftArguments(model="", data=data), training_arguments(eval_strategy="steps"))
    assert str(found["chat"].split) == chosen and set(found["chat"]["id"]) == {f"{chosen}{i}" for i in range(3)}


@pytest.mark.parametrize("splits, chosen", [(SPLITS, "validation"), (("train", "test"), "test"), (("train",), None)])
def test_motion_tokenizers(tmp_path, splits, chosen):
    rng, rows = np.random.default_rng(0), []
    for split in splits:
        write_motion(tmp_path / f"{split}.npz", SmplxMotion(np.zeros((20, 3)), 0.1 * rng.normal(size=(20, 55, 3))))
        rows.append({"id": split, "motion": f"{split}.npz", "split": split})
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"width": 8, "code_dim": 8, "depth": 1, "code_num": 8, "transform_code_num": 4, "random_transforms": 8}
    arguments = TrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none")
    trainer = motion_trainer(MotionVQArguments(data=str(tmp_path), **sizes), arguments)
    assert [clip.id for clip in trainer.clips] == ["train"]
    assert [clip.id for clip in trainer.held_out] == ([] if chosen is None else [chosen])


def manifest_of_speech(folder, splits):
    """A recording of its own length for each split."""
    rows = []
    for number, split in enumerate(splits):
        soundfile.write(folder / f"{split}.wav", np.full(1600 * (number + 1), 0.1), 16000)
        turns = [{"text": f"words of {split}", "audio": f"{split}.wav", "speaker": "a"}]
        rows.append({"id": split, "turns": turns, "split": split})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_speech_codecs(tmp_path):
    train, held_out = recorded(str(manifest_of_speech(tmp_path, SPLITS)), 16000, 5)
    assert train.texts == ["words of train"] and held_out.texts == ["words of validation"]
    assert [len(part.samples) for part in (train, held_out)] == [1600, 3200]


def test_speech_codecs_without_validation_never_see_the_test_split(tmp_path):
    train, held_out = recorded(str(manifest_of_speech(tmp_path, ("train", "test"))), 16000, 5)
    assert len(train.samples) == 1600 and "words of test" not in train.texts + held_out.texts


@pytest.mark.parametrize("given", [False, True])
def test_acoustic_models(tmp_path, given):
    for number, split in enumerate(SPLITS):
        codes = [[[number] * 30] * 3]
        Dataset.from_dict({"codes": codes}).to_parquet(tmp_path / "codes" / f"{split}-00000-of-00001.parquet")
    named = {"held_out_data": [str(tmp_path / "codes")]} if given else {}
    arguments = TrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none")
    train, held_out = _read_data(SoundStormArguments(data=[str(tmp_path / "codes")], **named), arguments, None)
    assert set(train.codes.ravel()) == {0} and set(held_out.codes.ravel()) == {1}
