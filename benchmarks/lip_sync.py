"""Lips against phones of known times: onsets, closed lips, and a control, for each packaged voice.

    python -m benchmarks.lip_sync --sentences 90 --fresh 11 --output lip_sync.json

Held-out sentences (the last of the 120 that codec and lips never heard; settings were chosen by the first 30; or, with
`--fresh`, new ones) are spoken by the packaged voices. flite's voices tell when each phone ends; for `heart` that is
found by aligning (`solami_hf.training.face.lips_data`), and how far such an alignment is off is measured on flite's
voices. Rows:

| row | what |
|---|---|
| codes | the packaged codec's level 0 of the sound, to lips |
| sound | the same from sound, as for a codec that the lips do not know |
| shuffled | control: the lips of another sentence of the voice |
| flap | control: a jaw that opens with loudness |

"closed" is the share of m, b, p in whose time the lips come within 0.05 of closed; "closed_other" the same of vowels.
"""

import argparse
import json
import sys

import numpy as np
import torch

from solami_hf.metrics import lip_math as maths
from solami_hf.modeling.face.configuration_lips import VISEMES
from solami_hf.modeling.face.modeling_lips import LipsStream
from solami_hf.processing.audio.packaged_speech import packaged_speech
from solami_hf.processing.audio.speech_sentences import sentences
from solami_hf.processing.files.text_files import write_json
from solami_hf.processing.motion.face import FACE_FPS
from solami_hf.processing.motion.visemes import curves_at_fps, face_of_phones, mouth_opening, viseme_curves
from solami_hf.training.face.lips_data import (
    HELD_OUT,
    SENTENCES,
    aligned,
    frame_visemes,
    phones_of,
    spoken,
    train_aligner,
)  # fmt: skip

CLOSED = 0.05
VOWELS = ("open", "mid", "spread", "round_open")


def segments(visemes: np.ndarray, rate: float) -> list[tuple[str, float]]:
    """Frames of visemes as (name, second of the end)."""
    ends = np.append(np.flatnonzero(np.diff(visemes)) + 1, len(visemes))
    return [(VISEMES[visemes[end - 1]], end / rate) for end in ends]


def closures(face: np.ndarray, phones: list[tuple[str, float]], kinds: tuple[str, ...]) -> list[bool]:
    """Of each segment of these visemes whether the lips come to be closed in it, half a frame more on either side."""
    opening, start, found = mouth_opening(face), 0.0, []
    visemes = segments(frame_visemes(phones, round(phones[-1][1] * 1000), 1000.0), 1000.0)
    for name, end in visemes:
        if name in kinds:
            first, last = max(0, round(start * FACE_FPS - 0.5)), round(end * FACE_FPS + 0.5)
            found.append(bool(len(opening[first : last + 1]) and opening[first : last + 1].min() < CLOSED))
        start = end
    return found


def lips_face(model, seconds: float, **inputs) -> np.ndarray:
    """The mouth (frames, 52) of codes=(n,) or samples=(n,)."""
    stream, rate = LipsStream(model), model.config.frame_rate
    visemes = torch.cat([stream.push(**inputs), stream.finish()]).numpy()
    return curves_at_fps(viseme_curves(visemes, rate), rate, np.arange(int(np.ceil(seconds * FACE_FPS - 1e-6))))


def flapping(wave: np.ndarray, rate: int, count: int) -> np.ndarray:
    """A jaw (frames, 52) that opens with loudness."""
    face = np.zeros((count, 52), np.float32)
    loud = maths.loudness(wave, rate, FACE_FPS, count, "sound")
    face[:, 17] = 0.6 * loud / max(loud.max(), 1e-9)
    return face


