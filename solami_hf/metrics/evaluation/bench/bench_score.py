"""The figures of an entry to `solami_bench`, with 95 % intervals by bootstrap over its turns, beside the controls.

    python bench_score.py ENTRY --metrics FOLDER --text_encoder sentence-transformers/all-MiniLM-L6-v2

runs beside the benchmark's other files without `solami_hf`: FOLDER (or the Hub's owner) has the `evaluate` modules
`speech_wer`, `beat_alignment` and `gesture_diversity`, and with `--evaluator` also `motion_retrieval` and
`frechet_gesture`. `solami evaluate bench` calls the same function.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..intervals import OfSets, Ratio, difference, summarize
from .bench_entries import CONTROL_OF, Benchmark, Entry, read_entry

HEARD = 3  # the voice of every third answer is listened to, which takes the recogniser's seconds
DRAWS = 50  # of the bootstrap of a figure that is dear
MOMENTS = 32  # of a gesture, when two are compared
ACROSS = ((1, 2), (16, 17))  # hips and shoulders, left and right
MIRRORED = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 22, 24, 23,
            *range(40, 55), *range(25, 40)]  # fmt: skip
"""The joint of the other side of each."""
GALLERY = "gallery.npz"


class Scores:
    """Figures by name, each `{"mean", "low", "high", "count", ...}`, and why others are left out. `load` gives the
    `evaluate` module of a name; `embed` sentences as unit vectors (N, D), None leaves out what compares meanings;
    `evaluator` is what `motion_retrieval` takes, None leaves out what needs one."""

    def __init__(self, entry: Entry, benchmark: Benchmark, load: Callable, embed: Callable | None, evaluator: Any):
        self.benchmark, self.load, self.embed, self.evaluator = benchmark, load, embed, evaluator
        self.rows = [run | {"made": entry.runs[run["id"], run["condition"]]} for run in benchmark.runs]
        self.given = [row for row in self.rows if row["condition"] == "given"]
        self.figures: dict[str, dict] = {}
        self.left_out: dict[str, str] = {}
        with np.load(benchmark.folder / GALLERY, allow_pickle=False) as gallery:
            clips = gallery["moments"].astype(float)
            self._known = shapes(np.concatenate([clips, clips[:, :, MIRRORED] * [-1, 1, 1]]))
            self._actions = [str(action) for action in gallery["actions"]] * 2

    def all(self) -> dict[str, dict]:
        """Computes everything; a part that cannot be had is left out with its reason."""
        for kind in CONTROL_OF:
            self._part(kind, lambda kind=kind: self._kind(kind))
        for part in (self._similarity, self._media, self._voice, self._beats, self._diversity, self._evaluated):
            self._part(part.__name__.strip("_"), part)
        return self.figures

    def _part(self, name: str, compute: Callable[[], None]) -> None:
        try:
            compute()
        except (ValueError, ImportError, OSError) as error:  # OSError: a module that is not there
            self.left_out[name] = str(error)

    def _kind(self, kind: str) -> None:
        """Right answers, those under the control, and one minus the other."""
        control, judge = CONTROL_OF[kind], {"acting": self._acted, "talk": self._near}.get(kind, names_it)
        pair = []
        for condition in ("given", control):
            some = [row for row in self.rows if row["kind"] == kind and row["condition"] == condition]
            pair.append(Ratio([row["id"] for row in some], [float(judge(row)) for row in some]))
        self.figures[kind], self.figures[f"{kind}_{control}"] = summarize(pair[:1]), summarize(pair[1:])
        self.figures[f"{kind}_points"] = difference(pair[:1], pair[1:])

    def _acted(self, row: dict) -> bool:
        """Whether the nearest of the benchmark's clips, with either hand, shows the action that was asked for."""
        if row["made"]["motion"] is None:
            return False
        shown = shapes(moments(self._joints(row)))
        apart = np.linalg.norm(self._known - shown, axis=-1).mean(axis=(1, 2))
        return self._actions[int(apart.argmin())] == row["action"]

    def _near(self, row: dict, text: str | None = None) -> float:
        """Cosine of an answer to the nearest reference; 0 for silence."""
        if self.embed is None:
            raise ValueError("no sentence encoder: --text_encoder names one")
        text = row["made"]["text"] if text is None else text
        if not text.strip():
            return 0.0
        answer, *references = self.embed([text, *row["references"]])
        return float(max(np.dot(answer, reference) for reference in references))

    def _similarity(self) -> None:
        """All answers to their references, and each to those of a turn half of the benchmark further."""
        texts, half = [row["made"]["text"] for row in self.given], len(self.given) // 2
        for name, said in (("similarity", texts), ("similarity_shuffled", texts[half:] + texts[:half])):
            near = [self._near(row, text) for row, text in zip(self.given, said, strict=True)]
            self.figures[name] = summarize([Ratio([row["id"] for row in self.given], near)])

    def _media(self) -> None:
        for name, kind in (("spoken", "audio"), ("moved", "motion")):
            there = [row["made"][kind] is not None for row in self.given]
            self.figures[name] = summarize([Ratio([row["id"] for row in self.given], there)])

    def _with(self, *kinds: str) -> list[dict]:
        some = [row for row in self.given if all(row["made"][kind] is not None for kind in kinds)]
        if len(some) < 2:
            raise ValueError(f"{len(some)} answers have {' and '.join(kinds)}, expected at least 2")
        return some

    def _voice(self) -> None:
        """Word errors of what is heard of every third turn against what the entry says it said."""
        rows, module = [], self.load("speech_wer")
        heard = {row["id"] for row in self.given[::HEARD]}
        for row in self._with("audio"):
            if row["id"] in heard and re.search(r"\w", row["made"]["text"]):
                found = module.compute(predictions=[sound(row)], references=[row["made"]["text"]])
                rows.append((row["id"], found["wer"] * found["num_words"], found["num_words"]))
        if not rows:
            raise ValueError("none of the answers that are listened to says a word")
        self.figures["voice_wer"] = summarize([Ratio(*zip(*rows, strict=True))])

    def _beats(self) -> None:
        module, rows, kept = self.load("beat_alignment"), [], []
        for row in self._with("audio", "motion"):
            pair = {"predictions": [self._joints(row)], "references": [sound(row)]}
            try:
                found = module.compute(**pair)
            except ValueError:  # silence, or no movement that ever slows down
                continue
            rows.append((row["id"], found["beat_alignment"] * found["num_beats"], found["num_beats"]))
            kept.append(pair)
        if len(kept) < 2:
            raise ValueError(f"{len(kept)} answers have both a beat and an onset, expected at least 2")
        self.figures["beat_alignment"] = summarize([Ratio(*zip(*rows, strict=True))])
        both = {side: [pair[side][0] for pair in kept] for side in ("predictions", "references")}
        self.figures["beat_alignment_shuffled"] = _plain(module.compute(**both)["shuffled_audio"], len(kept))

    def _diversity(self) -> None:
        module, some = self.load("gesture_diversity"), self._with("motion")
        made, real = [self._joints(row) for row in some], [self._reference(row) for row in some]
        found = module.compute(predictions=made, references=real)

        def of(index: np.ndarray, _) -> float:
            drawn = [made[int(i)] for i in index[:, 0]]
            return module.compute(predictions=drawn, references=real)["gesture_diversity"]

        index = np.arange(len(some))[:, None]
        spread = OfSets([row["id"] for row in some], index, index, of, draws=DRAWS)
        self.figures["gesture_diversity"] = summarize([spread])
        self.figures["gesture_diversity_references"] = _plain(found["reference_diversity"], len(some))

    def _evaluated(self) -> None:
        """Whether a gesture is found by the caption of the one that is hoped for, and the distance to all of them."""
        if self.evaluator is None:
            raise ValueError("no evaluator of `solami train-evaluator`: --evaluator names one")
        some = self._with("motion")
        both = {"predictions": [self._joints(row) for row in some]}
        both["references"] = [self._reference(row) for row in some]
        labels = {"texts": [row["motion_text"] for row in some], "labels": [row["action"] for row in some]}
        found = self.load("motion_retrieval").compute(**both, **labels, evaluator=self.evaluator)
        for name in ("", "reference_", "shuffled_"):
            self.figures[f"{name}r_precision_1"] = _plain(found[f"{name}r_precision_1"], len(some))
        self.figures["r_precision_1"] |= {"low": found["low"], "high": found["high"]}
        fgd = self.load("frechet_gesture").compute(**both, evaluator=self.evaluator)
        self.figures |= {name: _plain(fgd[name], len(some)) for name in ("fgd", "reference_halves")}

    def _joints(self, row: dict) -> np.ndarray:
        return self.benchmark.joints(row["made"]["motion"])

    def _reference(self, row: dict) -> np.ndarray:
        return self.benchmark.joints(self.benchmark.folder / row["reference_motion"])


