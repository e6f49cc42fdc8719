"""The command: plans, scripts, motions, speech, and the manifest folder that comes out."""

from __future__ import annotations

import json
import logging
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ...command_line import parse_arguments
from ..files.atomic_write import atomic_write
from ..files.folder_or_hub import with_sources
from ..files.output_folder import writing_to
from .asking import ask_in_parallel
from .motions import Motion, bring_motion, read_motions
from .plans import Plan, draw_plans, read_characters, read_topics
from .retrieval import MotionMatcher, TextEncoder
from .scripts import Written, write_script
from .speaking import Speaker, load_callable
from .writers import CachedWriter, EndpointError, open_writer

logger = logging.getLogger(__name__)
MISSING_MOTION = ("keep", "reject")


CAPTION_HINTS = 30  # shown to the writing model as examples


@dataclass
class SynthesizeArguments:
    """Arguments of `solami prepare chat --synthesize`."""

    motions: str = field(
        metadata={
            "help": "Captioned motions: a folder that `solami prepare motion` reads, or a prepared token dataset "
            "(folder or Hub id). Also accepted as the first word."
        }
    )
    output: str = field(metadata={"help": "Manifest folder to write; `solami prepare chat` makes tokens of it."})
    num_dialogues: int = field(default=100, metadata={"help": "Dialogues to write; can be raised in a later run."})
    topics: str | None = field(default=None, metadata={"help": "Text file, one topic a line, or a YAML list."})
    characters: str | None = field(default=None, metadata={"help": "YAML, id: {name, system, voice}."})
    min_rounds: int = field(default=2, metadata={"help": "Fewest rounds of a dialogue."})
    max_rounds: int = field(default=5, metadata={"help": "Most rounds of a dialogue."})
    max_words: int = field(default=40, metadata={"help": "Most words of a line."})
    test_share: float = field(
        default=0.0, metadata={"help": "Share of the topics that are for testing, with motions of the test split."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of plans, requests, choices and speech."})
    base_url: str | None = field(
        default=None, metadata={"help": "OpenAI-compatible server, such as http://localhost:8000/v1."}
    )
    provider: str | None = field(default=None, metadata={"help": "Inference provider of the Hub, instead."})
    model: str | None = field(default=None, metadata={"help": "What the server or the provider calls the model."})
    local_model: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a chat model to run here instead."}
    )
    api_key_env: str | None = field(
        default=None, metadata={"help": "Environment variable with the key; none is sent to base_url without it."}
    )
    temperature: float = field(default=0.9, metadata={"help": "Of the writing model."})
    top_p: float = field(default=1.0, metadata={"help": "Of the writing model."})
    max_tokens: int = field(default=2048, metadata={"help": "Of one answer."})
    extra_body: str | None = field(default=None, metadata={"help": "JSON object of further fields of a request."})
    timeout: float = field(default=180.0, metadata={"help": "Seconds to wait for an answer."})
    retries: int = field(default=6, metadata={"help": "Further tries after overload, server errors and timeouts."})
    first_wait: float = field(default=1.0, metadata={"help": "Seconds before the first of them; doubled each time."})
    concurrency: int = field(default=8, metadata={"help": "Requests under way at the same time."})
    attempts: int = field(default=3, metadata={"help": "How often a script is asked for until it is usable."})
    encoder: str | None = field(
        default=None, metadata={"help": "Text encoder (folder or Hub id) for captions; hashed TF-IDF without one."}
    )
    top_k: int = field(default=8, metadata={"help": "Motions that come into question for a line."})
    min_similarity: float = field(
        default=0.3, metadata={"help": "Least cosine of description and caption; 0.4 to 0.5 fits sentence encoders."}
    )
    max_repeats: int = field(default=2, metadata={"help": "Lines in a row that may use the same motion."})
    missing_motion: str = field(
        default="keep",
        metadata={"help": "keep: a line without a near motion has none; reject: nor is there a dialogue."},
    )
    tts: str | None = field(
        default=None,
        metadata={
            "help": "module:function, called with text, voice and seed, giving (samples, rate), such as "
            "solami_hf.processing.audio.speech_voices:speak. Without it the lines have no sound."
        },
    )
    user_voices: list[str] = field(
        default_factory=lambda: ["slt", "kal16"], metadata={"help": "Voices of the users, one a dialogue by lot."}
    )

    def __post_init__(self):
        if self.missing_motion not in MISSING_MOTION:
            raise ValueError(f"missing_motion is {self.missing_motion!r}, expected one of {', '.join(MISSING_MOTION)}")
        for name in ("concurrency", "attempts", "max_words", "top_k", "max_repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("retries", "first_wait"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.tts and not self.user_voices:
            raise ValueError("tts needs user_voices: name at least one voice for the user's lines")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    program, description = "solami prepare chat --synthesize MOTIONS", sys.modules[__package__].__doc__
    (args,) = parse_arguments([SynthesizeArguments], argv, program, description, words=["motions"])
    with writing_to(args.output):
        report = synthesize(args)
    logger.info("wrote %s to %s", ", ".join(f"{value} {name}" for name, value in report.items()), args.output)
    return 0


def synthesize(args: SynthesizeArguments, writer=None) -> dict:
    """Writes the manifest folder of synthetic dialogues.

    Args:
        writer: instead of the one that the arguments name; see `writers.CachedWriter` for what it must have.

    Returns:
        the report: dialogues per split, what was rejected, requests sent and answered from the cache, tokens (of this
        run's requests, and of all answers), lines with and without motion, their mean similarity, lines spoken.

    Raises:
        FileNotFoundError: no motions, topics or characters where the arguments say.
        ValueError: arguments that do not fit, no usable motion, or no dialogue could be used.
        OSError: the endpoint refuses everything, or fails for dialogue after dialogue.
    """
    args = with_sources(args, "local_model", "encoder", bare=["local_model", "encoder"])
    characters = {character.id: character for character in read_characters(args.characters)}
    speak = _speak(args, characters.values())
    plans = draw_plans(
        read_topics(args.topics),
        list(characters.values()),
        args.num_dialogues,
        (args.min_rounds, args.max_rounds),
        args.test_share,
        args.seed,
    )
    motions = {split: read_motions(args.motions, split) for split in sorted({plan.split for plan in plans})}
    if any(motion.path is None for some in motions.values() for motion in some):
        logger.info(
            "%s holds tokens, no motion files: turns get a motion_id, for `solami prepare chat --motion_tokens %s`",
            *(args.motions, args.motions),
        )
    folder = Path(args.output)
    cached = CachedWriter(writer or open_writer(args), folder / "cache" / "answers")
    written = _write_scripts(args, cached, plans, motions)
    maker = _DialogueMaker(args, motions, None if speak is None else Speaker(speak, args.tts, folder, args.seed))
    rows, rejected = maker.make(written)
    _write_lines(folder / "rejected.jsonl", rejected)
    report = _report(rows, rejected, written, maker)
    if not rows:
        raise ValueError(f"no dialogue could be used, see {folder}/rejected.jsonl; the first: {rejected[0]['reason']}")
    _write_lines(folder / "manifest.jsonl", rows)
    with atomic_write(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _speak(args: SynthesizeArguments, characters):
    if not args.tts:
        logger.warning("no tts is named: the dialogues will have words and motions, but no sound")
        return None
    voiceless = [character.id for character in characters if not character.voice]
    if voiceless:
        raise ValueError(f"tts needs a voice for every character; without one: {', '.join(voiceless)}")
    return load_callable(args.tts)


def _hints(plan: Plan, motions: list[Motion], count: int) -> list[str]:
    """Captions of motions by lot, one a motion."""
    rng = random.Random(f"{plan.seed} hints")
    chosen = rng.sample(motions, min(count, len(motions)))
    return list(dict.fromkeys(rng.choice(motion.captions) for motion in chosen))


def _write_scripts(args, cached: CachedWriter, plans: list[Plan], motions: dict[str, list[Motion]]) -> list[Written]:
    """A `Written` for each plan, in order; what the endpoint failed on has a reason."""

    def write(plan: Plan) -> Written:
        hints = _hints(plan, motions[plan.split], CAPTION_HINTS)
        return write_script(plan, cached.complete, hints, args.attempts, args.max_words)

    results = ask_in_parallel(plans, write, cached.close, args.concurrency, "write", "dialogue")
    return [
        Written(plan, reason=f"endpoint: {result}") if isinstance(result, EndpointError) else result
        for plan, result in zip(plans, results, strict=True)
    ]


class _DialogueMaker:
    """Scripts to manifest rows: motions, voices and files."""

    def __init__(self, args: SynthesizeArguments, motions: dict[str, list[Motion]], speaker: Speaker | None):
        self.args, self.speaker, self.folder = args, speaker, Path(args.output)
        embed = TextEncoder(args.encoder, self.folder / "cache" / "embeddings") if args.encoder else None
        self.matchers = {
            split: MotionMatcher(some, embed, args.top_k, args.min_similarity, args.max_repeats)
            for split, some in motions.items()
        }

    def make(self, written: list[Written]) -> tuple[list[dict], list[dict]]:
        """Rows of the manifest, and what was rejected with reasons; both in the order of the plans."""
        near = {}
        for split, matcher in self.matchers.items():
            near[split] = matcher.nearest(
                [line["motion"] for w in written if w.plan.split == split for line in _lines(w)]
            )
        rows, rejected, seen = [], [], {}
        for item in tqdm(written, desc="motions and speech", unit="dialogue", disable=None):
            reason, plan = item.reason, item.plan
            if item.script is not None:
                said = " ".join(line["say"].casefold() for line in _lines(item))
                first = seen.setdefault(said, plan.id)
                try:
                    if first != plan.id:
                        raise ValueError(f"it says the same as {first}")
                    rows.append(self._row(item, near[plan.split]))
                    continue
                except (ValueError, FileNotFoundError) as error:
                    reason = str(error)
            answers = [answer.text for answer in item.answers]
            base = {"id": plan.id, "topic": plan.topic, "character": plan.character.id}
            rejected.append({**base, "reason": reason, "answers": answers})
        return rows, rejected

    def _row(self, item: Written, near: dict) -> dict:
        plan, rng = item.plan, random.Random(f"{item.plan.seed} row")
        matches = [self._match(line, near, plan, rng) for line in _lines(item)]
        user_voice = rng.choice(self.args.user_voices) if self.speaker else ""
        turns = [{"role": "system", "text": plan.character.system}]
        for index, (line, match) in enumerate(zip(_lines(item), matches, strict=True)):
            role, voice = (("user", user_voice), ("assistant", plan.character.voice))[index % 2]
            turn = {"role": role, "text": line["say"], "emotion": line["emotion"], "script_motion": line["motion"]}
            if match is not None:
                turn.update(motion_id=match.motion.id, motion_text=match.caption)
                turn["similarity"] = round(match.similarity, 4)
                if match.motion.path is not None:
                    turn["motion"] = bring_motion(match.motion, self.folder)
            if self.speaker:
                turn.update(audio=self.speaker(line["say"], voice), voice=voice)
            turns.append(turn)
        row = {"id": plan.id, "split": plan.split, "source": f"synthetic: {plan.topic}", "topic": plan.topic}
        return {**row, "title": item.script["title"], "character": plan.character.id, "turns": turns}

    def _match(self, line: dict, near: dict, plan: Plan, rng: random.Random):
        matcher, description = self.matchers[plan.split], line["motion"]
        if not description:
            return None
        match = matcher.choose(near[description], rng)
        if match is None and self.args.missing_motion == "reject":
            if near[description]:
                raise ValueError(f"the only motion near {description!r} was used {matcher.max_repeats} times in a row")
            raise ValueError(f"no motion is near {description!r} (similarity {matcher.min_similarity} or more)")
        return match


def _lines(written: Written) -> list[dict]:
    """The lines of a script in order, the user's and the character's in turn."""
    rounds = written.script["rounds"] if written.script else []
    return [turn[who] for turn in rounds for who in ("user", "character")]


def _write_lines(path: Path, rows: list[dict]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _report(rows: list[dict], rejected: list[dict], written: list[Written], maker: _DialogueMaker) -> dict:
    answers = [answer for item in written for answer in item.answers]
    fresh = [answer for answer in answers if not answer.cached]
    turns = [turn for row in rows for turn in row["turns"] if turn["role"] != "system"]
    similarities = [turn["similarity"] for turn in turns if "similarity" in turn]
    return {
        "train": sum(row["split"] == "train" for row in rows),
        "test": sum(row["split"] == "test" for row in rows),
        "rejected": len(rejected),
        "answers": len(answers),
        "answers_from_cache": len(answers) - len(fresh),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "completion_tokens": sum(answer.completion_tokens for answer in answers),
        "prompt_tokens_this_run": sum(answer.prompt_tokens for answer in fresh),
        "completion_tokens_this_run": sum(answer.completion_tokens for answer in fresh),
        "lines": len(turns),
        "lines_without_motion": len(turns) - len(similarities),
        "lines_without_near_motion": sum(bool(t["script_motion"]) and "similarity" not in t for t in turns),
        "mean_similarity": round(sum(similarities) / max(1, len(similarities)), 4),
        "spoken_this_run": maker.speaker.spoken if maker.speaker else 0,
    }
