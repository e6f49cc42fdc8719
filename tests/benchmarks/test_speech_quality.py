import json

import numpy as np
import pytest
import torch

from benchmarks import judged_voices, speech_quality
from benchmarks.judged_voices import Voice, held_out_sentences, read_voice
from benchmarks.speech_quality import Cache, Judges, Measurement, Pair, clips_of, main, measure, prompt_plan
from benchmarks.speech_quality_figures import ratio, summarize, tables, targets
from solami_hf.metrics.evaluation.figures import word_errors
from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.audio.packaged_speech import FOLDER
from solami_hf.processing.audio.speech_sentences import sentences
from solami_hf.training.speech_recordings import Recordings

SIZES = {"slt": (4000, 3000, 5000, 3200, 4100), "rms": (4100, 3900, 2000, 4200, 5100), "joe": (3000, 2600)}


def hum(size: int, pitch: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(size) / 16000)).astype(np.float32)


def fake_voice(name: str, count: int = 5, rate: int = 16000, seconds: float = 0.1) -> Voice:
    if name == "kdl":
        raise FileNotFoundError("festival is not installed")
    pitch = 100.0 * (1 + list(SIZES).index(name))
    clips = [hum(size, pitch + 10 * i) for i, size in enumerate(SIZES[name][:count])]
    prompts = [hum(round(seconds * rate) - 320 * i, pitch) for i in range(2)]
    texts = [f"say number {i} now" for i in range(len(clips))]
    return Voice(name, judged_voices.kind(name), Recordings.join(clips, texts), Recordings.join(prompts, ["", ""]))


class FakeJudges(Judges):
    """Hears every word as long as no codec is between, and takes a clip's loudness and length for its speaker."""

    calls: list[str] = []

    def transcribe(self, clips, label):
        self.calls.append(label)
        return np.array([f"say number {i} now" if label.endswith("own") else "say" for i in range(len(clips))])

    def embed(self, clips):
        rows = np.array([[clip.std(), len(clip) / 16000, 0.1] for clip in clips], np.float32).reshape(-1, 3)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    codec = SolamiSpeechCodecConfig(
        num_filters=2, hidden_size=8, num_quantizers=3, codebook_size=16, semantic_size=4, num_lstm_layers=1
    )
    storm = SolamiSoundStormConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8, intermediate_size=8, conv_channels=8,
        conv_kernel_size=3, num_quantizers=3, codebook_size=16, num_semantic_codes=16,
    )  # fmt: skip
    return Pair(SolamiSpeechCodecModel(codec), SolamiSoundStormModel(storm))


def test_word_errors_are_counted_after_normalization():
    said = ["Please wave, now!", "nothing", ""]
    texts = ["please wave now.", "Do it.", "I'm here"]
    assert word_errors(said, texts).tolist() == [[0, 3], [2, 2], [3, 3]]


def test_interval_holds_the_rate():
    assert ratio(np.ones(5), np.full(5, 4)) == {"value": 0.25, "low": 0.25, "high": 0.25}
    spread = ratio(np.array([0] * 50 + [5] * 50), np.full(100, 5))
    assert spread["value"] == 0.5 and 0.38 < spread["low"] < 0.42 and 0.58 < spread["high"] < 0.62


def test_differences_are_paired():
    # Hard sentences stay hard: each gets exactly one error of ten more, so the difference has no spread.
    own = {"errors": np.array([[0, 10], [8, 10], [2, 10], [5, 10]])}
    worse = {"errors": own["errors"] + [1, 0]}
    figures = summarize([worse], [own])
    assert figures["added"] == {"value": 0.1, "low": 0.1, "high": 0.1}
    assert figures["wer"]["value"] == 0.475 and figures["wer"]["low"] < 0.3
    assert "added" not in summarize([own], [own])


def test_speaker_shares():
    part = {
        "errors": np.array([[0, 4], [0, 4]]),
        "to_own": np.array([0.9, 0.6]),
        "to_others": np.array([[0.5, 0.6, 0.9], [0.7, 0.5, 0.4]]),
    }
    figures = summarize([part, part], [part, part])
    assert figures["pairs"]["value"] == round(8 / 12, 4) and figures["pairs"]["count"] == 12  # a draw is not won
    assert figures["nearest"]["value"] == 0.0 and figures["nearest"]["count"] == 4
    assert figures["to_own"] == 0.75 and figures["to_others"] == 0.6