def score(entry: str | Path, benchmark: str | Path, load: Callable, embed=None, evaluator=None) -> dict:
    """Header, figures, what is left out and the benchmark's hash, of an entry that is checked first. Raises
    FileNotFoundError, ValueError: see `Benchmark` and `read_entry`."""
    opened = Benchmark(benchmark)
    found = read_entry(entry, opened)
    scores = Scores(found, opened, load, embed, evaluator)
    return {**found.header, "figures": scores.all(), "left_out": scores.left_out}


def names_it(row: dict) -> bool:
    """True if an answer has a right name in it, at the beginning of a word, and no wrong one."""
    text = row["made"]["text"].casefold()
    right, wrong = (
        [name for name in row[key] if re.search(rf"\b{re.escape(name)}", text)] for key in ("right", "wrong")
    )
    return bool(right) and not wrong


def sound(row: dict) -> np.ndarray:
    """The answer's sound (samples,) float32 at 16 kHz."""
    return soundfile.read(row["made"]["audio"], dtype="float32")[0]


def moments(joints: np.ndarray) -> np.ndarray:
    """Joints (T, 55, 3) from the pelvis, turned to face +z at first, at `MOMENTS` moments from first to last."""
    across = sum(joints[0, left] - joints[0, right] for left, right in ACROSS)[[0, 2]]
    c, s = across / max(np.linalg.norm(across), 1e-6)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    local = (joints - joints[:, :1]) @ turn.T
    at = np.linspace(0, len(local) - 1, MOMENTS)
    before = np.minimum(at.astype(int), len(local) - 2)
    way = (at - before)[:, None, None]
    return local[before] * (1 - way) + local[before + 1] * way


