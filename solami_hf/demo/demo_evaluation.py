"""Measurements of the demo on held-out material, with the controls that tell listening from recall.

Held out are motion clips, speaking rates and, where named so, phrasings. A line is right when its words are the
expected ones; heard by speech recognition, when the expected line is the nearest of all lines of all characters. An
action is right when the nearest real clip in feature space shows it.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..generation.pipeline import Reply, SolamiPipeline
from ..metrics.evaluation.figures import nearest_line, right_line
from ..metrics.evaluation.intervals import Ratio, difference, interval
from ..processing.batching import map_in_batches
from ..processing.datasets.manifests import read_manifest
from ..processing.datasets.tasks import audio_block, chat_messages, motion_block, phrasings, text_block
from ..processing.motion.features import motion_to_features
from ..processing.motion.motion_io import read_motion
from ..processing.motion.smplx_motion import SmplxMotion
from .corpus.captions import action_of_caption
from .corpus.dialogues import words

BATCH = 64
VOICES = 48  # answers that speech recognition listens to


@dataclass
class Turn:
    """One round to be answered: the conversation up to the user's turn, and what is expected."""

    messages: list[dict]
    say: str
    do: str
    hinge: str
    user_say: str
    user_do: str
    row: str
    number: int


@dataclass
class Material:
    """Held-out token rows and manifests that the measurements run on.

    Attributes:
        motion: rows of the `motion` test split; `actions`: action per row id.
        speech: rows of the `speech` test split.
        chat: rows of the `chat` test split, and of their manifest by id.
        recognizer: names the action of a motion.
        lines: every line of every character.
        answers: the training rows' first answers, for the most-frequent-answer baseline.
    """

    motion: list[dict]
    actions: dict[str, str]
    speech: list[dict]
    chat: list[dict]
    manifest: dict[str, dict]
    recognizer: ActionRecognizer
    lines: list[str]
    answers: dict[str, Counter] = field(default_factory=dict)


def respond_all(pipeline: SolamiPipeline, conversations: list[list[dict]], name: str) -> list[Reply]:
    """Answers as text and codes, in batches of conversations of like length, in the order given."""
    bar = partial(tqdm, desc=name, unit="batch", disable=None, leave=False)
    return map_in_batches(conversations, _size, BATCH, lambda batch: pipeline.respond(batch, decode=False), bar)


def transcripts(pipeline: SolamiPipeline, conversations: list[list[dict]], name: str) -> list[str]:
    """The character's lines for each conversation, media as codes; body and voice would follow and are left out."""
    end = pipeline.processor.markers["eot"]
    bar = partial(tqdm, desc=name, unit="batch", disable=None, leave=False)

    def say(batch):
        prompts = [pipeline.chat_prompt(messages) for messages in batch]
        return [task_text(pipeline, ids, end) for ids in pipeline.generate_prompts(prompts, eos_token_id=end)]

    return map_in_batches(conversations, _size, BATCH, say, bar)


def _size(messages) -> int:
    return len(str(messages))


def turns_of(row: dict, manifest_row: dict) -> list[Turn]:
    """The rounds of a held-out conversation, each with the reference history before it."""
    messages = chat_messages(row, "text_motion_speech")
    plain = manifest_row["turns"]
    turns = []
    for i in range(1, len(plain) - 1, 2):
        user, answer = plain[i], plain[i + 1]
        turns.append(
            Turn(
                messages[: i + 1],
                answer["text"],
                answer["action"],
                user["hinge"],
                user["text"],
                user["action"],
                row["id"],
                (i + 1) // 2,
            )
        )
    return turns


def is_right(reply: Reply, turn: Turn) -> bool:
    """The answer is well formed and its transcript has the expected words."""
    return reply.valid and right_line(reply.text, [turn.say])


def share(flags) -> float:
    """Share of true values in percent; NaN for none."""
    flags = list(flags)
    return 100.0 * float(np.mean(flags)) if flags else float("nan")


