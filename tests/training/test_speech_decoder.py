"""Tuning a trained codec: as a whole, and its decoder alone to what an acoustic model fills in."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from solami_hf.modeling.speech_codec.codec_interface import codec_fingerprint
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.training.speech.speech_codec_arguments import SpeechCodecArguments, SpeechCodecTrainingArguments
from solami_hf.training.speech.speech_decoder import DecoderWindows, SpeechDecoderTrainer, latents_of, own_and_filled
from solami_hf.training.speech.train_speech_codec import train_speech_codec
from solami_hf.training.speech_recordings import Recordings

sys.path.append(str(Path(__file__).parents[1]))
from small_speech import own_codec, soundstorm  # noqa: E402


@pytest.fixture
def codec():
    codec = own_codec()
    for level in codec.quantizer.levels:
        level.set_codes(0.1 * torch.randn(16, 8), torch.ones(16))
    return codec


@pytest.fixture
def recordings():
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(4800 + 900 * index).astype(np.float32) for index in range(4)]
    return Recordings.join(clips, [""] * 4)


@pytest.fixture
def folders(tmp_path, codec):
    codec.save_pretrained(tmp_path / "codec")
    soundstorm().save_pretrained(tmp_path / "acoustic")
    (tmp_path / "data").mkdir()
    for index in range(4):
        values = 0.1 * np.random.default_rng(index).standard_normal(8000)
        soundfile.write(tmp_path / "data" / f"{index}.wav", values, 16000)
    return tmp_path


def tune(folders, name="run", steps=4, **options):
    arguments = SpeechCodecArguments(
        data=[str(folders / "data")], start_from=str(folders / "codec"), window_seconds=0.2, held_out=1, **options
    )
    training = SpeechCodecTrainingArguments(
        output_dir=str(folders / name), max_steps=steps, per_device_train_batch_size=2, save_steps=2, logging_steps=1,
        save_total_limit=None, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    return train_speech_codec(arguments, training)


def test_filled_codes_keep_level_0_and_are_kept(codec, recordings, tmp_path):
    storm, cache = soundstorm(), tmp_path / "filled.npz"
    storm.save_pretrained(tmp_path / "acoustic")
    own, filled = own_and_filled(recordings, codec, str(tmp_path / "acoustic"), cache)
    assert [clip.shape[1] for clip in (own[0], own[3])] == [15, 24]
    assert np.array_equal(own.codes[0], filled.codes[0]) and not np.array_equal(own.codes, filled.codes)
    with torch.no_grad():  # the clip before is the prompt; the first one has the second
        for index, prompt in ((2, 1), (0, 1)):
            codes = [torch.from_numpy(own[clip].astype(np.int64))[None] for clip in (index, prompt)]
            expected = storm.generate(codes[0][:, 0], codes[1])
            assert np.array_equal(filled[index], expected[0].numpy())
    written = cache.stat().st_mtime_ns
    again = own_and_filled(recordings, codec, str(tmp_path / "acoustic"), cache)[1]
    assert np.array_equal(again.codes, filled.codes) and cache.stat().st_mtime_ns == written
    assert own_and_filled(recordings, codec, None, tmp_path / "none.npz")[1].codes is not None
    assert not (tmp_path / "none.npz").exists()
    less = Recordings(recordings.samples[:4800], recordings.ends[:1], [""])
    with pytest.raises(ValueError, match="filled.npz was made by other models or of other speech; remove it"):
        own_and_filled(less, codec, str(tmp_path / "acoustic"), cache)


def test_an_acoustic_model_of_other_codes_is_refused(codec, recordings, tmp_path):
    soundstorm(levels=2).save_pretrained(tmp_path / "acoustic")
    with pytest.raises(ValueError, match="has 2 levels of 16 codes, expected 3 of 16 as the speech codec"):
        own_and_filled(recordings, codec, str(tmp_path / "acoustic"), tmp_path / "filled.npz")


def test_windows_are_sound_and_its_own_codes(codec, recordings, tmp_path):
    soundstorm().save_pretrained(tmp_path / "acoustic")
    own, filled = own_and_filled(recordings, codec, str(tmp_path / "acoustic"), tmp_path / "filled.npz")
    windows = DecoderWindows(recordings, own, filled, 6, 10, seed=1, hop_length=320, filled_share=0.5)
    kinds = set()
    for number in range(40):
        item = windows[number]
        assert item["input_values"].shape == (1, 6 * 320) and item["audio_codes"].shape == (3, 6)
        source = filled if item["filled"] else own
        kinds.add(bool(item["filled"]))
        values = item["input_values"][0].numpy()
        found = [
            (clip, start)
            for clip in range(4)
            for start in range(own[clip].shape[1] - 5)
            if np.array_equal(recordings[clip][start * 320 : (start + 6) * 320], values)
        ]
        assert len(found) == 1
        clip, start = found[0]
        assert np.array_equal(source[clip][:, start : start + 6], item["audio_codes"].numpy())
        assert all(torch.equal(value, windows[number][name]) for name, value in item.items())
    assert kinds == {True, False}
    with pytest.raises(ValueError, match="no clip is as long as a window of 60 frames"):
        DecoderWindows(recordings, own, filled, 60, 10, seed=1, hop_length=320, filled_share=0.5)


def test_a_clip_is_decoded_from_its_levels(codec):
    codes = torch.randint(8, (3, 3, 5), generator=torch.Generator().manual_seed(0))
    latents = latents_of(codec, codes, torch.tensor([1, 3, 2]))
    for row, levels in enumerate((1, 3, 2)):
        torch.testing.assert_close(latents[row], codec.quantizer.decode(codes[row : row + 1, :levels])[0])


@pytest.mark.parametrize("acoustic", [True, False])
def test_the_decoder_alone_learns(folders, acoustic):
    options = {"acoustic_model": str(folders / "acoustic")} if acoustic else {}
    tuned = tune(folders, decoder_only=True, averaging_decay=0.0, **options).state_dict()
    before = load_file(folders / "codec" / "model.safetensors")
    changed = {name for name, value in before.items() if not torch.equal(value, tuned[name])}
    assert changed and all(name.startswith("decoder.") for name in changed), changed
    assert (folders / "run" / "filled_codes.npz").exists() == acoustic
    codec = SolamiSpeechCodecModel.from_pretrained(folders / "codec")
    exported = SolamiSpeechCodecModel.from_pretrained(folders / "run" / "codec")
    assert codec_fingerprint(exported) == codec_fingerprint(codec) != ""
    log = json.loads((folders / "run" / "codec" / "history.json").read_text())["log"]
    assert [row["step"] for row in log if "mel" in row] == [1, 2, 3, 4]
    # stopped after half and started again, it ends at the same weights
    (folders / "half").mkdir()
    (folders / "run" / "checkpoint-2").rename(folders / "half" / "checkpoint-2")
    again = tune(folders, "half", decoder_only=True, averaging_decay=0.0, **options).state_dict()
    assert all(torch.equal(value, tuned[name]) for name, value in again.items())


def test_filled_windows_are_decoded_from_all_levels(codec):
    codes = torch.randint(8, (2, 3, 6), generator=torch.Generator().manual_seed(0))
    inputs = {"audio_codes": codes, "input_values": torch.zeros(2, 1, 6 * 320), "filled": torch.tensor([True, False])}
    with torch.no_grad():
        values = SpeechDecoderTrainer.reconstruct(None, codec, inputs, torch.tensor([1, 1])).audio_values
        expected = [codec.decode(codes[:1]).audio_values[0], codec.decode(codes[1:, :1]).audio_values[0]]
    torch.testing.assert_close(values, torch.stack(expected), rtol=0, atol=1e-5)


def test_a_trained_codec_is_gone_on_from(folders):
    tuned = tune(folders, averaging_decay=0.0)
    assert codec_fingerprint(tuned) != codec_fingerprint(SolamiSpeechCodecModel.from_pretrained(folders / "codec"))
    start = load_file(folders / "codec" / "model.safetensors")
    assert tuned.config.num_filters == 2  # its sizes, not those that the options say
    for name, value in tuned.named_parameters():
        if name.startswith(("encoder.", "decoder.")) and start[name].numel() > 1:
            # four steps of 5e-4 from where it was, not anew
            assert 0 < (value - start[name]).abs().max() < 0.01, name


def test_bad_options():
    for bad, match in (
        ({"decoder_only": True}, "decoder_only is for tuning .*: give start_from, too"),
        ({"acoustic_model": "a", "start_from": "b"}, "acoustic_model is for tuning .*: give decoder_only, too"),
        ({"decoder_only": True, "start_from": "a", "semantic_teacher": "b"}, "semantic_teacher teaches level 0"),
        ({"filled_share": 1.5}, "filled_share is 1.5, expected 0 to 1"),
    ):
        with pytest.raises(ValueError, match=match):
            SpeechCodecArguments(**bad)
