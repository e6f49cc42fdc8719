"""The demo's dialogues as an ordinary `solami prepare chat` folder: recordings and motions chosen for every turn.

Training conversations use training phrasings, speaking rates and clips; held-out ones use clips and rates that
training never sees, and a second held-out kind also uses unseen phrasings.
"""

import os
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...processing.datasets.manifests import read_manifest
from ...processing.files.text_files import write_json_lines
from ...processing.motion.motion_io import read_motion, write_motion
from .build_corpus import place_for_dialogue
from .demo_speech import ANSWER_RATE, TEST_RATES, TRAIN_RATES, wav_name
from .dialogues import Character, Round, paths, sample_conversation

ANSWER_TAKES = 2  # clips that a character chooses from for one action
WATCHING_MORE = 3  # where the motion decides there are several answers to learn, so it is staged more often


def write_chat_corpus(
    folder: str | Path, motion_folder: str | Path, characters: list[Character], num_train: int, seed: int = 0
) -> None:
    """Writes `folder/manifest.jsonl` with `num_train` training conversations and two held-out ones per path and kind.
    `source` of a held-out row is `rates` (seen phrasings) or `phrasings` (unseen ones). `folder` must lie beside the
    speech corpus, whose `wav` folder it links; its `motion/` gets the user's clips, placed before the character."""
    folder, rng = Path(folder), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "wav").is_symlink():
        os.symlink("../speech/wav", folder / "wav")
    clips = _Clips(folder, Path(motion_folder), seed)
    ways = [(c, d, path) for c in characters for d in c.dialogues for path in paths(d)]
    watching = [way for way in ways if any(node.depends_on == "motion" for node in way[2])]
    training = ways + WATCHING_MORE * watching
    plan = [("train", i, training[i % len(training)]) for i in range(num_train)]
    plan += [(kind, i, way) for kind in ("rates", "phrasings") for i, way in enumerate(ways * 2)]

    def rows():
        for kind, i, (character, dialogue, path) in tqdm(plan, desc="conversations", unit="row", disable=None):
            rounds = sample_conversation(rng, path, unseen=kind == "phrasings")
            split = "train" if kind == "train" else "test"
            yield {**_row(f"{kind}-{i}", character, dialogue, rounds, clips, split, rng), "source": kind}

    write_json_lines(folder / "manifest.jsonl", rows())


class _Clips:
    """Clips by action and split, copied into the chat folder in the place where they are used."""

    def __init__(self, folder: Path, motion_folder: Path, seed: int):
        self.folder, self.motion_folder = folder, motion_folder
        (folder / "motion").mkdir(parents=True, exist_ok=True)
        self.rng = np.random.default_rng(seed)
        self.by_action: dict[tuple[str, str], list[dict]] = defaultdict(list)
        for row in read_manifest(motion_folder):
            self.by_action[row["action"], row["split"]].append(row)

    def user(self, action: str, split: str, rng: random.Random) -> dict[str, str]:
        """Path, caption and action of a clip of the split, standing before the character."""
        row = rng.choice(self.by_action[action, split])
        return self._copied(row, row["id"], lambda motion: place_for_dialogue(motion, self.rng))

    def answer(self, action: str, rng: random.Random) -> dict[str, str]:
        """Likewise of one of the character's takes of an action."""
        row = rng.choice(self.by_action[action, "train"][:ANSWER_TAKES])
        return self._copied(row, f"answer-{row['id']}", lambda motion: motion)

    def _copied(self, row: dict, name: str, change: Callable) -> dict[str, str]:
        path = f"motion/{name}.npz"
        if not (self.folder / path).exists():
            write_motion(self.folder / path, change(read_motion(self.motion_folder / row["motion"])))
        return {"motion": path, "motion_text": row["text"][0], "action": row["action"]}


def _row(row_id: str, character, dialogue, rounds: list[Round], clips: _Clips, split: str, rng) -> dict:
    rates = TRAIN_RATES if split == "train" else TEST_RATES
    turns = [{"role": "system", "text": character.system}]
    for r in rounds:
        shown = clips.user(r.user.do, split, rng)
        user = {"role": "user", "text": r.user.say, "audio": wav_name(r.user.say, rng.choice(rates)), **shown}
        turns.append({**user, "depends_on": r.depends_on})
        audio = wav_name(r.answer.say, ANSWER_RATE)
        answer = clips.answer(r.answer.do, rng)
        turns.append({"role": "assistant", "text": r.answer.say, "audio": audio, **answer})
    known = {"id": row_id, "topic": dialogue.topic, "character": character.id}
    return {**known, "turns": turns, "split": split, "dialogue": dialogue.id}
