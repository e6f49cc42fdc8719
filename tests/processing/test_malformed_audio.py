"""Everything that may come as speech and is none, or only just: a clear ValueError or the right result, soon.

A case is a name, what is done with a processor, and a piece of the message, or what a right result has to fulfil.
"""

import io
import pickle
import struct

import numpy as np
import pytest
import soundfile
import torch

from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.modeling.speech_codec.streaming_speech_codec import SpeechCodecDecoderStream
from solami_hf.processing.audio.waveforms import read_audio
from solami_hf.processing.processing_solami import SolamiProcessor

TONE = (0.3 * np.sin(np.arange(16000) * 0.1)).astype(np.float32)
HOUR = 3600 * 16000


def sound_bytes(values=TONE, rate=16000, format="WAV", subtype=None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, values, rate, format=format, subtype=subtype)
    return out.getvalue()


def file(name: str, content):
    """Encodes a file of these bytes (or of what a function gives)."""

    def run(folder, processor):
        (folder / name).write_bytes(content() if callable(content) else content)
        return processor.encode_speech([folder / name])[0]

    return run


def array(values):
    return lambda _, processor: processor.encode_speech([values])[0]


def sparse(name: str, seconds: int):
    """Encodes a wav file of silence that takes no room on the disk."""

    def run(folder, processor):
        data = bytearray(sound_bytes(np.zeros(1, np.int16)))
        size = seconds * 32000
        data[4:8] = struct.pack("<I", 36 + size)
        data[data.index(b"data") + 4 : data.index(b"data") + 8] = struct.pack("<I", size)
        with open(folder / name, "wb") as out:
            out.write(data[: data.index(b"data") + 8])
            out.truncate(data.index(b"data") + 8 + size)
        return processor.encode_speech([folder / name])[0]

    return run


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def flac_of_unknown_length() -> bytes:
    data = sound_bytes(format="FLAC")  # 36 bits of the stream's description count its samples
    return patched(data, 21, bytes([data[21] & 0xF0, 0, 0, 0, 0]))


def flac_that_claims(samples: int) -> bytes:
    data = sound_bytes(format="FLAC")
    return patched(data, 21, bytes([data[21] & 0xF0 | samples >> 32]) + struct.pack(">I", samples & 0xFFFFFFFF))


def decode(codes, **options):
    return lambda _, processor: processor.decode_speech(codes, **options)


def codec_encode(values, **options):
    return lambda _, processor: processor.speech_codec.encode(values, **options).audio_codes


def codec_decode(codes, **options):
    return lambda _, processor: processor.speech_codec.decode(codes, **options).audio_values


def stream(codes):
    return lambda _, processor: SpeechCodecDecoderStream(processor.speech_codec).decode(codes)


def chat(audio):
    content = [{"type": "audio", "audio": audio}]
    return lambda _, processor: processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True)


CODES = torch.zeros(1, 3, 4, dtype=torch.long)

