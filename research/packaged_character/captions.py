"""The demo's motion corpus with many phrasings for each action, some of which are kept back (`captions.yaml`)."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import yaml

from solami_hf.demo.corpus.build_corpus import write_motion_corpus
from solami_hf.demo.corpus.captions import action_of_caption
from solami_hf.processing.datasets.manifests import read_manifest
from solami_hf.processing.files.text_files import write_json_lines
from solami_hf.processing.motion.motion_io import read_motion, write_motion

KEPT_BACK = 2  # phrases of each action, the last ones
CAPTIONS_A_CLIP = 12
CUT_FRAMES = 24, 45
_KNOWN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def draw_caption(action: str, rng: random.Random, kept_back: bool = False) -> str:
    """A caption of an action, in one of the phrases that are trained on or of those kept back."""
    phrases = _KNOWN["actions"][action]
    does = rng.choice(phrases[-KEPT_BACK:] if kept_back else phrases[:-KEPT_BACK])
    manner = rng.choice(_KNOWN["manners"])
    first = f"{manner.strip()}, " if manner else ""
    subject, frame = rng.choice(_KNOWN["subjects"]), rng.choice(_KNOWN["frames"])
    return frame.format(subject=subject, does=does, manner=manner, first=first)


def write_motions(folder: Path, seed: int, times: int = 1, cuts: bool = False) -> None:
    """Writes the corpus, with `times` the training clips: `CAPTIONS_A_CLIP` captions for each of these, one in unseen
    phrasing for each other. `cuts` adds a second out of each training clip, which mostly begins within the action: its
    first pose depends on the caption alone, while whole clips all begin in the same few."""
    write_motion_corpus(folder, seed, times=times)
    rows = list(read_manifest(folder))
    for row in rows:
        rng, test = random.Random(f"{seed} {row['id']}"), row["split"] == "test"
        captions = [draw_caption(row["action"], rng, test) for _ in range(CAPTIONS_A_CLIP)]
        row["text"] = list(dict.fromkeys(captions))[: 1 if test else CAPTIONS_A_CLIP]
        wrong = [text for text in row["text"] if action_of_caption(text) != row["action"]]
        if wrong:
            raise ValueError(f"captions.yaml: {wrong[0]!r} is not recognised as {row['action']}")
    if cuts:
        rows += [
            _cut(folder, row, random.Random(f"{seed} cut {row['id']}")) for row in rows if row["split"] == "train"
        ]
    write_json_lines(folder / "manifest.jsonl", rows)


def _cut(folder: Path, row: dict, rng: random.Random) -> dict:
    """Writes 0.8 to 1.5 seconds of a clip; their row."""
    motion = read_motion(folder / row["motion"])
    length = min(rng.randint(*CUT_FRAMES), motion.num_frames)
    start = rng.randint(0, motion.num_frames - length)
    frames = slice(start, start + length)
    path = Path(row["motion"]).with_suffix(".cut.npz")
    write_motion(folder / path, replace(motion, transl=motion.transl[frames], poses=motion.poses[frames]))
    return {**row, "id": f"{row['id']}-cut", "motion": str(path), "partner_id": None}
