"""Results folders as `solami generate` writes them, of little motions and sounds, and ears that cost nothing."""

import json

import numpy as np
import pytest

from solami_hf.processing.audio.waveforms import write_audio
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion

COLUMNS = (
    "task", "id", "round", "seed", "condition", "character", "topic", "system", "user_text", "user_motion_text",
    "user_motion", "user_audio", "user_body", "user_hand", "user_trans", "user_speech", "swapped_from", "text", "body",
    "hand", "speech", "valid", "reason", "error", "motion", "audio", "reference_text", "reference_motion_text",
    "reference_body", "reference_hand", "reference_speech", "reference_motion", "reference_audio", "num_tokens",
    "first_token_seconds", "first_motion_seconds", "first_audio_seconds", "seconds", "decode_seconds", "batch",
    "batch_size",
)  # fmt: skip
EMPTY = {"round": 0, "seed": 0, "condition": "given", "text": "", "body": [], "hand": [], "speech": [], "valid": True,
         "reason": "", "error": "", "reference_text": []}  # fmt: skip


def moving(seed: int, frames: int = 24) -> SmplxMotion:
    """A body on the floor whose joints swing slowly, each seed in another way."""
    rng = np.random.default_rng(seed)
    phase, size = rng.uniform(0, 6, (55, 3)), rng.uniform(0.05, 0.5) * rng.normal(size=(55, 3))
    time = np.arange(frames)[:, None, None] / 30
    poses = size * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time + phase)
    poses[:, 0] = 0
    transl = np.array([0.0, 0.9, 0.0]) + time[:, 0] * [0.0, 0.0, rng.uniform(0, 1)]
    return SmplxMotion(transl.astype(np.float32), poses.astype(np.float32))


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    """Intervals of figures that are dear, quickly."""
    monkeypatch.setattr("solami_hf.metrics.evaluation.figures.FID_DRAWS", 10)
    monkeypatch.setattr("solami_hf.metrics.evaluation.figures.CAPTION_DRAWS", 5)


@pytest.fixture
def write_results(tmp_path):
    """`write_results(task, rows, **run)`: a folder of results; rows are given the columns that they lack."""

    def write(task, rows, folder="results", **run):
        path = tmp_path / folder
        path.mkdir(parents=True)
        full = [{**dict.fromkeys(COLUMNS), **EMPTY, "task": task, **row} for row in rows]
        (path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in full))
        run = {"version": 1, "task": task, "checkpoint": "models/tiny", "input": str(tmp_path / "data"),
               "split": "test", "finished": True, **run}  # fmt: skip
        (path / "run.json").write_text(json.dumps(run))
        return path

    return write


@pytest.fixture
def motions(tmp_path):
    """Files of motions in `data/` by number, and of answers near them in `results/media/`."""
    (tmp_path / "data").mkdir(exist_ok=True)

    def file(number, near=0.0, name="m"):
        motion = moving(number, 24 + 3 * number)
        if near:
            noise = np.random.default_rng([number, 7]).normal(size=motion.poses.shape) * near
            motion = SmplxMotion(motion.transl, (motion.poses + noise).astype(np.float32))
        path = tmp_path / "data" / f"{name}{number}-{near}.npz"
        write_motion(path, motion)
        return str(path)

    return file


@pytest.fixture
def t2m(write_results, motions):
    """Two repetitions of eight answers; in the second the last one is malformed."""
    rows = []
    for seed in (0, 1):
        for i in range(8):
            row = {"id": f"c{i}", "seed": seed, "user_text": f"caption {i}", "reference_motion": motions(i),
                   "seconds": 1.0 + i, "decode_seconds": 0.5, "batch_size": 4}  # fmt: skip
            bad = (seed, i) == (1, 7)
            answer = {"valid": False, "reason": "no end"} if bad else {"motion": motions(i, 0.02 + 0.02 * seed)}
            rows.append(row | answer)
    return write_results("t2m", rows, "t2m")


LINES = ["welcome aboard my friend", "the wind is rising now", "hold that rope tight", "we sail at dawn tomorrow"]


@pytest.fixture
def chat(write_results, tmp_path):
    """Four dialogues of two rounds, two seeds, with controls: nothing is right with other sound, and one dialogue of
    four is wrong with another motion."""
    rows = []
    for seed in (0, 1):
        for condition in ("given", "other_audio", "other_motion", "no_history", "own_history"):
            for i, line in enumerate(LINES):
                for turn in (1, 2):
                    hoped = f"{line} {turn}"
                    wrong = condition == "other_audio" or (condition == "other_motion" and i == 0)
                    wrong |= condition == "no_history" and turn == 2
                    rows.append({
                        "id": f"d{i}", "round": turn, "seed": seed, "condition": condition, "character": "ada",
                        "system": "You are Ada.", "user_text": f"hello {i} {turn}",
                        "user_motion_text": "a person waves",
                        "text": "I do not know" if wrong else hoped.capitalize() + "!", "reference_text": [hoped],
                        "reference_motion_text": "a bow", "first_audio_seconds": 0.2, "first_motion_seconds": 0.1,
                        "first_token_seconds": 0.05, "seconds": 2.0, "decode_seconds": 0.5, "batch_size": 1,
                    })  # fmt: skip
    return write_results("chat", rows, "chat")


@pytest.fixture
def with_sound(chat, tmp_path):
    """`chat` with a recording for every answer and reference: the line as samples that the stub recogniser reads."""
    (tmp_path / "data").mkdir(exist_ok=True)
    rows = [json.loads(line) for line in (chat / "results.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        for column, text, folder in (
            ("audio", row["text"], chat),
            ("reference_audio", row["reference_text"][0], tmp_path / "data"),
        ):
            write_audio(folder / f"{number}.wav", spoken(text), 16000)
            row[column] = f"{number}.wav"
    (chat / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return chat


def spoken(text: str) -> np.ndarray:
    """Samples that hold the letters of a text, for `StubTranscriber`."""
    samples = np.zeros(8000, np.float32)
    samples[: len(text)] = np.frombuffer(text.encode("ascii"), np.uint8) / 200
    return samples


class StubTranscriber:
    """Reads what `spoken` wrote."""

    def __init__(self, model=None, threads=1):
        pass

    def __call__(self, audio):
        return [bytes(np.rint(clip[:60] * 200).astype(np.uint8)).rstrip(b"\0").decode("latin1") for clip in audio]


class StubSpeaker:
    """Every clip is the same voice but for its loudness."""

    def __init__(self, model=None):
        pass

    def __call__(self, audio):
        return np.array([[1.0, 0.0] for _ in audio], np.float32)


@pytest.fixture
def stub_ears(monkeypatch):
    monkeypatch.setattr("solami_hf.metrics.asr.Transcriber", StubTranscriber)
    monkeypatch.setattr("solami_hf.metrics.speaker.SpeakerEmbedder", StubSpeaker)