def shapes(moments: np.ndarray) -> np.ndarray:
    """What tells gestures apart, (..., moments, points, 3): spine and arms from the pelvis, fingers from their wrists,
    and head and eyes from the neck, which weigh more as they move little."""
    arms = moments[..., [3, 6, 9, 18, 19, 20, 21], :]
    fingers = [moments[..., 25 + 15 * side : 40 + 15 * side, :] - moments[..., 20 + side, None, :] for side in (0, 1)]
    head = moments[..., [15, 23, 24], :] - moments[..., 12, None, :]
    return np.concatenate([arms, *fingers, *[2 * head] * 4], axis=-2)


def _plain(value: float | None, count: int) -> dict:
    return {"mean": value, "std": None, "low": None, "high": None, "values": [value], "count": count}


def sentence_encoder(name: str) -> Callable[[Sequence[str]], np.ndarray]:
    """Sentences as unit vectors (N, D) of an encoder of the Hub or a folder: the mean over its last hidden states."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name).eval()

    @cache
    @torch.inference_mode()
    def vector(text: str) -> np.ndarray:  # one by one: no padding, so that a text gives the same vector everywhere
        tokens = tokenizer([text], truncation=True, max_length=128, return_tensors="pt")
        return torch.nn.functional.normalize(model(**tokens).last_hidden_state.float().mean(1)[0], dim=0).numpy()

    return lambda texts: np.stack([vector(text) for text in texts])


def main(argv: list[str] | None = None) -> int:
    """Entry point beside the benchmark: prints the figures as JSON."""
    import evaluate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entry")
    parser.add_argument("--metrics", required=True, help="Folder with the metric modules, or their owner on the Hub.")
    parser.add_argument("--benchmark", default=str(Path(__file__).parent))
    parser.add_argument("--text_encoder", help="Folder or Hub id of a sentence encoder.")
    parser.add_argument("--evaluator", help="Folder or Hub id of a text-motion evaluator.")
    args = parser.parse_args(argv)
    embed = sentence_encoder(args.text_encoder) if args.text_encoder else None
    found = score(args.entry, args.benchmark, lambda n: evaluate.load(f"{args.metrics}/{n}"), embed, args.evaluator)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
