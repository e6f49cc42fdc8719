"""Three hundred damaged files: every reader of a user's file gives sane values or one error that names the file.

The damage is drawn by a seed, so a failure is found again by the test's id and the number in its message.
"""

import io
import json
import math
import random
import signal
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save

from solami_hf.command_line import read_recipe
from solami_hf.generation.inputs import _listed
from solami_hf.processing.audio.waveforms import read_audio
from solami_hf.processing.datasets.layouts.find_layout import find_layout, read_rows
from solami_hf.processing.datasets.manifests import BadRow, read_manifest
from solami_hf.processing.datasets.prepare_rows import files_of, token_row
from solami_hf.processing.datasets.prepare_shards import Plan
from solami_hf.processing.datasets.results import FEATURES, read_results
from solami_hf.processing.motion.body import rest_joints
from solami_hf.processing.motion.formats.bvh import write_bvh
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.processing.synthesize.scripts import read_characters, read_topics
from solami_hf.processing.synthesize.writers import Answer, CachedWriter, content_hash
from solami_hf.processing.voices import Voices
from solami_hf.training.init import read_characters as read_prompts
from solami_hf.training.soundstorm.soundstorm_data import SpeechCodes, read_sources
from solami_hf.training.speech_recordings import Recordings, read_recordings

SEED, ROUNDS, SECONDS = 18, 12, 20
TONE = (0.3 * np.sin(np.arange(3000) * 0.1)).astype(np.float32)


