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
from collections.abc import Iterator
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
from solami_hf.processing.files.text_files import write_json

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
    talker = SolamiTalkerModel.from_pretrained(args.talker).eval()
    for figures in judge(talker, texts[: args.limit], args.voices):
        write_json(args.output, figures)
        name, wer = list(figures["wer"].items())[-1]
        sys.stdout.write(f"{name}: {json.dumps(wer)}\n")
        sys.stdout.flush()
    sys.stdout.write(f"speed: {json.dumps(figures['speed'])}\n")
    return 0


@torch.no_grad()
def judge(talker: SolamiTalkerModel, texts: list[str], voices: list[str]) -> Iterator[dict]:
    """After each condition what is known so far: `{"wer": {condition: as from ratio}, "speed", "heard": {condition:
    transcripts}, "texts"}`."""
    speech = packaged_speech()
    codec, acoustic = speech["speech_codec"], speech["acoustic_model"]
    prompts = {voice: speech["voices"].prompt(voice, codec)[None] for voice in voices}
    spoken = [speak("heart", expand_text(text)) for text in texts]
    waves = [read_audio(wave, SAMPLING_RATE, source_rate=rate) for wave, rate in spoken]
    own = [codec.encode(torch.from_numpy(wave)[None, None]).audio_codes[0, 0] for wave in waves]
    started = time.perf_counter()
    made = [talker.generate(**talker.encode_text(text)).codes[0] for text in texts]
    seconds, length = time.perf_counter() - started, sum(map(len, made)) / talker.config.frame_rate
    figures = {"wer": {}, "heard": {}, "texts": texts}
    figures["speed"] = {"seconds": seconds, "speech": length, "real_time_factor": seconds / length}

    def say(codes: torch.Tensor, voice: str) -> np.ndarray:
        levels = acoustic.generate(codes[None], prompts[voice])[:, : acoustic.config.spoken_levels]
        return limit_loudness(codec.decode(levels).audio_values[0, 0].numpy(), codec.config.sampling_rate)

    conditions = {f"talker, {voice}": (made, voice) for voice in voices}
    conditions |= {f"own level 0, {voice}": (own, voice) for voice in voices} | {"as it is": (waves, None)}
    transcriber, wanted = Transcriber(threads=1), [expand_text(text) for text in texts]
    for name, (clips, voice) in conditions.items():
        bar = tqdm(clips, desc=name, unit="sentence")
        heard = [transcriber([clip if voice is None else say(clip, voice)])[0] for clip in bar]
        errors = word_errors(heard, wanted)
        found = ratio(errors[:, 0], errors[:, 1]) | {"words": int(errors[:, 1].sum()), "sentences": len(texts)}
        figures["wer"][name], figures["heard"][name] = found, heard
        yield figures


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.talker_quality", main))
