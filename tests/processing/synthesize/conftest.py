"""A server that speaks the real protocol, three motions to be found, a voice, and the arguments that name them."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.synthesize import SynthesizeArguments

_spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parents[2] / "chat_server.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
chat_server = _module.chat_server

TTS = """
import numpy as np

def speak(text, voice, seed):
    if "unspeakable" in text.lower():
        raise RuntimeError("no such sound")
    rng = np.random.default_rng([len(text), len(voice), seed])
    return (rng.normal(size=4000 + 100 * len(text)) * 0.1).astype("float32"), 16000
"""


def script_for(body: dict, **line) -> str:
    """A script as the request wants it; its words follow from topic and character."""
    asked = body["messages"][1]["content"]
    topic, rounds = re.search("Topic: (.*)", asked)[1], int(re.search(r"exactly (\d+) rounds", asked)[1])
    name = re.search(r"The character is called (.*?)\. This", asked)[1]
    user = {"say": f"Let us talk about {topic}", "emotion": "happy", "motion": "he is waving", **line}
    answer = {"say": f"Gladly, says {name}", "emotion": "calm", "motion": "a deep bow"}
    turns = [{"user": user, "character": {**answer, "say": f"{answer['say']} {i}"}} for i in range(rounds)]
    return json.dumps({"title": "Talk", "topic": topic, "character": name, "rounds": turns})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with chat_server(script_for) as stub:
        stub.script_for = script_for
        yield stub


@pytest.fixture
def motions(tmp_path, small_motion):
    folder = tmp_path / "motions"
    folder.mkdir()
    write_motion(folder / "a.npz", small_motion)
    captions = {"w/1": "a person waves", "bow 2": "someone makes a deep bow", "k": "a person kicks a ball"}
    rows = [{"id": name, "motion": "a.npz", "text": [text]} for name, text in captions.items()]
    rows += [{"id": "t", "motion": "a.npz", "text": "a person is waving", "split": "test"}]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def arguments(tmp_path, motions, server, monkeypatch):
    (tmp_path / "stub_voice.py").write_text(TTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    defaults = dict(num_dialogues=3, base_url=server.url, model="stub", first_wait=0.01, timeout=5.0, concurrency=2)

    def make(output="out", **changes):
        return SynthesizeArguments(str(motions), str(tmp_path / output), **{**defaults, **changes})

    return make


@pytest.fixture
def rows_of():
    """`rows_of(folder, name="manifest")`: the rows of a JSONL file."""

    def read(folder, name="manifest"):
        return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]

    return read
