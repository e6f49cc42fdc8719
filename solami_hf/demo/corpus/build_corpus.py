"""The demo's motion corpus: 16 authored gestures and 13 recorded actions, about 630 captioned clips.

python -c "from solami_hf.demo.corpus.build_corpus import write_motion_corpus; write_motion_corpus('corpus/motion')"
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ...processing.files.text_files import write_json_lines
from ...processing.motion.features import canonicalize
from ...processing.motion.motion_io import write_motion
from ...processing.motion.smplx_motion import SmplxMotion
from .animation import place
from .captions import ACTIONS, captions_for
from .gestures import GESTURES, ONE_SIDED, make_gesture
from .mocap import SOURCES, make_mocap

# clips of an action: (train, test)
GESTURE_CLIPS, MOCAP_CLIPS = (22, 6), (11, 3)

# who answers whom, both ways, in pairs that stand face to face; an action has one answer, so that it can be learnt
PARTNERS: dict[str, str] = {
    **{action: action for action in ("wave", "bow", "offer_hand", "salute", "dance")},
    "clap": "raise_hands",
    "point": "nod",
    "shrug": "shake_head",
    "thumbs_up": "hand_on_heart",
    "beckon": "walk",
    "cross_arms": "hands_on_hips",
    "punch": "roll",
    "kick": "jump",
}
NEAREST, FARTHEST, ASIDE = 1.0, 2.2, np.radians(25)


def _facing_z(motion: SmplxMotion) -> SmplxMotion:
    """The motion moved so that it starts at x = z = 0, facing +z."""
    params = canonicalize(torch.from_numpy(motion.to_params()).double())
    return SmplxMotion.from_params(params.numpy(), fps=motion.fps, betas=motion.betas, gender=motion.gender)


def place_for_dialogue(motion: SmplxMotion, rng: np.random.Generator) -> SmplxMotion:
    """Puts a user's clip, anywhere and of any facing, before a character that stands at the origin and faces +z. The
    user starts 1.0-2.2 m away, at most 25 degrees off the character's line of sight, and faces the character to within
    25 degrees; one user in eight stands straight ahead and faces exactly -z."""
    distance = rng.uniform(NEAREST, FARTHEST)
    where, offset = (0.0, 0.0) if rng.random() < 0.125 else rng.uniform(-ASIDE, ASIDE, 2)
    return place(_facing_z(motion), np.pi + where + offset, distance * np.sin(where), distance * np.cos(where))


def make_clip(action: str, rng: np.random.Generator) -> tuple[SmplxMotion, dict[str, Any]]:
    """One clip of any of the `ACTIONS` and its details {"action", "speed", "side" (one-handed gestures), "source"}.
    Raises ValueError: an unknown action; ModuleNotFoundError: a mocap action without the `pybullet` package."""
    if action in GESTURES:
        motion, drawn = make_gesture(action, rng)
        side = drawn["side"] if action in ONE_SIDED else None
        return motion, {"action": action, "speed": drawn["speed"], "side": side, "source": "authored"}
    if action in SOURCES:
        motion, drawn = make_mocap(action, rng)
        source = f"deepmimic/humanoid3d_{drawn['recording']}"
        return motion, {"action": action, "speed": drawn["speed"], "side": None, "source": source}
    raise ValueError(f"`action` is {action!r}, expected one of {', '.join(ACTIONS)}.")


def _pair_up(rows: dict[str, dict], motions: dict[str, SmplxMotion], seed: int) -> None:
    """Gives clips that answer each other their `partner_id` and puts the second of each pair before the first."""
    rng = np.random.default_rng([seed, len(ACTIONS)])
    for split in ("train", "test"):
        for action, answer in PARTNERS.items():
            first = [key for key, row in rows.items() if row["action"] == action and row["split"] == split]
            second = [key for key, row in rows.items() if row["action"] == answer and row["split"] == split]
            if action == answer:
                first, second = first[0::2], first[1::2]
            for a, b in zip(first, second, strict=False):
                rows[a]["partner_id"], rows[b]["partner_id"] = b, a
                motions[a] = place(_facing_z(motions[a]), 0.0, 0.0, 0.0)
                motions[b] = place_for_dialogue(motions[b], rng)
                yaw, (x, z) = rng.uniform(-np.pi, np.pi), rng.uniform(-2, 2, 2)
                motions[a], motions[b] = (_turn_scene(motions[key], yaw, x, z) for key in (a, b))


def _turn_scene(motion: SmplxMotion, yaw: float, x: float, z: float) -> SmplxMotion:
    """Turns a motion about the origin, not about its own start, then moves it."""
    start = motion.pelvis[0]
    turned_x = start[0] * np.cos(yaw) + start[2] * np.sin(yaw)
    turned_z = start[2] * np.cos(yaw) - start[0] * np.sin(yaw)
    return place(motion, yaw, turned_x + x, turned_z + z)


def write_motion_corpus(folder: str | Path, seed: int = 0, progress: bool = True, times: int = 1) -> Path:
    """Writes `folder/clips/*.npz` and, last, `folder/manifest.jsonl`, whose path is returned, ready for `solami
    prepare motion`.

    A row is {"id", "motion", "text": 4 captions, "partner_id", "split", "source", "action", "side", "speed"}, paths
    relative to the folder. A fifth of the clips of every action is `test`, drawn from its own random numbers; mocap
    takes of both splits come from the same recordings. Partners are of one split and stand face to face. With `times`
    the training clips are so many times as many, those beyond the first without partners, and the others the same. The
    same seed gives the same files; a folder that was written before is written over. Raises ModuleNotFoundError: the
    `pybullet` package, which holds the recordings, is not installed.
    """
    folder = Path(folder)
    clips = folder / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    rows, motions, plan, more = {}, {}, [], []
    for action in ACTIONS:
        train, test = GESTURE_CLIPS if action in GESTURES else MOCAP_CLIPS
        plan += [(action, split, i) for split, count in (("train", train), ("test", test)) for i in range(count)]
        more += [(action, "train", i) for i in range(train, train * times)]
    paired = len(plan)
    plan += more
    for action, split, number in tqdm(plan, "motion clips", unit="clip", disable=None if progress else True):
        rng = np.random.default_rng([seed, ACTIONS.index(action), split == "test", number])
        motion, details = make_clip(action, rng)
        key = f"{action}-{split}-{number:02d}"
        text = captions_for(action, rng, details["side"], details["speed"])
        rows[key] = {"id": key, "motion": f"clips/{key}.npz", "text": text, "partner_id": None, "split": split}
        rows[key] |= details
        motions[key] = motion
    _pair_up(dict(list(rows.items())[:paired]), motions, seed)
    for key, motion in motions.items():
        write_motion(folder / rows[key]["motion"], motion)
    manifest = folder / "manifest.jsonl"
    write_json_lines(manifest, rows.values())
    return manifest
