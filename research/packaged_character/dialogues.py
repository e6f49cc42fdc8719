"""The packaged character's dialogues: those that the base wrote, and authored ones about itself and what it sees."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from solami_hf.demo.corpus.build_corpus import place_for_dialogue
from solami_hf.processing.datasets.manifests import read_manifest
from solami_hf.processing.datasets.tasks import phrasings
from solami_hf.processing.files.text_files import write_json_lines
from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.synthesize.motions import Motion, bring_motion

HERE = Path(__file__).parent
TOLD = yaml.safe_load((HERE / "told.yaml").read_text(encoding="utf-8"))
PERSONAS = yaml.safe_load((HERE / "personas.yaml").read_text(encoding="utf-8"))
BODY_SHARE = 0.6  # of the user's turns that have a body where it says nothing
ALONE_SHARE = 0.15  # of the base's dialogues that lose the rounds before the last


def system_prompt(name: str, trade: str, place: str, more: str, **_) -> str:
    """Who a character is and how it shall answer."""
    return f"You are {name}, {_article(trade)} in {place}. {more} Answer in one or two short spoken sentences."


def characters() -> dict[str, dict]:
    """The twelve personas as `solami init` and `solami prepare chat --synthesize` read characters."""
    return {
        key: {"name": one["name"], "system": system_prompt(**one), "voice": one["voice"]}
        for key, one in PERSONAS.items()
    }


def tell(template: str, one: dict) -> str:
    """An authored line with a persona's facts."""
    return template.replace("a {trade}", _article(one["trade"])).format(**one)


def _article(trade: str) -> str:
    return f"{'an' if trade[0] in 'aeiou' else 'a'} {trade}"


def write_dialogues(folder: Path, motions: Path, written: Path, counts: dict[str, int], seed: int) -> None:
    """A folder for `solami prepare chat`: `written` (of `prepare chat --synthesize`) and the authored dialogues.

    Among them are `counts["task_rows"]` motion tasks in one round, so that tuning does not forget them.
    The user's clips are copies, placed before the character.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips = _Clips(folder, motions, seed)
    rng = random.Random(seed)
    rows = [
        *_written(written, clips, rng),
        *_personas(counts["persona_rows"], clips, rng),
        *_seeing(counts["seeing_rows"], clips, rng),
        *_tasks(counts["task_rows"], clips, rng),
    ]
    rng.shuffle(rows)
    write_json_lines(folder / "manifest.jsonl", rows)


class _Clips:
    """Training clips in the folder of the dialogues: the character's as they are, the user's placed before it."""

    def __init__(self, folder: Path, motions: Path, seed: int):
        self.folder, self.motions = folder, motions
        rows = [row for row in read_manifest(motions) if row["split"] == "train"]
        self.by_action: dict[str, list[dict]] = {}
        for row in rows:
            self.by_action.setdefault(row["action"], []).append(row)
        self.by_id = {row["id"]: row for row in rows}
        self._generator = np.random.default_rng(seed)

    def answer(self, row: dict) -> dict:
        """Columns of a turn in which the character moves so."""
        path = bring_motion(Motion(row["id"], (), self.motions / row["motion"]), self.folder)
        return {"motion": path, "motion_text": row["text"][0]}

    def user(self, row: dict) -> dict:
        """Columns of a user's turn."""
        path = self.folder / "user" / Path(row["motion"]).name
        if not path.is_file():
            write_motion(path, place_for_dialogue(read_motion(self.motions / row["motion"]), self._generator))
        return {"motion": f"user/{path.name}", "motion_text": row["text"][0]}

    def draw(self, actions, rng: random.Random) -> dict:
        """A clip of one of some actions, of any with None."""
        return rng.choice(self.by_action[rng.choice(list(actions or self.by_action))])


def _turn(role: str, text: str, body: dict | None = None) -> dict:
    return {"role": role, "text": text, **(body or {})}


def _user(text: str, clips: _Clips, rng: random.Random) -> dict:
    return _turn("user", text, clips.user(clips.draw(None, rng)) if rng.random() < BODY_SHARE else None)


def _written(folder: Path, clips: _Clips, rng: random.Random) -> Iterator[dict]:
    for row in read_manifest(folder):
        system, *turns = row["turns"]
        if rng.random() < ALONE_SHARE:
            turns = turns[:2]
        said = [
            _user(turn["text"], clips, rng)
            if turn["role"] == "user"
            else _turn("assistant", turn["text"], clips.answer(clips.by_id[turn["motion_id"]]))
            for turn in turns
        ]
        yield {**{key: row[key] for key in ("id", "split", "source", "topic", "character")}, "turns": [system, *said]}


def _personas(count: int, clips: _Clips, rng: random.Random) -> Iterator[dict]:
    people = TOLD["people"]
    for number in range(count):
        key = rng.choice(list(PERSONAS)) if rng.random() < 0.4 else None
        made_up = {field[:-1]: rng.choice(people[field]) for field in ("names", "trades", "places")}
        one = PERSONAS[key] if key else made_up | {"more": rng.choice(people["more"])}
        turns = [{"role": "system", "text": system_prompt(**one)}]
        for about in rng.sample(["name", "trade", "place"], rng.randint(1, 3)):
            told = TOLD["persona"][about]
            turns.append(_user(rng.choice(told["ask"]), clips, rng))
            body = clips.answer(clips.draw(told["action"], rng))
            turns.append(_turn("assistant", tell(rng.choice(told["answer"]), one), body))
        yield _row(f"persona-{number:05d}", "who you are", key or "", turns)


def _seeing(count: int, clips: _Clips, rng: random.Random) -> Iterator[dict]:
    seeing = TOLD["seeing"]
    actions = list(seeing["do"])
    for number in range(count):
        key = rng.choice(list(PERSONAS))
        turns = [{"role": "system", "text": system_prompt(**PERSONAS[key])}]
        for action in rng.sample(actions, rng.randint(1, 3)):
            turns.append(_turn("user", rng.choice(seeing["ask"]), clips.user(clips.draw([action], rng))))
            text = rng.choice(seeing["answer"]).format(do=seeing["do"][action])
            turns.append(_turn("assistant", text, clips.answer(clips.draw(seeing["action"], rng))))
        yield _row(f"seeing-{number:05d}", "what you do", key, turns)


def _tasks(count: int, clips: _Clips, rng: random.Random) -> Iterator[dict]:
    for number in range(count):
        row, task = clips.draw(None, rng), ("motion_to_text", "text_to_motion")[number % 2]
        ask, caption, body = rng.choice(phrasings(task)), rng.choice(row["text"]), clips.answer(row)
        if task == "motion_to_text":
            turns = [_turn("user", ask, body), _turn("assistant", caption)]
        else:
            turns = [_turn("user", f"{ask} This is input: {caption}"), _turn("assistant", "", body)]
        yield _row(f"task-{number:05d}", task, "", turns)


def _row(key: str, topic: str, character: str, turns: list[dict]) -> dict:
    return {"id": key, "split": "train", "source": "authored", "topic": topic, "character": character, "turns": turns}