@pytest.fixture(autouse=True)
def _no_hang():
    def stop(*_):
        pytest.fail(f"a reader took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# ---- small files that are right


def sound(format, subtype=None, rate=16000):
    out = io.BytesIO()
    soundfile.write(out, TONE, rate, format=format, subtype=subtype)
    return out.getvalue()


def npz(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


rng = np.random.default_rng(SEED)
POSES = (rng.normal(size=(6, 165)) * 0.1).astype(np.float32)
AMASS = {"trans": np.zeros((6, 3), np.float32), "poses": POSES, "mocap_frame_rate": np.array(30.0)}
QUATERNIONS = [0.03, 0, 0.9, 0, 1, 0, 0, 0] + [1, 0, 0, 0] * 3 + [0] + [1, 0, 0, 0] * 2 + [0] + [1, 0, 0, 0] + [0]
QUATERNIONS += [1, 0, 0, 0] * 2 + [0]
TURNS = [{"role": "user", "text": "hi", "audio": "a.wav", "motion": "a.npz"}, {"role": "assistant", "text": "ho"}]
GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2
            text = "hello"
"""
ROW = {name: None for name in FEATURES} | {"task": "t2m", "id": "a", "seed": 0, "round": 0, "condition": "given"}


def bvh():
    with tempfile.TemporaryDirectory() as folder:
        write_bvh(Path(folder) / "a.bvh", SmplxMotion(np.zeros((2, 3)), POSES[:2].reshape(2, 55, 3)))
        return (Path(folder) / "a.bvh").read_bytes()


def humanml3d():
    joints = rest_joints()[:22] + [0, 0.9, 0]
    row = np.concatenate([[0, 0, 0, joints[0, 1]], joints[1:].reshape(-1), np.zeros(263 - 4 - 63)])
    out = io.BytesIO()
    np.save(out, np.tile(row, (3, 1)))
    return out.getvalue()


# ---- readers; each returns what it has read


def audio(path):
    values = read_audio(path)
    assert values.ndim == 1 and len(values) and np.isfinite(values).all()


def motion(path):
    found = read_motion(path)
    assert 0 < found.num_frames <= 1_000_000 and np.isfinite(found.poses).all() and np.isfinite(found.transl).all()


def rows(kind):
    def read(path):
        source = next(folder for folder in path.parents if folder.name == "m")
        found = list(read_rows(source, kind, find_layout(source, kind)))
        assert "\ufffd" not in str(found)
        bad = [row for row in found if isinstance(row, BadRow)]
        assert all(row.reason and row.id for row in bad)
        plan = Plan(found)
        for shard in plan.shards():
            for row in plan.rows(shard):
                list(files_of(kind, row))
                try:
                    token_row(kind, row, defaultdict(dict))
                except ValueError as error:
                    assert str(error)

    return read


def voice(path):
    folder = path.parent.parent
    found = Voices.load(folder)
    for name in found.names:
        assert found.codes(name).min() >= 0


def judged(path):
    writer = SimpleNamespace(name="judge", complete=lambda messages, seed, schema: Answer("new"))
    kept = CachedWriter(writer, path.parent).complete([], 0, {})
    assert isinstance(kept.text, str)


def recorded(path):
    assert len(Recordings.load(path)) >= 0


def codes(path):
    found = SpeechCodes.load(path)
    assert found[0].shape[1] > 0
    read_sources([str(path)])


JUDGED = f"judge/{content_hash({'writer': 'judge', 'messages': [], 'seed': 0, 'schema': {}})}.json"
VOICES = b'{"Link": {"source": "x", "codec": "y", "seconds": 3.0}}'


def voices_file():
    return save({"audio_codes": np.ones((2, 5), np.int16)})


# name -> reader, file, its content, other files
CASES = {
    "wav": (audio, "a.wav", lambda: sound("WAV")),
    "float wav": (audio, "a.wav", lambda: sound("WAV", "FLOAT")),
    "aiff": (audio, "a.aiff", lambda: sound("AIFF")),
    "flac": (audio, "a.flac", lambda: sound("FLAC")),
    "ogg": (audio, "a.ogg", lambda: sound("OGG")),
    "mp3": (audio, "a.mp3", lambda: sound("MP3")),
    "amass": (motion, "a.npz", lambda: npz(**AMASS)),
    "humanml3d": (motion, "a.npy", humanml3d),
    "deepmimic": (motion, "a.txt", lambda: json.dumps({"Frames": [QUATERNIONS] * 2}).encode()),
    "bvh": (motion, "a.bvh", bvh),
    "manifest": (
        rows("chat"), "m/manifest.jsonl",
        lambda: lines(*({"id": n, "topic": "t", "character": "c", "turns": TURNS} for n in "ab")),
    ),
    "motion table": (rows("motion"), "m/manifest.csv", lambda: b"id,motion,text,start\na,a.npz,x|y,0\nb,b.npz,z\n"),
    "speech table": (rows("speech"), "m/manifest.tsv", lambda: b"audio\ttext\tsplit\na.wav\thi\ttest\nb.wav\tho\t\n"),
    "anyinstruct": (
        rows("speech"), "m/metadata.jsonl", lambda: lines({"chat": [{"text": "hi", "audio": "a.wav", "role": "x"}]})
    ),
    "humanml3d texts": (rows("motion"), "m/texts/1.txt", lambda: b"a man walks.#a/DET#0.5#1.5\nhe runs.#x#0.0#0.0\n"),
    "textgrid": (rows("motion"), "m/textgrid/a.TextGrid", lambda: GRID.encode()),
    "training manifest": (
        lambda path: read_manifest(path.parent), "m/manifest.jsonl", lambda: lines({"id": "a", "motion": "a.npz"})
    ),
    "list": (lambda path: _listed(path, "text"), "a.json", lambda: b'[{"id": "a", "text": "hi"}, "ho"]'),
    "results": (lambda path: read_results(path.parent), "r/results.jsonl", lambda: lines(ROW, ROW | {"id": "b"})),
    "run": (lambda path: read_results(path.parent), "r/run.json", lambda: b'{"version": 1, "task": "t2m"}'),
    "voices": (voice, "v/voices/voices.json", lambda: VOICES),
    "voice": (voice, "v/voices/Link.safetensors", voices_file),
    "judge": (judged, JUDGED, lambda: json.dumps({"answer": {"text": "hi"}}).encode()),
    "recipe": (read_recipe, "a.yaml", lambda: b"learning_rate: 1e-4\noutput_dir: x\nseeds: [1, 2]\n"),
    "topics": (read_topics, "a.yaml", lambda: b"- the sea\n- tea\n"),
    "characters": (read_characters, "a.yaml", lambda: b"ada: {name: Ada, system: You are Ada.}\n"),
    "prompts": (read_prompts, "a.json", lambda: b'{"ada": {"name": "Ada", "system": "You are Ada."}}'),
    "recordings": (recorded, "a.npz", lambda: npz(samples=np.ones(9, "i2"), ends=[4, 9], texts=["a", "b"])),
    "codes": (codes, "a.npz", lambda: npz(codes=np.ones((2, 9), "i2"), ends=[4, 9])),
    "list of recordings": (
        lambda path: read_recordings(path, 16000), "a.txt", lambda: b"b.wav\nb.wav\n"
    ),
}  # fmt: skip
BESIDE = {
    "m/new_joint_vecs/1.npy": lambda: b"",
    "m/smplxflame_30/a.npz": lambda: b"",
    "r/run.json": lambda: b'{"version": 1, "task": "t2m"}',
    "r/results.jsonl": lambda: lines(ROW),
    "v/voices/voices.json": lambda: VOICES,
    "v/voices/Link.safetensors": voices_file,
    "b.wav": lambda: sound("WAV"),
}
NEEDS = {"humanml3d texts": "m/new", "textgrid": "m/smplx", "results": "r/run", "run": "r/res", "voices": "v/voices/L"}
NEEDS |= {"voice": "v/voices/v", "list of recordings": "b.wav"}


# ---- damage


def damaged(data: bytes, draw: random.Random) -> bytes:
    """One or two faults: of bytes, or of the numbers and words of a text, or of the arrays of an archive."""
    for _ in range(draw.randint(1, 2)):
        kinds = [_cut, _flipped, _zeroed, _swapped, _huge, _tailed, _other]
        if data[:2] == b"PK":
            kinds = [*kinds[:4], _array, _array, _array]
        elif not data[:200].translate(None, bytes(range(9, 127))):
            kinds = [_cut, _flipped, _zeroed, _token, _token, _token, _token, _other]
        data = draw.choice(kinds)(data, draw)
    return data


def _cut(data, draw):
    return data[: draw.randrange(len(data) + 1)]


def _flipped(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice([1, 4, 30]) if data else 0):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def _zeroed(data, draw):
    start = draw.randrange(len(data) + 1)
    end = min(len(data), start + draw.choice([1, 16, 400]))
    return data[:start] + bytes(end - start) + data[end:]


def _swapped(data, draw):
    a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return data[b:] + data[a:b] + data[:a]


def _huge(data, draw):
    """A number of the head becomes a very large or negative one."""
    at = draw.randrange(min(len(data), 80) + 1)
    value = draw.choice([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0\0\0\x80"])
    return data[:at] + value + data[at + len(value) :]


def _tailed(data, draw):
    return data + draw.choice([data, bytes(5000), draw.randbytes(5000), b"RIFF", b"ID3"])


def _other(data, draw):
    """Nothing of what was asked for."""
    kinds = [b"", b"\n", b"null", b"[1]", b"{}", b'"x"', b"PK\x05\x06" + bytes(18), b"\x80\x04N.", draw.randbytes(300)]
    return draw.choice([*kinds, b"[" * 50_000, "Zoë\n".encode("cp1252"), "Zoë\n".encode("utf-16"), b"\x93NUMPY\1\0"])


def _token(data, draw):
    """A word or number of a text becomes another, or goes."""
    words = [b"NaN", b"1e999", b"-1", b"", b"9" * 30, b"null", b"[]", b"{}", b'"', b"\xff", b"\\ud800", b"\n", b"true"]
    words += [b"0", b"9" * 5000, "Zoë".encode()]
    between = draw.choice([b" ", b",", b":", b"\n"])
    text = data.split(between)
    text[draw.randrange(len(text))] = draw.choice(words)
    return between.join(text)


def _array(data, draw):
    """An array of an archive becomes another."""
    try:
        with np.load(io.BytesIO(data)) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return data
    if not arrays:
        return data
    name = draw.choice(sorted(arrays))
    array = arrays.pop(name)
    if draw.random() < 0.15:
        return npz(**arrays)
    bad = [array.reshape(-1)[:0], array.reshape(-1)[:1], array.astype(str), array[None]]
    bad += [np.full(array.shape, value) for value in (np.nan, np.inf, -1.0, 1e30, 1j)]
    bad += [np.float64(math.nan), np.zeros((0, 3)), np.full(array.shape, True), np.arange(5)[::-1].astype(np.int16)]
    return npz(**arrays, **{name: draw.choice(bad)})


# ---- the test


def place(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("case", CASES)
def test_damaged_files(case, tmp_path):
    read, name, make = CASES[case]
    for beside, content in BESIDE.items():
        if case in NEEDS and beside.startswith(NEEDS[case]):
            place(tmp_path / "files", beside).write_bytes(content())
    path = place(tmp_path / "files", name)
    whole = make()
    path.write_bytes(whole)
    read(path)
    for number in range(ROUNDS):
        draw = random.Random(f"{SEED} {case} {number}")
        path.write_bytes(damaged(whole, draw))
        signal.alarm(SECONDS)
        try:
            read(path)
        except (ValueError, KeyError, OSError) as error:
            text = str(error)
            assert type(error) is not UnicodeDecodeError, f"{case} {number}: {text}"
            names = (path.name, str(tmp_path), f"'{path.stem}'")
            assert any(part in text for part in names), f"{case} {number}: {text!r} does not name {path}"
        except Exception as error:
            raise AssertionError(f"{case} {number}: {error!r}") from error
        signal.alarm(0)
