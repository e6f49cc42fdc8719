"""Jobs of a folder run: inputs of tasks, or the turns of dialogues under their conditions, in batches.

| condition | the history that the model sees | the user's last turn |
|---|---|---|
| `given` | the reference answers | as it is |
| `own_history` | its own earlier answers; rounds whose answer was malformed are left out | as it is |
| `no_history` | none | as it is |
| `other_audio` | the reference answers | with the sound and words of another dialogue's turn |
| `other_motion` | the reference answers | with the motion of another dialogue's turn, of another description |

A model that listens answers `other_audio` worse than `given`, one that watches `other_motion`. Turns without sound or
motion, or for which there is no other, are left out of these two. Order and batches follow from the inputs alone, so
that a run that was stopped goes on with the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...processing.datasets.results import result_row
from ...processing.datasets.tasks import chat_messages, phrasings
from ..inputs import SHORT_TASKS, Dialogue, Item, kinds_of
from ..pipeline import TASK_FORMATS

CONDITIONS = ("given", "own_history", "no_history", "other_audio", "other_motion")


@dataclass
class Job:
    """One answer that is to be given."""

    columns: dict  # the row of the results, as far as it is known
    prompt: Callable[[dict], list[int]]  # answers by key -> ids to continue; ValueError for an unusable input
    length: int  # compared to bring like lengths together
    answer_format: str | None = None  # one of `answers.FORMATS`, None for the processor's
    voice: str | None = None


def task_jobs(
    pipeline, task: str, items: list[Item], seeds: list[int], instruction: str | None, max_new_tokens: int
) -> Iterator[list[Job]]:
    """A stage of jobs for each seed; the words of the prompts are one of the task's phrasings, drawn by seed and
    input, unless an instruction is given."""
    target, known = kinds_of(task)[1], phrasings(SHORT_TASKS[task])
    for seed in seeds:
        stage = []
        for item in items:
            words = instruction or random.Random(f"{seed} {item.columns['id']}").choice(known)

            def prompt(done, item=item, words=words):
                return pipeline.task_prompt(words, item.source, target, max_new_tokens)

            stage.append(Job({**item.columns, "seed": seed}, prompt, len(str(item.source)), TASK_FORMATS[target]))
        yield stage


def dialogue_jobs(
    pipeline,
    dialogues: list[Dialogue],
    seeds: list[int],
    conditions: list[str],
    max_new_tokens: int,
    voice: str | None = None,
) -> Iterator[list[Job]]:
    """Stages of jobs: all turns of a seed and condition, or with the model's own history those of one round.
    `voice`: for all answers; by default that of each dialogue's character."""
    turns = [turn for dialogue in dialogues for turn in _Turn.of(dialogue, pipeline.processor)]
    for seed in seeds:
        for condition in conditions:
            stage = []
            for turn in turns:
                other = _other(turn, turns, condition, seed)
                if other is not None or not condition.startswith("other_"):
                    stage.append(turn.job(pipeline, seed, condition, other, max_new_tokens, voice))
            if condition != "own_history":
                yield stage
                continue
            for number in sorted({job.columns["round"] for job in stage}):
                yield [job for job in stage if job.columns["round"] == number]


def in_batches(stages: Iterator[list[Job]], batch_size: int) -> list[list[Job]]:
    """The batches of all stages, like lengths together; none has jobs of two stages."""
    batches = []
    for stage in stages:
        stage = sorted(stage, key=lambda job: (job.length, job.columns["id"], job.columns["round"]))
        batches += [stage[i : i + batch_size] for i in range(0, len(stage), batch_size)]
    return batches


