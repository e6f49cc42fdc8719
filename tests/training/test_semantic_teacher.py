import numpy as np
import torch

from solami_hf.training.speech import semantic_teacher
from solami_hf.training.speech.semantic_teacher import (
    TeacherArguments,
    TeacherTrainingArguments,
    Transcribed,
    collate,
    make_teacher,
    to_ids,
    to_text,
    train_teacher,
)
from solami_hf.training.speech.speech_codec_losses import SemanticTeacher
from solami_hf.training.speech_recordings import Recordings

TINY = TeacherArguments(hidden_size=32, num_layers=1)


def tones(count):
    """Clips of which each says one letter: a short tone of the letter's pitch between silence."""
    clips = []
    for index in range(count):
        clip = 0.001 * np.random.default_rng(index).standard_normal(16000)
        clip[4000:12000] += 0.3 * np.sin(np.arange(8000) * (0.05, 0.2, 0.8)[index % 3])
        clips.append(clip.astype(np.float32))
    return Recordings.join(clips, ["abc"[index % 3] for index in range(count)])


def test_text_there_and_back():
    ids = to_ids("It's Ada, 2 O'Clock!")
    assert to_text(torch.tensor(ids)) == "it's ada o'clock"  # what is spoken in digits and commas is left out
    assert to_text(torch.tensor([0, 4, 4, 0, 4, 0])) == "bb"


def test_a_batch_gives_what_its_clips_give():
    torch.manual_seed(0)
    model = make_teacher(TINY).eval()
    data = Transcribed(Recordings.join([np.ones(16000) * 0.1, tones(1)[0][:9600]], ["a", "b"]), extractor())
    batch = collate([data[0], data[1]])
    with torch.no_grad():
        both = model(batch["input_features"], attention_mask=batch["attention_mask"]).logits[1]
        alone = model(**{k: v for k, v in collate([data[1]]).items() if k != "labels"}).logits[0]
    torch.testing.assert_close(both[: len(alone)], alone, atol=1e-4, rtol=1e-4)
    assert batch["labels"].tolist() == [[to_ids("a")[0]], [to_ids("b")[0]]]


def extractor():
    return semantic_teacher.SeamlessM4TFeatureExtractor()


def test_it_learns_what_is_said_and_can_teach(monkeypatch, tmp_path):
    monkeypatch.setattr(semantic_teacher, "speech_data", lambda *_, **__: (tones(24), tones(6)))
    arguments = TeacherTrainingArguments(
        output_dir=str(tmp_path), max_steps=300, per_device_train_batch_size=6, learning_rate=3e-3, warmup_steps=20,
        use_cpu=True, disable_tqdm=True, save_steps=300,
    )  # fmt: skip
    assert train_teacher(TINY, arguments) < 0.4  # three letters: two thirds are wrong by chance
    teacher = SemanticTeacher(tmp_path, -1, 16000)
    assert teacher(torch.zeros(1, 1, 3200) + 0.01 * torch.randn(1, 1, 3200), 10).shape == (1, 10, 32)
