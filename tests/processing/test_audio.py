import numpy as np
import pytest
import soundfile
import torch

from solami_hf.processing.audio import waveforms as audio
from solami_hf.processing.audio.waveforms import limit_loudness, read_audio, resample, trim, write_audio


def tone(rate, seconds=0.5, hertz=220.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 24000, 44100])
def test_files_of_other_rates_are_resampled(tmp_path, rate):
    soundfile.write(tmp_path / "tone.wav", tone(rate), rate)
    values = read_audio(tmp_path / "tone.wav")
    assert values.dtype == np.float32 and values.shape == (8000,)
    # Away from the edges, where the resampling filter sees zeros.
    np.testing.assert_allclose(values[500:-500], tone(16000)[500:-500], atol=2e-3)


def test_stereo_is_averaged(tmp_path):
    left, right = tone(16000), np.zeros(8000, np.float32)
    soundfile.write(tmp_path / "stereo.flac", np.stack([left, right], 1), 16000)
    np.testing.assert_allclose(read_audio(str(tmp_path / "stereo.flac")), left / 2, atol=1e-4)
    for stereo in (np.stack([left, right]), torch.from_numpy(np.stack([left, right], 1))):
        np.testing.assert_allclose(read_audio(stereo), left / 2, atol=1e-7)


def test_arrays_of_other_types():
    assert read_audio(np.array([-32768, 0, 16384], np.int16)).tolist() == [-1.0, 0.0, 0.5]
    assert read_audio(np.array([0, 128, 192], np.uint8)).tolist() == [-1.0, 0.0, 0.5]
    assert read_audio(np.array([0.25, -0.5])).dtype == np.float32
    assert read_audio(tone(24000), source_rate=24000).shape == (8000,)
    with pytest.raises(ValueError, match="dtype complex128"):
        read_audio(np.zeros(4, np.complex128))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(0, np.float32), "0 samples"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([0.0, -np.inf]), "infinite"),
        (np.zeros((2, 2, 2)), "shape"),
        (np.float32(0.5), "shape"),
    ],
)
def test_bad_arrays(values, message):
    with pytest.raises(ValueError, match=message):
        read_audio(values)


@pytest.mark.parametrize("rates", [{"sampling_rate": 0}, {"source_rate": -1}])
def test_bad_rates(rates):
    with pytest.raises(ValueError, match="expected 1000 to 1000000"):
        read_audio(np.zeros(4), **rates)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.wav"):
        read_audio(tmp_path / "nothing.wav")
    (tmp_path / "text.wav").write_text("this is no sound")
    with pytest.raises(ValueError, match="not a readable sound file"):
        read_audio(tmp_path / "text.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16000)
    with pytest.raises(ValueError, match="0 samples"):
        read_audio(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "whole.wav", tone(16000), 16000)
    data = (tmp_path / "whole.wav").read_bytes()
    for size in (len(data) // 2, 44, 20):
        (tmp_path / "cut.wav").write_bytes(data[:size])
        with pytest.raises(ValueError, match="cut short|not a readable"):
            read_audio(tmp_path / "cut.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan], np.float32), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="NaN"):
        read_audio(tmp_path / "nan.wav")


def test_written_sound_is_read_back(tmp_path):
    path = tmp_path / "new" / "tone.wav"
    write_audio(path, torch.from_numpy(tone(24000))[None, None], 24000)
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
    np.testing.assert_allclose(read_audio(path, 24000), tone(24000), atol=1e-4)
    assert [file.name for file in path.parent.iterdir()] == ["tone.wav"]


def test_loud_sound_is_turned_down(tmp_path):
    write_audio(tmp_path / "loud.wav", np.array([4.0, -2.0, 0.0], np.float32))
    np.testing.assert_allclose(read_audio(tmp_path / "loud.wav"), [1.0, -0.5, 0.0], atol=1e-4)


@pytest.mark.parametrize("values", [np.array([np.nan]), np.zeros(0), np.zeros((2, 8)), np.zeros((8, 1, 2))])
def test_bad_values_leave_the_file_alone(tmp_path, values):
    path = tmp_path / "tone.wav"
    write_audio(path, tone(16000))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="values"):
        write_audio(path, values)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("name", "rate"), [("24", 24000), ("44", 44100)])
def test_resampling_equals_the_original(golden, name, rate):
    with np.load(golden / "speechtokenizer/resample.npz", allow_pickle=False) as file:
        source, expected = file[f"x{name}"][0], file[f"y{name}"][0]
    np.testing.assert_allclose(read_audio(source, source_rate=rate), expected, atol=1e-6)


@pytest.mark.parametrize("rate", [1000, 7999, 11025, 15999, 44101, 96000, 191999, 1_000_000])
def test_any_rate_is_resampled_in_little_memory(rate):
    seconds = 0.2
    values = read_audio(tone(rate, seconds), source_rate=rate)
    assert abs(len(values) - 16000 * seconds) <= 4
    np.testing.assert_allclose(values[500:-500], tone(16000, seconds)[500 : len(values) - 500], atol=0.02)


def test_a_ratio_in_lowest_terms_is_kept():
    values = tone(44100)
    assert np.array_equal(resample(values, 44100, 16000), resample(values, 441, 160))
    assert resample(values, 16000, 16000) is values


def test_ten_channels_are_averaged(tmp_path):
    channels = np.random.default_rng(0).normal(size=(4000, 10)).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "ten.wav", channels, 16000, subtype="FLOAT")
    for given in (tmp_path / "ten.wav", channels, channels.T):
        np.testing.assert_allclose(read_audio(given), channels.mean(1), atol=1e-7)


