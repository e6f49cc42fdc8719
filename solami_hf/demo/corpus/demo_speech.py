"""The demo's speech: all lines of the dialogues spoken by an offline voice, as a `solami prepare` folder."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...processing.audio.waveforms import read_audio, write_audio
from ...processing.files.text_files import write_json_lines
from .dialogues import Character, nodes

SAMPLING_RATE = 16000
TRAIN_RATES = (0.82, 0.87, 0.94, 1.0, 1.06, 1.18)
ANSWERED_RATES = TRAIN_RATES[1::3]  # two are enough to learn who answers what; the others are for hearing
TEST_RATES = (0.9, 1.12)
ANSWER_RATE = 1.0


def trim_silence(wave: np.ndarray, threshold: float = 0.01, margin: float = 0.06) -> np.ndarray:
    """`wave` `(samples,)` at 16 kHz without its silent ends; `margin` seconds of them are kept. The end is filled with
    silence to a multiple of 0.1 s: the codec encodes clips of equal length together."""
    loud = np.flatnonzero(np.abs(wave) > threshold)
    if not len(loud):
        return wave
    keep = int(margin * SAMPLING_RATE)
    trimmed = wave[max(0, loud[0] - keep) : loud[-1] + keep]
    return np.pad(trimmed, (0, -len(trimmed) % (SAMPLING_RATE // 10)))


def wav_name(text: str, rate: float) -> str:
    """File name of a line spoken at a rate."""
    words = "".join(c if c.isalnum() else "_" for c in text.lower()).strip("_")
    return f"wav/{words[:60]}-{rate:.2f}.wav"


def lines_to_speak(characters: list[Character]) -> list[tuple[str, float]]:
    """`(text, rate)` of everything that the demo says, each once."""
    jobs: dict[tuple[str, float], None] = {}
    for node in (node for c in characters for d in c.dialogues for node in nodes(d)):
        for text in node.say:
            jobs.update(dict.fromkeys((text, rate) for rate in TRAIN_RATES + TEST_RATES))
        jobs.update(dict.fromkeys((node.unseen, rate) for rate in TEST_RATES))
        jobs.update({(line.say, ANSWER_RATE): None for line in node.answers.values()})
    return list(jobs)


def write_speech_corpus(folder: str | Path, characters: list[Character], seed: int = 0) -> None:
    """Speaks all lines into `folder/wav` and writes `folder/manifest.jsonl`. Rows hold the user's line, some also the
    character's answer to it where the words alone decide it. The held-out split has speaking rates (`TEST_RATES`) that
    training never hears; its rows of unseen phrasings are marked in `source`. Raises ImportError: `hibari-tts` is not
    installed."""
    from hibari import Hibari

    folder = Path(folder)
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    voice, jobs = Hibari(), lines_to_speak(characters)

    def speak(job):
        path = folder / wav_name(*job)
        if not path.exists():
            wave = voice(job[0], speed=job[1], seed=seed)  # without a seed, its noise is another in every call
            wave = trim_silence(read_audio(wave, SAMPLING_RATE, source_rate=Hibari.sample_rate))
            write_audio(path, wave, SAMPLING_RATE)

    # A line keeps one core busy
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(tqdm(pool.map(speak, jobs), desc="speak", total=len(jobs), unit="line", disable=None))
    write_json_lines(folder / "manifest.jsonl", _rows(characters))


def _rows(characters: list[Character]):
    seen = set()
    for character, dialogue, node in ((c, d, node) for c in characters for d in c.dialogues for node in nodes(d)):
        spoken = [(text, rate, "train", "train") for text in node.say for rate in TRAIN_RATES]
        spoken += [(text, rate, "test", "seen") for text in node.say for rate in TEST_RATES]
        spoken += [(node.unseen, rate, "test", "unseen") for rate in TEST_RATES]
        for text, rate, split, kind in spoken:
            turns = [_turn(text, rate, "user")]
            if node.depends_on == "words" and (rate in ANSWERED_RATES or split == "test"):
                turns.append(_turn(next(iter(node.answers.values())).say, ANSWER_RATE, character.id))
            if (key := json.dumps(turns)) not in seen:
                yield {"id": f"{dialogue.id}-{len(seen)}", "turns": turns, "split": split, "source": kind}
                seen.add(key)


def _turn(text: str, rate: float, speaker: str) -> dict:
    return {"text": text, "audio": wav_name(text, rate), "speaker": speaker}
