"""Recordings in the forms that other libraries give them: one function reads them, and every door uses it."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from solami_hf.processing.audio.waveforms import read_audio

TONE = (0.3 * np.sin(np.arange(9600) * 0.1)).astype(np.float32)
FAST = np.repeat(TONE, 3)  # the same 0.6 s at 48 kHz, roughly
INT16 = np.round(TONE * 32767).astype(np.int16)
STEREO = np.stack([TONE, TONE])


def wav(values=INT16, rate=16000, **options) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, values, rate, format="WAV", **options)
    return out.getvalue()


class Decoder:
    """What `datasets.Audio` gives where torchcodec is installed."""

    def __init__(self, values, rate):
        self.samples = SimpleNamespace(data=torch.from_numpy(values), sample_rate=rate)

    def get_all_samples(self):
        return self.samples


FORMS = {
    "a dict of datasets": lambda f: {"array": TONE, "sampling_rate": 16000, "path": None},
    "a dict with its path": lambda f: {"array": TONE, "sampling_rate": 16000, "path": "gone.wav"},
    "a dict without a rate": lambda f: {"array": TONE},
    "lists from a table": lambda f: {"array": STEREO.tolist(), "sampling_rate": 16000},
    "a dict of a pipeline": lambda f: {"raw": TONE, "sampling_rate": 16000},
    "an undecoded row": lambda f: {"bytes": wav(), "path": "a.wav"},
    "an undecoded file": lambda f: {"bytes": None, "path": str(f / "a.wav")},
    "a url": lambda f: {"url": str(f / "a.wav")},
    "a file url": lambda f: {"url": (f / "a.wav").as_uri()},
    "a data url": lambda f: "data:audio/wav;base64," + base64.b64encode(wav()).decode(),
    "a path": lambda f: f / "a.wav",
    "bytes": lambda f: wav(),
    "a memory view": lambda f: memoryview(wav()),
    "soundfile's pair": lambda f: soundfile.read(f / "a.wav"),
    "scipy's pair": lambda f: (16000, INT16),
    "a pair of a tensor": lambda f: (torch.from_numpy(STEREO), 16000),
    "a pair of a list": lambda f: [TONE.tolist(), 16000],
    "a file of bytes": lambda f: io.BytesIO(wav()),
    "a file that was written": lambda f: written(),
    "an open file": lambda f: open(f / "a.wav", "rb"),
    "an open sound file": lambda f: soundfile.SoundFile(f / "a.wav"),
    "a decoder": lambda f: Decoder(STEREO, 16000),
    "decoded samples": lambda f: Decoder(TONE[None], 16000).samples,
    "stereo": lambda f: STEREO.T,
    "one channel": lambda f: TONE[None],
    "int16": lambda f: INT16,
    "a tensor": lambda f: torch.from_numpy(STEREO).requires_grad_(),
}


def written():
    out = io.BytesIO()
    soundfile.write(out, INT16, 16000, format="WAV")  # which leaves it at its end
    return out


@pytest.mark.parametrize("form", FORMS)
def test_forms(form, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav())
    given = FORMS[form](tmp_path)
    for _ in range(2):  # a file object, too
        np.testing.assert_allclose(read_audio(given), TONE, atol=1e-4)


RATES = {
    "a dict": ({"array": FAST, "sampling_rate": 48000}, None),
    "a pair": ((FAST, 48000), None),
    "a pair of numpy's numbers": ((FAST, np.int64(48000)), None),
    "scipy's pair": ((48000, FAST), None),
    "a decoder": (Decoder(FAST[None], 48000), None),
    "beside": (FAST, 48000),
    "within, not beside": ({"array": FAST, "sampling_rate": 48000}, 8000),
    "a file": (io.BytesIO(wav(FAST, 48000)), 8000),
}


@pytest.mark.parametrize("case", RATES)
def test_rates(case):
    given, beside = RATES[case]
    assert read_audio(given, source_rate=beside).shape == (9600,)


REFUSED = {
    "two recordings": ([TONE, TONE], "a list of 2 recordings"),
    "two tensors": ([torch.from_numpy(TONE)] * 2, "a list of 2 recordings"),
    "two of other lengths": ([TONE, TONE[:9]], "a list of 2 recordings"),
    "an empty dict": ({}, "got nothing"),
    "nothing in it": ({"bytes": None, "path": None}, "got bytes, path"),
    "an unknown name": ({"array": TONE, "sample_rate": 48000}, "got array, sample_rate"),
    "two contents": ({"array": TONE, "url": "a.wav"}, "told by one of"),
    "an address": ("https://example.org/a.wav", "not on this machine; download it"),
    "an address in a block": ({"url": "hf://datasets/a/b.wav"}, "not on this machine"),
    "a rate in words": ({"array": TONE, "sampling_rate": "48000"}, "'48000', expected 1000 to"),
    "a text file": (io.StringIO("hello"), "open it with mode 'rb'"),
    "a file of nothing": (io.BytesIO(), "audio is not a readable sound file"),
    "half a file": (wav()[:9000], "audio is cut short"),
    "16 bits as int64": ({"array": INT16.tolist(), "sampling_rate": 16000}, "int64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        read_audio(given)


BLOCKS = {
    "in the block": {"type": "audio", "array": FAST, "sampling_rate": 48000},
    "a rate in the block": {"type": "audio", "audio": FAST, "sampling_rate": 48000},
    "a dict": {"type": "audio", "audio": {"array": FAST, "sampling_rate": 48000}},
    "of one schema for all blocks": {"type": "audio", "audio": (FAST, 48000), "text": None, "motion": {"body": None}},
    "with its path": {"type": "audio", "audio": FAST, "sampling_rate": 48000, "path": "gone.wav"},
}


@pytest.mark.parametrize("case", BLOCKS)
def test_blocks_of_a_chat(case, tiny_processor):
    """The same ids, and the same text, as of the recording in its plain form."""
    expected = read_audio(FAST, source_rate=48000)
    for tokenize in (True, False):
        said, plain = (
            tiny_processor.apply_chat_template([{"role": "user", "content": [block]}], tokenize=tokenize)
            for block in (BLOCKS[case], {"type": "audio", "audio": expected})
        )
        assert said == plain and len(said) > 30


@pytest.mark.parametrize("where", ["path", "url"])
def test_files_in_blocks(where, tiny_processor, small_motion, tmp_path):
    from solami_hf.processing.motion.motion_io import write_motion

    (tmp_path / "a.wav").write_bytes(wav())
    write_motion(tmp_path / "m.npz", small_motion)
    named = [{"type": "audio", where: str(tmp_path / "a.wav")}, {"type": "motion", where: str(tmp_path / "m.npz")}]
    plain = [{"type": "audio", "audio": INT16}, {"type": "motion", "motion": small_motion}]
    ids, expected = (
        tiny_processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True)
        for content in (named, plain)
    )
    assert ids == expected


def test_a_rate_for_all_arrays(tiny_processor):
    expected = tiny_processor(audio=(FAST, 48000))["input_ids"]
    for options in ({"sampling_rate": 48000}, {"audio_kwargs": {"sampling_rate": 48000}}):
        assert tiny_processor(audio=FAST, **options)["input_ids"] == expected
        chat = [{"role": "user", "content": [{"type": "audio", "audio": FAST}]}]
        for given in (options, {"processor_kwargs": options}):
            assert tiny_processor.apply_chat_template(chat, tokenize=True, **given)[1:-1] == expected
    (codes,) = tiny_processor.encode_speech([FAST], sampling_rate=48000)
    assert len(codes) == len(expected) - 2 == 30


def test_several_recordings_are_a_batch(tiny_processor, small_motion):
    one, other = (tiny_processor(audio=values)["input_ids"] for values in (TONE, FAST))
    for both in (
        [TONE, FAST],
        (TONE.tolist(), torch.from_numpy(FAST)),
        [{"array": TONE}, wav(FAST, 16000, subtype="FLOAT")],
    ):
        assert tiny_processor(audio=both)["input_ids"] == [one, other]
    assert tiny_processor(audio=[TONE])["input_ids"] == [one]
    assert tiny_processor(audio=TONE.tolist())["input_ids"] == one
    batch = tiny_processor(
        ["hi", "ho"], [small_motion] * 2, [TONE, FAST], return_tensors="pt", padding=True, padding_side="left"
    )
    alone = tiny_processor("hi", small_motion, TONE)["input_ids"]
    assert batch["input_ids"][0][batch["attention_mask"][0].bool()].tolist() == alone
    assert not batch["attention_mask"][0, 0] and batch["attention_mask"][1].all()
    with pytest.raises(ValueError, match="lists of one length; got text: one, audio: a list of 2"):
        tiny_processor("hi", audio=[TONE, FAST])
    with pytest.raises(ValueError, match="text: a list of 3, audio: a list of 2"):
        tiny_processor(["hi"] * 3, audio=[TONE, FAST])


@pytest.mark.parametrize("given", ["a.wav", b"RIFF", {"array": TONE}, 5, None])
def test_encoders_take_lists(given, tiny_processor):
    with pytest.raises(ValueError, match="takes a list of recordings, got"):
        tiny_processor.encode_speech(given)
