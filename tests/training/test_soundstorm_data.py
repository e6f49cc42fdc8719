"""Codes for the acoustic model: sources, the cache of encoded speech, windows with masks."""

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset

from solami_hf.modeling.speech_codec.codec_interface import codec_fingerprint
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.training.soundstorm.soundstorm_data import CodeWindows, SpeechCodes, read_sources
from solami_hf.training.speech_recordings import Recordings

MASK = 8


def tiny_codec(seed: int = 0) -> SolamiSpeechCodecModel:
    torch.manual_seed(seed)
    sizes = {"num_filters": 2, "hidden_size": 8, "semantic_size": 4, "num_lstm_layers": 1}
    return SolamiSpeechCodecModel(SolamiSpeechCodecConfig(num_quantizers=3, codebook_size=8, **sizes)).eval()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(16000 * seconds))).astype(np.float32)


def codes_of(*lengths: int, first: int = 0) -> list[np.ndarray]:
    """Clips whose level 0 counts the frames on from `first`, and whose level 1 is 1000 more."""
    frames = np.split(first + np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    return [np.stack([part, part + 1000]) for part in frames]


def test_speech_is_encoded_as_each_clip_alone_and_kept(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index, seconds in enumerate((0.3, 0.5, 0.2)):
        soundfile.write(folder / f"{index}.wav", noise(seconds, index), 16000)
    Recordings.join([noise(0.4, 9)], [""]).save(tmp_path / "more.npz")
    codec, cache = tiny_codec(), tmp_path / "out" / "codes.npz"
    codes = read_sources([str(folder), str(tmp_path / "more.npz")], codec, cache)
    assert codes.codes.dtype == np.int16 and codes.codec == codec_fingerprint(codec)
    assert codes.ends.tolist() == [15, 40, 50, 70] and codes.sources.tolist() == [3, 4]
    values, _ = soundfile.read(folder / "1.wav", dtype="float32")
    alone = codec.encode(torch.from_numpy(values)[None, None]).audio_codes[0]
    np.testing.assert_array_equal(codes[1], alone)
    again = read_sources([str(folder), str(tmp_path / "more.npz")], _Refusing(codec), cache)
    np.testing.assert_array_equal(again.codes, codes.codes)
    assert again.sources.tolist() == [3, 4]


class _Refusing:
    """A codec that must not be asked again."""

    def __init__(self, codec):
        self.config, self.state_dict = codec.config, codec.state_dict


def test_a_cache_of_another_codec_or_other_data_is_refused(tmp_path):
    source, cache = tmp_path / "speech.npz", tmp_path / "codes.npz"
    Recordings.join([noise(0.4)], [""]).save(source)
    read_sources([str(source)], tiny_codec(), cache)
    with pytest.raises(ValueError, match="codes.npz has codes of the codec .* remove it"):
        read_sources([str(source)], tiny_codec(seed=1), cache)
    with pytest.raises(ValueError, match="but `speech_codec` is not given"):
        read_sources([str(source)], None, cache)
    Recordings.join([noise(0.6)], [""]).save(source)
    with pytest.raises(ValueError, match="made from other data; remove it"):
        read_sources([str(source)], tiny_codec(), cache)
    cache.rename(tmp_path / "foreign.npz")
    with pytest.raises(ValueError, match="foreign.npz has codes of the codec .* encode the speech with one codec"):
        read_sources([str(tmp_path / "foreign.npz")], tiny_codec(seed=1))


def test_codes_are_read_from_npz_and_parquet(tmp_path):
    first = codes_of(3, 2)
    np.savez(tmp_path / "a.npz", codes=np.concatenate(first, 1).astype(np.int16), ends=[3, 5])
    rows = [{"codes": clip.tolist(), "speaker": name} for clip, name in zip(codes_of(2, 2, 4), "xxy", strict=True)]
    (tmp_path / "b").mkdir()
    Dataset.from_list(rows).to_parquet(tmp_path / "b" / "train.parquet")
    codes = read_sources([str(tmp_path / "a.npz"), str(tmp_path / "b")])
    assert codes.ends.tolist() == [3, 5, 7, 9, 13] and codes.sources.tolist() == [2, 4, 5] and codes.codec == ""
    np.testing.assert_array_equal(codes[1], first[1])
    assert codes[4].tolist() == [[4, 5, 6, 7], [1004, 1005, 1006, 1007]]
    assert [codes.source_of(index) for index in range(5)] == [0, 0, 1, 1, 2]


def test_the_last_clips_of_each_source_are_held_out():
    codes = SpeechCodes.join([codes_of(2, 3, 4), codes_of(5, first=50), codes_of(1, 1, 1, 1, first=80)], "abc")
    train, held_out = codes.split(2)
    assert train.codes[0].tolist() == [0, 1, 2, 3, 4, 50, 51, 52, 53, 54, 80, 81]
    assert train.sources.tolist() == [2, 3, 5] and held_out.sources.tolist() == [1, 1, 3]
    assert held_out.codes[0].tolist() == [5, 6, 7, 8, 82, 83] and held_out.codec == "abc"
    assert [part.shape[1] for part in held_out.of_sources()] == [4, 0, 2]
    assert codes.split(0)[1] is None


def test_windows_span_clips_but_not_sources_and_their_number_decides():
    codes = SpeechCodes.join([codes_of(5, 5, 10), codes_of(3, first=100), codes_of(12, first=200)])
    windows, again = (CodeWindows(codes, 8, MASK, seed=5) for _ in range(2))
    starts = []
    torch.manual_seed(0)
    items = [windows[number] for number in range(400)]
    torch.manual_seed(1)
    for number, item in enumerate(items):
        level0 = item["audio_codes"][0].tolist()
        starts.append(level0[0])
        inside = [100 + (level0[0] - 100 + i) % 3 for i in range(8)]
        assert level0 == (inside if 100 <= level0[0] < 103 else list(range(level0[0], level0[0] + 8)))
        assert all(torch.equal(item[name], again[number][name]) for name in item)
        shown, labels = item["audio_codes"][1], item["labels"][0]
        hidden = labels != -100
        assert hidden.any() and (shown[hidden] == MASK).all()
        assert torch.equal(shown.masked_fill(hidden, 0), (item["audio_codes"][0] + 1000).masked_fill(hidden, 0))
    assert set(starts) == {*range(13), 100, 101, 102, *range(200, 205)}
    assert len({tuple(CodeWindows(codes, 8, MASK, seed)[7]["labels"].flatten().tolist()) for seed in range(9)}) > 5


def test_an_epoch_is_as_long_as_the_data_and_fills_its_batches():
    codes = SpeechCodes.join([codes_of(50), codes_of(30, first=100)])
    assert [len(CodeWindows(codes, 8, MASK, multiple_of=n)) for n in (1, 4, 16)] == [10, 12, 16]
    fixed = CodeWindows(codes, 8, MASK).fixed(4)
    assert fixed.shape == (4, 2, 8) and fixed[:, 0, 0].tolist() == [0, 16, 32, 100]
    assert CodeWindows(codes, 8, MASK).fixed(99).shape == (9, 2, 8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"codes": np.zeros((2, 4), int)}, "lacks the array `ends`"),
        ({"ends": [4]}, "lacks the array `codes`"),
        ({"codes": np.zeros((2, 4)), "ends": [4]}, r"is float64 \(2, 4\), expected integers"),
        ({"codes": np.zeros(4, int), "ends": [4]}, r"\(4,\), expected integers \(levels, frames\)"),
        ({"codes": np.zeros((2, 4), int), "ends": [2, 2, 4]}, "`ends` of .* does not rise to 4"),
        ({"codes": np.zeros((2, 4), int), "ends": [3]}, "`ends` of .* does not rise to 4"),
        ({"codes": np.zeros((2, 0), int), "ends": []}, "`ends` of .* does not rise to 0"),
    ],
)
def test_unusable_codes_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "codes.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_sources([str(tmp_path / "codes.npz")])


