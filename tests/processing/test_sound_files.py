"""Whole sound or an error that names the file: lengths that pipes leave, MP3 without a head, cut and joined files."""

import io

import numpy as np
import pytest
import soundfile

from solami_hf.processing.audio.waveforms import read_audio, read_file

TONE = (0.3 * np.sin(np.arange(24000) * 0.09)).astype(np.float32)
RATE = 16000
PLACEHOLDERS = (0, 0x7F000008, 0x7FFF0000, 0x7FFFF000, 0x7FFFFFFF - 36, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF)


def sound(format="WAV", subtype=None, rate=RATE, values=TONE, **options) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, values, rate, format=format, subtype=subtype, **options)
    return out.getvalue()


def patched(data: bytes, *places: tuple[int, bytes]) -> bytes:
    for at, value in places:
        data = data[:at] + value + data[at + len(value) :]
    return data


def piped(name: str, length: int) -> bytes:
    """A file whose header was written before its length was known."""
    data = sound(name)
    order = "big" if name in ("AIFF", "AU", "CAF") else "little"
    small, large = (length & 0xFFFFFFFF).to_bytes(4, order), length.to_bytes(8, order)
    if name == "AU":
        return patched(data, (8, small))
    if name == "RF64":
        return patched(data, (20, large), (28, large), (36, large))
    if name == "CAF":
        return patched(data, (data.index(b"data") + 4, large))
    if name == "W64":
        return patched(data, (16, large), (data.index(b"data\xf3\xac") + 16, large))
    return patched(data, (4, small), (data.index(b"data" if name == "WAV" else b"SSND") + 4, small))


@pytest.mark.parametrize("length", PLACEHOLDERS, ids=hex)
@pytest.mark.parametrize("name", ["WAV", "AIFF", "AU", "W64", "RF64", "CAF"])
def test_placeholders_of_pipes(tmp_path, name, length):
    (tmp_path / "piped").write_bytes(piped(name, length))
    values = read_audio(tmp_path / "piped")
    assert len(values) == len(TONE)
    np.testing.assert_allclose(values, TONE, atol=1e-3)


@pytest.mark.parametrize("name", ["RF64", "CAF"])
def test_placeholders_of_64_bits(name):
    assert len(read_file(io.BytesIO(piped(name, 2**64 - 1)))[0]) == len(TONE)


def test_a_wav_that_was_never_closed():
    data = patched(sound(), (40, bytes(4)))
    assert len(read_file(io.BytesIO(data))[0]) == len(TONE)
    empty = sound(values=TONE[:0])
    for tail in (b"", b"LIST\x04\0\0\0abcd"):
        assert len(read_file(io.BytesIO(empty + tail))[0]) == 0


@pytest.mark.parametrize("tail", [b"LIST\x04\0\0\0abcd", b"LIST\x99\0\0\0abcd", b"TAG" + bytes(125), bytes(4096)])
def test_what_may_follow_a_wav(tail):
    assert len(read_file(io.BytesIO(sound() + tail))[0]) == len(TONE)


FORMATS = [
    ("WAV", None), ("WAVEX", None), ("AIFF", None), ("AU", None), ("W64", None), ("RF64", None), ("CAF", None),
    ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "subtype"), FORMATS)