class Shares:
    """Shares in percent, each with its 95 % interval over clips, or over conversations with all their rounds.

    Attributes:
        figures: name to share; NaN where there are no items.
        intervals: name to (low, high) in percent, where there are two items or more.
    """

    def __init__(self):
        self.figures: dict[str, float] = {}
        self.intervals: dict[str, tuple[float, float]] = {}
        self._estimates: dict[str, Ratio] = {}

    def add(self, name: str, flags, rows: list[str]) -> None:
        """The share of true `flags`, each of which belongs to the clip or conversation of `rows`."""
        flags = list(flags)
        self.figures[name] = share(flags)
        if flags:
            self._estimates[name] = Ratio(rows, flags)
            self._keep(name, interval([self._estimates[name]]))

    def subtract(self, name: str, first: str, second: str) -> None:
        """Difference of the shares `first` and `second`, in points."""
        self.figures[name] = self.figures[first] - self.figures[second]
        if first in self._estimates and second in self._estimates:
            found = difference([self._estimates[first]], [self._estimates[second]])
            self._keep(name, (found["low"], found["high"]))

    def _keep(self, name: str, bounds: tuple[float | None, float | None]) -> None:
        if None not in bounds:
            self.intervals[name] = (100 * bounds[0], 100 * bounds[1])


def swap_media(turn: Turn, other: Turn, kind: str) -> list[dict]:
    """The conversation of `turn` with the last user turn's sound or motion taken from `other`."""
    mine, theirs = turn.messages[-1]["content"], other.messages[-1]["content"]
    content = [next(b for b in theirs if b["type"] == kind) if block["type"] == kind else block for block in mine]
    return turn.messages[:-1] + [{"role": "user", "content": content}]


def measure_chat(pipeline: SolamiPipeline, material: Material, transcribe, seed: int) -> dict:
    """Round 1 and later rounds on held-out rates, the controls, and unseen phrasings; see `figures.yaml`."""
    rng = random.Random(seed)
    all_turns = [t for row in material.chat for t in turns_of(row, material.manifest[row["id"]])]
    seen = [t for t in all_turns if t.row.startswith("rates")]
    first = [t for t in seen if t.number == 1]
    later = [t for t in seen if t.number > 1]
    unseen = [t for t in all_turns if t.row.startswith("phrasings") and t.number == 1]
    shares, first_rows = Shares(), [t.row for t in first]
    result = shares.figures

    def shown(reply):
        codes = {"body": reply.answer.body, "hand": reply.answer.hand}
        return material.recognizer(pipeline.processor.decode_motion(codes))

    replies = respond_all(pipeline, [t.messages for t in first], "chat: round 1")
    right = [is_right(r, t) for r, t in zip(replies, first, strict=True)]
    acted = [r.valid and shown(r) == t.do for r, t in zip(replies, first, strict=True)]
    shares.add("round1_right_line", right, first_rows)
    shares.add("round1_right_action", acted, first_rows)
    shares.add("round1_right_both", [a and b for a, b in zip(right, acted, strict=True)], first_rows)
    result.update(measure_voice(pipeline, replies, first, material.lines, transcribe))

    def control(name, turns, conversations):
        texts = transcripts(pipeline, conversations, f"chat: {name}")
        flags = [right_line(text, [t.say]) for text, t in zip(texts, turns, strict=True)]
        shares.add(name, flags, [t.row for t in turns])
        return flags

    others = [rng.choice([o for o in first if o.user_say != t.user_say and o.say != t.say]) for t in first]
    control("round1_wrong_audio", first, [swap_media(t, o, "audio") for t, o in zip(first, others, strict=True)])
    others = [rng.choice([o for o in first if o.user_do != t.user_do]) for t in first]
    swapped = [swap_media(t, o, "motion") for t, o in zip(first, others, strict=True)]
    flags = control("round1_wrong_motion", first, swapped)
    watching = [i for i, t in enumerate(first) if t.hinge == "motion"]
    for name, some in (("watching_right_line", right), ("watching_wrong_motion", flags)):
        shares.add(name, [some[i] for i in watching], [first_rows[i] for i in watching])
    shares.subtract("listening_points", "round1_right_line", "round1_wrong_audio")
    shares.subtract("watching_points", "watching_right_line", "watching_wrong_motion")

    gold, later_rows = respond_all(pipeline, [t.messages for t in later], "chat: later rounds"), [t.row for t in later]
    shares.add("later_right_line", [is_right(r, t) for r, t in zip(gold, later, strict=True)], later_rows)
    control("later_no_history", later, [t.messages[:1] + t.messages[-1:] for t in later])
    begun = dict(zip(first_rows, replies, strict=True))
    shares.add("later_self_history", self_history(pipeline, seen, begun), later_rows)
    control("round1_unseen_phrasing", unseen, [t.messages for t in unseen])
    result["most_frequent_answer"] = share(
        material.answers[material.manifest[t.row]["character"]].most_common(1)[0][0] == t.say for t in first
    )
    shares.add("valid_answers", [r.valid for r in replies + gold], first_rows + later_rows)
    result["counts"] = {"round1": len(first), "later": len(later), "unseen": len(unseen), "watching": len(watching)}
    return {**result, "intervals": shares.intervals}


