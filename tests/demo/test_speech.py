"""The spoken corpus: what is spoken, what is held out, and trimming."""

import json

import numpy as np
import soundfile

from solami_hf.demo.corpus import demo_speech as speech
from solami_hf.demo.corpus.demo_speech import (
    TEST_RATES,
    TRAIN_RATES,
    lines_to_speak,
    trim_silence,
    wav_name,
    write_speech_corpus,
)
from solami_hf.demo.corpus.dialogues import load_dialogues


def test_silent_ends_go():
    wave = np.zeros(16000, np.float32)
    wave[8000:9000] = 0.5
    trimmed = trim_silence(wave, margin=0.01)
    assert len(trimmed) == 1600 and not trimmed[160 + 1000 :].any() and trimmed[160] == 0.5
    assert np.array_equal(trim_silence(np.zeros(5)), np.zeros(5))


def test_held_out_rates_and_phrasings_are_not_trained_on():
    assert not set(TRAIN_RATES) & set(TEST_RATES)
    rows = list(speech._rows(load_dialogues()))
    spoken = {
        split: {t["audio"] for r in rows if r["split"] == split for t in r["turns"][:1]} for split in ("train", "test")
    }
    assert not spoken["train"] & spoken["test"]
    train_texts = {r["turns"][0]["text"] for r in rows if r["split"] == "train"}
    assert not train_texts & {r["turns"][0]["text"] for r in rows if r["source"] == "unseen"}
    jobs = {wav_name(*job) for job in lines_to_speak(load_dialogues())}
    assert {t["audio"] for r in rows for t in r["turns"]} <= jobs
    assert len(jobs) == len(lines_to_speak(load_dialogues()))


def test_files_are_written_with_the_real_voice(tmp_path, monkeypatch):
    ada = load_dialogues()[:1]
    monkeypatch.setattr(speech, "lines_to_speak", lambda _: [("Hello there, my friend.", 1.0)])
    write_speech_corpus(tmp_path, ada)
    wave, rate = soundfile.read(tmp_path / wav_name("Hello there, my friend.", 1.0))
    assert rate == 16000 and 0.6 < len(wave) / rate < 2.5 and np.abs(wave).max() > 0.1
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert {r["split"] for r in rows} == {"train", "test"} and len({r["id"] for r in rows}) == len(rows)