REFUSED = {
    # arrays
    "no samples": (array(np.zeros(0, np.float32)), "0 samples"),
    "no channels": (array(np.zeros((16000, 0))), "0 samples"),
    "no dimension": (array(np.float32(0.5)), "shape"),
    "three dimensions": (array(np.zeros((2, 2, 2))), "shape"),
    "NaN": (array(np.where(np.arange(16000) == 9, np.nan, TONE)), "NaN or infinite"),
    "all NaN": (array(np.full(16000, np.nan)), "NaN or infinite"),
    "infinity": (array(np.where(np.arange(16000) == 9, np.inf, TONE)), "NaN or infinite"),
    "float64 beyond float32": (array(np.full(100, 1e300)), "NaN or infinite"),
    "16-bit values as floats": (array(TONE.astype(np.float64) * 32768), "divide 16-bit values by 32768"),
    "16-bit values as a list": (array([0, 1200, -1200]), "int64"),
    "16-bit values as uint16": (array(np.full(100, 40000, np.uint16)), "uint16"),
    "booleans": (array(np.zeros(16000, bool)), "bool"),
    "complex numbers": (array(TONE.astype(np.complex64)), "complex64"),
    "text": (array(["sound"]), "dtype"),
    "nothing": (array(None), "object"),
    "ragged lists": (array([[0.1, 0.2], [0.3]]), "inhomogeneous"),
    "three hours in an array": (array(np.broadcast_to(np.float16(0), (3 * HOUR,))), "lasts 10800.0 s"),
    "a negative rate": (lambda f, p: read_audio(TONE, source_rate=-8000), "-8000, expected 1000 to 1000000"),
    "a rate of NaN": (lambda f, p: read_audio(TONE, source_rate=float("nan")), "nan, expected 1000 to 1000000"),
    "a rate of 100 Hz": (lambda f, p: read_audio(TONE, source_rate=100), "100, expected 1000 to 1000000"),
    "silence to trim": (lambda f, p: read_audio(np.zeros(800), trim_silence=True), "silent"),
    # files
    "an empty file": (file("bad.wav", b""), "not a readable sound file"),
    "a text file": (file("bad.wav", b"this is no sound\n" * 99), "not a readable sound file"),
    "zeros": (file("bad.wav", bytes(9999)), "not a readable sound file"),
    "a pickle": (file("bad.wav", pickle.dumps([1, 2])), "not a readable sound file"),
    "an array's file as wav": (file("bad.wav", b"\x93NUMPY\x01\x00" + bytes(200)), "not a readable sound file"),
    "a headerless file": (file("bad.raw", TONE.tobytes()), "not a readable sound file"),
    "a header alone": (file("bad.wav", lambda: sound_bytes()[:44]), "cut short|not a readable"),
    "half a header": (file("bad.wav", lambda: sound_bytes()[:20]), "not a readable sound file"),
    "half a wav": (file("bad.wav", lambda: sound_bytes()[:16000]), "cut short"),
    "half a flac": (file("bad.flac", lambda: sound_bytes(format="FLAC")[:3000]), "cut short|not a readable"),
    "half an mp3": (file("bad.mp3", lambda: sound_bytes(format="MP3")[:900]), "cut short|not a readable"),
    "half an ogg": (file("bad.ogg", lambda: sound_bytes(format="OGG")[:3000]), "cut short|not a readable"),
    "a streamed flac": (file("bad.flac", flac_of_unknown_length), "does not say how long it is"),
    "a wav without samples": (file("bad.wav", lambda: sound_bytes(np.zeros(0))), "0 samples"),
    "a wav of NaN": (file("bad.wav", lambda: sound_bytes(np.full(9, np.nan), subtype="FLOAT")), "NaN or infinite"),
    "a wav of 1 Hz": (file("bad.wav", lambda: sound_bytes(rate=1)), "1000 to 1000000"),
    "a wav of 4 GHz": (file("bad.wav", lambda: patched(sound_bytes(), 24, b"\xff\xff\xff\x7f")), "1000 to 1000000"),
    "three hours": (sparse("bad.wav", 3 * 3600), "lasts 10800.0 s, expected at most 120 s"),
    "a flac that claims a day": (file("bad.flac", lambda: flac_that_claims(24 * HOUR)), "bad.flac lasts"),
    "a flac that claims 1 s more": (file("bad.flac", lambda: flac_that_claims(32000)), "cut short|not a readable"),
    # codes
    "no codes": (decode([]), "at least one code"),
    "a code too large": (decode([1, 16]), "must be 0 to 15"),
    "a negative code": (decode([-1, 3]), "must be 0 to 15"),
    "ids instead of codes": (decode([5000, 5001]), "token ids"),
    "half codes": (decode([0.5, 1.5]), "float64"),
    "codes of two dimensions": (decode([[1, 2]]), "integers"),
    "an unknown voice": (decode([1], voice="Link"), "unknown voice 'Link'"),
    "foreign codes in a chat": (chat({"codes": [1, 99]}), "another codec"),
    "a broken wave in a chat": (chat(np.array([np.nan])), "NaN or infinite"),
    "too many levels": (codec_decode(CODES[:, [0, 0, 0, 0]]), "has 4 levels from level 0 on, the codec has 3"),
    "levels behind the last": (codec_decode(CODES, first_quantizer=1), "3 levels from level 1 on"),
    "codes of no level": (codec_decode(CODES[:, :0]), "is empty"),
    "codes without a batch": (codec_decode(CODES[0]), "expected integers of shape"),
    "codes out of range": (codec_decode(CODES + 16), "16 to 16, expected 0 to 15"),
    "a mask of numbers": (codec_decode(CODES, code_mask=torch.ones(1, 4)), "expected torch.bool"),
    "codes out of range in a stream": (stream(CODES - 1), "-1 to -1, expected 0 to 15"),
    "more levels than there are": (codec_encode(torch.zeros(1, 1, 640), num_quantizers=4), "expected 1 to 3"),
    "stereo for the codec": (codec_encode(torch.zeros(1, 2, 640)), "average stereo"),
    "integers for the codec": (codec_encode(torch.zeros(1, 1, 640, dtype=torch.int16)), "torch.int16"),
}  # fmt: skip


def frames(count: int):
    return lambda codes: len(codes) == count and codes.min() >= 0 and codes.max() < 16