def test_targets():
    def row(added: float, pairs: float) -> dict:
        return {
            "all_levels": {"added": {"value": added, "low": 0.0, "high": 0.1}},
            "acoustic": {
                "added": {"value": added, "low": 0, "high": 1},
                "pairs": {"value": pairs, "low": 0, "high": 1},
            },
        }

    voices = {
        "slt": {"kind": "trained", "conditions": row(0.04, 0.9)},
        "rms": {"kind": "trained", "conditions": row(0.05, 0.89)},
        "joe": {"kind": "unseen", "conditions": row(0.5, 0.1)},
    }
    rows = targets(voices, row(0.045, 0.95))
    assert [(r["condition"], r["what"], r["met"]) for r in rows] == [
        ("all_levels", "added", False), ("acoustic", "added", True), ("acoustic", "pairs", True),
    ]  # fmt: skip
    assert [r["met_by_voice"] for r in rows] == [
        {"slt": True, "rms": False}, {"slt": True, "rms": True}, {"slt": True, "rms": False},
    ]  # fmt: skip


def test_prompts_take_turns():
    trained = [fake_voice("slt"), fake_voice("rms")]
    assert prompt_plan(trained[0], "acoustic", trained) == [("slt", 0), ("slt", 1), ("slt", 0), ("slt", 1), ("slt", 0)]
    rotated = prompt_plan(trained[0], "acoustic_other", trained)
    assert rotated == [("rms", 0), ("rms", 1), ("rms", 0), ("rms", 1), ("rms", 0)]


def test_batches_give_what_single_clips_give(pair):
    clips = clips_of(fake_voice("slt").speech)
    prompts = pair.encode(clips_of(fake_voice("rms").prompts))
    assert len(prompts[0]) != len(prompts[1])
    chosen = [prompts[i % 2] for i in range(5)]
    filled = pair.fill(pair.encode(clips), chosen)
    sound = pair.decode(filled)
    for clip, prompt, codes, values in zip(clips, chosen, filled, sound, strict=True):
        alone = pair.fill(pair.encode([clip]), [prompt])
        assert torch.equal(alone[0], codes) and torch.equal(codes[:, 0], pair.encode([clip])[0][:, 0])
        assert len(values) == 320 * len(codes) and np.abs(pair.decode(alone)[0] - values).max() < 1e-5


def test_measurement_and_resuming(pair, tmp_path):
    voices = [fake_voice(name) for name in SIZES]
    judges, cache = FakeJudges(), Cache(tmp_path)
    FakeJudges.calls = []
    figures = measure(Measurement(pair, voices, judges, cache))
    assert len(judges.calls) == 5 + 5 + 4  # joe was not trained on: nobody speaks with another's prompt for it
    assert figures["voices"]["slt"]["conditions"]["own"]["wer"]["value"] == 0.0
    # of the four words one is heard
    assert figures["voices"]["slt"]["conditions"]["all_levels"]["added"] == {"value": 0.75, "low": 0.75, "high": 0.75}
    assert set(figures["trained"]) == {"own", "all_levels", "level_0", "acoustic", "acoustic_other"}
    assert figures["trained"]["own"]["pairs"]["count"] == 10
    assert figures["voices"]["joe"]["conditions"]["own"]["pairs"]["count"] == 4  # against both trained voices
    assert measure(Measurement(pair, voices, judges, cache)) == figures
    assert len(judges.calls) == 14
    torch.manual_seed(1)
    other = Pair(SolamiSpeechCodecModel(pair.codec.config), pair.acoustic)
    assert other.fingerprint != pair.fingerprint
    measure(Measurement(other, voices, judges, cache))
    assert len(judges.calls) == 14 + 4 + 4 + 3  # all but the voices themselves anew
    text = tables({**figures, "skipped": {"kdl": "festival is not installed"}})
    assert "| slt | 0.0 (0.0 to 0.0) | 75.0 (75.0 to 75.0) |" in text and "kdl (festival is not installed)" in text
    assert "| all levels: points of WER above the own | <= 4 | 75.0 (75.0 to 75.0) | no | slt, rms |" in text


