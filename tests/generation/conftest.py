"""What the tests of answering many inputs share: a model that answers differently, and a folder of dialogues."""

import json

import pytest
import soundfile

from solami_hf.processing.motion.motion_io import write_motion


@pytest.fixture
def talker(tiny_model, tiny_processor):
    """A pipeline whose random answers depend on what was read."""
    import torch

    from solami_hf.generation import SolamiPipeline

    with torch.no_grad():
        for weight in tiny_model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.5)
    return SolamiPipeline(tiny_model, tiny_processor, max_new_tokens=40)


@pytest.fixture
def dialogues(tmp_path, small_motion, small_sound):
    """A chat manifest of five dialogues of two rounds; of the last one a sound is broken."""
    folder = tmp_path / "dialogues"
    write_motion(folder / "wave.npz", small_motion)
    for name, part in (("a", small_sound), ("b", small_sound[:6000] * 0.5)):
        soundfile.write(folder / f"{name}.wav", part, 16000)
    (folder / "broken.wav").write_bytes(b"nothing")
    rows = []
    for i in range(5):
        turns = []
        for number in (1, 2):
            sound = "broken.wav" if (i, number) == (4, 2) else f"{'ab'[(i + number) % 2]}.wav"
            turns.append({"role": "user", "text": f"line {i} {number}", "audio": sound, "motion": "wave.npz"})
            turns.append({"role": "assistant", "text": f"answer {i} {number}", "audio": "a.wav", "motion": "wave.npz"})
        if i == 0:  # hears only, sees only
            del turns[0]["motion"], turns[2]["audio"]
        rows.append({"id": f"d/{i}", "topic": "weather", "character": "ada", "turns": turns, "split": "test"})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
