"""Authored sessions of two people, one who talks with gestures and one who listens and reacts by stated rules.

Nobody was recorded: motions are the demo's gestures played one after the other, voices are synthesized lines of the
demo's dialogues. The two stand face to face; first one says two lines, then the other. To each line the listener
reacts in one way, which follows from what the talker does, nine times in ten and after a random delay:

| the talker | the listener | begins |
|---|---|---|
| points with a hand | turns the head to where the hand is | 0.6 to 1.0 s after the gesture's beginning |
| waves, shrugs or raises both hands | mirrors the gesture | 0.8 to 1.2 s after it |
| does anything else, or nothing | nods | 0.4 to 0.8 s after the line's end |

Side, speed, size, start pose, pauses and the noise of a living body are random; now and then a listener scratches the
head for no reason. Held-out sessions are of lines that no session to train on has, and of draws of their own.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from solami_hf.demo.corpus.animation import animate, place
from solami_hf.demo.corpus.demo_speech import trim_silence
from solami_hf.demo.corpus.dialogues import load_dialogues, nodes
from solami_hf.demo.corpus.gestures import GESTURES, Style, start_pose
from solami_hf.processing.audio.waveforms import read_audio, write_audio
from solami_hf.processing.files.text_files import write_json_lines
from solami_hf.processing.motion.motion_io import write_motion

RATE = 16000
MIRRORED = ("wave", "shrug", "raise_hands")
OTHERS = ("thumbs_up", "offer_hand", None)
REACTS, SCRATCHES, HELD_OUT_LINES = 0.9, 0.15, 0.25
SIDES = {"left": "right", "right": "left"}


def turn_head(style: Style):
    """The head and a little of the chest turn to a side, look there, and come back."""
    angle = style.towards(style.degrees(42))
    pose = replace(
        style.start,
        head=(style.start.head[0], style.start.head[1] + angle, style.start.head[2]),
        torso=(style.start.torso[0], style.start.torso[1] + 0.3 * angle, style.start.torso[2]),
    )
    return [(0, style.start), (0.4, pose), (1.3, pose), (1.8, style.start)]


def write_sessions(folder: str | Path, train: int, test: int, seed: int = 0) -> Path:
    """Writes `manifest.jsonl` with sound and motion beside it, for `solami prepare duplex`; returns the folder.

    `motions/manifest.jsonl` has the motions alone, for `solami train-motion-vq`. A row also has
    `reactions` `[{person, kind, start, end}]`, which the benchmark looks at and `prepare` leaves out.
    """
    folder = Path(folder)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    lines = _speak(seed)
    held = max(1, round(HELD_OUT_LINES * len(lines)))
    rows = []
    for split, count, known in (("train", train, lines[held:]), ("test", test, lines[:held])):
        for number in tqdm(range(count), desc=f"{split} sessions", disable=None):
            rng = np.random.default_rng([seed, split == "test", number])
            rows.append(_session(folder, f"{split}-{number:03d}", known, rng) | {"split": split})
    write_json_lines(folder / "manifest.jsonl", rows)
    (folder / "motions").mkdir(exist_ok=True)
    if not (folder / "motions" / "media").is_symlink():
        os.symlink("../media", folder / "motions" / "media")
    people = [(row["split"], person) for row in rows for person in row["people"]]
    clips = ({"id": p["person"], "motion": p["motion"], "text": [], "split": split} for split, p in people)
    write_json_lines(folder / "motions" / "manifest.jsonl", clips)
    return folder


def _speak(seed: int) -> list[np.ndarray]:
    """Lines of 1 to 3 s, each in one of three rates, in an order of no meaning."""
    from hibari import Hibari

    said = {node.say[0] for c in load_dialogues() for d in c.dialogues for node in nodes(d)}
    said |= {a.say for c in load_dialogues() for d in c.dialogues for n in nodes(d) for a in n.answers.values()}
    voice, rng, waves = Hibari(), np.random.default_rng(seed), []
    for text in tqdm(sorted(said), desc="speak", disable=None):
        wave = voice(text, speed=float(rng.choice([0.9, 1.0, 1.12])), seed=seed)
        waves.append(trim_silence(read_audio(wave, RATE, source_rate=Hibari.sample_rate)))
    return [waves[i] for i in rng.permutation(len(waves)) if RATE <= len(waves[i]) <= 3 * RATE]


def _session(folder: Path, name: str, lines: list[np.ndarray], rng: np.random.Generator) -> dict:
    now, first = rng.uniform(0.6, 1.2), int(rng.integers(2))
    moves: list[list] = [[], []]
    heard: list[list] = [[], []]
    reactions = []
    for talker in (first, first, 1 - first, 1 - first):
        line, listener = lines[rng.integers(len(lines))], 1 - talker
        end, side = now + len(line) / RATE, str(rng.choice(["left", "right"]))
        kind = ("turn", "mirror", "nod")[rng.integers(3)]
        gesture = {"turn": "point", "mirror": rng.choice(MIRRORED), "nod": rng.choice(OTHERS)}[kind]
        heard[talker].append((now, end, line))
        begin = now + rng.uniform(0.0, 0.2)
        over = begin
        if gesture:
            over = _add(moves[talker], begin, str(gesture), side, rng)
        delay = {"turn": rng.uniform(0.6, 1.0), "mirror": rng.uniform(0.8, 1.2), "nod": rng.uniform(0.4, 0.8)}[kind]
        start, stop = (end if kind == "nod" else begin) + delay, end
        if rng.random() < REACTS:
            what = {"turn": "turn_head", "mirror": str(gesture), "nod": "nod"}[kind]
            stop = _add(moves[listener], start, what, SIDES[side], rng, 1.4 if kind == "nod" else 1.0)
            reactions.append({"person": listener, "kind": kind, "start": round(start, 3), "end": round(stop, 3)})
        elif rng.random() < SCRATCHES:
            stop = _add(moves[listener], start, "scratch_head", side, rng)
        now = max(end, over, stop) + rng.uniform(0.3, 0.9)
    seconds, people = now + 0.4, []
    for person in (0, 1):
        motion = _play(moves[person], seconds, rng)
        far = rng.uniform(1.2, 1.8)
        motion = place(motion, np.pi * person + rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.1), far * person)
        wave = np.zeros(round(seconds * RATE), np.float32)
        for start, _, line in heard[person]:
            wave[round(start * RATE) :][: len(line)] += line
        wave += rng.normal(0, 1e-3, len(wave)).astype(np.float32)
        files = {"motion": f"media/{name}-{person}.npz", "audio": f"media/{name}-{person}.wav"}
        write_motion(folder / files["motion"], motion)
        write_audio(folder / files["audio"], wave, RATE)
        talks = [[round(start, 3), round(end, 3)] for start, end, _ in heard[person]]
        people.append({"person": f"{name}-{person}", **files, "talks": talks})
    return {"id": name, "source": name, "people": people, "reactions": reactions}


def _add(moves: list, start: float, name: str, side: str, rng: np.random.Generator, pace: float = 1.0) -> float:
    """Adds a move of a person, after what the person does already; returns when it is over."""
    start = max(start, moves[-1][1] + 0.1 if moves else 0.1)
    style = Style(side, pace * rng.uniform(0.95, 1.2), rng.uniform(0.85, 1.15), start_pose(rng), rng)
    make = turn_head if name == "turn_head" else GESTURES[name]
    moves.append((start, start + make(style)[-1][0] / style.speed, make, style))
    return moves[-1][1]


def _play(moves: list, seconds: float, rng: np.random.Generator):
    """One motion of a person's moves, in one start pose, with nothing but life between them."""
    start = start_pose(rng)
    keys = [(0.0, start)]
    for begin, end, make, style in moves:
        made = make(replace(style, start=start))
        keys += [(begin + (end - begin) * time / made[-1][0], pose) for time, pose in made]
    return animate([*keys, (seconds, start)], rng, liveliness=float(rng.uniform(0.7, 1.2)))