def test_command_without_acoustic_model(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(judged_voices, "read_voice", fake_voice)
    monkeypatch.setattr(speech_quality, "Judges", FakeJudges)
    pair.codec.save_pretrained(tmp_path / "codec")
    output = tmp_path / "out" / "quality.json"
    main(["--codec", str(tmp_path / "codec"), "--output", str(output), "--voices", "slt", "joe", "kdl"])
    figures = json.loads(output.read_text(encoding="utf-8"))
    assert figures["skipped"] == {"kdl": "festival is not installed"} and figures["acoustic_model"] is None
    assert set(figures["voices"]["slt"]["conditions"]) == {"own", "all_levels", "level_0"}
    # One trained voice alone has no competitor; against it joe has one.
    assert "pairs" not in figures["voices"]["slt"]["conditions"]["own"]
    assert output.with_suffix(".md").read_text(encoding="utf-8").startswith("| asked of the trained voices |")
    assert len(list((tmp_path / "out" / "quality_parts").glob("slt-*.npz"))) == 5


def test_held_out_sentences_are_not_prompted_with():
    held_out = held_out_sentences(120)
    assert len(set(held_out)) == 120 and held_out == sentences(7620, 0)[:120]
    prompts = judged_voices._prompt_texts(18)
    assert len(set(prompts)) == 18 and not set(prompts) & set(sentences(7620, 0))


@pytest.mark.parametrize("count", [0, 121])
def test_bad_count(count):
    with pytest.raises(ValueError, match="expected 1 to 120"):
        held_out_sentences(count)


def test_missing_sources_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(judged_voices.shutil, "which", lambda name: None)
    monkeypatch.setattr(judged_voices, "LIBRIVOX", tmp_path)
    monkeypatch.setattr(judged_voices, "ALLISON", tmp_path / "none")
    for name, package in (
        ("kdl", "festvox"),
        ("espeak", "espeak-ng"),
        ("librivox", "pocketsphinx"),
        ("allison", "ast"),
    ):
        with pytest.raises(FileNotFoundError, match=f"apt-get install.*{package}"):
            read_voice(name, 2, 16000, 3.0)
    with pytest.raises(ValueError, match="expected one of heart"):
        read_voice("nobody", 2, 16000, 3.0)


def test_recordings_are_read(monkeypatch, tmp_path):
    from solami_hf.processing.audio.waveforms import write_audio

    rows = []
    for index, name in enumerate(("a-0870", "a-0880", "a-0890", "a-0920", "a-0930")):
        write_audio(tmp_path / f"{name}.wav", hum(20000 + 100 * index, 150), 16000)
        rows.append(f"<s> words of {name} </s> ({name})")
    (tmp_path / "transcription").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.setattr(judged_voices, "LIBRIVOX", tmp_path)
    voice = read_voice("librivox", 120, 16000, 3.0)
    assert voice.kind == "recording"
    assert voice.speech.texts == ["words of a-0920", "words of a-0930"]
    assert [len(clip) for clip in clips_of(voice.speech)] == [20300, 20400]
    assert len(voice.prompts[0]) == 48000  # the other clips: 60300 samples, cut to 3 s


@pytest.mark.slow
def test_packaged_speech_is_understood(tmp_path):
    output = tmp_path / "quality.json"
    models = ["--codec", str(FOLDER / "speech_codec"), "--acoustic_model", str(FOLDER / "acoustic_model")]
    main([*models, "--output", str(output), "--voices", "heart", "rms", "--sentences", "20"])
    voices = json.loads(output.read_text(encoding="utf-8"))["voices"]
    for name, limits in (("heart", (0.05, 0.15, 0.2)), ("rms", (0.2, 0.3, 0.4))):
        conditions = voices[name]["conditions"]
        for condition, limit in zip(("own", "all_levels", "acoustic"), limits, strict=True):
            assert conditions[condition]["wer"]["value"] <= limit, (name, condition, conditions)