def test_long_files_are_read_in_blocks(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "a.wav", values, 16000, subtype="FLOAT")
    monkeypatch.setattr(audio, "_BLOCK", 300)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), values.mean(1), atol=1e-7)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_common_formats(tmp_path, suffix):
    soundfile.write(tmp_path / f"tone.{suffix}", tone(16000), 16000)
    values = read_audio(tmp_path / f"tone.{suffix}")
    assert abs(len(values) - 8000) <= 1200 and 0.4 < np.abs(values).max() < 0.6  # mp3 adds a frame


def test_silence_is_trimmed():
    sound = np.pad(tone(16000), (3200, 6400)) + 1e-4 * np.random.default_rng(0).normal(size=17600).astype(np.float32)
    kept = read_audio(sound, trim_silence=True)
    assert 8000 + 1600 - 200 <= len(kept) <= 8000 + 1600 + 200  # 50 ms stay on each side
    np.testing.assert_array_equal(kept, sound[2400 : 2400 + len(kept)])
    assert np.array_equal(trim(tone(16000), 16000), tone(16000))
    assert len(read_audio(sound)) == 17600
    with pytest.raises(ValueError, match="is silent"):
        read_audio(np.zeros(100), trim_silence=True)


def test_loudness_is_limited_and_never_raised():
    quiet = tone(16000) * 0.1
    np.testing.assert_array_equal(limit_loudness(quiet, 16000), quiet)
    assert np.abs(limit_loudness(quiet * 1e30, 16000)).max() <= 1
    click = np.zeros(16000, np.float32)
    click[100] = -4.0
    np.testing.assert_allclose(limit_loudness(click, 16000).min(), -1.0)
    # A burst of full scale, behind and before silence: the loudest 0.4 s count.
    burst = np.pad(np.ones(16000, np.float32), 160000)
    np.testing.assert_allclose(limit_loudness(burst, 16000).max(), 0.25, rtol=1e-3)
    assert not limit_loudness(np.zeros(5), 16000).any() and limit_loudness(np.zeros(0), 16000).shape == (0,)


def test_loudness_of_what_is_no_number(caplog):
    values = limit_loudness(np.array([np.nan, 0.5, np.inf, -np.inf]), 16000)
    assert np.isfinite(values).all() and values[0] == values[2] == 0 and "3 samples" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0, 1000, -1000]), "int64"),
        ([0, 1000, -1000], "int64"),
        (np.array([0, 20000.0]), "divide 16-bit values by 32768"),
        (np.array([1e300]), "NaN or infinite"),
        (np.array([True, False]), "bool"),
        ("abc".split(), "dtype"),
        (None, "object"),
    ],
)
def test_arrays_that_are_no_waveforms(values, message):
    with pytest.raises(ValueError, match=message):
        read_audio(values)


def test_bfloat16_tensors_are_read():
    assert read_audio(torch.tensor([0.5, -0.25], dtype=torch.bfloat16)).tolist() == [0.5, -0.25]