def like(values, **options):
    """The same codes as this array gives."""
    return lambda codes, processor: np.array_equal(codes, processor.encode_speech([read_audio(values, **options)])[0])


INT16 = (TONE * 32767).astype(np.int16)

ACCEPTED = {
    "one sample": (array(np.array([0.5])), frames(1)),
    "one sample in a file": (file("a.wav", lambda: sound_bytes(TONE[:1])), frames(1)),
    "one sample at 8 kHz": (file("a.wav", lambda: sound_bytes(TONE[:1], 8000)), frames(1)),
    "silence": (array(np.zeros(640)), frames(2)),
    "int16": (array(INT16), like(INT16.astype(np.float32) / 32768)),
    "int32": (array(INT16.astype(np.int32) << 16), like(INT16)),
    "uint8": (array((TONE * 100 + 128).astype(np.uint8)), frames(50)),
    "float16": (array(TONE.astype(np.float16)), frames(50)),
    "float64": (array(TONE.astype(np.float64)), like(TONE)),
    "a list": (array(TONE.tolist()), like(TONE)),
    "a tensor": (array(torch.from_numpy(TONE)), like(TONE)),
    "backwards": (array(TONE[::-1]), like(TONE[::-1].copy())),
    "big-endian": (array(TONE.astype(">f4")), like(TONE)),
    "10 channels": (array(np.tile(TONE, (10, 1))), like(TONE)),
    "10 channels last": (array(np.tile(TONE, (10, 1)).T), like(TONE)),
    "10 channels in a file": (file("a.wav", lambda: sound_bytes(np.tile(INT16[:, None], 10))), like(INT16)),
    "8 kHz": (file("a.wav", lambda: sound_bytes(TONE, 8000)), frames(100)),
    "44101 Hz": (file("a.wav", lambda: sound_bytes(TONE, 44101)), frames(19)),
    "float64 in a file": (file("a.wav", lambda: sound_bytes(TONE, subtype="DOUBLE")), like(TONE)),
    "24 bits": (file("a.wav", lambda: sound_bytes(TONE, subtype="PCM_24")), frames(50)),
    "u-law": (file("a.wav", lambda: sound_bytes(TONE, 8000, subtype="ULAW")), frames(100)),
    "a flac named wav": (file("a.wav", lambda: sound_bytes(INT16, format="FLAC")), like(INT16)),
    "a wav named mp3": (file("a.mp3", lambda: sound_bytes(INT16)), like(INT16)),
    "an mp3 named wav": (file("a.wav", lambda: sound_bytes(format="MP3")), lambda codes: 50 <= len(codes) <= 57),
    "a wav without a suffix": (file("a", lambda: sound_bytes(INT16)), like(INT16)),
    "a wav with a tail": (file("a.wav", lambda: sound_bytes(INT16) + b"LIST\x04\x00\x00\x00abcd"), like(INT16)),
    "a streamed wav": (file("a.wav", lambda: patched(sound_bytes(INT16), 40, b"\xff" * 4)), like(INT16)),
    "two minutes": (array(np.tile(TONE, 120)), frames(6000)),
    "one level of three": (codec_decode(CODES[:, :1]), lambda values: values.shape == (1, 1, 1280)),
    "codes as a tensor": (decode(torch.tensor([1, 2])), lambda values: values.shape == (640,)),
}  # fmt: skip


@pytest.fixture
def processor(tiny_tokenizer):
    sizes = dict(num_filters=2, hidden_size=8, semantic_size=4, codebook_size=16, num_quantizers=3, num_lstm_layers=1)
    return SolamiProcessor(
        tiny_tokenizer, speech_codec=SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**sizes)).eval()
    )


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path, processor, bounded):
    run, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, processor)
    assert all(path.name in str(caught.value) for path in tmp_path.iterdir()), "the message does not name the file"


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case, tmp_path, processor, bounded):
    run, right = ACCEPTED[case]
    result = run(tmp_path, processor)
    assert right(result, processor) if right.__code__.co_argcount == 2 else right(result)


def test_what_is_not_there(tmp_path, processor):
    (tmp_path / "gone.wav").symlink_to(tmp_path / "none.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "folder.wav").mkdir()
    for name in ("gone.wav", "loop.wav", "folder.wav", "none.wav"):
        with pytest.raises(FileNotFoundError, match=name):
            processor.encode_speech([tmp_path / name])


def test_one_bad_file_of_a_batch_is_named(tmp_path, processor):
    soundfile.write(tmp_path / "good.wav", TONE, 16000)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="bad.wav"):
        processor.encode_speech([tmp_path / "good.wav", tmp_path / "bad.wav"])