def test_cut_files_are_refused(tmp_path, name, subtype):
    data = sound(name, subtype)
    for size in (len(data) // 2, len(data) * 2 // 3, len(data) - 20):
        (tmp_path / "cut.snd").write_bytes(data[:size])
        with pytest.raises(ValueError, match="cut.snd is (cut short|not a readable)"):
            read_audio(tmp_path / "cut.snd")


@pytest.mark.parametrize(("name", "subtype"), FORMATS[:-1])
def test_joined_files_are_refused(tmp_path, name, subtype):
    data = sound(name, subtype)
    (tmp_path / "both.snd").write_bytes(data + data)
    with pytest.raises(ValueError, match="both.snd holds several recordings"):
        read_audio(tmp_path / "both.snd")


def test_more_than_the_header_tells(tmp_path):
    (tmp_path / "more.wav").write_bytes(patched(sound(), (40, (1000).to_bytes(4, "little"))))
    with pytest.raises(ValueError, match="more.wav holds 47000 bytes behind the sound"):
        read_audio(tmp_path / "more.wav")


def test_formats_whose_end_is_not_known(tmp_path):
    (tmp_path / "a.sph").write_bytes(sound("NIST"))
    with pytest.raises(ValueError, match="a.sph is a NIST file.*`ffmpeg -i a.sph a.wav`"):
        read_audio(tmp_path / "a.sph")


def frame_length(data: bytes) -> int:
    """Of the first frame of an MP3 at 44.1 kHz, which counts the others."""
    kbits = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[(data[2] >> 4) - 1]
    return 144000 * kbits // 44100 + (data[2] >> 1 & 1)


@pytest.fixture(scope="module")
def mp3():
    """Noise, then silence, then a tone, which a variable rate packs differently: with and without the head."""
    noise = np.random.default_rng(0).normal(size=44100).astype(np.float32) * 0.2
    values = np.concatenate([noise, np.zeros(88200, np.float32), np.tile(TONE, 2)])
    data = sound("MP3", "MPEG_LAYER_III", 44100, values, bitrate_mode="VARIABLE", compression_level=0.5)
    assert b"Xing" in data[:100]
    return len(values), data, data[frame_length(data) :]


ID3 = b"ID3\x03\0\0\0\x02\0\0" + bytes(2 << 14)


@pytest.mark.parametrize(
    ("made", "times"),
    [
        (lambda whole, bare: whole, 1),
        (lambda whole, bare: bare, 1),
        (lambda whole, bare: ID3 + bare + b"TAG" + bytes(125), 1),
        (lambda whole, bare: ID3 + whole, 1),
        (lambda whole, bare: whole + whole, 2),
        (lambda whole, bare: bare + whole, 2),
        (lambda whole, bare: ID3 + whole + ID3 + bare, 2),
    ],
)
def test_mp3_is_read_to_its_end(tmp_path, mp3, made, times):
    samples, whole, bare = mp3
    (tmp_path / "a.wav").write_bytes(made(whole, bare))  # the name says nothing
    values, rate = read_file(tmp_path / "a.wav")
    assert rate == 44100 and samples * times <= len(values) <= (samples + 3000) * times
    loud = np.abs(values[-20000:-8000]).max()
    assert 0.2 < loud < 0.4  # the tone at the end


def test_mp3_that_is_not_whole(tmp_path, mp3):
    samples, whole, bare = mp3
    for number, data in enumerate((whole[:-100], bare[:-100], whole[: len(whole) // 2])):
        (tmp_path / f"{number}.mp3").write_bytes(data)
        with pytest.raises(ValueError, match=f"{number}.mp3 is cut short"):
            read_audio(tmp_path / f"{number}.mp3")
    (tmp_path / "rates.mp3").write_bytes(whole + sound("MP3", rate=16000))
    with pytest.raises(ValueError, match="rates.mp3 holds several recordings"):
        read_audio(tmp_path / "rates.mp3")


def test_an_open_file_is_read_like_its_path(tmp_path, mp3):
    for data in (sound(), piped("WAV", 0), piped("AU", 0), sound("FLAC"), mp3[2]):
        (tmp_path / "a").write_bytes(data)
        np.testing.assert_array_equal(read_file(io.BytesIO(data))[0], read_file(tmp_path / "a")[0])
    with pytest.raises(ValueError, match="audio is not a readable sound file"):
        read_file(io.BytesIO(b"no sound"))


def test_unreadable_media_tell_the_way_out(tmp_path):
    (tmp_path / "memo.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(ValueError, match="memo.m4a is not a readable.*`ffmpeg -i memo.m4a memo.wav`"):
        read_audio(tmp_path / "memo.m4a")
