"""Files that are read later than they were named: found from any folder, and told of where they are gone."""

import shutil

import numpy as np
import pytest
import torch

from solami_hf.processing.audio.voices import Voices
from solami_hf.processing.processing_solami import SolamiProcessor


@pytest.fixture
def named(tiny_processor, small_sound, tmp_path, monkeypatch):
    """A folder with a checkpoint with a voice, which is the working directory, and another folder."""
    speech = tiny_processor.speech_codec
    tiny_processor.voices.add("Ada", torch.zeros(speech.config.num_quantizers, 50, dtype=torch.long), "me", speech)
    tiny_processor.save_pretrained(tmp_path / "here/checkpoint")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_relative_checkpoint_after_going_elsewhere(named, small_motion, small_sound, monkeypatch):
    processor = SolamiProcessor.from_pretrained("checkpoint")
    alone = Voices.load("checkpoint")
    monkeypatch.chdir(named / "there")
    assert processor.voices.names == ["Ada"] and processor.acoustic_model is None
    assert len(processor.encode_speech([small_sound])[0]) == 30
    assert len(processor.encode_motion([small_motion])[0]["body"]) == 9
    assert torch.equal(processor.voices.codes("Ada"), alone.codes("Ada"))


def test_saving_from_elsewhere_is_whole(named, monkeypatch):
    processor = SolamiProcessor.from_pretrained("checkpoint")
    monkeypatch.chdir(named / "there")
    processor.save_pretrained("saved")
    files, saved = (
        {p.relative_to(f) for p in f.rglob("*")} for f in (named / "here/checkpoint", named / "there/saved")
    )
    assert files == saved


@pytest.mark.parametrize("lost", ["checkpoint", "checkpoint/motion_codec", "checkpoint/voices/Ada.safetensors"])
def test_nothing_is_saved_by_halves(lost, named):
    processor = SolamiProcessor.from_pretrained("checkpoint")
    assert processor.voices.names == ["Ada"]
    (shutil.rmtree if (named / "here" / lost).is_dir() else lambda path: path.unlink())(named / "here" / lost)
    with pytest.raises(
        (OSError, ValueError), match="is gone|no readable motion_codec|codes of voice 'Ada' are missing"
    ):
        processor.save_pretrained("saved")
    assert not (named / "here/saved").exists()


@pytest.mark.parametrize(
    "use",
    [
        lambda processor: processor.voices,
        lambda processor: processor.speech_codec,
        lambda processor: processor.encode_speech([np.zeros(640)]),
        lambda processor: processor.save_pretrained("saved"),
    ],
)
def test_a_folder_that_is_gone(use, named):
    processor = SolamiProcessor.from_pretrained("checkpoint")
    shutil.rmtree("checkpoint")
    with pytest.raises(FileNotFoundError, match="the checkpoint folder .*/here/checkpoint is gone"):
        use(processor)
    assert not (named / "here/saved").exists()
