"""How well a talker's speech is understood: word errors of held-out sentences, and how fast it is on one core.

    python -m benchmarks.talker_quality --talker DIR --sentences held_out.txt --output quality.json

Each line of the text file is spoken by the voice `heart` as a reference. Whisper tiny.en, which helped no training,
hears it as it is, its own level 0 with the packaged acoustic model and codec (the most that a talker can reach), and
the talker's level 0 likewise, in the voices asked for. Intervals are 95 %, by bootstrap over sentences.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from solami_hf.command_line import run_command
from solami_hf.metrics.asr import SAMPLING_RATE, Transcriber
from solami_hf.metrics.evaluation.figures import word_errors
from solami_hf.modeling.talker.modeling_talker import SolamiTalkerModel
from solami_hf.modeling.talker.spoken_text import expand_text
from solami_hf.processing.audio.packaged_speech import packaged_speech
from solami_hf.processing.audio.speech_voices import check_voices, speak
from solami_hf.processing.audio.waveforms import limit_loudness, read_audio
from solami_hf.processing.files.atomic_write import atomic_write

from .speech_quality_figures import ratio


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talker", required=True, help="folder of the talker")
    parser.add_argument("--sentences", required=True, type=Path, help="text file, one sentence a line")
    parser.add_argument("--limit", type=int, default=100, help="sentences that are judged, the first ones")
    parser.add_argument("--voices", nargs="+", default=["heart", "rms"], help="packaged voices that say them")
    parser.add_argument("--output", required=True, type=Path, help="JSON file")
    args = parser.parse_args(argv)
    check_voices(["heart"])
    torch.set_num_threads(1)
    texts = [line.strip() for line in args.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    figures = judge(SolamiTalkerModel.from_pretrained(args.talker).eval(), texts[: args.limit], args.voices)
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    sys.stdout.write(json.dumps({name: figures[name] for name in ("wer", "speed")}, indent=1) + "\n")
    return 0


@torch.no_grad()
def judge(talker: SolamiTalkerModel, texts: list[str], voices: list[str]) -> dict:
    """`{"wer": {condition: as from ratio}, "speed", "heard": {condition: transcripts}, "texts"}`."""
    speech = packaged_speech()
    codec, acoustic = speech["speech_codec"], speech["acoustic_model"]
    prompts = {voice: speech["voices"].prompt(voice, codec)[None] for voice in voices}
    transcriber, heard, seconds, spoken_seconds = Transcriber(threads=1), {}, 0.0, 0.0

    def say(codes: torch.Tensor, voice: str) -> np.ndarray:
        levels = acoustic.generate(codes[None], prompts[voice])[:, : acoustic.config.spoken_levels]
        return limit_loudness(codec.decode(levels).audio_values[0, 0].numpy(), codec.config.sampling_rate)

    for text in tqdm(texts, desc="judging", unit="sentence"):
        wave, rate = speak("heart", expand_text(text))
        wave = read_audio(wave, SAMPLING_RATE, source_rate=rate)
        own = codec.encode(torch.from_numpy(wave)[None, None]).audio_codes[0, 0]
        started = time.perf_counter()
        made = talker.generate(**talker.encode_text(text)).codes[0]
        seconds, spoken_seconds = seconds + time.perf_counter() - started, spoken_seconds + len(made) / 50
        clips = {"as it is": wave}
        for voice in voices:
            clips |= {f"own level 0, {voice}": say(own, voice), f"talker, {voice}": say(made, voice)}
        for name, clip in clips.items():
            heard.setdefault(name, []).append(transcriber([clip])[0])
    wer = {}
    for name, lines in heard.items():
        errors = word_errors(lines, [expand_text(text) for text in texts])
        wer[name] = ratio(errors[:, 0], errors[:, 1]) | {"words": int(errors[:, 1].sum()), "sentences": len(texts)}
    speed = {"seconds": seconds, "speech": spoken_seconds, "real_time_factor": seconds / spoken_seconds}
    return {"wer": wer, "speed": speed, "texts": texts, "heard": heard}


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.talker_quality", main))