def test_unusable_sources_are_named(tmp_path):
    with pytest.raises(ValueError, match="`data` is empty"):
        read_sources([])
    with pytest.raises(FileNotFoundError, match="no such folder or file"):
        read_sources([str(tmp_path / "gone")])
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="no readable .npz"):
        read_sources([str(tmp_path / "broken.npz")])
    Recordings.join([noise(0.1)], [""]).save(tmp_path / "speech.npz")
    with pytest.raises(ValueError, match="speech.npz is speech: give the codec .* `speech_codec`"):
        read_sources([str(tmp_path / "speech.npz")])
    for name, rows, message in (
        ("other", [{"text": "a"}], "no column `codes`"),
        ("ragged", [{"codes": [[1, 2], [1]]}], r"levels of \[1, 2\] codes"),
        ("empty", [{"codes": [[], []]}], r"levels of \[0\] codes"),
    ):
        Dataset.from_list(rows).to_parquet(tmp_path / f"{name}.parquet")
        with pytest.raises(ValueError, match=message):
            read_sources([str(tmp_path / f"{name}.parquet")])
    for levels in (2, 3):
        np.savez(tmp_path / f"{levels}.npz", codes=np.zeros((levels, 4), int), ends=[4])
    with pytest.raises(ValueError, match=r"codes of \[2, 3\] levels"):
        read_sources([str(tmp_path / "2.npz"), str(tmp_path / "3.npz")])
