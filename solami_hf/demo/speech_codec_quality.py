"""How well a speech codec keeps words: error rates of Whisper tiny.en on held-out sentences, and the codec's speed.

    python -m solami_hf.demo.speech_codec_quality --codec solami_hf/demo/speech_codec --output quality.json

The sentences are those that `solami train-speech-codec --data tts` holds out; they are spoken anew.
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path

import jiwer
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from ..metrics.asr import Transcriber
from ..modeling.modeling_speech_codec import SolamiSpeechCodecModel
from ..training.speech_codec import SpeechCodecArguments
from ..training.speech_codec_data import Recordings, synthesize
from ..training.speech_sentences import sentences

logger = logging.getLogger(__name__)

PACKAGED_CODEC = Path(__file__).parent / "speech_codec"


def held_out_speech(sampling_rate: int, count: int, seed: int = 0) -> Recordings:
    """`count` of the sentences that training with the same seed holds out, each spoken once at a random speed.

    Raises:
        ValueError: `count` above the number held out.
    """
    defaults = SpeechCodecArguments()
    if not 1 <= count <= defaults.held_out:
        raise ValueError(f"count is {count}, expected 1 to {defaults.held_out} held-out sentences")
    texts = sentences(defaults.sentences + defaults.held_out, seed)[defaults.sentences :]
    return synthesize(texts[:count], takes=1, seed=seed + 1, sampling_rate=sampling_rate)


def word_errors(transcripts: list[str], texts: list[str]) -> np.ndarray:
    """Errors and words of each sentence, (sentences, 2), after Whisper's text normalization."""
    normalize = EnglishTextNormalizer({})
    rows = []
    for said, text in zip(transcripts, texts, strict=True):
        result = jiwer.process_words(normalize(text), normalize(said))
        errors = result.substitutions + result.deletions + result.insertions
        rows.append((errors, result.hits + result.substitutions + result.deletions))
    return np.array(rows)


def wer_with_interval(errors: np.ndarray, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Word error rate of `word_errors` with its 95 % interval (bootstrap over sentences)."""
    rows = np.random.default_rng(seed).integers(len(errors), size=(draws, len(errors)))
    totals = errors[rows].sum(1)
    low, high = np.percentile(totals[:, 0] / totals[:, 1], (2.5, 97.5))
    wer = errors[:, 0].sum() / errors[:, 1].sum()
    return {"wer": round(float(wer), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


@torch.no_grad()
def measure(codec: SolamiSpeechCodecModel, recordings: Recordings, levels: tuple[int, ...]) -> dict:
    """Word error rates of the recordings themselves and after the codec at several numbers of levels.

    Returns:
        `{"sentences": n, "seconds": s, "original": {"wer", "low", "high"}, "levels_1": ..., "threads": n,
        "encode_times_real_time": x, "decode_times_real_time": x}`; decoding is timed with the last of `levels`.
    """
    threads = torch.get_num_threads()
    rate = codec.config.sampling_rate
    clips = [recordings[index] for index in range(len(recordings))]
    seconds = sum(map(len, clips)) / rate
    started = time.perf_counter()
    codes = [codec.encode(torch.from_numpy(clip)[None, None]).audio_codes for clip in clips]
    encode_seconds = time.perf_counter() - started
    versions = {"original": clips}
    for count in levels:
        started = time.perf_counter()
        versions[f"levels_{count}"] = [codec.decode(code[:, :count]).audio_values[0, 0].numpy() for code in codes]
        decode_seconds = time.perf_counter() - started
    transcriber = Transcriber()
    results = {}
    with tqdm(total=len(versions) * len(clips), desc="transcribing", unit="clip") as bar:
        for name, version in versions.items():
            transcripts = []
            for clip in version:
                transcripts += transcriber([clip])
                bar.update()
            results[name] = wer_with_interval(word_errors(transcripts, recordings.texts))
    return {
        "sentences": len(clips),
        "seconds": round(seconds, 1),
        **results,
        "threads": threads,
        "encode_times_real_time": round(seconds / encode_seconds, 1),
        "decode_times_real_time": round(seconds / decode_seconds, 1),
    }


def main(argv: list[str] | None = None) -> None:
    """The command line; writes the figures as JSON to `--output` and to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default=str(PACKAGED_CODEC), help="folder of the codec (default: the packaged one)")
    parser.add_argument("--count", type=int, default=150, help="held-out sentences to measure on")
    parser.add_argument("--levels", type=int, nargs="+", default=[8, 1], help="numbers of levels to decode from")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the codec")
    parser.add_argument("--output", help="JSON file to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    codec = SolamiSpeechCodecModel.from_pretrained(args.codec).eval()
    figures = measure(codec, held_out_speech(codec.config.sampling_rate, args.count), tuple(args.levels))
    text = json.dumps(figures, indent=2) + "\n"
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
        logger.info("wrote %s", args.output)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