@dataclass
class _Turn:
    """A user's turn of a dialogue, `turns[place]`, that is to be answered."""

    dialogue: Dialogue
    place: int
    number: int
    system: str | None
    answer_format: str
    hearing: str
    voice: str | None
    error: str

    @classmethod
    def of(cls, dialogue: Dialogue, processor) -> Iterator[_Turn]:
        """Those that an answer follows, and one at the end; of a dialogue that cannot be used one with the error."""
        system, error = _system(dialogue, processor)
        voice = processor.voice_of([{"role": "system", "content": system}]) if system else None
        formats, roles = (processor.answer_format, processor.hearing), [turn["role"] for turn in dialogue.turns]
        ends = [i for i, role in enumerate(roles) if role == "user" and roles[i + 1 : i + 2] in ([], ["assistant"])]
        if error or not ends:
            yield cls(dialogue, 0, 0, system, *formats, None, error or "the user never speaks")
            return
        for number, place in enumerate(ends, 1):
            yield cls(dialogue, place, number, system, *formats, voice, "")

    @property
    def user(self) -> dict:
        return self.dialogue.turns[self.place]

    def job(self, pipeline, seed: int, condition: str, other: _Turn | None, longest: int, voice: str | None) -> Job:
        user = self._user(condition, other)

        def prompt(done):
            return pipeline.chat_prompt(self._messages(user, condition, seed, done), longest)

        columns = self._columns(user, other) | {"seed": seed, "condition": condition}
        before = self.dialogue.turns[: self.place + 1] if condition != "no_history" else [user]
        length = sum(len(turn.get(name) or ()) for turn in before for name in ("body", "hand", "speech"))
        return Job(columns, prompt, length, None, voice or self.voice)

    def _user(self, condition: str, other: _Turn | None) -> dict:
        """The last turn, under a control with the sound or motion of another."""
        if self.error:
            return {}
        if other is None:
            return self.user
        names = ("speech", "text") if condition == "other_audio" else ("body", "hand", "trans")
        return {**self.user, **{name: other.user[name] for name in names}}

    def _messages(self, user: dict, condition: str, seed: int, done: dict) -> list[dict]:
        first = 1 if self.dialogue.turns[0]["role"] == "system" else 0
        before = self.dialogue.turns[first : self.place]
        if condition != "own_history":
            return self._chat([*(before if condition != "no_history" else []), user], self.system)
        messages = self._chat([], self.system)
        number, said = 1, []
        for turn in before:
            if turn["role"] == "user":
                said.append(turn)
                continue
            if not said:  # a greeting
                messages += self._chat([turn])
                continue
            answer = done[(self.dialogue.id, number, seed, "own_history")]
            if answer["valid"]:
                messages += self._chat([*said, {**answer, "role": "assistant"}])
            number, said = number + 1, []
        return messages + self._chat([*said, user])

    def _chat(self, turns: list[dict], system: str | None = None) -> list[dict]:
        return chat_messages({"turns": turns}, self.answer_format, system, self.hearing)

    def _columns(self, user: dict, other: _Turn | None) -> dict:
        about = {"character": self.dialogue.character, "topic": self.dialogue.topic, "system": self.system}
        about |= {"task": "chat", "id": self.dialogue.id, "round": self.number}
        if self.error:
            return result_row(**about, error=self.error)
        follows = self.dialogue.turns[self.place + 1 : self.place + 2]
        files = self.dialogue.files[self.place : self.place + 2]
        mine = files[0] if other is None else {}
        about |= {f"user_{name}": user[name] for name in ("motion_text", "body", "hand", "trans", "speech")}
        about["user_text"] = self.user["text"]
        about |= {f"user_{name}": mine.get(name) for name in ("motion", "audio")}
        if other is not None:
            about["swapped_from"] = f"{other.dialogue.id}.{other.number}"
        if follows:
            answer = follows[0]
            about["reference_text"] = [answer["text"]] if answer["text"] else []
            about |= {f"reference_{name}": answer[name] for name in ("motion_text", "body", "hand", "speech")}
            about |= {f"reference_{name}": files[1].get(name) for name in ("motion", "audio")}
        return result_row(**about)


def _system(dialogue: Dialogue, processor) -> tuple[str | None, str]:
    """The system prompt of a dialogue, and what is wrong with it."""
    if dialogue.error:
        return None, dialogue.error
    if dialogue.turns and dialogue.turns[0]["role"] == "system":
        return dialogue.turns[0]["text"], ""
    known = processor.characters
    if dialogue.character in known or not known or not dialogue.character:
        return known.get(dialogue.character, {}).get("system"), ""
    told = f"unknown character {dialogue.character!r} without a system turn; this checkpoint plays {sorted(known)}"
    return None, told


def _other(turn: _Turn, turns: list[_Turn], condition: str, seed: int) -> _Turn | None:
    """A turn of another dialogue that is heard or seen instead, drawn by seed and turn; None where there is none."""
    part, about = {"other_audio": ("speech", "text"), "other_motion": ("body", "motion_text")}.get(condition, ("", ""))
    if not part or turn.error or not turn.user[part]:
        return None

    def differs(other: _Turn) -> bool:
        if other.error or other.dialogue.id == turn.dialogue.id or not other.user[part]:
            return False
        ours, theirs = turn.user[about], other.user[about]
        return ours != theirs if ours and theirs else list(turn.user[part]) != list(other.user[part])

    drawn = random.Random(f"{seed} {turn.dialogue.id} {turn.number}").sample(turns, min(len(turns), 100))
    return next((other for group in (drawn, turns) for other in group if differs(other)), None)