def judge(faces: list, references: list, phones: list, waves: list, rate: int) -> dict:
    """Figures of a row."""
    from evaluate import load

    from solami_hf.metrics import folder_of

    found = load(folder_of("lip_sync")).compute(
        predictions=faces, references=references, audio=waves, sampling_rate=rate
    )
    names = ("lip_sync", "mean_onset_error", "missed", "extra", "curve_error", "opening_correlation",
             "loudness_correlation", "num_onsets")  # fmt: skip
    closed, other = (
        [one for face, said in zip(faces, phones, strict=True) for one in closures(face, said, kinds)]
        for kinds in (("bilabial",), VOWELS)
    )
    return {name: round(found[name], 4) for name in names} | {
        "closed": round(float(np.mean(closed)), 4), "closures": len(closed),
        "closed_other": round(float(np.mean(other)), 4),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> dict:
    """Entry point; returns and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lips", help="folder of other lips than the packaged ones")
    parser.add_argument("--voices", nargs="+", default=["heart", "slt", "rms", "awb"])
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--fresh", type=int, help="seed of sentences that neither lips nor codec were made from")
    parser.add_argument("--alignment_steps", type=int, default=300)
    parser.add_argument("--output")
    args = parser.parse_args(argv)
    parts = packaged_speech()
    codec, lips = parts["speech_codec"], parts["lips"]
    if args.lips:
        lips = type(lips).from_pretrained(args.lips, dtype=torch.float32).eval()
    rate, hop = lips.config.sampling_rate, lips.hop_length
    every = sentences(SENTENCES, 0)
    taught = [spoken(("slt", "rms")[i % 2], text, 1.0, rate, 0) for i, text in enumerate(every[-160:])]
    mels = [lips.log_mels(torch.from_numpy(wave[: len(wave) // hop * hop])[None])[0].numpy() for wave, *_ in taught]
    known = [frame_visemes(row[1], len(mel), lips.config.frame_rate) for row, mel in zip(taught, mels, strict=True)]
    aligner = train_aligner(mels, known, lips.config, args.alignment_steps, 0)
    texts = every[HELD_OUT - min(args.sentences, 90) : HELD_OUT]  # the first 30 chose settings
    if args.fresh is not None:
        texts = [text for text in sentences(3000, args.fresh) if text not in set(every)][: args.sentences]
    figures: dict = {}
    for voice in args.voices:
        rows: dict[str, list] = {name: [] for name in ("codes", "sound", "flap")}
        references, phones, waves, off = [], [], [], []
        for text in texts:
            wave, said, own = spoken(voice, text, 1.0, rate, 0)
            whole = wave[: len(wave) // hop * hop]
            mel = lips.log_mels(torch.from_numpy(whole)[None])[0].numpy()
            found = segments(aligned(aligner, mel, said if own else phones_of(text)), lips.config.frame_rate)
            if own:
                real = segments(frame_visemes(said, len(mel), lips.config.frame_rate), lips.config.frame_rate)
                if [name for name, _ in real] == [name for name, _ in found]:
                    off += [abs(a - b) * 1000 for (_, a), (_, b) in zip(real[:-1], found[:-1], strict=True)]
            said = said if own else found
            seconds = len(wave) / rate
            with torch.no_grad():
                codes = codec.encode(torch.from_numpy(wave)[None, None], num_quantizers=1).audio_codes[0, 0]
            references.append(face_of_phones(said, seconds))
            rows["codes"].append(lips_face(lips, seconds, codes=codes))
            rows["sound"].append(lips_face(lips, seconds, samples=whole))
            rows["flap"].append(flapping(wave, rate, len(references[-1])))
            phones.append(said)
            waves.append(wave)
        rows["shuffled"] = rows["codes"][1:] + rows["codes"][:1]
        figures[voice] = {name: judge(faces, references, phones, waves, rate) for name, faces in rows.items()}
        figures[voice]["phones"] = judge(references, references, phones, waves, rate)
        if off:
            figures[voice]["alignment_off_ms"] = {"median": round(float(np.median(off)), 1),
                                                  "p90": round(float(np.percentile(off, 90)), 1)}  # fmt: skip
        for name, row in figures[voice].items():
            sys.stdout.write(f"{voice:6} {name:9} {row}\n")
    if args.output:
        write_json(args.output, figures)
    sys.stdout.write(json.dumps(figures) + "\n")
    return figures


if __name__ == "__main__":
    main()
