import numpy as np
import pytest
import soundfile
import torch

from solami_hf.processing.audio import read_audio, write_audio


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
    with pytest.raises(ValueError, match="expected a positive number"):
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