def self_history(pipeline: SolamiPipeline, turns: list[Turn], replies: dict[str, Reply]) -> list[bool]:
    """Right lines in the later ones of `turns` when the history holds the model's own earlier answers.

    Args:
        turns: all rounds of some conversations.
        replies: the answer to round 1 of each conversation, by row.
    """
    history, flags, replies = {}, {}, dict(replies)
    for number in range(1, max(t.number for t in turns) + 1):
        asked = {t.row: t for t in turns if t.number == number}
        for row, turn in asked.items():
            history[row] = history.get(row, turn.messages[:1]) + turn.messages[-1:]
        if number > 1:
            found = respond_all(pipeline, [history[row] for row in asked], f"chat: own history, round {number}")
            replies = dict(zip(asked, found, strict=True))
            flags |= {(row, number): is_right(replies[row], turn) for row, turn in asked.items()}
        for row in asked:
            history[row] = history[row] + [replies[row].message()] if replies[row].valid else history[row][:-1]
    return [flags[t.row, t.number] for t in turns if t.number > 1]


def measure_voice(
    pipeline: SolamiPipeline, replies: list[Reply], turns: list[Turn], lines: list[str], transcribe
) -> dict:
    """Judged by speech recognition: WER against the line the character says, and the share of right lines by ear.

    Only the `VOICES` answers that are listened to are made into sound, equal ones once.
    """
    import jiwer

    spoken = [(r, t) for r, t in zip(replies, turns, strict=True) if r.valid]
    spoken = [spoken[i * len(spoken) // VOICES] for i in range(VOICES)] if len(spoken) > VOICES else spoken
    voice_of = pipeline.processor.voice_of
    said = [(tuple(r.answer.speech), voice_of(t.messages)) for r, t in spoken]
    different = list(dict.fromkeys(said))
    texts = transcribe([pipeline.processor.decode_speech(list(codes), voice) for codes, voice in different])
    text_of = dict(zip(different, texts, strict=True))
    heard = [" ".join(words(text_of[key])) for key in said]
    right = sum(nearest_line(h, lines) == t.say for h, (_, t) in zip(heard, spoken, strict=True))
    return {
        "voice_wer": 100.0 * jiwer.wer([" ".join(words(r.text)) or "-" for r, _ in spoken], heard),
        "voice_wer_expected": 100.0 * jiwer.wer([" ".join(words(t.say)) for _, t in spoken], heard),
        "round1_right_line_heard": 100.0 * right / max(1, len(spoken)),
    }


def task_ids(pipeline: SolamiPipeline, task: str, sources: list[dict], target: str) -> list[list[int]]:
    """Generated ids of a task, in batches of like length."""
    longest = {"text": 48, "motion": 96}[target]
    bar = partial(tqdm, desc=task, unit="batch", disable=None, leave=False)

    def generate(batch):
        return pipeline.run_task(phrasings(task)[0], batch, target, max_new_tokens=longest)

    return map_in_batches(sources, _size, BATCH, generate, bar)


def task_text(pipeline: SolamiPipeline, ids: list[int], end: int | None = None) -> str:
    """The text of generated ids up to `end`, by default `<eos>`."""
    end = pipeline.model.config.eos_token_id if end is None else end
    ids = ids[: ids.index(end)] if end in ids else ids
    return pipeline.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def task_motion(pipeline: SolamiPipeline, ids: list[int]):
    """`{"body", "hand"}` codes of generated ids, or None when they are malformed."""
    config, codes = pipeline.model.config, {}
    if config.eos_token_id not in ids:
        return None
    ids = np.array(ids[: ids.index(config.eos_token_id)])
    split = np.flatnonzero(ids == config.markers["eobo"])
    if len(split) != 1:
        return None
    for name, part in (("body", ids[: split[0] + 1]), ("hand", ids[split[0] + 1 :])):
        span = config.modalities[name]
        codes[name] = part[1:-1] - span["first_id"]
        if len(codes[name]) == 0 or codes[name].min() < 0 or codes[name].max() >= span["size"]:
            return None
    return codes if len(codes["body"]) == len(codes["hand"]) else None


def measure_tasks(pipeline: SolamiPipeline, material: Material) -> tuple[dict, list]:
    """Motion-to-text, text-to-motion and speech-to-text on held-out clips and recordings.

    Returns:
        the figures, and the generated motions (`SmplxMotion` or None) of the text-to-motion rows, in row order.
    """
    import jiwer

    rows = material.motion
    truth = [material.actions[row["id"]] for row in rows]

    def named(sources):
        ids = task_ids(pipeline, "motion_to_text", sources, "text")
        return [action_of_caption(task_text(pipeline, row)) for row in ids]

    shares, clips = Shares(), [row["id"] for row in rows]

    def add(name, found):
        shares.add(name, [a == b for a, b in zip(found, truth, strict=True)], clips)

    add("motion_to_text", named([motion_block(r) for r in rows]))
    ids = task_ids(pipeline, "text_to_motion", [text_block(row["text"][0]) for row in rows], "motion")
    codes = [task_motion(pipeline, row) for row in ids]
    motions = [pipeline.processor.decode_motion(c) if c else None for c in codes]
    seen = [material.recognizer(m) if m else None for m in motions]
    told = iter(named([{"type": "motion", "motion": c} for c in codes if c]))
    told = [next(told) if c else None for c in codes]
    add("text_to_motion_neighbour", seen)
    add("text_to_motion_own", told)
    result = dict(shares.figures, intervals=shares.intervals)
    for kind in ("seen", "unseen"):
        turns = [row["turns"][0] for row in material.speech if row["source"] == kind][:128]
        ids = task_ids(pipeline, "speech_to_text", [audio_block(t) for t in turns], "text")
        heard = [" ".join(words(task_text(pipeline, row))) for row in ids]
        result[f"speech_to_text_wer_{kind}"] = 100.0 * jiwer.wer([" ".join(words(t["text"])) for t in turns], heard)
    result["counts"] = {"clips": len(rows), "recordings": 128}
    return result, motions


STEPS = 32


def signature(motion: SmplxMotion) -> np.ndarray:
    """A motion as a vector: its features, turned to face +Z at the start, resampled to 32 moments.

    Local joint rotations make up most of it, so place and facing do not matter.
    """
    params = torch.from_numpy(read_motion(motion).to_params()).double()
    features = motion_to_features(params)
    resampled = torch.nn.functional.interpolate(features.T[None], size=STEPS, mode="linear", align_corners=True)
    return resampled[0].numpy().astype(np.float32).reshape(-1)


class ActionRecognizer:
    """1-nearest-neighbour over signatures of real clips.

    Args:
        motions: real clips.
        actions: the action of each.
    """

    def __init__(self, motions: list[SmplxMotion], actions: list[str]):
        raw = np.stack([signature(m) for m in motions])
        self.mean = raw.mean(0)
        # A nearly constant channel must not dominate the distance once it is divided by its deviation.
        self.scale = np.maximum(raw.std(0), 0.05)
        self.known, self.actions = (raw - self.mean) / self.scale, list(actions)

    @classmethod
    def from_corpus(cls, folder: str | Path) -> ActionRecognizer:
        """A recogniser of the training clips of a motion corpus (`corpus.write_motion_corpus`)."""
        rows = [row for row in read_manifest(folder) if row["split"] == "train"]
        return cls([read_motion(Path(folder) / row["motion"]) for row in rows], [row["action"] for row in rows])

    def __call__(self, motion: SmplxMotion) -> str:
        """The action of the nearest real clip."""
        distance = np.square(self.known - (signature(motion) - self.mean) / self.scale).mean(1)
        return self.actions[int(distance.argmin())]
