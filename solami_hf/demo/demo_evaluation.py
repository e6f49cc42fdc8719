"""Measures the demo on held-out clips and recordings, with the controls that tell listening from recall.

Answers are written as `solami generate` writes them and measured by the parts of `solami evaluate`, which also makes
its own tables of them: `solami evaluate chat runs/demo/answers/chat`. `figures.yaml` says what each figure means. Held
out are clips, speaking rates and, where named so, phrasings. An action is right when the nearest real clip shows it.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import set_seed

from ..generation.folder.folder_run import run_folder
from ..generation.folder.jobs import Job, dialogue_jobs, in_batches, task_jobs
from ..generation.inputs import SHORT_TASKS, Dialogue, Item, read_dialogues, read_items
from ..generation.pipeline import SolamiPipeline
from ..generation.results_writer import ResultsWriter
from ..generation.settings import Decoding
from ..metrics.asr import Transcriber
from ..metrics.evaluation.answer_pairs import Pair, Results
from ..metrics.evaluation.figures import nearest_line, right_line, words_of
from ..metrics.evaluation.intervals import Ratio, difference, summarize
from ..metrics.evaluation.parts import Measures
from ..modeling.solami.backbones import model_fingerprint
from ..processing.datasets.manifests import read_manifest
from ..processing.datasets.results import key_of, result_row
from ..processing.datasets.tasks import motion_block, phrasings
from ..processing.motion.body import joint_positions
from ..processing.motion.features import canonicalize
from ..processing.motion.motion_io import read_motion
from ..processing.motion.smplx_motion import SmplxMotion
from ..training.held_out import spread
from .action_recognizer import ActionRecognizer
from .corpus.captions import action_of_caption
from .corpus.dialogues import character_lines, load_dialogues

FIGURES = yaml.safe_load(Path(__file__).with_name("figures.yaml").read_text(encoding="utf-8"))
BATCH = 64
RECORDINGS = 128  # of known sentences, and as many of unseen ones
VOICES = 48  # answers that speech recognition listens to
LONGEST = {"m2t": 48, "s2t": 48, "t2m": 96, "chat": 192}  # answers, in tokens


def measure(pretrained: Path, checkpoint: Path, corpus: Path, data: Path, output: Path, seed: int) -> dict:
    """All figures of `FIGURES` on the held-out split, with the numbers of items they stand on. The six tasks are
    measured on `pretrained`, stage 2, as in the original, the conversations on `checkpoint`, stage 3; `corpus` and
    `data` have the `motion`, `speech` and `chat` manifests and the token datasets, and `output` gets a results folder
    for each set of answers. Returns `{"figures": {name: number}, "intervals": {name: [low, high]}, "counts": {...}}`;
    intervals at 95 %, of shares and points."""
    set_seed(seed)
    tasks = measure_tasks(pretrained, corpus, data, output)
    chat = measure_chat(checkpoint, corpus, data, output, seed)
    return {
        kind: {name: np.round(value, 2).tolist() for name, value in {**tasks[kind], **chat[kind]}.items()}
        for kind in ("figures", "intervals", "counts")
    }


def in_percent(shares: dict[str, dict], numbers: dict[str, float], counts: dict[str, int]) -> dict[str, dict]:
    """Shares (`intervals.summarize`) in percent with their intervals, beside other figures; none that is NaN."""
    figures = {name: 100 * share["mean"] for name, share in shares.items()} | numbers
    return {
        "figures": {name: value for name, value in figures.items() if value == value},
        "intervals": {n: [100 * s["low"], 100 * s["high"]] for n, s in shares.items() if s["low"] is not None},
        "counts": counts,
    }


def answer(
    pipeline: SolamiPipeline, checkpoint: Path, folder: Path, data: Path, stages: Iterator[list[Job]]
) -> Results:
    """Greedy answers to all jobs as a results folder; those that an earlier run has left there are kept."""
    batches = in_batches(stages, BATCH)
    jobs = [job.columns for batch in batches for job in batch]
    task = jobs[0]["task"]
    decoding = Decoding(LONGEST[task])
    settings = {
        "task": task,
        "checkpoint": str(checkpoint),
        "model": model_fingerprint(pipeline.model),
        "input": str(data),
        "items": len({columns["id"] for columns in jobs}),
        "split": "test",
        "seeds": [0],
        "conditions": list(dict.fromkeys(columns["condition"] for columns in jobs)),
        "decoding": vars(decoding),
    }
    with ResultsWriter(folder, settings, [[key_of(job.columns) for job in batch] for batch in batches]) as writer:
        run_folder(pipeline, batches, writer, decoding, media=False)
    return Results(folder)


# ---- conversations


def measure_chat(checkpoint: Path, corpus: Path, data: Path, output: Path, seed: int) -> dict[str, dict]:
    """Round 1 and later rounds on held-out rates, the controls, and unseen phrasings; as `in_percent` gives them."""
    pipeline = SolamiPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    recognizer = ActionRecognizer.from_corpus(corpus / "motion")
    rows = {row["id"]: row for row in read_manifest(corpus / "chat")}
    dialogues = read_dialogues(data, pipeline.processor)
    rates = [dialogue for dialogue in dialogues if dialogue.id.startswith("rates")]
    unseen = [first_round(dialogue) for dialogue in dialogues if dialogue.id.startswith("phrasings")]
    chat = answer(pipeline, checkpoint, output / "chat", data, chat_jobs(pipeline, rates, rows, seed))
    unseen_jobs = dialogue_jobs(pipeline, unseen, [0], ["given"], LONGEST["chat"])
    phrased = answer(pipeline, checkpoint, output / "phrasings", data, unseen_jobs)
    (given,), (swapped,) = chat.repetitions("given"), chat.repetitions("other_motion")
    first = {pair.item: pair for pair in given if pair.round == 1}
    first = [first[dialogue.id] for dialogue in rates]  # in the order of the data
    items = [pair.item for pair in first]
    watching = {item for item in items if rows[item]["turns"][1]["depends_on"] == "motion"}
    made = [recognizer(_motion(pipeline, pair.row)) if pair.valid else None for pair in first]
    acted = [action == rows[pair.item]["turns"][2]["action"] for action, pair in zip(made, first, strict=True)]
    both = [right and shown for right, shown in zip(_right(first).parts, acted, strict=True)]

    def later(condition: str) -> Ratio:
        return _right(pair for pair in chat.repetitions(condition)[0] if pair.round > 1)

    shares = {
        "round1_right_line": _right(first),
        "round1_right_action": Ratio(items, acted),
        "round1_right_both": Ratio(items, both),
        "round1_wrong_audio": _right(chat.repetitions("other_audio")[0]),
        "round1_wrong_motion": _right(swapped),
        "watching_right_line": _right(pair for pair in first if pair.item in watching),
        "watching_wrong_motion": _right(pair for pair in swapped if pair.item in watching),
        "later_right_line": later("given"),
        "later_no_history": later("no_history"),
        "later_self_history": later("own_history"),
        "round1_unseen_phrasing": _right(phrased.repetitions("given")[0]),
        "valid_answers": Ratio([pair.item for pair in given], [pair.valid for pair in given]),
    }
    points = {
        "listening_points": ("round1_right_line", "round1_wrong_audio"),
        "watching_points": ("watching_right_line", "watching_wrong_motion"),
    }
    summaries = {name: summarize([share]) for name, share in shares.items()}
    summaries |= {name: difference([shares[a]], [shares[b]]) for name, (a, b) in points.items()}
    numbers = measure_voice(pipeline, first, character_lines(load_dialogues()), Transcriber())
    numbers["most_frequent_answer"] = 100 * most_frequent(rows, items)
    counts = {"round1": len(first), "later": len(given) - len(first), "unseen": len(unseen), "watching": len(watching)}
    return in_percent(summaries, numbers, counts)


def _right(pairs) -> Ratio:
    """Share of answers that have the words of the reference; a malformed one has none."""
    pairs = list(pairs)
    return Ratio([pair.item for pair in pairs], [right_line(pair.text, pair.reference_texts) for pair in pairs])


def _motion(pipeline: SolamiPipeline, row: dict) -> SmplxMotion:
    return pipeline.processor.decode_motion({name: np.array(row[name]) for name in ("body", "hand")})


def first_round(dialogue: Dialogue, **user) -> Dialogue:
    """System prompt, first user turn with columns changed, and the answer to it."""
    system, turn, reply = dialogue.turns[:3]
    return replace(dialogue, turns=[system, {**turn, **user}, reply])


def chat_jobs(pipeline: SolamiPipeline, dialogues: list[Dialogue], rows: dict, seed: int) -> Iterator[list[Job]]:
    """Stages of all rounds under three kinds of history, and of first rounds with another user's sound or motion. The
    other user says and is to hear something else, or does something else: `solami generate` knows words and captions
    only, and others may mean the same."""
    yield from dialogue_jobs(pipeline, dialogues, [0], ["given", "own_history", "no_history"], LONGEST["chat"])
    rng = random.Random(seed)
    for condition, names, about in (
        ("other_audio", ("speech",), lambda d: [turn["text"] for turn in d.turns[1:3]]),
        ("other_motion", ("body", "hand", "trans"), lambda d: [rows[d.id]["turns"][1]["action"]]),
    ):
        exchanged = []
        for mine in dialogues:
            others = [o for o in dialogues if all(a != b for a, b in zip(about(o), about(mine), strict=True))]
            other = rng.choice(others).turns[1]
            exchanged.append(first_round(mine, **{name: other[name] for name in names}))
        (stage,) = dialogue_jobs(pipeline, exchanged, [0], ["given"], LONGEST["chat"])
        for job in stage:
            job.columns["condition"] = condition
        yield stage


def most_frequent(rows: dict[str, dict], items: list[str]) -> float:
    """Share of first rounds that the most frequent answer of the character is right for."""
    answers: dict[str, Counter] = defaultdict(Counter)
    for row in rows.values():
        if row["split"] == "train":
            answers[row["character"]][row["turns"][2]["text"]] += 1
    asked = [rows[item] for item in items]
    return float(np.mean([answers[r["character"]].most_common(1)[0][0] == r["turns"][2]["text"] for r in asked]))


def measure_voice(pipeline: SolamiPipeline, pairs: list[Pair], lines: list[str], transcribe: Callable) -> dict:
    """Judged by speech recognition: WER against the line the character says, and the share of right lines by ear. Only
    the `VOICES` answers that are listened to are made into sound, equal ones once."""
    spoken = [pair for pair in pairs if pair.valid]
    spoken = spread(spoken, VOICES)
    if not spoken:
        return {}
    processor = pipeline.processor
    voices = [processor.voice_of([{"role": "system", "content": pair.row["system"]}]) for pair in spoken]
    said = [(tuple(pair.row["speech"]), voice) for pair, voice in zip(spoken, voices, strict=True)]
    different = list(dict.fromkeys(said))
    texts = transcribe([processor.decode_speech(list(codes), voice) for codes, voice in different])
    heard = [dict(zip(different, texts, strict=True))[key] for key in said]
    hoped = [pair.reference_texts[0] for pair in spoken]
    right = [nearest_line(text, lines) == line for text, line in zip(heard, hoped, strict=True)]
    own = [(text, pair.text) for text, pair in zip(heard, spoken, strict=True) if pair.text]
    return {
        **({"voice_wer": word_error_rate(*zip(*own, strict=True))} if own else {}),
        "voice_wer_expected": word_error_rate(heard, hoped),
        "round1_right_line_heard": 100 * float(np.mean(right)),
    }


def word_error_rate(said: Sequence[str], texts: Sequence[str]) -> float:
    """Percent of wrong words, whatever their case."""
    said, texts = ([" ".join(words_of(text)) for text in side] for side in (said, texts))
    return 100 * Measures().compute("speech_wer", predictions=said, references=texts, normalizer="none")["wer"]


# ---- tasks and motions


def measure_tasks(checkpoint: Path, corpus: Path, data: Path, output: Path) -> dict[str, dict]:
    """Motion-to-text, text-to-motion and speech-to-text, and the motions themselves; as `in_percent` gives them."""
    pipeline = SolamiPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    recognizer = ActionRecognizer.from_corpus(corpus / "motion")
    clips = {row["id"]: row for row in read_manifest(corpus / "motion")}

    def answers(name: str, task: str, items: list[Item]) -> dict[str, dict]:
        if not items:
            return {}
        jobs = task_jobs(pipeline, task, items, [0], phrasings(SHORT_TASKS[task])[0], LONGEST[task])
        return {row["id"]: row for row in answer(pipeline, checkpoint, output / name, data, jobs).rows}

    items = read_items("m2t", data, pipeline.processor)
    names = [item.columns["id"] for item in items]  # in the order of the data
    described = answers("m2t", "m2t", items)
    made = answers("t2m", "t2m", read_items("t2m", data, pipeline.processor))
    made = {name: row for name, row in made.items() if row["valid"]}
    columns = {"task": "m2t", "condition": "given"}
    copies = [Item(result_row(**columns, id=name), motion_block(row)) for name, row in made.items()]
    read_back = answers("m2t_of_t2m", "m2t", copies)
    motions = {name: _motion(pipeline, row) for name, row in made.items()}

    def share(actions: dict[str, str | None]) -> dict:
        return summarize([Ratio(names, [actions.get(name) == clips[name]["action"] for name in names])])

    def named(rows: dict[str, dict]) -> dict[str, str | None]:
        return {name: action_of_caption(row["text"]) for name, row in rows.items()}

    shares = {
        "motion_to_text": share(named(described)),
        "text_to_motion_own": share(named(read_back)),
        "text_to_motion_neighbour": share({name: recognizer(motion) for name, motion in motions.items()}),
    }
    numbers, sources = {}, {f"{row['id']}#0": row["source"] for row in read_manifest(corpus / "speech")}
    recordings = read_items("s2t", data, pipeline.processor)
    for kind in ("seen", "unseen"):
        chosen = [item for item in recordings if sources.get(item.columns["id"]) == kind][:RECORDINGS]
        rows = answers(f"s2t_{kind}", "s2t", chosen).values()
        pairs = [(row["text"], row["reference_text"][0]) for row in rows]
        numbers[f"speech_to_text_wer_{kind}"] = word_error_rate(*zip(*pairs, strict=True))
    real = [read_motion(corpus / "motion" / clips[name]["motion"]) for name in names]
    numbers |= measure_motion(pipeline, real, [motions.get(name) for name in names])
    return in_percent(shares, numbers, {"clips": len(names), "recordings": RECORDINGS})


def measure_motion(pipeline: SolamiPipeline, real: list[SmplxMotion], made: list[SmplxMotion | None]) -> dict:
    """Codec reconstruction, FID and diversity, by the package's `evaluate` modules on joints."""
    compute = Measures().compute
    rebuilt = [pipeline.processor.decode_motion(codes) for codes in pipeline.processor.encode_motion(real)]
    targets = [_facing_z(motion, len(other.transl)) for motion, other in zip(real, rebuilt, strict=True)]
    rebuilt, targets, real, made = (
        [motion and joint_positions(motion) for motion in motions] for motions in (rebuilt, targets, real, made)
    )
    error = compute("motion_mpjpe", predictions=rebuilt, references=targets)
    result = {"codec_mpjpe": error["mpjpe"], "codec_pa_mpjpe": error["pa_mpjpe"]}
    if sum(joints is not None for joints in made) < 2:  # a run that was far too short
        return result
    # By the real clips' scale for both: by its own, motion that hardly moves would be as diverse as any.
    diversity = compute("motion_diversity", predictions=made, references=real)
    pairs = len(real) // 2 * 2
    return {
        **result,
        "t2m_fid": compute("motion_fid", predictions=made, references=real)["fid"],
        "real_fid": compute("motion_fid", predictions=real[:pairs:2], references=real[1:pairs:2])["fid"],
        "t2m_diversity": diversity["diversity"],
        "real_diversity": diversity["reference_diversity"],
    }


def _facing_z(motion: SmplxMotion, frames: int) -> SmplxMotion:
    """The first `frames` frames, turned as the codec sees them: from the origin, facing +Z."""
    return SmplxMotion.from_params(canonicalize(torch.from_numpy(motion.to_params()))[:frames], fps=motion.fps)


def target_met(name: str, value: float) -> bool | None:
    """True if a figure reaches its target; None where there is none."""
    figure = FIGURES[name]
    if "at_least" in figure:
        return value >= figure["at_least"]
    return value <= figure["at_most"] if "at_most" in figure else None
